"""Do these lips speak this sound? A ridge regression from Whisper features to mouth motion, correlated over lags.

Not SyncNet: the confidence lies between 0 and 1, so SyncNet's thresholds mean nothing here. The probe is fitted on the
unlabelled clips of the run itself: clips that do not agree with the others lose their vote after the first round.
numpy only; landmarks and Whisper rows come from elsewhere.
"""

import argparse
import hashlib
import io
import json
import sys
import tarfile
import zipfile
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from clock import WHISPER_ROWS_PER_FRAME as ROWS_PER_FRAME
from storage.atomic_write import atomic_write

WHISPER_LAYER = 3  # of the five hidden states: the output of the third of tiny.en's four blocks
MAX_LAG = 15
LAGS = np.arange(-MAX_LAG, MAX_LAG + 1)
MIN_FRAMES = 50  # below 2 s a foreign voice reaches any confidence
MIN_OVERLAP = 25
MIN_VALID = 0.5
WINDOW_FRAMES = 100
MIN_CLIPS = 20
MIN_SOURCES = 6
FIT_CLIPS = 4000  # at 2 s each already 200,000 frames for the 576 regressors
FOLDS = 8
COMPONENTS = 96
REGRESSORS = 3 * ROWS_PER_FRAME * COMPONENTS
RIDGE = 5000.0  # on sums over frames of standardised features
VOTE_CONFIDENCE = 0.25
MAX_REALIGN = 8
NULL_FRAMES = (50, 75, 100, 150, 200)
NULL_PAIRS = 1200  # per length, at most about
MIN_NULL_PAIRS = 100
SAMPLE_CLIPS = 200
CENTRE_DELAYS = range(-8, 9, 2)
FIXED_POINT = 2.0**20
TINY = 1e-12

# Points that the mouth does not move, and where MediaPipe's canonical face model has them (no person's face; symmetric;
# from geometry_pipeline_metadata_landmarks.binarypb in face_landmarker.task): x right, y down, z away from the
# camera, centred, distance between the outer eye corners (33, 263) = 1.
RIGID = (33, 133, 362, 263, 168, 6, 197, 195, 5, 4, 10, 151, 9, 8, 127, 356, 234, 454)
REFERENCE = np.array(
    [
        [-0.5, 0.0048, 0.0436],
        [-0.2088, 0.0137, -0.0221],
        [0.2088, 0.0137, -0.0221],
        [0.5, 0.0048, 0.0436],
        [0.0, -0.0635, -0.1883],
        [0.0, 0.0263, -0.2505],
        [0.0, 0.11, -0.3099],
        [0.0, 0.1853, -0.3614],
        [0.0, 0.2633, -0.414],
        [0.0, 0.3565, -0.4527],
        [0.0, -0.6247, -0.1035],
        [0.0, -0.4317, -0.1649],
        [0.0, -0.2451, -0.2051],
        [0.0, -0.1476, -0.1938],
        [-0.8708, 0.0384, 0.626],
        [0.8708, 0.0384, 0.626],
        [-0.8619, 0.2287, 0.6745],
        [0.8619, 0.2287, 0.6745],
    ]
)

# Columns of the 52 blendshapes: jawOpen mouthClose mouthFunnel mouthPucker mouthRollLower/Upper mouthShrugLower/Upper,
# then left and right of mouthStretch mouthLowerDown mouthUpperUp mouthPress mouthSmile mouthDimple.
BLENDSHAPES = (25, 27, 32, 38, 40, 41, 42, 43)
BLENDSHAPE_PAIRS = ((46, 47), (34, 35), (48, 49), (36, 37), (44, 45), (28, 29))
CHANNELS = 28
MOTIONS = 2 * CHANNELS


@dataclass(frozen=True)
class LipRecord:
    """What the probe needs of one clip.

    `channels` [T, 28] from `mouth_channels`; `rows` [2 * (margin + T + after), 384]: one layer (WHISPER_LAYER) of the
    whole track's features, beginning `margin` frames before the clip and going on `after` >= 0 frames behind it.
    Margins of MAX_LAG frames let every lag see all of the clip; 0 works, with less overlap at the outer lags.
    """

    key: str
    source_id: str
    channels: np.ndarray
    rows: np.ndarray
    margin: int = 0


@dataclass(frozen=True)
class LipScore:
    """How well mouth and sound agree.

    offset_frames > 0: the sound is late (comes after the lips), in frames of 25 fps. confidence: height of the best
    lag's correlation over the median of all lags. `curve` [31] float32: correlation at lags -15..15. Of clips longer
    than 8 s, the median confidence over windows of 4 s, and the share of windows whose own offset is within one frame
    of the clip's (NaN for shorter clips): low for a clip whose voice changes hands.
    """

    offset_frames: int
    confidence: float
    r_at_offset: float
    curve: np.ndarray
    frames: int
    valid_share: float
    window_confidence: float = float("nan")
    window_agreement: float = float("nan")


