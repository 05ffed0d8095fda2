"""Drops clips whose lips and voice do not belong together, without SyncNet: a probe fitted on the run's own clips.

For use where SyncNet's file cannot be had. Its confidence lies between 0 and 1 and must not be
compared with SyncNet's. A clip that the probe was fitted on is scored by a ridge that has not seen its source; where a
run has more clips than that, the rest is scored by one that may have seen others of their source.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import NonNegativeInt, PositiveInt

from curation.clip import Clip
from curation.stage import LANDMARKS, WHISPER_ROWS, CorpusFilter
from curation.verdicts import KEEP, Limit, Verdict, drop
from models.lip_probe import WHISPER_LAYER, WINDOW_FRAMES, LipProbe, LipRecord, LipScore
from models.lip_probe_fit import FIT_CLIPS, LipFit, choose_clips, fit_probe
from models.mouth import mouth_channels
from shards.sample import WHISPER, Sample, decode_npy

PROBE_FILE = "lip_probe.npz"


@dataclass(frozen=True)
class LipAudio(CorpusFilter):
    weights: str = ""  # a fitted probe's file; empty: fit on this run's clips (20 of them from 6 sources at least)
    fit_clips: PositiveInt = FIT_CLIPS  # and on this many at most, each read seven times; all others are only scored
    min_confidence: float = 0.2  # and at least what 99 of 100 foreign voices of the run stay below at that length
    min_agreement: float = 0.7  # of the windows of a clip above 8 s; a miming singer has less (benchmarks/README.md)
    short_s: float = 4.0  # a low score of a shorter clip says little: 9 % of good 2 s clips have one, of 4 s none
    max_offset_frames: NonNegativeInt = 6  # LatentSync's for SyncNet
    min_repair_frames: NonNegativeInt = 2  # the probe's zero is good to one frame, so smaller offsets are left alone
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
        "lip_offset_frames": "lip probe: frames by which the sound comes after the lips, good to one frame",
        "lip_zero_frames": "lip probe: what it reads of most clips that it was fitted on, taken off every offset",
        "lip_threshold": "lip probe: the confidence that 99 of 100 foreign voices stay below at this clip's length",
        "lip_window_confidence": "lip probe: median confidence of 4 s windows, for clips above 8 s",
        "lip_window_threshold": "lip probe: as lip_threshold, for 4 s",
        "lip_window_agreement": "lip probe: share of the 4 s windows whose offset is the clip's, for clips above 8 s",
    }
    REASONS = {
        "lip_audio:confidence": "the lip probe finds no lag at which lips and voice belong together",
        "lip_audio:offset": "lips and voice belong together, but further apart than can be repaired",
        "lip_audio:unknown": "too few clips to fit the probe on, too few frames with a face, or too short to tell",
    }

    def collect(self, clip: Clip) -> dict[str, np.ndarray]:
        if clip.source.audio is None:  # already dropped, and only looked at for its other scores
            return {}
        assert clip.mesh is not None and clip.whisper is not None
        return {"mouth": mouth_channels(clip.mesh.points, clip.mesh.blendshapes).astype(np.float32)}

    def measure_all(
        self, keys: Collection[str], samples: Callable[[Collection[str]], Iterator[Sample]], output: Path, fitted: bool
    ) -> dict[str, dict[str, float]]:
        def records(some: Collection[str]) -> Iterator[LipRecord]:
            return (read_record(sample) for sample in samples(some))

        to_fit = choose_clips(keys, self.fit_clips)
        probe, found = self.probe(lambda: records(to_fit), output, fitted)
        scores = {}
        for record in records(keys):
            score = found.get(record.key)
            if probe is not None and score is None:
                score = probe.score(record.channels, record.rows, record.margin)
            scores[record.key] = score_columns(probe, score, len(record.channels))
        return scores

    def probe(
        self, records: Callable[[], Iterator[LipRecord]], output: Path, fitted: bool
    ) -> tuple[LipProbe | None, dict[str, LipScore]]:
        """Return the probe of the settings, of an earlier run or fitted now, and the scores that fitting gave.

        The probe is None where too few clips agree.
        """
        saved = Path(self.weights) if self.weights else output / PROBE_FILE
        if self.weights or (fitted and saved.exists()):
            return LipProbe.load(saved), {}
        fit: LipFit | None = fit_probe(records)
        if fit is None:
            return None, {}
        fit.probe.save(saved)
        return fit.probe, fit.scores

    def curve(self, sample: Sample, output: Path) -> list[float] | None:
        """Return the correlation of lips and voice at lags of -15 to 15 frames, for the report; None without a probe.

        By the probe as it was saved; the scores of the clips that it was fitted on come from ones that left them out.
        """
        saved = Path(self.weights) if self.weights else output / PROBE_FILE
        if "mouth.npy" not in sample.members or not saved.exists():
            return None
        record = read_record(sample)
        score = LipProbe.load(saved).score(record.channels, record.rows, record.margin)
        return None if score is None else [round(float(value), 3) for value in np.nan_to_num(score.curve)]

    def fits_on_run(self) -> bool:
        return not self.weights

    def is_undecided(self, scores: Mapping[str, float]) -> bool:
        return not np.isfinite(scores["lip_threshold"])

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


def read_record(sample: Sample) -> LipRecord:
    fields = sample.json
    rows = decode_npy(sample.members[WHISPER])[:, WHISPER_LAYER]
    channels = decode_npy(sample.members["mouth.npy"])
    return LipRecord(sample.key, fields["source_id"], channels, rows, fields["margin_frames"])


def score_columns(probe: LipProbe | None, score: LipScore | None, frames: int) -> dict[str, float]:
    """Return the values of SCORES; NaN where the probe gave none."""
    nothing = float("nan")
    return {
        "lip_confidence": score.confidence if score else nothing,
        "lip_offset_frames": float(score.offset_frames) if score else nothing,
        "lip_zero_frames": float(probe.zero_frames) if probe else nothing,
        "lip_threshold": probe.threshold(frames) if probe else nothing,
        "lip_window_confidence": score.window_confidence if score else nothing,
        "lip_window_threshold": probe.threshold(WINDOW_FRAMES) if probe else nothing,
        "lip_window_agreement": score.window_agreement if score else nothing,
    }
