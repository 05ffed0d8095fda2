"""Shards -> batches, in an order that is a pure function of (seed, epoch).

The index says where each member of a sample lies, so that a window reads its own frames and rows and little else, and
the order of training is worked out without opening a shard. What a window holds (its start, its reference frame, its
noise) comes from a hash of (seed, epoch, place): the state of the loader is one integer, the samples consumed, and the
same batches come out of any number of ranks and workers with the same global batch. (`mode: stream` gives this up for
sequential reading: training/stream.py.)

A sample that cannot be read is replaced by the next one of the order and reported in its batch: the same everywhere, as
long as all ranks can read the same bytes.
"""

import copy
import hashlib
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, Self

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader

from clock import WHISPER_ROWS_PER_FRAME
from models.mask import MaskSettings
from shards.index import INDEX_NAME, offset_column, read_index, size_column
from shards.member import NPY_HEADER_BYTES, read_rows
from shards.reader import ShardError, walk
from shards.remote import open_sample
from shards.sample import BOXES, LANDMARKS, VIDEO, WHISPER, npy_header
from training.batch import Batch
from training.cache import Cache
from training.flip import check_flip, flip_by_chance
from training.order import Place, SampleOrder, micro_batches
from training.settings import DataSettings
from training.stream import Stream
from training.window import StoredClip, empty, fill, windows_of

PLACES = [
    "offset",
    "bytes",
    *(column(name) for name in (VIDEO, WHISPER, LANDMARKS, BOXES) for column in (offset_column, size_column)),
]
BYTES_OF_BOX = 16
MISSING = -1  # offset of a member that a sample lacks
MAX_REPLACED = 32  # samples in a row that cannot be read before the run fails
MIN_BAD = 10  # fewer bad clips than this say nothing about their share

log = logging.getLogger(__name__)


class DataError(ValueError):
    """The shards cannot be trained on; the text says where, what was found, and what to do."""


class Dataset(Protocol):
    """Windows to train on: `len` is their number in an epoch, before it is cut to whole global batches."""

    @property
    def settings(self) -> DataSettings: ...

    @property
    def layers(self) -> int: ...  # of Whisper

    @property
    def dim(self) -> int: ...

    def __len__(self) -> int: ...

    def validation(self) -> "Dataset | None":
        """The windows of the held-out sources, none mirrored, in a fixed order of their own; None without
        `validation_share`."""

    def of_length(self, frames: int) -> "Dataset":
        """The same clips in windows of so many frames, none mirrored; shorter clips are left out, perhaps all."""
        ...

    def reader(
        self, micro_batch: int, global_batch: int, rank: int, world: int, start_sample: int
    ) -> tuple[torch.utils.data.Dataset[Batch], Iterator[list[Place]] | None]:
        """What a DataLoader reads, and in which order."""
        ...