@dataclass(frozen=True)
class LipFit:
    """A fitted probe, and the scores of the clips that it was fitted on, each by a ridge that has not seen its source.

    Clips with too few frames with a face are not among them.
    """

    probe: "LipProbe"
    scores: dict[str, LipScore]


def align(points: np.ndarray) -> np.ndarray:
    """Landmarks [T, 478, 3] turned, scaled and moved onto the reference face, frame by frame (Umeyama 1991)."""
    rigid = points[:, RIGID].astype(np.float64)
    centre = rigid.mean(1, keepdims=True)
    rigid = rigid - centre
    u, spread, vt = np.linalg.svd(np.einsum("pi,tpj->tij", REFERENCE, rigid))
    handedness = np.ones_like(spread)
    handedness[:, 2] = np.sign(np.linalg.det(u @ vt))
    rotation = np.einsum("tik,tk,tkj->tij", u, handedness, vt)
    scale = (spread * handedness).sum(1) / np.maximum((rigid**2).sum((1, 2)), TINY)
    return scale[:, None, None] * np.einsum("tij,tpj->tpi", rotation, points - centre)


def mouth_channels(points: np.ndarray, blendshapes: np.ndarray) -> np.ndarray:
    """The 28 numbers of a mouth per frame: [T, 28] float32, NaN where there is no face.

    `points` [T, 478, 3] in pixels, `blendshapes` [T, 52] in the model's order. Distances are in units of the outer eye
    corners' distance and do not depend on where the head is, how it is turned or how large it is.
    """
    channels = np.full((len(points), CHANNELS), np.nan, np.float32)
    valid = np.isfinite(points).all((1, 2)) & np.isfinite(blendshapes).all(1)
    if not valid.any():
        return channels
    aligned, shapes = align(points[valid]), blendshapes[valid]

    def distance(a: int, b: int) -> np.ndarray:
        return np.linalg.norm(aligned[:, a] - aligned[:, b], axis=1)

    y, z = 1, 2
    channels[valid] = np.stack(
        [
            distance(13, 14),
            (distance(82, 87) + distance(312, 317)) / 2,
            distance(61, 291),
            distance(78, 308),
            distance(0, 17),
            distance(0, 13),
            distance(14, 17),
            aligned[:, 17, y],
            aligned[:, 0, y],
            aligned[:, 0, z],
            aligned[:, 17, z],
            (aligned[:, 61, y] + aligned[:, 291, y]) / 2,
            distance(17, 152),
            aligned[:, 152, y],
            *(shapes[:, column] for column in BLENDSHAPES),
            *((shapes[:, left] + shapes[:, right]) / 2 for left, right in BLENDSHAPE_PAIRS),
        ],
        axis=1,
    )
    return channels


def valid_share(channels: np.ndarray) -> float:
    """Share of frames in which a face was measured."""
    return float(np.isfinite(channels).all(1).mean()) if len(channels) else 0.0


def motion(channels: np.ndarray) -> np.ndarray:
    """Mouth motion of a clip: [T, 56] float32, 28 positions without their slow part, then 28 velocities; unit variance.

    Frames without a face are interpolated.
    """
    filled = _fill(channels)
    z = _unit(filled - filled.mean(0))
    position, velocity = z - _smooth(z, 12.0), np.gradient(_smooth(z, 0.7), axis=0)
    return np.concatenate([_unit(position), _unit(velocity)], 1).astype(np.float32)


def _fill(channels: np.ndarray) -> np.ndarray:
    valid = np.isfinite(channels).all(1)
    if valid.all():
        return channels.astype(np.float64)
    frames, known = np.arange(len(channels)), np.flatnonzero(valid)
    return np.stack([np.interp(frames, known, column[known]) for column in channels.T.astype(np.float64)], 1)


def _unit(x: np.ndarray) -> np.ndarray:
    std = x.std(0)
    return np.where(std > 1e-6, x / np.maximum(std, 1e-6), 0.0)


