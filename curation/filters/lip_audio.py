"""Drops clips whose lips and voice do not belong together, without SyncNet: by the probe of `models/lip_probe.py`.

For use where SyncNet's file cannot be had. Its confidence lies between 0 and 1 and must not be compared with SyncNet's.
The probe that comes with the project was fitted on drawn talkers (`models/lip_probe.md`), so a single clip is judged at
once, and by the same measure in every run.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

import weights
from curation.filters._lips import MOUTH, LipFilter, limits
from models.lip_probe import WHISPER_LAYER, LipProbe, LipRecord, LipScore
from shards.sample import WHISPER, Sample, decode_npy


@dataclass(frozen=True)
class LipAudio(LipFilter):
    weights: str = "lip_probe"  # or the file of one that `python -m models.lip_probe_fit` fitted on a run's own clips

    PREFIX = "lip"
    UNKNOWN = "lip_audio:unknown"
    LIMITS = limits(PREFIX, "lip_audio")
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

    def columns(self, score: LipScore | None, frames: int) -> dict[str, float]:
        found = super().columns(score, frames) | {"lip_zero_frames": float(self.model.zero_frames)}
        return {name: found[name] for name in self.SCORES}

    def curve(self, sample: Sample) -> list[float] | None:
        """Return the correlation of lips and voice at lags of -15 to 15 frames, for the report; None if unknown."""
        if f"{MOUTH}.npy" not in sample.members or weights.find(self.weights) is None:
            return None
        record = read_record(sample)
        score = self.model.score(record.channels, record.rows, record.margin)
        return None if score is None else [round(float(value), 3) for value in np.nan_to_num(score.curve)]


def read_record(sample: Sample) -> LipRecord:
    """Return what the probe needs of a sample in a part."""
    fields: dict[str, Any] = sample.json
    rows = decode_npy(sample.members[WHISPER])[:, WHISPER_LAYER]
    channels = decode_npy(sample.members[f"{MOUTH}.npy"])
    return LipRecord(sample.key, fields["source_id"], channels, rows, fields["margin_frames"])
