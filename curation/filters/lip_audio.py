"""Drops clips whose lips and voice do not belong together, without SyncNet: by the probe of `models/lip_probe.py`.

For use where SyncNet's file cannot be had. Its confidence lies between 0 and 1 and must not be compared with SyncNet's.
The probe that comes with the project was fitted on drawn talkers (`models/lip_probe.md`), so a single clip is judged at
once, and by the same measure in every run.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from pydantic import NonNegativeInt

import weights
from curation.clip import Clip
from curation.stage import LANDMARKS, WHISPER_ROWS, Filter
from curation.verdicts import KEEP, Limit, Verdict, drop
from models.lip_probe import WHISPER_LAYER, WINDOW_FRAMES, LipProbe, LipRecord, LipScore
from models.mouth import mouth_channels
from shards.sample import WHISPER, Sample, decode_npy

MOUTH = "mouth"  # what it leaves in the part, to fit another probe on and for the report's curve


@dataclass(frozen=True)
class LipAudio(Filter):
    weights: str = "lip_probe"  # or the file of one that `python -m models.lip_probe_fit` fitted on a run's own clips
    min_confidence: float = 0.2  # and at least what 99 of 100 foreign voices stay below at that length
    min_agreement: float = 0.7  # of the windows of a clip above 8 s; a miming singer has less (benchmarks/README.md)
    short_s: float = 4.0  # a low score of a shorter clip says little: 9 % of good 2 s clips have one, of 4 s none
    max_offset_frames: NonNegativeInt = 6  # LatentSync's for SyncNet
    min_repair_frames: NonNegativeInt = 1  # smaller offsets stay: none, or one training set has several alignments
    keep_unknown: bool = False  # what becomes of clips that cannot be judged

    NEEDS = (LANDMARKS, WHISPER_ROWS)
    LIMITS = (
        Limit("lip_confidence", ">=", "min_confidence", "lip_audio:confidence"),
        Limit("lip_confidence", ">=", "lip_threshold", "lip_audio:confidence"),
        Limit("lip_window_confidence", ">=", "lip_window_threshold", "lip_audio:confidence", optional=True),
        Limit("lip_window_agreement", ">=", "min_agreement", "lip_audio:confidence", optional=True),
        Limit("|lip_offset_frames|", "<=", "max_offset_frames", "lip_audio:offset"),
    )
    RULE_SETTINGS = ("short_s", "keep_unknown")
    SCORES = {
        "lip_confidence": "lip probe: height of the best lag's correlation over the median of all lags, 0 to 1",
        "lip_offset_frames": "lip probe: frames by which the sound comes after the lips; 0 is what drawn talkers have",
        "lip_zero_frames": "lip probe: what it reads of clips that are in sync, taken off every offset",
        "lip_threshold": "lip probe: the confidence that 99 of 100 foreign voices stay below at this clip's length",
        "lip_window_confidence": "lip probe: median confidence of 4 s windows, for clips above 8 s",
        "lip_window_threshold": "lip probe: as lip_threshold, for 4 s",
        "lip_window_agreement": "lip probe: share of the 4 s windows whose offset is the clip's, for clips above 8 s",
    }
    REASONS = {
        "lip_audio:confidence": "the lip probe finds no lag at which lips and voice belong together",
        "lip_audio:offset": "lips and voice belong together, but further apart than can be repaired",
        "lip_audio:unknown": "too few frames with a face, or too short to tell",
    }

    @cached_property
    def model(self) -> LipProbe:
        return LipProbe.load(weights.require(self.weights)[self.weights])

    def __call__(self, clip: Clip) -> Iterable[Clip]:
        yield from super().__call__(collect_mouth(clip))

    def measure(self, clip: Clip) -> dict[str, float]:
        score = None
        if MOUTH in clip.collected:
            assert clip.whisper is not None
            score = self.model.score(clip.collected[MOUTH], clip.whisper[:, WHISPER_LAYER], clip.margin_frames)
        return score_columns(self.model, score, len(clip))

    def curve(self, sample: Sample) -> list[float] | None:
        """Return the correlation of lips and voice at lags of -15 to 15 frames, for the report; None if unknown."""
        if f"{MOUTH}.npy" not in sample.members or weights.find(self.weights) is None:
            return None
        record = read_record(sample)
        score = self.model.score(record.channels, record.rows, record.margin)
        return None if score is None else [round(float(value), 3) for value in np.nan_to_num(score.curve)]

    def decide(self, scores: Mapping[str, float]) -> Verdict:
        if not np.isfinite([scores["lip_confidence"], scores["lip_threshold"]]).all():
            return self.unknown_verdict()
        too_low = any(limit.score == "lip_confidence" for limit in self.broken_limits(scores))
        return self.unknown_verdict() if too_low and scores["duration_s"] < self.short_s else super().decide(scores)

    def unknown_verdict(self) -> Verdict:
        return KEEP if self.keep_unknown else drop("lip_audio:unknown")

    def shift_frames(self, scores: Mapping[str, float]) -> int:
        offset = np.nan_to_num(scores["lip_offset_frames"])
        return round(offset) if abs(offset) >= self.min_repair_frames else 0


def collect_mouth(clip: Clip) -> Clip:
    """Return the clip with MOUTH, which its part then holds; as it is if it has no sound or has MOUTH already."""
    if clip.source.audio is None or MOUTH in clip.collected:  # without sound: dropped, and scored for the rest
        return clip
    assert clip.mesh is not None
    mouth = mouth_channels(clip.mesh.points, clip.mesh.blendshapes)
    return replace(clip, collected={**clip.collected, MOUTH: mouth.astype(np.float32)})


def read_record(sample: Sample) -> LipRecord:
    """Return what the probe needs of a sample in a part."""
    fields: dict[str, Any] = sample.json
    rows = decode_npy(sample.members[WHISPER])[:, WHISPER_LAYER]
    channels = decode_npy(sample.members[f"{MOUTH}.npy"])
    return LipRecord(sample.key, fields["source_id"], channels, rows, fields["margin_frames"])


def score_columns(probe: LipProbe, score: LipScore | None, frames: int) -> dict[str, float]:
    """Return the values of SCORES; NaN where the probe gave none."""
    nothing = float("nan")
    return {
        "lip_confidence": score.confidence if score else nothing,
        "lip_offset_frames": float(score.offset_frames) if score else nothing,
        "lip_zero_frames": float(probe.zero_frames),
        "lip_threshold": probe.threshold(frames),
        "lip_window_confidence": score.window_confidence if score else nothing,
        "lip_window_threshold": probe.threshold(WINDOW_FRAMES),
        "lip_window_agreement": score.window_agreement if score else nothing,
    }
