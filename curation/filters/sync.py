"""Drops clips whose lips and voice do not belong together, by the small sync network of `models/sync.py`.

It judges a single clip of a single source; the network was trained on drawn talkers (`models/sync.md`). Rule and scale
are those of filters/lip_audio, but the two confidences must not be compared with each other, nor with SyncNet's.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from pydantic import NonNegativeInt

import weights
from curation.clip import Clip
from curation.filters.lip_audio import MOUTH, collect_mouth
from curation.stage import LANDMARKS, WHISPER_ROWS, Filter
from curation.verdicts import KEEP, Limit, Verdict, drop
from models.lip_probe import WHISPER_LAYER, WINDOW_FRAMES, LipScore
from models.sync import SyncModel


@dataclass(frozen=True)
class Sync(Filter):
    weights: str = "sync_small"  # or RUN/export/sync.safetensors of training/sync.py, after benchmarks/sync.py
    min_confidence: float = 0.2  # and at least what 99 of 100 foreign voices stay below at that length
    min_agreement: float = 0.7  # of the windows of a clip above 8 s: as filters/lip_audio
    short_s: float = 4.0  # a low score of a shorter clip says little: as filters/lip_audio
    max_offset_frames: NonNegativeInt = 6  # LatentSync's for SyncNet
    min_repair_frames: NonNegativeInt = 1  # smaller offsets stay
    keep_unknown: bool = False  # what becomes of clips that cannot be judged

    NEEDS = (LANDMARKS, WHISPER_ROWS)
    LIMITS = (
        Limit("own_sync_confidence", ">=", "min_confidence", "sync:confidence"),
        Limit("own_sync_confidence", ">=", "own_sync_threshold", "sync:confidence"),
        Limit("own_sync_window_confidence", ">=", "own_sync_window_threshold", "sync:confidence", optional=True),
        Limit("own_sync_window_agreement", ">=", "min_agreement", "sync:confidence", optional=True),
        Limit("|own_sync_offset_frames|", "<=", "max_offset_frames", "sync:offset"),
    )
    RULE_SETTINGS = ("short_s", "keep_unknown")
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

    def __call__(self, clip: Clip) -> Iterable[Clip]:
        yield from super().__call__(collect_mouth(clip))

    def measure(self, clip: Clip) -> dict[str, float]:
        score = None
        if MOUTH in clip.collected:
            assert clip.whisper is not None
            score = self.model.score(clip.collected[MOUTH], clip.whisper[:, WHISPER_LAYER], clip.margin_frames)
        return score_columns(self.model, score, len(clip))

    def decide(self, scores: Mapping[str, float]) -> Verdict:
        if not np.isfinite([scores["own_sync_confidence"], scores["own_sync_threshold"]]).all():
            return self.unknown_verdict()
        too_low = any(limit.score == "own_sync_confidence" for limit in self.broken_limits(scores))
        return self.unknown_verdict() if too_low and scores["duration_s"] < self.short_s else super().decide(scores)

    def unknown_verdict(self) -> Verdict:
        return KEEP if self.keep_unknown else drop("sync:unknown")

    def shift_frames(self, scores: Mapping[str, float]) -> int:
        """0 where filters/lip_audio is in the profile as well, which then moves the sound."""
        offset = np.nan_to_num(scores["own_sync_offset_frames"])
        moved_already = "lip_offset_frames" in scores
        return round(offset) if abs(offset) >= self.min_repair_frames and not moved_already else 0


def score_columns(model: SyncModel, score: LipScore | None, frames: int) -> dict[str, float]:
    """Return the values of SCORES; NaN where there is no score."""
    nothing = float("nan")
    return {
        "own_sync_confidence": score.confidence if score else nothing,
        "own_sync_offset_frames": float(score.offset_frames) if score else nothing,
        "own_sync_threshold": model.threshold(frames),
        "own_sync_window_confidence": score.window_confidence if score else nothing,
        "own_sync_window_threshold": model.threshold(WINDOW_FRAMES),
        "own_sync_window_agreement": score.window_agreement if score else nothing,
    }
