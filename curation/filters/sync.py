"""Drops clips whose lips and voice do not belong together, by the small sync network of `models/sync.py`.

It judges a single clip of a single source; the network was trained on drawn talkers (`models/sync.md`). Rule and scale
are those of filters/lip_audio, but the two confidences must not be compared with each other, nor with SyncNet's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import weights
from curation.filters._lips import LipFilter, limits
from models.sync import SyncModel


@dataclass(frozen=True)
class Sync(LipFilter):
    weights: str = "sync_small"  # or RUN/export/sync.safetensors of training/sync.py, after benchmarks/sync.py

    PREFIX = "own_sync"
    UNKNOWN = "sync:unknown"
    LIMITS = limits(PREFIX, "sync")
    SCORES = {
        "own_sync_confidence": "sync network of this project: the best lag's correlation over the median of all lags",
        "own_sync_offset_frames": "sync network of this project: frames by which the sound comes after the lips",
        "own_sync_threshold": "sync network of this project: the confidence that 99 of 100 foreign voices stay below",
        "own_sync_window_confidence": "sync network of this project: median of 4 s windows, for clips above 8 s",
        "own_sync_window_threshold": "sync network of this project: as own_sync_threshold, for 4 s",
        "own_sync_window_agreement": "sync network of this project: share of 4 s windows with the clip's offset",
    }
    REASONS = {
        "sync:confidence": "the sync network finds no lag at which lips and voice belong together",
        "sync:offset": "lips and voice belong together, but further apart than can be repaired",
        "sync:unknown": "too few frames with a face, or too short to tell",
    }

    @cached_property
    def model(self) -> SyncModel:
        return SyncModel.load(weights.require(self.weights)[self.weights])

    def shift_frames(self, scores: Mapping[str, float]) -> int:
        """0 where filters/lip_audio is in the profile as well, which then moves the sound."""
        return 0 if "lip_offset_frames" in scores else super().shift_frames(scores)
