"""Near duplicates among the kept clips of a finished run: the same recording encoded again, cropped or mirrored.

    python -m curation.duplicates OUT [--to OUT2]

A clip's picture is five 64-bit hashes of its face crop a second (the signs of its low frequencies, a mirrored copy's
computed as well), its sound which of 32 bands grow or shrink in 16 ms (after Haitsma and Kalker, 2002). Two clips are a
pair if either agrees over their overlap at some shift. Of each group the longest clip is kept. OUT/duplicates.csv has
the pairs; with `--to` OUT2 becomes a selection without the others, which training reads (manifests/balance.py).
"""

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from scipy.fft import dctn

from clock import FPS, SAMPLE_RATE
from command import parser_of
from manifests.balance import BalanceError, read_kept, write_selection
from manifests.reader import ManifestError
from media.encode import decode_flac, decode_mp4
from shards.index import read_index
from shards.reader import ShardError, read_member
from shards.sample import AUDIO, VIDEO
from storage.atomic_write import atomic_write
from storage.table import TableError

PICTURE_EVERY = 5  # frames
GRID, LOW = 32, 9  # pixels of the hashed picture; its lowest frequencies but the mean give the bits
SOUND_HOP, SOUND_WINDOW, BANDS = 256, 2048, 33
MIN_OVERLAP_S = 1.0
MAX_PICTURE, MAX_SOUND = 0.22, 0.3  # share of bits that differ: tests/curation/test_duplicates.py; others have some .5
COLUMNS = ("kept", "dropped", "by", "mirrored", "shift_s", "picture", "sound")


@dataclass(frozen=True)
class Print:
    """What a clip looks and sounds like: bits [T, 64] of the pictures, of these mirrored, and [N, 32] of the sound."""

    key: str
    seconds: float
    picture: np.ndarray
    mirrored: np.ndarray
    sound: np.ndarray


@dataclass(frozen=True)
class Pair:
    """Two clips alike: the shares of bits that differ (1 if not compared), and by how much the second begins later."""

    first: str
    second: str
    by: str
    mirrored: bool
    shift_s: float
    picture: float
    sound: float


def print_of(key: str, frames: np.ndarray, audio: np.ndarray) -> Print:
    """The print of a clip's crops [T, S, S, 3] and 16 kHz sound [N]."""
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames[::PICTURE_EVERY]]
    small = np.stack([cv2.resize(each, (GRID, GRID), interpolation=cv2.INTER_AREA) for each in grey]).astype(np.float32)
    return Print(key, len(frames) / FPS, picture_bits(small), picture_bits(small[:, :, ::-1]), sound_bits(audio))


def picture_bits(small: np.ndarray) -> np.ndarray:
    """[T, 64] bool: the signs of the lowest frequencies of pictures [T, GRID, GRID], against their median."""
    low = np.asarray(dctn(small, axes=(1, 2), norm="ortho"))[:, :LOW, :LOW].reshape(len(small), -1)[:, 1:65]
    return low > np.median(low, axis=1, keepdims=True)


def sound_bits(audio: np.ndarray) -> np.ndarray:
    """[N, 32] bool: whether the difference of neighbouring bands, 300 to 3000 Hz, grows from one hop to the next."""
    if len(audio) < SOUND_WINDOW + SOUND_HOP:
        return np.zeros((0, BANDS - 1), bool)
    pieces = np.lib.stride_tricks.sliding_window_view(audio, SOUND_WINDOW)[::SOUND_HOP]
    power = np.abs(np.fft.rfft(pieces * np.hanning(SOUND_WINDOW), axis=1)) ** 2
    edges = np.round(np.geomspace(300, 3000, BANDS + 1) * SOUND_WINDOW / SAMPLE_RATE).astype(int)
    bands = np.log(np.add.reduceat(power, edges[:-1], axis=1)[:, :BANDS] + 1e-9)
    return np.diff(np.diff(bands, axis=1), axis=0) > 0


def best_shift(first: np.ndarray, second: np.ndarray, least: int) -> tuple[float, int]:
    """(share of bits that differ, rows by which `second` begins later) where they agree best.

    The overlap has at least `least` rows, or nothing is compared and the share is 1. One correlation gives all shifts.
    """
    if min(len(first), len(second)) < max(least, 1):
        return 1.0, 0
    size = 1 << (len(first) + len(second) - 1).bit_length()
    spectra = [np.fft.rfft(2.0 * each - 1.0, size, axis=0) for each in (first, second)]
    agreement = np.fft.irfft((spectra[0] * spectra[1].conj()).sum(1), size)
    shifts = np.arange(-(len(second) - 1), len(first))
    overlap = np.minimum(len(first), len(second) + shifts) - np.maximum(0, shifts)
    share = 0.5 - agreement[shifts % size] / (2 * overlap * first.shape[1])
    share[overlap < least] = 1.0
    best = int(share.argmin())
    return float(share[best]), int(shifts[best])


