"""Several curated outputs as one: windows come from each in a given proportion, however large it is.

    --data OUT1 OUT2=0.5        two windows of OUT1 for each of OUT2; a weight that is not said is 1

Every BLOCK samples of training hold the same number of windows of each output, mixed at random; within an output the
windows come in its own order, epoch after epoch. So which window a sample is follows from its number and the seed: the
same for any number of ranks and workers, and a resumed run goes on where it was.
"""

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch

from command import option_of
from models.mask import MaskSettings
from shards.index import read_index
from shards.remote import bring_index, folder_name
from storage.store import RemoteFile, is_url, parse_place
from training.batch import Batch
from training.data import (
    DataError,
    Dataset,
    Indexed,
    check_data,
    held_out_sources,
    indexed_shards,
    open_data,
    open_indexed,
)
from training.order import Place, check_batches
from training.settings import DataSettings

BLOCK = 4096  # samples; shares are rounded to one of them
SEEDS_APART = 1_000_003  # of the outputs, whose windows would otherwise have the same noise

Weighted = tuple[Path, float]  # an output and its weight
Given = tuple[Path | RemoteFile, float]  # the same as it is given: in a folder or in a store


class Mixture(torch.utils.data.Dataset[Batch]):
    """The windows of several datasets. A place is (sample, part, how many windows of that part came before)."""

    def __init__(self, parts: Sequence[Indexed], weights: Sequence[float]) -> None:
        self.parts, self.weights, self.counts = list(parts), list(weights), counts_in_block(weights)
        self.settings, self.layers, self.dim = parts[0].settings, parts[0].layers, parts[0].dim

    def __len__(self) -> int:
        """Windows in an epoch of each part, all together."""
        return sum(len(part) for part in self.parts)

    def validation(self) -> Dataset | None:
        return mix([part.validation() for part in self.parts], self.weights)

    def of_length(self, frames: int) -> Dataset:
        found = [part.of_length(frames) for part in self.parts]
        return mix([part if len(part) else None for part in found], self.weights) or found[0]

    def reader(
        self, micro_batch: int, global_batch: int, rank: int, world: int, start_sample: int
    ) -> tuple["Mixture", Iterator[list[Place]]]:
        check_batches(micro_batch, global_batch, world)
        return self, (
            [self.place(n) for n in range(first, first + micro_batch * world, world)]
            for first in count(start_sample + rank, micro_batch * world)
        )

    def place(self, sample: int) -> Place:
        """Return where a sample of training comes from; needs nothing of the samples before it."""
        block, i = divmod(sample, BLOCK)
        parts, earlier = mix_block(self.counts, self.settings.seed, block)
        part = int(parts[i])
        return sample, part, block * self.counts[part] + int(earlier[i])

    def __getitem__(self, places: Sequence[Place]) -> Batch:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The windows at some places. Raises DataError if many in a row of one part cannot be read."""
        arrays, keys = self.parts[0].empty(len(places)), []
        quarantined: list[tuple[str, str]] = []
        for b, (sample, k, number) in enumerate(places):
            part = self.parts[k]
            arrays["sample"][b] = sample
            keys.append(part.fill_window(arrays, b, *divmod(number, len(part)), quarantined))
        return Batch.of(arrays, keys, quarantined)

    def describe(self) -> str:
        """A line for each part: its share, and its windows."""
        return "\n".join(
            f"{part.shards}: {number / BLOCK:.2%} of the windows of training; it has {len(part)}"
            for part, number in zip(self.parts, self.counts, strict=True)
        )


def mix(parts: Sequence[Indexed | None], weights: Sequence[float]) -> Dataset | None:
    """Return the parts that are there as one dataset; None if there is none."""
    found = [(part, weight) for part, weight in zip(parts, weights, strict=True) if part is not None]
    if len(found) < 2:
        return found[0][0] if found else None
    return Mixture(*zip(*found, strict=True))


def parts_of(data: Dataset) -> list[Indexed]:
    """Return the datasets that read shards by their index: the parts of a mixture, or the one itself."""
    return data.parts if isinstance(data, Mixture) else [data] if isinstance(data, Indexed) else []


def counts_in_block(weights: Sequence[float]) -> tuple[int, ...]:
    """Return how many of BLOCK samples each part has; they sum to BLOCK. Raises ValueError where that is none."""
    shares = BLOCK * np.array(weights) / sum(weights)
    counts = np.floor(shares).astype(int)
    counts[np.argsort(counts - shares, kind="stable")[: BLOCK - counts.sum()]] += 1
    if not counts.all():
        raise ValueError(f"--data: of the weights {', '.join(map(str, weights))} one is below 1/{BLOCK} of their sum")
    return tuple(counts.tolist())


@lru_cache(maxsize=4)
def mix_block(counts: tuple[int, ...], seed: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the part of each sample of a block, and how many of the same part come before it there: [BLOCK] both."""
    parts = np.random.default_rng((seed, block, 1)).permutation(np.repeat(np.arange(len(counts)), counts))
    earlier = np.empty(BLOCK, np.int64)
    for part, number in enumerate(counts):
        earlier[parts == part] = np.arange(number)
    return parts, earlier


place_of = option_of(parse_place)


def parse_data(text: str) -> Given:
    """Return the folder, or the prefix in a store, and the weight of an argument: FOLDER, or FOLDER=WEIGHT."""
    folder, _, number = text.rpartition("=")
    if not folder or (not is_url(text) and Path(text).exists()):
        return place_of(text), 1.0
    try:
        weight = float(number)
    except ValueError:
        return place_of(text), 1.0
    if not (math.isfinite(weight) and weight > 0):
        raise argparse.ArgumentTypeError(f"{text}: the weight {number} is not above 0")
    return place_of(folder), weight


def bring_indexes(given: Sequence[Given], run: Path, cache: Path | None, cache_gb: float) -> list[Weighted]:
    """Return the folders of some outputs; one that stands for an output in a store lies in RUN/data.

    Raises ShardError or StoreError.
    """
    return [
        (bring_index(place.url, run / "data" / folder_name(place.url), cache, cache_gb), weight)
        if isinstance(place, RemoteFile)
        else (place, weight)
        for place, weight in given
    ]


def open_mixture(given: Sequence[Weighted], settings: DataSettings, mask: MaskSettings) -> Dataset:
    """The dataset of one output, or of several with weights. Raises ValueError as `open_data` does.

    What is held out is chosen among the sources of all: a source of two outputs is trained on in neither.
    """
    if len(given) == 1:
        return open_data(given[0][0], settings, mask)
    check_data(settings)
    if settings.mode != "index":
        raise DataError(f"data.mode {settings.mode} reads one --data only; several need --set data.mode=index")
    if len({folder.resolve() for folder, _ in given}) < len(given):
        raise DataError("--data: a folder is given twice; a larger weight (FOLDER=2) draws more windows from it")
    shards = [indexed_shards(folder) for folder, _ in given]
    sources = [source for each in shards for source in read_index(each)["source_id"]]
    held_out = held_out_sources(sources, settings.validation_share)
    parts: list[Any] = [
        open_indexed(each, replace(settings, seed=settings.seed + SEEDS_APART * k), mask, held_out)
        for k, each in enumerate(shards)
    ]
    for part in parts[1:]:
        if (part.layers, part.dim) != (parts[0].layers, parts[0].dim):
            raise DataError(
                f"{parts[0].shards} has Whisper features of {parts[0].layers} layers x {parts[0].dim}, {part.shards} "
                f"of {part.layers} x {part.dim}; curate both with one Whisper"
            )
    return Mixture(parts, [weight for _, weight in given])
