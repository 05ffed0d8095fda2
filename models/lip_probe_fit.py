"""Fits a lip probe on unlabelled clips, and measures how high the confidence of a foreign voice gets.

    python -m models.lip_probe_fit --clips OUT --output probe.npz

then `--set filters/lip_audio.weights=probe.npz` for a run; `lip_probe.md` says how the shipped one was made. Clips that
do not agree with the others have no vote after the first round; each clip is scored by a ridge that has not seen its
source.
"""

import argparse
import hashlib
import io
import json
import sys
import tarfile
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from models.lip_probe import (
    COMPONENTS,
    MAX_LAG,
    MIN_OVERLAP,
    NULL_FRAMES,
    REGRESSORS,
    WHISPER_LAYER,
    LipProbe,
    LipRecord,
    LipScore,
    check_record,
    find_peak,
    frame_features,
    is_usable,
    lag_curve,
    score_motion,
)
from models.mouth import MOTIONS, TINY, motion

MIN_CLIPS = 20
MIN_SOURCES = 6
FIT_CLIPS = 4000  # at 2 s each already 200,000 frames for the 576 regressors
FOLDS = 8
RIDGE = 5000.0  # on sums over frames of standardised features
VOTE_CONFIDENCE = 0.25
MAX_REALIGN = 8
NULL_PAIRS = 1200  # per length, at most about
MIN_NULL_PAIRS = 100
SAMPLE_CLIPS = 200
CENTRE_DELAYS = range(-8, 9, 2)
CENTRE_ERROR = 1  # frames: all good talkers of the demo read 1
FIXED_POINT = 2.0**20


@dataclass(frozen=True)
class LipFit:
    """A fitted probe, and the scores of the clips that it was fitted on, each by a ridge that has not seen its source.

    Clips with too few frames with a face are not among them.
    """

    probe: "LipProbe"
    scores: dict[str, LipScore]


def fit_probe(records: Callable[[], Iterable[LipRecord]], aligned: bool = False) -> LipFit | None:
    """Fits on unlabelled clips, of which many are in sync; None if they are too few or too few of them agree.

    With `aligned` all are in sync, to the frame, as those of drawn talkers are: then each has a vote and none is moved,
    so the zero is that of the truth. Calls `records` up to 8 times and holds one clip at a time, and 200 for the null;
    the order of the records does not change a bit of the result; the number of BLAS threads may change the last ones:
    fit with OMP_NUM_THREADS=1.
    """
    basis, sources = _whitening(records())
    if len(sources) < MIN_CLIPS or len(set(sources.values())) < MIN_SOURCES:
        return None
    ranked = sorted(set(sources.values()), key=_order)
    folds = {source: rank % FOLDS for rank, source in enumerate(ranked)}
    sampled = set(sorted(sources, key=_order)[:SAMPLE_CLIPS])

    def clips(keys: Container[str] = sources) -> Iterator[_FitClip]:
        for record in records():
            if record.key in keys:
                regressors = frame_features(record.rows, basis)
                yield _FitClip(record, folds[record.source_id], motion(record.channels), regressors)

    votes = dict.fromkeys(sources, 0)
    model = _sum(clips(), votes).solve()
    if not aligned:
        model = _sum(clips(), _votes(model, clips())).solve()
        votes = _votes(model, clips())
        if len(votes) < MIN_CLIPS // 2 or len({sources[key] for key in votes}) < MIN_SOURCES:
            return None
        delay = _centre(clips(sampled & votes.keys()), votes)
        votes = {key: vote + delay for key, vote in votes.items()}
        model = _sum(clips(votes), votes).solve()
    scores, thresholds = _judge(clips(), model, sampled)
    zero = _zero(scores.values())
    scores = {key: score.counted_from(zero) for key, score in scores.items()}
    counts = {"clips": len(sources), "sources": len(ranked), "voters": len(votes), "zero_frames": zero}
    return LipFit(LipProbe(basis, model.ridge, model.channel_weights, thresholds, **counts), scores)


def calibrate(probe: LipProbe, records: Iterable[LipRecord]) -> LipProbe:
    """Return the probe with the thresholds that foreign voices set among clips that it was not fitted on.

    Two clips are foreign to each other if their `source_id` differs: give all clips of a person the same.
    """
    weights = probe.channel_weights
    return replace(probe, null_thresholds=foreign_thresholds(records, motion, probe.predict, weights))


