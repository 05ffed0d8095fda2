"""Drops clips whose lips and voice do not belong together, by SyncNet (paper, appendix A, "Audio-Visual Alignment")."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import weights
from curation.clip import KEEP, Clip, Verdict, drop
from curation.stage import Filter

if TYPE_CHECKING:
    from models.syncnet import SyncNet


@dataclass(frozen=True)
class Syncnet(Filter):
    weights: str = "syncnet_v2"
    device: str = "cpu"
    min_confidence: float = 3.0  # LatentSync's
    max_offset_frames: int = 6  # LatentSync's; steps/align_audio then brings what is kept to 0

    THRESHOLDS = ("min_confidence", "max_offset_frames")
    LIMITS = (("sync_confidence", ">=", "min_confidence"), ("|sync_offset_frames|", "<=", "max_offset_frames"))
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

        assert clip.frames is not None and clip.crop_boxes is not None, "filters/syncnet needs steps/crop before it"
        found = self.model.measure(syncnet_crops(clip.frames, clip.crop_boxes), clip.audio())
        return {
            "sync_confidence": found.confidence,
            "sync_offset_frames": 0.0 - float(found.offset_frames),
            "sync_min_distance": found.min_distance,
        }

    def decide(self, scores: Mapping[str, float]) -> Verdict:
        if scores["sync_confidence"] < self.min_confidence:
            return drop("syncnet:confidence")
        return KEEP if abs(scores["sync_offset_frames"]) <= self.max_offset_frames else drop("syncnet:offset")
