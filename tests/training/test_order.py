import time
from collections import Counter
from itertools import islice

import numpy as np
import pytest

from training.order import SampleOrder, micro_batches

SHARDS = np.repeat(np.arange(10), 7)
REPEATS = np.tile([1, 2, 3, 0, 1, 5, 2], 10)


def taken(world: int, micro_batch: int, samples: int, start: int = 0, windows: int = 50) -> list[tuple[int, int, int]]:
    """The places that all ranks take, in the order of the global batches of 8."""
    ranks = [micro_batches(windows, micro_batch, 8, rank, world, start) for rank in range(world)]
    rounds = [[next(rank) for rank in ranks] for _ in range(samples // (world * micro_batch))]
    return [place for each in rounds for places in zip(*each, strict=True) for place in places]


def test_order_is_a_function_of_seed_and_epoch():
    one, same, other = (SampleOrder(SHARDS, REPEATS, seed) for seed in (3, 3, 4))
    same.rows(5)  # what was asked before does not matter
    assert np.array_equal(one.rows(2), same.rows(2))
    assert not np.array_equal(one.rows(2), one.rows(3))
    assert not np.array_equal(one.rows(2), other.rows(2))


def test_an_epoch_has_each_clip_as_often_as_it_should():
    order = SampleOrder(SHARDS, REPEATS, seed=0)
    assert Counter(order.rows(1).tolist()) == {row: n for row, n in enumerate(REPEATS.tolist()) if n}
    assert len(order) == REPEATS.sum() == len(order.rows(1))


def test_an_epoch_reads_one_block_of_shards_after_the_other():
    order = SampleOrder(SHARDS, REPEATS, seed=0, block_shards=3)
    seen = [frozenset(SHARDS[part]) for part in np.split(order.rows(0), np.cumsum([3 * 14] * 3))]
    assert [len(block) for block in seen] == [3, 3, 3, 1]
    assert len(frozenset().union(*seen)) == 10
    first = [SampleOrder(SHARDS, REPEATS, 0, 3).rows(epoch)[:42] for epoch in range(4)]
    assert len({frozenset(SHARDS[rows]) for rows in first}) > 1, "blocks are drawn anew in each epoch"


def test_windows_of_a_clip_are_spread_over_its_block():
    order = SampleOrder(np.zeros(50, int), np.full(50, 20), seed=0)
    assert (np.diff(order.rows(0)) == 0).mean() < 0.05


def test_random_numbers_belong_to_one_place():
    order = SampleOrder(SHARDS, REPEATS, seed=0)
    draws = {order.random(*place).random() for place in [(0, 1, 0), (1, 0, 0), (0, 0, 1), (0, 1, 1), (1, 1, 1)]}
    assert len(draws) == 5
    assert order.random(0, 1).random() == order.random(0, 1, attempt=0).random()


@pytest.mark.parametrize(("world", "micro_batch"), [(1, 8), (1, 2), (2, 4), (2, 1), (4, 2), (8, 1)])
def test_global_batches_are_the_same_for_any_ranks_and_accumulation(world: int, micro_batch: int):
    places = taken(world, micro_batch, 96)
    assert places == [(n, n // 48, n % 48) for n in range(96)], "epochs of 50 windows are cut to 48"


def test_a_resumed_order_goes_on_where_it_stopped():
    assert taken(2, 2, 96, start=0)[40:] == taken(4, 2, 56, start=40)


def test_numbers_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="global batch of 6 is no multiple of 2 ranks x 2 clips"):
        micro_batches(50, 2, 6, 0, 2, 0)
    with pytest.raises(ValueError, match="7 windows of training data do not fill one global batch of 8"):
        micro_batches(7, 8, 8, 0, 1, 0)


def test_three_million_windows_are_ordered_in_seconds():
    order = SampleOrder(np.arange(100_000) // 125, np.full(100_000, 30), seed=0)
    began = time.process_time()
    assert len(order.rows(0)) == 3_000_000
    assert time.process_time() - began < 5
    assert next(islice(micro_batches(len(order), 16, 16, 0, 1, 2_999_984), 1))[0] == (2_999_984, 0, 2_999_984)