def _smooth(x: np.ndarray, sigma: float) -> np.ndarray:
    radius = int(4 * sigma + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    padded = np.pad(x, ((radius, radius), (0, 0)), mode="symmetric")
    return np.stack([np.convolve(column, kernel / kernel.sum(), "valid") for column in padded.T], 1)


def _frame_features(rows: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Regressors per frame: its two rows and those of its neighbours in the basis, [A, 6 * components] float32."""
    frames = len(rows) // ROWS_PER_FRAME
    reduced = (rows[: frames * ROWS_PER_FRAME].astype(np.float32) @ basis).reshape(frames, -1)
    padded = np.concatenate([reduced[:1], reduced, reduced[-1:]])
    return np.concatenate([padded[:-2], padded[1:-1], padded[2:]], 1)


def _overlap(frames: int, audio_frames: int, start: int) -> tuple[slice, slice]:
    """Frames of a clip, and of its audio, that meet when clip frame 0 lies on audio frame `start`."""
    first, last = max(0, -start), max(0, -start, min(frames, audio_frames - start))
    return slice(first, last), slice(first + start, last + start)


def _curve(observed: np.ndarray, predicted: np.ndarray, margin: int, weights: np.ndarray) -> np.ndarray:
    """Weighted correlation at every lag [31], over the frames that both have; NaN where those are too few to say."""
    frames = len(observed)
    first = margin - MAX_LAG  # the sound that the outermost lags need, zero where there is none
    known = slice(max(0, first), max(0, first, min(len(predicted), first + frames + 2 * MAX_LAG)))
    heard = np.zeros((frames + 2 * MAX_LAG, predicted.shape[1]))
    inside = np.zeros(len(heard))
    heard[known.start - first : known.stop - first] = predicted[known]
    inside[known.start - first : known.stop - first] = 1.0
    b, both = sliding_window_view(heard, frames, 0), sliding_window_view(inside, frames, 0)  # [31, 56, T], [31, T]
    a = observed.astype(np.float64)
    n = np.maximum(both.sum(1), 1.0)[:, None]
    sum_a, sum_b = both @ a, b.sum(2)
    covariance = np.einsum("lkt,tk->lk", b, a) - sum_a * sum_b / n
    power = (both @ a**2 - sum_a**2 / n) * (sliding_window_view(heard**2, frames, 0).sum(2) - sum_b**2 / n)
    correlation = np.where(power > TINY, covariance / np.sqrt(np.maximum(power, TINY)), 0.0)
    curve = correlation @ weights / max(float(weights.sum()), TINY)
    return np.where(both.sum(1) >= MIN_OVERLAP, curve, np.nan)


def _peak(curve: np.ndarray) -> tuple[int, float]:
    """Offset in frames and confidence. Among equals the smallest shift wins."""
    if np.isnan(curve).all():
        return 0, 0.0
    best = max(range(len(LAGS)), key=lambda i: (-np.inf if np.isnan(curve[i]) else curve[i], -abs(LAGS[i])))
    return int(LAGS[best]), float(curve[best] - np.nanmedian(curve))


def _score(record: LipRecord, observed: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> LipScore:
    margin = record.margin
    curve = _curve(observed, predicted, margin, weights)
    offset, confidence = _peak(curve)
    windows = []
    if len(observed) > 2 * WINDOW_FRAMES:
        starts = range(0, len(observed) - WINDOW_FRAMES + 1, WINDOW_FRAMES // 2)
        windows = [_peak(_curve(observed[s : s + WINDOW_FRAMES], predicted, margin + s, weights)) for s in starts]
    return LipScore(
        offset_frames=offset,
        confidence=confidence,
        r_at_offset=float(curve[offset + MAX_LAG]),
        curve=curve.astype(np.float32),
        frames=len(observed),
        valid_share=valid_share(record.channels),
        window_confidence=float(np.median([c for _, c in windows])) if windows else float("nan"),
        window_agreement=float(np.mean([abs(o - offset) <= 1 for o, _ in windows])) if windows else float("nan"),
    )


def _usable(channels: np.ndarray) -> bool:
    return len(channels) >= MIN_FRAMES and valid_share(channels) >= MIN_VALID


def _order(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def chosen(keys: Iterable[str], count: int) -> set[str]:
    """Clips to fit a probe on where there are more than enough: by the hashes of their keys, not by their order."""
    return set(sorted(keys, key=_order)[:count])


def _fixed(sums: np.ndarray) -> np.ndarray:
    """Sums as 64-bit fixed point: adding them is exact, so the order of clips cannot change a bit of the result."""
    return np.rint(sums * FIXED_POINT).astype(np.int64)


def _check(record: LipRecord) -> None:
    channels, rows, margin = record.channels, record.rows, record.margin
    needed = ROWS_PER_FRAME * (margin + len(channels))
    if channels.shape[1:] != (CHANNELS,) or margin < 0 or len(rows) < needed:
        raise ValueError(
            f"{record.key}: channels {channels.shape}, margin {margin} and {len(rows)} Whisper rows; needed are "
            f"[T, {CHANNELS}], a margin >= 0 and rows for margin and clip ({needed})"
        )
    if not np.isfinite(rows).all():
        raise ValueError(f"{record.key}: Whisper rows that are not numbers")


@dataclass(frozen=True)
class _Clip:
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

    def predict(self, clip: _Clip) -> np.ndarray:
        """Motion that the sound of a clip promises, by a ridge that has not seen its source: [A, 56]."""
        return clip.regressors @ self.held_out[clip.fold]

    def vote(self, clip: _Clip) -> int | None:
        """By how many frames a clip's sound is late, if it is sure enough to teach the next round."""
        offset, confidence = _peak(_curve(clip.observed, self.predict(clip), clip.record.margin, self.channel_weights))
        return offset if confidence >= VOTE_CONFIDENCE and abs(offset) <= MAX_REALIGN else None


class _Sums:
    """Sums of products of regressors and motion, per fold; clips are centred, since correlation forgets means."""

    def __init__(self, folds: int) -> None:
        self.xx = np.zeros((folds, REGRESSORS, REGRESSORS), np.int64)
        self.xu = np.zeros((folds, REGRESSORS, MOTIONS), np.int64)
        self.uu = np.zeros((folds, MOTIONS), np.int64)

    def add(self, clip: _Clip, shift: int) -> None:
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


def _ridge(xx: np.ndarray, xu: np.ndarray) -> np.ndarray:
    return np.linalg.solve(xx + RIDGE * np.eye(len(xx)), xu)


def _whitening(records: Iterable[LipRecord]) -> tuple[np.ndarray, dict[str, str]]:
    """Basis [384, 96] in which the rows of a clip have unit variance, and the source of every usable clip."""
    moments, count, sources = None, 0, {}
    for record in records:
        _check(record)
        if not _usable(record.channels):
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
    return _peak(_curve(lips.observed[start : start + length], sound, lead, weights))[1]


def _centre(clips: Iterable[_Clip], votes: dict[str, int]) -> int:
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


@dataclass(frozen=True)
class LipProbe:
    """A fitted probe: Whisper rows -> mouth motion, and how high the confidence of a foreign voice gets.

    basis [384, 96], ridge [576, 56], channel_weights [56], all float32; null_thresholds float64 [5], at NULL_FRAMES;
    clips, sources: fitted on; voters: clips that agreed.
    """

    basis: np.ndarray
    ridge: np.ndarray
    channel_weights: np.ndarray
    null_thresholds: np.ndarray
    clips: int
    sources: int
    voters: int

    @staticmethod
    def fit(records: Callable[[], Iterable[LipRecord]]) -> LipFit | None:
        """Fits on unlabelled clips, of which many are in sync; None if they are too few or too few of them agree.

        Calls `records` 7 times and holds one clip at a time, and 200 for the null; the order of the records does
        not change a bit of the result; the number of BLAS threads may change the last ones: fit with OMP_NUM_THREADS=1.
        """
        basis, sources = _whitening(records())
        if len(sources) < MIN_CLIPS or len(set(sources.values())) < MIN_SOURCES:
            return None
        ranked = sorted(set(sources.values()), key=_order)
        folds = {source: rank % FOLDS for rank, source in enumerate(ranked)}
        sampled = set(sorted(sources, key=_order)[:SAMPLE_CLIPS])

        def clips(keys: Container[str] = sources) -> Iterator[_Clip]:
            for record in records():
                if record.key in keys:
                    regressors = _frame_features(record.rows, basis)
                    yield _Clip(record, folds[record.source_id], motion(record.channels), regressors)

        model = _sum(clips(), dict.fromkeys(sources, 0)).solve()
        sums = _Sums(FOLDS)
        for clip in clips():
            if (vote := model.vote(clip)) is not None:
                sums.add(clip, vote)
        model = sums.solve()
        votes = {clip.record.key: vote for clip in clips() if (vote := model.vote(clip)) is not None}
        if len(votes) < MIN_CLIPS // 2 or len({sources[key] for key in votes}) < MIN_SOURCES:
            return None
        delay = _centre(clips(sampled & votes.keys()), votes)
        votes = {key: vote + delay for key, vote in votes.items()}
        model = _sum(clips(votes), votes).solve()
        scores, thresholds = _judge(clips(), model, sampled)
        counts = {"clips": len(sources), "sources": len(ranked), "voters": len(votes)}
        return LipFit(LipProbe(basis, model.ridge, model.channel_weights, thresholds, **counts), scores)

    def score(self, channels: np.ndarray, rows: np.ndarray, margin: int = 0) -> LipScore | None:
        """Score of a clip that the probe was not fitted on, as in LipRecord; None: too few frames with a face."""
        record = LipRecord("clip", "", channels, rows, margin)
        _check(record)
        if not _usable(channels):
            return None
        predicted = _frame_features(rows, self.basis) @ self.ridge
        return _score(record, motion(channels), predicted, self.channel_weights)

    def threshold(self, frames: int) -> float:
        """Confidence that 99 of 100 clips of this length with a foreign voice stay below; NaN if it was not measured.

        Between and beyond the lengths measured it goes with 1 / sqrt(frames), as chance correlations do, but not below
        the value at the longest: longer clips are judged by their windows of 4 s.
        """
        known = np.isfinite(self.null_thresholds)
        if frames < MIN_FRAMES or not known.any():
            return float("nan")
        lengths = np.array(NULL_FRAMES)[known]
        constants = self.null_thresholds[known] * np.sqrt(lengths)
        frames = min(frames, NULL_FRAMES[-1])
        return float(np.interp(frames, lengths, constants) / np.sqrt(frames))

    def save(self, path: Path) -> None:
        """Writes the probe (0.3 MB, .npz without pickle); the same probe gives the same bytes."""
        with atomic_write(path) as file, zipfile.ZipFile(file, "w") as archive:  # np.savez would stamp the time of day
            for field in fields(self):
                with archive.open(zipfile.ZipInfo(f"{field.name}.npy"), "w") as member:
                    np.lib.format.write_array(member, np.asarray(getattr(self, field.name)), allow_pickle=False)

    @staticmethod
    def load(path: Path) -> "LipProbe":
        """Reads a saved probe. Raises ValueError if the file is not one."""
        try:
            with np.load(path, allow_pickle=False) as archive:
                found = {name: archive[name] for name in archive.files}
            arrays = (found[name] for name in ("basis", "ridge", "channel_weights", "null_thresholds"))
            probe = LipProbe(*arrays, *(int(found[name]) for name in ("clips", "sources", "voters")))
        except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path}: not a lip probe ({error}); fit one with fit_command") from error
        shapes = probe.basis.shape[1:], probe.ridge.shape, probe.channel_weights.shape, probe.null_thresholds.shape
        if shapes != ((COMPONENTS,), (REGRESSORS, MOTIONS), (MOTIONS,), (len(NULL_FRAMES),)):
            raise ValueError(f"{path}: a lip probe of another version, with shapes {shapes}; fit it again")
        return probe


def _sum(clips: Iterable[_Clip], votes: dict[str, int]) -> _Sums:
    sums = _Sums(FOLDS)
    for clip in clips:
        sums.add(clip, votes[clip.record.key])
    return sums


def _judge(clips: Iterable[_Clip], model: _Model, sampled: Container[str]) -> tuple[dict[str, LipScore], np.ndarray]:
    """Score of every clip, and the thresholds that foreign voices set, by ridges that have not seen the clip."""
    scores: dict[str, LipScore] = {}
    null = {}
    for clip in clips:
        record, predicted = clip.record, model.predict(clip)
        scores[record.key] = _score(record, clip.observed, predicted, model.channel_weights)
        if record.key in sampled:
            null[record.key] = _NullClip(record.source_id, clip.observed, predicted, record.margin)
    return scores, _null_thresholds([null[key] for key in sorted(null, key=_order)], model.channel_weights)


def fit_command(records: Callable[[], Iterable[LipRecord]], output: Path) -> LipFit:
    """Fits a probe and saves it. Raises ValueError if the clips cannot teach one."""
    fit = LipProbe.fit(records)
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
    parser = argparse.ArgumentParser(prog="python -m models.lip_probe", description="Fit a lip probe on curated clips.")
    command = parser.add_subparsers(dest="command", required=True).add_parser("fit", help="fit and save a probe")
    command.add_argument("--clips", type=Path, required=True, help="output folder of curation/run.py")
    command.add_argument("--output", type=Path, required=True, help="the probe's file, for filters/lip_audio.weights")
    command.add_argument("--most", type=int, default=FIT_CLIPS, help="clips to fit on at most (default %(default)s)")
    options = parser.parse_args(arguments)
    try:
        parts = sorted(options.clips.glob("parts/*/*.tar"))
        keys = chosen(keys_in(parts), options.most)
        fit = fit_command(lambda: records_in(parts, keys), options.output)
    except (ValueError, OSError) as error:
        print(f"python -m models.lip_probe: {error}", file=sys.stderr)
        return 1
    print(f"{options.output}: fitted on {fit.probe.clips} clips of {fit.probe.sources} sources")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