def compare(first: Print, second: Print) -> Pair | None:
    """The pair that two clips are, or None."""
    rate = FPS / PICTURE_EVERY
    straight = best_shift(first.picture, second.picture, round(MIN_OVERLAP_S * rate))
    turned = best_shift(first.picture, second.mirrored, round(MIN_OVERLAP_S * rate))
    sound, sound_shift = best_shift(first.sound, second.sound, round(MIN_OVERLAP_S * SAMPLE_RATE / SOUND_HOP))
    picture, shift = min(straight, turned)
    alike = [name for name, found in (("picture", picture <= MAX_PICTURE), ("sound", sound <= MAX_SOUND)) if found]
    if not alike:
        return None
    shift_s = sound_shift * SOUND_HOP / SAMPLE_RATE if "sound" in alike else shift / rate
    by, mirrored = " ".join(alike), turned < straight and "picture" in alike
    return Pair(first.key, second.key, by, mirrored, round(shift_s, 2), round(picture, 3), round(sound, 3))


def find_pairs(prints: Sequence[Print]) -> list[Pair]:
    """All pairs. Every clip is compared with every other: a minute for some thousand clips."""
    ordered = sorted(prints, key=lambda each: each.key)
    pairs = (compare(a, b) for i, a in enumerate(ordered) for b in ordered[i + 1 :])
    return [pair for pair in pairs if pair is not None]


def choose_kept(pairs: Iterable[Pair], seconds: dict[str, float]) -> dict[str, str]:
    """{key that goes: key that stays} of each group of clips that pairs connect: the longest, the first by name."""
    group = {key: {key} for key in seconds}
    for pair in pairs:
        if group[pair.first] is not group[pair.second]:
            joined = group[pair.first] | group[pair.second]
            group |= dict.fromkeys(joined, joined)
    kept = {key: min(members, key=lambda each: (-seconds[each], each)) for key, members in group.items()}
    return {key: stays for key, stays in kept.items() if key != stays}


def read_prints(output: Path, keys: Sequence[str]) -> Iterator[Print]:
    """The prints of clips in the shards of an output. Raises ShardError."""
    index = read_index(output / "shards").set_index("key", drop=False)
    for key in keys:
        row: Any = index.loc[key]
        video, audio = (read_member(output / "shards", row, name) for name in (VIDEO, AUDIO))
        yield print_of(key, decode_mp4(video), decode_flac(audio))


def table_of(pairs: Sequence[Pair], dropped: dict[str, str]) -> pd.DataFrame:
    """The pairs as rows, each with the clip of its group that is kept."""
    rows: defaultdict[str, list[Any]] = defaultdict(list)
    for pair in pairs:
        gone = pair.second if pair.second in dropped else pair.first
        values = (dropped[gone], gone, pair.by, pair.mirrored, pair.shift_s, pair.picture, pair.sound)
        for name, value in zip(COLUMNS, values, strict=True):
            rows[name].append(value)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("python -m curation.duplicates", __doc__)
    parser.add_argument("output", type=Path, help="folder of a finished curation run")
    parser.add_argument("--to", type=Path, help="folder that training reads, without the duplicates; must not exist")
    options = parser.parse_args(arguments)
    try:
        if options.to and options.to.exists():
            raise BalanceError(f"{options.to}: exists; give a new folder")
        clips = read_kept(options.output)
        prints = list(read_prints(options.output, sorted(clips["key"])))
        pairs = find_pairs(prints)
        dropped = choose_kept(pairs, {each.key: each.seconds for each in prints})
        with atomic_write(options.output / "duplicates.csv") as file:
            table_of(pairs, dropped).to_csv(file, index=False)
        seconds = sum(each.seconds for each in prints if each.key in dropped)
        print(f"{len(pairs):,} pairs among {len(prints):,} clips; {len(dropped):,} clips ({seconds:.0f} s) are copies")
        if options.to:
            write_selection(options.output, clips[~clips["key"].isin(dropped)], options.to)
    except (BalanceError, ManifestError, ShardError, TableError, OSError) as error:
        print(f"curation.duplicates: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