class Indexed(torch.utils.data.Dataset[Batch]):
    """The windows of shards with an index. Holds no open file, and numbers as arrays: workers are forked, and what they
    only read stays shared."""

    def __init__(
        self, shards: Path, index: pd.DataFrame, held_out: pd.DataFrame, settings: DataSettings, mask: MaskSettings
    ) -> None:
        self.shards, self.settings, self.mask, self._held_out = shards, settings, mask, held_out
        self.cache: Cache | None = None  # set by the trainer: windows are then taken from it
        self.layers, self.dim = whisper_shape(shards, index)
        self.content = hashlib.sha256("".join(index["sha256"]).encode()).hexdigest()  # of all samples
        self._names, self._shard = np.unique(index["shard"].to_numpy("S"), return_inverse=True)
        self._sha256 = index["sha256"].to_numpy("S")
        self._keys, self._frames = index["key"].to_numpy("S"), index["frames"].to_numpy(np.int64)
        self._places = {name: index[name].fillna(MISSING).to_numpy(np.int64) for name in PLACES}
        self._of_source = ClipsOfSource(index["source_id"].to_numpy("S"), self._frames)
        self.order = SampleOrder(self._shard, windows_of(self._frames, settings), settings.seed)

    def __len__(self) -> int:
        return len(self.order)

    def clips(self) -> list[StoredClip]:
        """All clips, in the order of the rows."""
        return [self._clip(row) for row in range(len(self._frames))]

    def validation(self) -> Self | None:
        if self._held_out.empty:
            return None
        plain = replace(self.settings, flip=0.0)
        return type(self)(self.shards, self._held_out, self._held_out.iloc[:0], plain, self.mask)

    def of_length(self, frames: int) -> Self:
        other = copy.copy(self)
        other.cache = None
        other.settings = replace(self.settings, frames=frames, flip=0.0)
        other.order = SampleOrder(self._shard, windows_of(self._frames, other.settings), self.settings.seed)
        return other

    def reader(
        self, micro_batch: int, global_batch: int, rank: int, world: int, start_sample: int
    ) -> tuple[Self, Iterator[list[Place]]]:
        return self, micro_batches(len(self), micro_batch, global_batch, rank, world, start_sample)

    def __getitem__(self, places: Sequence[Place]) -> Batch:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The windows at some places of the order. Raises DataError if many in a row cannot be read."""
        arrays, keys = self.empty(len(places)), []
        quarantined: list[tuple[str, str]] = []
        for b, (sample, epoch, i) in enumerate(places):
            arrays["sample"][b] = sample
            keys.append(self.fill_window(arrays, b, epoch, i, quarantined))
        return Batch.of(arrays, keys, quarantined)

    def empty(self, count: int) -> dict[str, np.ndarray]:
        """Arrays for so many windows."""
        latents = () if self.cache is None else self.cache.latent_shape
        return empty(count, self.settings, self.layers, self.dim, latents)

    def fill_window(self, arrays: dict[str, np.ndarray], b: int, epoch: int, i: int, bad: list[tuple[str, str]]) -> str:
        """Put window i of an epoch, or the next one that can be read, at place b of the arrays; gives its key."""
        rows = self.order.rows(epoch)
        for attempt in range(MAX_REPLACED):
            row, random = int(rows[(i + attempt) % len(rows)]), self.order.random(epoch, i, attempt)
            in_source = self.settings.reference == "source"
            reference = self._of_source.row_of_frame(row, random) if in_source else row
            clip = self._clip(row)
            if self.cache is not None:
                fault = self.cache.fill(arrays, b, row, clip, reference, random)
            else:
                fault = fill(arrays, b, clip, self._clip(reference), random, self.mask)
            if fault is None:
                flip_by_chance(arrays, b, random, self.settings.flip)
                return clip.key
            bad.append(fault)
        raise DataError(f"{self.shards}: {MAX_REPLACED} clips in a row cannot be read; the last, {': '.join(bad[-1])}")

    def _clip(self, row: int) -> StoredClip:
        fields = {name: None if column[row] == MISSING else column[row] for name, column in self._places.items()}
        key = bytes(self._keys[row]).decode()
        fields |= {"shard": bytes(self._names[self._shard[row]]).decode(), "key": key}
        fields["sha256"] = bytes(self._sha256[row]).decode()
        return StoredClip(key, int(self._frames[row]), lambda: open_sample(self.shards, fields))


class ClipsOfSource:
    """Finds a row by a random frame of the same source video."""

    def __init__(self, sources: np.ndarray, frames: np.ndarray) -> None:
        self._source = np.unique(sources, return_inverse=True)[1]
        self._rows = np.argsort(self._source, kind="stable")
        self._frames = frames[self._rows]
        self._starts = np.searchsorted(self._source[self._rows], np.arange(self._source.max() + 2))

    def row_of_frame(self, row: int, random: np.random.Generator) -> int:
        """The row of a frame drawn from all frames of the source of `row`."""
        first, last = self._starts[self._source[row] :][:2]
        ends = np.cumsum(self._frames[first:last])
        return int(self._rows[first + np.searchsorted(ends, random.integers(ends[-1]), side="right")])


def open_data(data: Path, settings: DataSettings, mask: MaskSettings) -> Dataset:
    """The dataset of a curated output, or of a folder of shards. Raises ValueError (DataError, TableError), with what
    to do."""
    check_data(settings)
    shards = shards_of(data)
    if (shards / INDEX_NAME).is_file() or settings.mode == "index" or settings.cache != "none":
        return open_indexed(indexed_shards(data), settings, mask)
    if settings.validation_share:
        raise DataError(f"{data}: data.validation_share needs an {INDEX_NAME}, and there is none")
    return open_unindexed(shards, settings, mask)


def check_data(settings: DataSettings) -> None:
    """Raise ValueError for settings with which no shards can be read."""
    if settings.size % 8:
        raise DataError(f"data.size {settings.size}: the VAE needs a multiple of 8 pixels")
    check_flip(settings)


def shards_of(data: Path) -> Path:
    """The folder of shards of a curated output, or itself."""
    return data / "shards" if (data / "shards").is_dir() else data


def indexed_shards(data: Path) -> Path:
    """The folder of shards of a curated output, or itself. Raises DataError if there is no index."""
    shards = shards_of(data)
    if not (shards / INDEX_NAME).is_file():
        raise DataError(f"{data}: no {INDEX_NAME} in it or in its folder shards; python curation/run.py writes it")
    return shards


def open_indexed(shards: Path, settings: DataSettings, mask: MaskSettings, held_out: set[str] | None = None) -> Dataset:
    """The dataset of shards with an index; `held_out` are the sources for validation, None: those of these shards."""
    index = read_index(shards)
    sources = index["source_id"].tolist()
    if held_out is None:
        held_out = held_out_sources(sources, settings.validation_share)
    validated = np.array([source in held_out for source in sources], bool)
    long_enough = index["frames"].to_numpy() >= settings.frames
    training, validation = index.loc[long_enough & ~validated], index.loc[long_enough & validated]
    if training.empty:
        raise DataError(
            f"{shards}: nothing to train on: {len(index)} clips, {validated.sum()} of them held out for validation, "
            f"{(~long_enough).sum()} shorter than {settings.frames} frames"
        )
    indexed = Indexed(shards, training, validation, settings, mask)
    if settings.mode == "index":
        return indexed
    if settings.cache != "none":
        raise DataError(f"data.cache: {settings.cache} reads clips in any order, which data.mode: stream does not")
    tars = [shards / name for name in sorted(set(training["shard"]))]
    return Stream(
        tars, len(indexed), indexed.layers, indexed.dim, settings, mask, frozenset(held_out), indexed.validation()
    )


def open_unindexed(shards: Path, settings: DataSettings, mask: MaskSettings) -> Stream:
    """All tars of a folder, for the stream mode. Walks over their headers to count the windows."""
    tars = sorted(shards.glob("*.tar"))
    entries = [(path, entry) for path in tars for entry in walk(path)]
    frames = [(entry.size - NPY_HEADER_BYTES) // BYTES_OF_BOX for _, entry in entries if entry.member == BOXES]
    features = [(path, entry) for path, entry in entries if entry.member == WHISPER]
    if not features:
        raise DataError(f"{shards}: no tar with {WHISPER} in it")
    path, entry = features[0]
    with path.open("rb") as file:
        file.seek(entry.offset)
        shape, _ = npy_header(file.read(entry.size))
    windows = windows_of(np.array(frames), settings).sum()
    return Stream(tars, int(windows), shape[1], shape[2], settings, mask)


def held_out_sources(sources: Iterable[str], share: float) -> set[str]:
    """The sources kept for validation: those with a small hash, the same in every run; one at least, and never all."""
    hashes = {source: hashlib.sha256(f"validation:{source}".encode()).digest() for source in sources}
    place = {source: int.from_bytes(digest[:8], "big") / 2**64 for source, digest in hashes.items()}
    below = sum(number < share for number in place.values())
    count = min(max(below, 1), len(place) - 1) if share else 0
    return set(sorted(place, key=place.__getitem__)[:count])


def whisper_shape(shards: Path, index: pd.DataFrame) -> tuple[int, int]:
    """(layers, dim) of the Whisper features. Raises DataError if not all samples have the same, by their sizes."""
    there = index.loc[index[offset_column(WHISPER)].notna().to_numpy(bool)]
    if there.empty:
        raise DataError(f"{shards}: no sample has {WHISPER}; curate with steps/whisper in the profile")
    row = first_readable_row(shards, there)
    header = there[size_column(WHISPER)] - WHISPER_ROWS_PER_FRAME * there["frames"] * row.nbytes
    other = there.loc[(header != header.iloc[0]).to_numpy(bool)]
    if len(other):
        raise DataError(
            f"{shards}: {len(other)} samples have not the Whisper features ({row.shape[1]} layers x {row.shape[2]}) of "
            f"{there.iloc[0]['key']}, the first {other.iloc[0]['key']}; curate them all with one Whisper"
        )
    return row.shape[1], row.shape[2]


def first_readable_row(shards: Path, index: pd.DataFrame) -> np.ndarray:
    """The first Whisper row, [1, layers, dim], of the first sample of a shard that can be read."""
    reason = ""
    for _, place in index.drop_duplicates("shard").iterrows():
        try:
            with open_sample(shards, place) as sample:
                return read_rows(sample.member(WHISPER), 0, 1)[0]
        except ShardError as error:
            reason = reason or str(error)
    raise DataError(f"{shards}: no shard can be read; the first: {reason}")


def loader(
    dataset: Dataset,
    micro_batch: int,
    *,
    global_batch: int | None = None,
    rank: int = 0,
    world: int = 1,
    start_sample: int = 0,
    workers: int | None = None,
) -> Iterator[Batch]:
    """One rank's micro-batches without end, from sample `start_sample` of the order on.

    The global batch (default: one micro-batch per rank) decides where epochs end. Raises DataError when too many clips
    cannot be read.
    """
    source, places = dataset.reader(micro_batch, global_batch or micro_batch * world, rank, world, start_sample)
    batches = DataLoader(
        source,
        sampler=places,  # pyright: ignore[reportArgumentType]  # an iterator without end and length
        batch_size=None,  # the source makes whole batches
        num_workers=dataset.settings.workers if workers is None else workers,
        collate_fn=keep_batch,  # pyright: ignore[reportArgumentType]  # of a batch, not of a list of samples
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=leave_group,
    )
    return watch_errors(iter(batches), dataset.settings.max_bad_share)


def leave_group(worker: int) -> None:
    """Put a worker into a process group of its own: Ctrl-C, and a signal to the whole group, reach the trainer only.

    Until it has, it needs its batches; and it must be able to end its workers by SIGTERM.
    """
    os.setpgid(0, 0)


def keep_batch(batch: Batch) -> Batch:
    return batch


def watch_errors(batches: Iterator[Batch], max_bad_share: float) -> Iterator[Batch]:
    """Yield the same batches; log each unreadable clip once, and raise DataError when there are too many."""
    bad: set[str] = set()
    replaced = seen = 0
    for batch in batches:
        for key, reason in batch.quarantined:
            if key not in bad:
                log.warning("%s cannot be read and is replaced: %s", key, reason)
            bad.add(key)
        replaced, seen = replaced + len(batch.quarantined), seen + len(batch.keys)
        if len(bad) >= MIN_BAD and replaced > max_bad_share * (seen + replaced):
            raise DataError(
                f"{len(bad)} clips cannot be read: {replaced} of {seen + replaced} windows, more than "
                f"data.max_bad_share ({max_bad_share:.1%}); python -m shards.verify says what is damaged"
            )
        yield batch
