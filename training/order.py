"""Which sample comes when: a pure function of (seed, epoch), whatever the number of ranks and workers.

Shards are permuted and cut into blocks, and windows are permuted inside a block: an epoch reads one block of shards
after the other, so that a disk cache or a network file system sees a few files at a time. A clip comes as often as
`repeats` says, each time with other random numbers.
"""

from collections.abc import Iterator
from itertools import count

import numpy as np

BLOCK_SHARDS = 16  # of 500 MB: some 2000 clips of 10 s, 50,000 windows, among which an epoch mixes

Place = tuple[int, int, int]  # sample (count since the start of training), epoch, i (window of the epoch)


class SampleOrder:
    """The rows of an index in the order of training."""

    def __init__(self, shards: np.ndarray, repeats: np.ndarray, seed: int, block_shards: int = BLOCK_SHARDS) -> None:
        """`shards` and `repeats` are [N] int: the number of each row's shard, and how often it comes in an epoch."""
        self.shards, self.repeats, self.seed, self.block_shards = shards, repeats, seed, block_shards
        self._rows: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        """Windows in an epoch."""
        return int(self.repeats.sum())

    def rows(self, epoch: int) -> np.ndarray:
        """The row of every window of an epoch: [len(self)] int32."""
        if epoch not in self._rows:
            self._rows = {e: rows for e, rows in self._rows.items() if abs(e - epoch) == 1}  # what is read ahead
            self._rows[epoch] = self._permute(epoch)
        return self._rows[epoch]

    def random(self, epoch: int, i: int, attempt: int = 0) -> np.random.Generator:
        """Random numbers for window i of an epoch, and for nothing else."""
        return np.random.default_rng((self.seed, epoch, i, attempt))

    def _permute(self, epoch: int) -> np.ndarray:
        random = np.random.default_rng((self.seed, epoch))
        shards = int(self.shards.max()) + 1
        block = (random.permutation(shards) // self.block_shards)[self.shards]
        by_block = np.argsort(block, kind="stable")
        cuts = np.flatnonzero(np.diff(block[by_block])) + 1
        windows = [np.repeat(rows, self.repeats[rows]) for rows in np.split(by_block.astype(np.int32), cuts)]
        return np.concatenate([random.permutation(each) for each in windows])


def check_batches(micro_batch: int, global_batch: int, world: int) -> None:
    """Raise ValueError if a global batch is not made of whole micro-batches of every rank."""
    if global_batch % (micro_batch * world):
        raise ValueError(f"a global batch of {global_batch} is no multiple of {world} ranks x {micro_batch} clips")


def micro_batches(
    windows: int, micro_batch: int, global_batch: int, rank: int, world: int, start_sample: int
) -> Iterator[list[Place]]:
    """The places of one rank's micro-batches, without end: rank r of R takes every R-th sample.

    An epoch has `windows`, cut to whole global batches. Raises ValueError if the numbers do not fit together.
    """
    check_batches(micro_batch, global_batch, world)
    length = windows // global_batch * global_batch
    if not length:
        raise ValueError(f"{windows} windows of training data do not fill one global batch of {global_batch}")
    return (
        [(n, *divmod(n, length)) for n in range(first, first + micro_batch * world, world)]
        for first in count(start_sample + rank, micro_batch * world)
    )
