"""What the filters of lips and voice share: settings, rule, and how a clip is measured. Not a stage itself."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Protocol

import numpy as np
from pydantic import NonNegativeInt

from curation.clip import Clip
from curation.stage import LANDMARKS, WHISPER_ROWS, Filter
from curation.verdicts import KEEP, Limit, Verdict, drop
from models.lip_probe import WHISPER_LAYER, WINDOW_FRAMES, LipScore
from models.mouth import mouth_channels

MOUTH = "mouth"  # what they leave in the part, to fit another probe on and for the report's curve


class LipModel(Protocol):
    """What scores lips and voice, and knows how high a foreign voice gets."""

    def score(self, channels: np.ndarray, rows: np.ndarray, margin: int = 0) -> LipScore | None: ...

    def threshold(self, frames: int) -> float: ...


def limits(prefix: str, stage: str) -> tuple[Limit, ...]:
    """The limits of a filter whose scores begin with `prefix`, and its reasons with `stage`."""
    return (
        Limit(f"{prefix}_confidence", ">=", "min_confidence", f"{stage}:confidence"),
        Limit(f"{prefix}_confidence", ">=", f"{prefix}_threshold", f"{stage}:confidence"),
        Limit(f"{prefix}_window_confidence", ">=", f"{prefix}_window_threshold", f"{stage}:confidence", optional=True),
        Limit(f"{prefix}_window_agreement", ">=", "min_agreement", f"{stage}:confidence", optional=True),
        Limit(f"|{prefix}_offset_frames|", "<=", "max_offset_frames", f"{stage}:offset"),
    )


@dataclass(frozen=True)
class LipFilter(Filter):
    """Drops a clip in which lips and voice do not belong together, and moves the sound of those that do."""

    weights: str
    min_confidence: float = 0.2  # and at least what 99 of 100 foreign voices stay below at that length
    min_agreement: float = 0.7  # of the windows of a clip above 8 s; a miming singer has less (benchmarks/README.md)
    short_s: float = 4.0  # a low score of a shorter clip says little: 9 % of good 2 s clips have one, of 4 s none
    max_offset_frames: NonNegativeInt = 6  # LatentSync's for SyncNet
    min_repair_frames: NonNegativeInt = 1  # smaller offsets stay: none, or one training set has several alignments
    keep_unknown: bool = False  # what becomes of clips that cannot be judged

    PREFIX: ClassVar[str]  # of the scores
    UNKNOWN: ClassVar[str]  # the reason of a clip that cannot be judged
    NEEDS = (LANDMARKS, WHISPER_ROWS)
    RULE_SETTINGS = ("short_s", "keep_unknown")

    @cached_property
    def model(self) -> LipModel:
        raise NotImplementedError

    def __call__(self, clip: Clip) -> Iterable[Clip]:
        yield from super().__call__(collect_mouth(clip))

    def measure(self, clip: Clip) -> dict[str, float]:
        score = None
        if MOUTH in clip.collected:
            assert clip.whisper is not None
            score = self.model.score(clip.collected[MOUTH], clip.whisper[:, WHISPER_LAYER], clip.margin_frames)
        return self.columns(score, len(clip))

    def columns(self, score: LipScore | None, frames: int) -> dict[str, float]:
        """Return the values of SCORES; NaN where there is no score."""
        nothing = float("nan")
        values = {
            "confidence": score.confidence if score else nothing,
            "offset_frames": float(score.offset_frames) if score else nothing,
            "threshold": self.model.threshold(frames),
            "window_confidence": score.window_confidence if score else nothing,
            "window_threshold": self.model.threshold(WINDOW_FRAMES),
            "window_agreement": score.window_agreement if score else nothing,
        }
        return {f"{self.PREFIX}_{name}": value for name, value in values.items()}

    def decide(self, scores: Mapping[str, float]) -> Verdict:
        confidence = f"{self.PREFIX}_confidence"
        if not np.isfinite([scores[confidence], scores[f"{self.PREFIX}_threshold"]]).all():
            return self.unknown_verdict()
        too_low = any(limit.score == confidence for limit in self.broken_limits(scores))
        return self.unknown_verdict() if too_low and scores["duration_s"] < self.short_s else super().decide(scores)

    def unknown_verdict(self) -> Verdict:
        return KEEP if self.keep_unknown else drop(self.UNKNOWN)

    def shift_frames(self, scores: Mapping[str, float]) -> int:
        offset = np.nan_to_num(scores[f"{self.PREFIX}_offset_frames"])
        return round(offset) if abs(offset) >= self.min_repair_frames else 0


def collect_mouth(clip: Clip) -> Clip:
    """Return the clip with MOUTH, which its part then holds; as it is if it has no sound or has MOUTH already."""
    if clip.source.audio is None or MOUTH in clip.collected:  # without sound: dropped, and scored for the rest
        return clip
    assert clip.mesh is not None
    mouth = mouth_channels(clip.mesh.points, clip.mesh.blendshapes)
    return replace(clip, collected={**clip.collected, MOUTH: mouth.astype(np.float32)})
