"""Shards read from start to end by webdataset, for disks that seek badly and shards without an index.

The batches have the shape of those of the index mode and not its promises. Each reader (a worker of a rank) has its own
shards in an epoch and mixes windows of POOL_CLIPS clips that it holds in memory (some 4 MB each), so the order depends
on the number of ranks and workers; a resumed run starts with other shards and windows than the stopped one would have
gone on with: the same data statistically, not exactly; an epoch is no unit, since readers are not equally fast. The
reference frame is from the same clip. What a shard gives after damage is up to webdataset, which passes a cut-off
sample on as if it were whole: samples that lack a member are therefore refused here.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Self

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info
from webdataset.tariterators import group_by_keys, tar_file_expander

from models.mask import MaskSettings
from shards.reader import ShardError
from shards.remote import open_tar
from shards.sample import BOXES, JSON, LANDMARKS, VIDEO, WHISPER, Sample, problems
from storage.store import ObjectError, StoreError
from training.batch import Batch
from training.flip import flip_by_chance
from training.settings import DataSettings
from training.window import StoredClip, empty, fill, windows_of

POOL_CLIPS = 32
MAX_FAILED = 32  # windows of one batch that cannot be read before the run fails
REQUIRED = (VIDEO, WHISPER, LANDMARKS, BOXES, JSON)


class Loaded:
    """A sample in memory, to be read like one on disk."""

    def __init__(self, sample: Sample) -> None:
        self.sample = sample

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def member(self, name: str) -> io.BytesIO:
        return io.BytesIO(self.sample.members[name])


@dataclass(frozen=True)
class Stream:
    """The windows of some tars; `training.data.open_data` makes one."""

    shards: list[Path]
    windows: int
    layers: int
    dim: int
    settings: DataSettings
    mask: MaskSettings
    held_out: frozenset[str] = frozenset()  # sources that are passed over
    validated: Any = None  # the dataset of those

    def __len__(self) -> int:
        """Windows in an epoch."""
        return self.windows

    def validation(self) -> Any:
        return self.validated

    def of_length(self, frames: int) -> "Stream":
        """Windows of so many frames, none mirrored. `len` stays as it is: how many there are shows when the shards are
        read."""
        return replace(self, settings=replace(self.settings, frames=frames, flip=0.0))

    def reader(
        self, micro_batch: int, global_batch: int, rank: int, world: int, start_sample: int
    ) -> tuple["Reader", None]:
        """One rank's micro-batches, for a DataLoader. The global batch does not matter: nothing ends with an epoch."""
        return Reader(self, micro_batch, rank, world, start_sample), None


class Reader(IterableDataset[Batch]):
    """One rank's micro-batches without end; in a DataLoader, each worker makes whole ones from shards of its own."""

    def __init__(self, stream: Stream, micro_batch: int, rank: int, world: int, start_sample: int) -> None:
        self.shards, self.settings, self.mask = stream.shards, stream.settings, stream.mask
        self.shape, self.held_out = (stream.layers, stream.dim), stream.held_out
        self.micro_batch, self.rank, self.world, self.start_sample = micro_batch, rank, world, start_sample

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        reader, readers = self.rank * workers + worker, self.world * workers
        random = np.random.default_rng((self.settings.seed, self.start_sample, reader))
        bad: list[tuple[str, str]] = []
        clips = mix_clips(self._clips(reader, readers, bad), random)
        first = self.start_sample + self.rank + worker * self.micro_batch * self.world
        for start in count(first, self.micro_batch * self.world * workers):
            samples = range(start, start + self.micro_batch * self.world, self.world)
            yield self._batch(samples, clips, random, bad)

    def _batch(
        self, samples: range, clips: Iterator[StoredClip], random: np.random.Generator, bad: list[tuple[str, str]]
    ) -> Batch:
        arrays, keys, failed = empty(len(samples), self.settings, *self.shape), [], 0
        arrays["sample"][:] = samples
        while len(keys) < len(samples):
            clip = next(clips)
            fault = fill(arrays, len(keys), clip, clip, random, self.mask)
            if fault is None:
                flip_by_chance(arrays, len(keys), random, self.settings.flip)
                keys.append(clip.key)
                continue
            bad.append(fault)
            failed += 1
            if failed > MAX_FAILED:
                raise ShardError(f"{failed} windows of one batch cannot be read; the last, {': '.join(fault)}")
        quarantined, bad[:] = list(bad), []
        return Batch.of(arrays, keys, quarantined)

    def _clips(self, reader: int, readers: int, bad: list[tuple[str, str]]) -> Iterator[tuple[StoredClip, int]]:
        """(clip, windows in it) of this reader, epoch after epoch."""
        if len(self.shards) < readers:
            raise ShardError(f"{len(self.shards)} shards for {readers} readers; use fewer workers, or mode: index")
        for epoch in count():
            found = False
            for sample in self.epoch(epoch, reader, readers, bad):
                fields = sample.json
                windows = int(windows_of(fields["frames"], self.settings))
                if windows and fields["source_id"] not in self.held_out:
                    found = True
                    yield StoredClip(sample.key, fields["frames"], partial(Loaded, sample)), windows
            if not found:
                raise ShardError(f"{self.shards[0].parent}: reader {reader} of {readers} found no clip; {bad[-1:]}")

    def epoch(self, epoch: int, reader: int, readers: int, bad: list[tuple[str, str]]) -> Iterator[Sample]:
        """The samples of one reader's shards: all are shuffled, then dealt out."""
        order = np.random.default_rng((self.settings.seed, self.start_sample, epoch)).permutation(len(self.shards))
        return samples_of([self.shards[k] for k in order[reader::readers]], bad)


def samples_of(shards: list[Path], bad: list[tuple[str, str]]) -> Iterator[Sample]:
    """The whole samples of some tars in turn; what is damaged goes to `bad`."""
    for path in shards:
        for found in group_samples(path, bad):
            sample = Sample(found["__key__"], {name: found[name] for name in REQUIRED if name in found})
            wrong = problems(sample, REQUIRED)
            if wrong:
                bad.append((sample.key, f"{path}: {sample.key}: {wrong[0]}"))
            else:
                yield sample


def group_samples(path: Path, bad: list[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    """Yield the samples of a tar from webdataset: bytes by member, and `__key__`; a torn one may be incomplete."""

    def note(error: Exception) -> bool:
        if does_not_answer(error):
            raise error
        bad.append((path.name, f"{path}: {error.args[0]}"))
        return True

    try:
        with open_tar(path) as stream:  # webdataset's own opener closes nothing
            yield from group_by_keys(tar_file_expander([{"url": str(path), "stream": stream}], note), handler=note)
    except OSError as error:
        if does_not_answer(error):
            raise
        bad.append((path.name, f"{path}: {error.strerror or error}"))


def does_not_answer(error: Exception) -> bool:
    """Whether a store is to blame, not what it holds: the run stops, and nothing is left out."""
    return isinstance(error, StoreError) and not isinstance(error, ObjectError)


def mix_clips(clips: Iterator[tuple[StoredClip, int]], random: np.random.Generator) -> Iterator[StoredClip]:
    """Yield each clip as many times as its number, mixed at random with POOL_CLIPS others."""
    pool: list[tuple[StoredClip, int]] = []
    while True:
        while len(pool) < POOL_CLIPS:
            pool.append(next(clips))
        at = int(random.integers(len(pool)))
        clip, left = pool[at]
        pool[at : at + 1] = [(clip, left - 1)] if left > 1 else []
        yield clip
