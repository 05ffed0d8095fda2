"""Drops clips whose lips and voice do not belong together, by SyncNet (paper, appendix A, "Audio-Visual Alignment")."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from pydantic import NonNegativeInt

import weights
from curation.clip import Clip
from curation.stage import CROPS, SYNC_OFFSET, Filter
from curation.verdicts import Limit
from pipelines import Device

if TYPE_CHECKING:
    from models.syncnet import SyncNet


@dataclass(frozen=True)
class Syncnet(Filter):
    weights: str = "syncnet_v2"
    device: Device = "cpu"
    min_confidence: float = 3.0  # LatentSync's
    max_offset_frames: NonNegativeInt = 6  # LatentSync's; steps/align_audio then brings what is kept to 0

    NEEDS = (CROPS,)
    GIVES = (SYNC_OFFSET,)
    LIMITS = (
        Limit("sync_confidence", ">=", "min_confidence", "syncnet:confidence"),
        Limit("|sync_offset_frames|", "<=", "max_offset_frames", "syncnet:offset"),
    )
    SCORES = {
        "sync_confidence": "SyncNet v2: median minus minimum distance over lags of -15 to 15 frames",
        "sync_offset_frames": "SyncNet v2: frames by which the sound comes after the lips (its AV offset, negated)",
        "sync_min_distance": "SyncNet v2: distance at that offset, lower is better",
    }
    REASONS = {
        "syncnet:confidence": "SyncNet finds no lag at which lips and voice belong together",
        "syncnet:offset": "lips and voice belong together, but further apart than can be repaired",
    }

    @cached_property
    def model(self) -> "SyncNet":
        from models.syncnet import SyncNet

        return SyncNet(weights.require(self.weights)[self.weights], self.device)

    def measure(self, clip: Clip) -> dict[str, float]:
        from models.syncnet import syncnet_crops

        assert clip.frames is not None and clip.crop_boxes is not None
        found = self.model.measure(syncnet_crops(clip.frames, clip.crop_boxes), clip.audio())
        return {
            "sync_confidence": found.confidence,
            "sync_offset_frames": 0.0 - float(found.offset_frames),
            "sync_min_distance": found.min_distance,
        }
