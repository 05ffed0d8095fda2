"""Do these lips speak this sound? A ridge regression from Whisper features to mouth motion, correlated over lags.

Not SyncNet: the confidence lies between 0 and 1, so SyncNet's thresholds mean nothing here. `models/lip_probe_fit.py`
fits one. numpy only; landmarks and Whisper rows come from elsewhere.
"""

import zipfile
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from clock import WHISPER_ROWS_PER_FRAME as ROWS_PER_FRAME
from models.mouth import CHANNELS, MOTIONS, TINY, motion, valid_share
from storage.atomic_write import atomic_write

WHISPER_LAYER = 3  # of the five hidden states: the output of the third of tiny.en's four blocks
MAX_LAG = 15
LAGS = np.arange(-MAX_LAG, MAX_LAG + 1)
MIN_FRAMES = 50  # below 2 s a foreign voice reaches any confidence
MIN_OVERLAP = 25
MIN_VALID = 0.5
WINDOW_FRAMES = 100
COMPONENTS = 96
REGRESSORS = 3 * ROWS_PER_FRAME * COMPONENTS
NULL_FRAMES = (50, 75, 100, 150, 200)


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

    def counted_from(self, zero_frames: int) -> "LipScore":
        """The same with another lag called 0; lags that the curve does not reach are NaN."""
        lags = LAGS + zero_frames
        known = np.abs(lags) <= MAX_LAG
        curve = np.where(known, self.curve[np.clip(lags, -MAX_LAG, MAX_LAG) + MAX_LAG], np.nan).astype(np.float32)
        return replace(self, offset_frames=self.offset_frames - zero_frames, curve=curve)


def frame_features(rows: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Regressors per frame: its two rows and those of its neighbours in the basis, [A, 6 * components] float32."""
    frames = len(rows) // ROWS_PER_FRAME
    reduced = (rows[: frames * ROWS_PER_FRAME].astype(np.float32) @ basis).reshape(frames, -1)
    padded = np.concatenate([reduced[:1], reduced, reduced[-1:]])
    return np.concatenate([padded[:-2], padded[1:-1], padded[2:]], 1)


def lag_curve(observed: np.ndarray, predicted: np.ndarray, margin: int, weights: np.ndarray) -> np.ndarray:
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


def find_peak(curve: np.ndarray) -> tuple[int, float]:
    """Offset in frames and confidence. Among equals the smallest shift wins."""
    if np.isnan(curve).all():
        return 0, 0.0
    best = max(range(len(LAGS)), key=lambda i: (-np.inf if np.isnan(curve[i]) else curve[i], -abs(LAGS[i])))
    return int(LAGS[best]), float(curve[best] - np.nanmedian(curve))


def score_motion(record: LipRecord, observed: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> LipScore:
    margin = record.margin
    curve = lag_curve(observed, predicted, margin, weights)
    offset, confidence = find_peak(curve)
    windows = []
    if len(observed) > 2 * WINDOW_FRAMES:
        starts = range(0, len(observed) - WINDOW_FRAMES + 1, WINDOW_FRAMES // 2)
        windows = [
            find_peak(lag_curve(observed[s : s + WINDOW_FRAMES], predicted, margin + s, weights)) for s in starts
        ]
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


def is_usable(channels: np.ndarray) -> bool:
    return len(channels) >= MIN_FRAMES and valid_share(channels) >= MIN_VALID


def check_record(record: LipRecord) -> None:
    channels, rows, margin = record.channels, record.rows, record.margin
    needed = ROWS_PER_FRAME * (margin + len(channels))
    if channels.shape[1:] != (CHANNELS,) or margin < 0 or len(rows) < needed:
        raise ValueError(
            f"{record.key}: channels {channels.shape}, margin {margin} and {len(rows)} Whisper rows; needed are "
            f"[T, {CHANNELS}], a margin >= 0 and rows for margin and clip ({needed})"
        )
    if not np.isfinite(rows).all():
        raise ValueError(f"{record.key}: Whisper rows that are not numbers")


def threshold_of(null_thresholds: np.ndarray, frames: int) -> float:
    """The threshold at a length, from those at NULL_FRAMES: `LipProbe.threshold` says how."""
    known = np.isfinite(null_thresholds)
    if frames < MIN_FRAMES or not known.any():
        return float("nan")
    lengths = np.array(NULL_FRAMES)[known]
    constants = null_thresholds[known] * np.sqrt(lengths)
    frames = min(frames, NULL_FRAMES[-1])
    return float(np.interp(frames, lengths, constants) / np.sqrt(frames))


@dataclass(frozen=True)
class LipProbe:
    """A fitted probe: Whisper rows -> mouth motion, and how high the confidence of a foreign voice gets.

    basis [384, 96], ridge [576, 56], channel_weights [56], all float32; null_thresholds float64 [5], at NULL_FRAMES;
    clips, sources: fitted on; voters: clips that agreed; zero_frames: what it read of most of them before this number
    was taken off every offset.
    """

    basis: np.ndarray
    ridge: np.ndarray
    channel_weights: np.ndarray
    null_thresholds: np.ndarray
    clips: int
    sources: int
    voters: int
    zero_frames: int = 0

    def score(self, channels: np.ndarray, rows: np.ndarray, margin: int = 0) -> LipScore | None:
        """Score of a clip that the probe was not fitted on, as in LipRecord; None: too few frames with a face."""
        record = LipRecord("clip", "", channels, rows, margin)
        check_record(record)
        if not is_usable(channels):
            return None
        found = score_motion(record, motion(channels), self.predict(rows), self.channel_weights)
        return found.counted_from(self.zero_frames)

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """Motion that Whisper rows [2A, 384] promise, [A, 56]."""
        return frame_features(rows, self.basis) @ self.ridge

    def threshold(self, frames: int) -> float:
        """Confidence that 99 of 100 clips of this length with a foreign voice stay below; NaN if it was not measured.

        Between and beyond the lengths measured it goes with 1 / sqrt(frames), as chance correlations do, but not below
        the value at the longest: longer clips are judged by their windows of 4 s.
        """
        return threshold_of(self.null_thresholds, frames)

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
            probe = LipProbe(*arrays, *(int(found[name]) for name in ("clips", "sources", "voters", "zero_frames")))
        except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path}: not a lip probe ({error}); fit one with fit_command") from error
        shapes = probe.basis.shape[1:], probe.ridge.shape, probe.channel_weights.shape, probe.null_thresholds.shape
        if shapes != ((COMPONENTS,), (REGRESSORS, MOTIONS), (MOTIONS,), (len(NULL_FRAMES),)):
            raise ValueError(f"{path}: a lip probe of another version, with shapes {shapes}; fit it again")
        return probe