def foreign_thresholds(
    records: Iterable[LipRecord],
    see: Callable[[np.ndarray], np.ndarray],
    hear: Callable[[np.ndarray], np.ndarray],
    weights: np.ndarray,
) -> np.ndarray:
    """Thresholds as `calibrate` sets them, of what `see` makes of channels and `hear` of Whisper rows: [5]."""
    clips = {}
    for record in records:
        check_record(record)
        if is_usable(record.channels):
            seen, heard = see(record.channels), hear(record.rows)
            clips[record.key] = _NullClip(record.source_id, seen, heard, record.margin)
    return _null_thresholds([clips[key] for key in sorted(clips, key=_order)], weights)


def choose_clips(keys: Iterable[str], count: int) -> set[str]:
    """Clips to fit a probe on where there are more than enough: by the hashes of their keys, not by their order."""
    return set(sorted(keys, key=_order)[:count])


def _order(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _fixed(sums: np.ndarray) -> np.ndarray:
    """Sums as 64-bit fixed point: adding them is exact, so the order of clips cannot change a bit of the result."""
    return np.rint(sums * FIXED_POINT).astype(np.int64)


@dataclass(frozen=True)
class _FitClip:
    """A usable record, ready for a round: fold, motion [T, 56], regressors [A, 576]."""

    record: LipRecord
    fold: int
    observed: np.ndarray
    regressors: np.ndarray


@dataclass(frozen=True)
class _Model:
    """One round's outcome: a ridge per fold that has not seen it [folds, 576, 56], of all [576, 56], weights [56]."""

    held_out: np.ndarray
    ridge: np.ndarray
    channel_weights: np.ndarray

    def predict(self, clip: _FitClip) -> np.ndarray:
        """Motion that the sound of a clip promises, by a ridge that has not seen its source: [A, 56]."""
        return clip.regressors @ self.held_out[clip.fold]

    def vote(self, clip: _FitClip) -> int | None:
        """By how many frames a clip's sound is late, if it is sure enough to teach the next round."""
        offset, confidence = find_peak(
            lag_curve(clip.observed, self.predict(clip), clip.record.margin, self.channel_weights)
        )
        return offset if confidence >= VOTE_CONFIDENCE and abs(offset) <= MAX_REALIGN else None


class _Sums:
    """Sums of products of regressors and motion, per fold; clips are centred: correlation ignores means."""

    def __init__(self, folds: int) -> None:
        self.xx = np.zeros((folds, REGRESSORS, REGRESSORS), np.int64)
        self.xu = np.zeros((folds, REGRESSORS, MOTIONS), np.int64)
        self.uu = np.zeros((folds, MOTIONS), np.int64)

    def add(self, clip: _FitClip, shift: int) -> None:
        """Adds a clip whose sound is `shift` frames late."""
        mouth, sound = _overlap(len(clip.observed), len(clip.regressors), clip.record.margin + shift)
        if mouth.stop - mouth.start < MIN_OVERLAP:
            return
        x, u = clip.regressors[sound].astype(np.float64), clip.observed[mouth].astype(np.float64)
        x, u = x - x.mean(0), u - u.mean(0)
        self.xx[clip.fold] += _fixed(x.T @ x)
        self.xu[clip.fold] += _fixed(x.T @ u)
        self.uu[clip.fold] += _fixed((u * u).sum(0))

    def solve(self) -> _Model:
        """The model of these sums; a channel's weight is the square of its held-out correlation."""
        xx, xu, uu = (s.astype(np.float64) / FIXED_POINT for s in (self.xx, self.xu, self.uu))
        held_out = np.stack([_ridge(xx.sum(0) - a, xu.sum(0) - b) for a, b in zip(xx, xu, strict=True)])
        # With the prediction p = x @ ridge of the fold left out, sums of p * u and p * p need x and u no more.
        pu = (held_out * xu).sum((0, 1))
        pp = (held_out * (xx @ held_out)).sum((0, 1))
        correlation = pu / np.sqrt(np.maximum(pp * uu.sum(0), TINY))
        weights = np.maximum(correlation, 0.0) ** 2
        ridge = _ridge(xx.sum(0), xu.sum(0))
        return _Model(held_out.astype(np.float32), ridge.astype(np.float32), weights.astype(np.float32))


def _sum(clips: Iterable[_FitClip], votes: dict[str, int]) -> _Sums:
    """The sums over the clips that have a vote, each moved by it."""
    sums = _Sums(FOLDS)
    for clip in clips:
        if clip.record.key in votes:
            sums.add(clip, votes[clip.record.key])
    return sums


def _votes(model: _Model, clips: Iterable[_FitClip]) -> dict[str, int]:
    return {clip.record.key: vote for clip in clips if (vote := model.vote(clip)) is not None}


def _ridge(xx: np.ndarray, xu: np.ndarray) -> np.ndarray:
    return np.linalg.solve(xx + RIDGE * np.eye(len(xx)), xu)


def _overlap(frames: int, audio_frames: int, start: int) -> tuple[slice, slice]:
    """Frames of a clip, and of its audio, that meet when clip frame 0 lies on audio frame `start`."""
    first, last = max(0, -start), max(0, -start, min(frames, audio_frames - start))
    return slice(first, last), slice(first + start, last + start)


def _whitening(records: Iterable[LipRecord]) -> tuple[np.ndarray, dict[str, str]]:
    """Basis [384, 96] in which the rows of a clip have unit variance, and the source of every usable clip."""
    moments, count, sources = None, 0, {}
    for record in records:
        check_record(record)
        if not is_usable(record.channels):
            continue
        sources[record.key] = record.source_id
        rows = record.rows.astype(np.float64)
        rows -= rows.mean(0)
        products = _fixed(rows.T @ rows)
        moments = products if moments is None else moments + products
        count += len(rows)
    if moments is None:
        return np.zeros((0, COMPONENTS), np.float32), sources
    values, vectors = np.linalg.eigh(moments.astype(np.float64) / (FIXED_POINT * count))
    values, vectors = values[::-1][:COMPONENTS], vectors[:, ::-1][:, :COMPONENTS]
    # Components that the pool does not have (a few synthetic clips) must not be blown up to unit variance.
    scale = np.where(values > 1e-9 * values[0], 1 / np.sqrt(np.maximum(values, 1e-30)), 0.0)
    return (vectors * scale).astype(np.float32), sources


def _centre(clips: Iterable[_FitClip], votes: dict[str, int]) -> int:
    """How late the sound of the aligned clips is as a whole, in frames.

    Correlation over lags cannot tell: a probe fitted on sound that is late predicts late. But a Whisper row says most
    about the mouth of its own moment, so the probe that is fitted at the true delay explains most of clips unseen.
    """
    sums = {delay: _Sums(folds=2) for delay in CENTRE_DELAYS}
    for clip in clips:
        for delay, at_delay in sums.items():
            at_delay.add(replace(clip, fold=clip.fold % 2), votes[clip.record.key] + delay)
    explained = [float(np.sqrt(at_delay.solve().channel_weights).mean()) for at_delay in sums.values()]
    best = int(np.clip(np.argmax(explained), 1, len(explained) - 2))
    before, here, after = explained[best - 1 : best + 2]
    bend = before - 2 * here + after
    vertex = 0.5 * (before - after) / bend if bend < 0 else 0.0
    return round(CENTRE_DELAYS[best] + CENTRE_DELAYS.step * float(np.clip(vertex, -1.0, 1.0)))


def _judge(clips: Iterable[_FitClip], model: _Model, sampled: Container[str]) -> tuple[dict[str, LipScore], np.ndarray]:
    """Score of every clip, and the thresholds that foreign voices set, by ridges that have not seen the clip."""
    scores: dict[str, LipScore] = {}
    null = {}
    for clip in clips:
        record, predicted = clip.record, model.predict(clip)
        scores[record.key] = score_motion(record, clip.observed, predicted, model.channel_weights)
        if record.key in sampled:
            null[record.key] = _NullClip(record.source_id, clip.observed, predicted, record.margin)
    return scores, _null_thresholds([null[key] for key in sorted(null, key=_order)], model.channel_weights)


def _zero(scores: Iterable[LipScore]) -> int:
    """The offset of most clips whose lips and sound belong together, as far as it may be the error of `_centre`.

    That is right to a frame; a median that lies further off is no error, but a corpus that is late as a whole.
    """
    sure = [s.offset_frames for s in scores if s.confidence >= VOTE_CONFIDENCE and abs(s.offset_frames) <= MAX_REALIGN]
    median = round(float(np.median(sure))) if sure else 0
    return median if abs(median) <= CENTRE_ERROR else 0


class _NullClip(NamedTuple):
    source_id: str
    observed: np.ndarray
    predicted: np.ndarray
    margin: int


def _null_thresholds(clips: list[_NullClip], weights: np.ndarray) -> np.ndarray:
    """99th percentile of the confidence of lips with a foreign voice, at each of NULL_FRAMES; NaN if not measured."""
    thresholds = np.full(len(NULL_FRAMES), np.nan)
    for n, length in enumerate(NULL_FRAMES):
        long_enough = [clip for clip in clips if len(clip.observed) >= length]
        confidences = [_foreign(a, b, length, weights) for a, b in _swapped_pairs(long_enough)]
        if len(confidences) >= MIN_NULL_PAIRS:
            thresholds[n] = np.percentile(confidences, 99)
    return thresholds


def _swapped_pairs(clips: list[_NullClip]) -> Iterator[tuple[_NullClip, _NullClip]]:
    """Pairs of clips from different sources, each clip with as many of those after it as NULL_PAIRS allows."""
    for i, clip in enumerate(clips):
        others = (clips[(i + step) % len(clips)] for step in range(1, len(clips)))
        foreign = (other for other in others if other.source_id != clip.source_id)
        yield from ((clip, other) for other in islice(foreign, -(-NULL_PAIRS // len(clips))))


def _foreign(lips: _NullClip, voice: _NullClip, length: int, weights: np.ndarray) -> float:
    """Confidence of one clip's lips with another's voice, both cut to a length from their middles, margin kept."""
    start, first = (len(lips.observed) - length) // 2, voice.margin + (len(voice.observed) - length) // 2
    lead = min(MAX_LAG, voice.margin)
    sound = voice.predicted[first - lead : first + length + lead]
    return find_peak(lag_curve(lips.observed[start : start + length], sound, lead, weights))[1]


def fit_command(records: Callable[[], Iterable[LipRecord]], output: Path, aligned: bool = False) -> LipFit:
    """Fits a probe and saves it. Raises ValueError if the clips cannot teach one."""
    fit = fit_probe(records, aligned)
    if fit is None:
        raise ValueError(
            f"no probe fitted: it takes {MIN_CLIPS} clips of 2 s with a face, from {MIN_SOURCES} sources, and half as "
            "many in which lips and sound agree; give more clips"
        )
    fit.probe.save(output)
    return fit


def keys_in(parts: Iterable[Path]) -> set[str]:
    """The keys of the clips in a curation's parts (`OUT/parts/*/*.tar`)."""
    keys = set()
    for part in parts:
        with tarfile.open(part) as archive:
            keys |= {name.partition(".")[0] for name in archive.getnames()}
    return keys


def records_in(parts: Iterable[Path], keys: Container[str]) -> Iterator[LipRecord]:
    """The records of these clips that a curation left in its parts (`OUT/parts/*/*.tar`), in order of part."""
    for part in sorted(parts):
        found: dict[str, dict[str, bytes]] = {}
        with tarfile.open(part) as archive:
            for entry in archive:
                key, _, member = entry.name.partition(".")
                if key in keys and member in ("json", "mouth.npy", "whisper.npy"):
                    content = archive.extractfile(entry)
                    assert content is not None, f"{part}: {entry.name} is no file"
                    found.setdefault(key, {})[member] = content.read()
        for key, members in found.items():
            if len(members) == 3:
                fields = json.loads(members["json"])
                channels, rows = (np.load(io.BytesIO(members[name])) for name in ("mouth.npy", "whisper.npy"))
                margin = fields["margin_frames"]
                yield LipRecord(key, fields["source_id"], channels, rows[:, WHISPER_LAYER], margin)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m models.lip_probe_fit", description="Fit a lip probe on curated clips."
    )
    parser.add_argument("--clips", type=Path, required=True, help="output folder of curation/run.py, with its parts")
    parser.add_argument("--output", type=Path, required=True, help="the probe's file, for filters/lip_audio.weights")
    parser.add_argument("--most", type=int, default=FIT_CLIPS, help="clips to fit on at most (default %(default)s)")
    parser.add_argument("--aligned", action="store_true", help="all clips are in sync to the frame, as drawn ones are")
    options = parser.parse_args(arguments)
    try:
        parts = sorted(options.clips.glob("parts/*/*.tar"))
        keys = choose_clips(keys_in(parts), options.most)
        fit = fit_command(lambda: records_in(parts, keys), options.output, options.aligned)
    except (ValueError, OSError) as error:
        print(f"python -m models.lip_probe_fit: {error}", file=sys.stderr)
        return 1
    print(f"{options.output}: fitted on {fit.probe.clips} clips of {fit.probe.sources} sources")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
