"""Several outputs: each in its proportion, in its own order, whoever reads and wherever it begins."""

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from models.mask import MaskSettings
from tests.training.conftest import CLIPS
from tests.training.numbered import SIDE, number_of, write_shards
from tests.training.squares import write_squares
from tests.training.test_curated import write_recipe as write_curated
from training.batch import Batch
from training.curated import read_all_curated
from training.data import DataError, Dataset, held_out_sources, loader
from training.distributed import Ranks
from training.mixture import BLOCK, Mixture, counts_in_block, open_mixture, parse_data, parts_of
from training.recipe import check_recipe, decisive, write_recipe
from training.settings import DataSettings, load_settings

SETTINGS = DataSettings(size=SIDE, frames=4, workers=0)
OTHERS = [("fritz", 20), ("gina", 30), ("anna", 24)]  # `anna` is in both outputs


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("others"), OTHERS)


def opened(*given: tuple[Path, float], **settings: object) -> Dataset:
    return open_mixture(given, replace(SETTINGS, **settings), MaskSettings())  # pyright: ignore[reportArgumentType]


def read(data: Dataset, windows: int, micro_batch: int = 4, **how: int) -> list[Batch]:
    return list(islice(loader(data, micro_batch, **how), windows // micro_batch))


def content(batches: Sequence[Batch], but: str = "") -> list[tuple[bytes | str, ...]]:
    """Everything in some batches, one tuple a window, to compare."""
    return [
        (batch.keys[b], *(v[b].numpy().tobytes() for n, v in vars(batch).items() if n != but and torch.is_tensor(v)))
        for batch in batches
        for b in range(len(batch.keys))
    ]


def part_of(mixture: Dataset, sample: int) -> int:
    assert isinstance(mixture, Mixture)
    return mixture.place(sample)[1]


@pytest.mark.parametrize(
    ("weights", "counts"),
    [((1, 1), (2048, 2048)), ((1, 0.5), (2731, 1365)), ((3, 1, 4), (1536, 512, 2048)), ((1, 1, 1), (1366, 1365, 1365))],
)
def test_a_block_holds_each_output_in_its_proportion(weights: tuple[float, ...], counts: tuple[int, ...]):
    assert counts_in_block(weights) == counts and sum(counts) == BLOCK


def test_windows_come_in_the_given_proportion_mixed_and_none_is_left_out(shards: Path, others: Path):
    data = opened((shards, 1.0), (others, 0.5))
    for start in (0, BLOCK, 10 * BLOCK):
        places = [data.place(n) for n in range(start, start + BLOCK)]  # pyright: ignore
        by_part = [[number for _, part, number in places if part == k] for k in range(2)]
        assert [len(numbers) for numbers in by_part] == [2731, 1365]
        for numbers in by_part:
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), "in its own order"
            assert numbers[0] == start // BLOCK * len(numbers)
        parts = np.array([part for _, part, _ in places]).reshape(-1, 64).sum(axis=1)
        assert 8 < parts.min() < 21.3 < parts.max() < 36, "mixed: a third of every 64, more or less"
    assert [part_of(data, n) for n in range(64)] != [part_of(data, n) for n in range(BLOCK, BLOCK + 64)]


def test_the_windows_of_an_output_are_those_of_training_on_it_alone(shards: Path, others: Path):
    data = opened((shards, 1.0), (others, 1.0))
    mixed = content(read(data, 40), but="sample")
    for k, part in enumerate(parts_of(data)):
        own = [window for n, window in enumerate(mixed) if part_of(data, n) == k]
        assert len(own) > 10
        assert own == content(read(part, len(own), 1), but="sample")
    alone = content(read(opened((shards, 1.0)), 8, 1), but="sample")
    assert [window for n, window in enumerate(mixed) if part_of(data, n) == 0][:8] == alone


def test_ranks_and_resuming_change_nothing(shards: Path, others: Path):
    data = opened((shards, 1.0), (others, 0.5), flip=0.5)
    whole = content(read(data, 24))
    ranks = [content(read(data, 12, 2, rank=rank, world=2, global_batch=4)) for rank in range(2)]
    assert [window for pair in zip(*ranks, strict=True) for window in pair] == whole
    assert content(read(opened((shards, 1.0), (others, 0.5), flip=0.5), 12, 2, start_sample=12)) == whole[12:]
    with pytest.raises(ValueError, match="global batch of 6 is no multiple of 2 ranks x 2 clips"):
        read(data, 2, 2, world=2, global_batch=6)


def test_the_same_clips_in_two_outputs_have_other_noise(shards: Path, tmp_path: Path):
    data = opened((shards, 1.0), (shutil.copytree(shards, tmp_path / "copy"), 1.0))
    seeds = torch.cat([batch.noise_seed for batch in read(data, 40)])
    assert len(seeds.unique()) == 40


@pytest.mark.parametrize("share", [1e-9, 0.3])
def test_what_is_held_out_is_chosen_among_the_sources_of_all(shards: Path, others: Path, share: float):
    sources = {source for source, _ in [*CLIPS, *OTHERS]}
    held_out = held_out_sources(sources, share)
    data = opened((shards, 1.0), (others, 2.0), validation_share=share)
    validation = data.validation()
    assert validation is not None
    for each, allowed in ((data, sources - held_out), (validation, held_out)):
        for part in parts_of(each):
            clips = CLIPS if part.shards.parent == shards else OTHERS
            assert {clips[number_of(clip.key)][0] for clip in part.clips()} <= allowed
    assert content(read(validation, 4, 2)) == content(read(validation, 4, 2))


def test_longer_windows_come_from_the_outputs_that_have_them(shards: Path, others: Path):
    data = opened((shards, 1.0), (others, 1.0))
    assert len(parts_of(data.of_length(25))) == 2 and len(parts_of(data.of_length(40))) == 1
    assert len(data.of_length(1000)) == 0
    assert read(data.of_length(40), 2, 1)[0].video.shape[1] == 40


def test_what_cannot_be_mixed_is_refused(shards: Path, others: Path, tmp_path: Path):
    with pytest.raises(DataError, match="data.mode stream reads one --data only"):
        opened((shards, 1.0), (others, 1.0), mode="stream")
    with pytest.raises(DataError, match="given twice"):
        opened((shards, 1.0), (shards, 2.0))
    with pytest.raises(DataError, match=r"no index\.parquet"):
        opened((shards, 1.0), (tmp_path, 1.0))
    with pytest.raises(ValueError, match="below 1/4096"):
        opened((shards, 1.0), (others, 1e-5))


def test_outputs_of_two_whispers_are_refused(shards: Path, tmp_path: Path):
    write_squares(tmp_path, clips=2, frames=20)
    with pytest.raises(DataError, match="2 layers x 3, .* of 2 x 16; curate both with one Whisper"):
        opened((shards, 1.0), (tmp_path, 1.0))


@pytest.mark.parametrize(
    ("text", "folder", "weight"),
    [("out", "out", 1.0), ("out=0.5", "out", 0.5), ("a=b", "a=b", 1.0), ("a=b=2", "a=b", 2.0)],
)
def test_a_weight_stands_behind_the_folder(text: str, folder: str, weight: float):
    assert parse_data(text) == (Path(folder), weight)


def test_a_weight_that_is_none_is_refused_and_a_folder_of_that_name_taken(tmp_path: Path):
    for text in ("out=0", "out=-1", "out=nan", "out=inf"):
        with pytest.raises(argparse.ArgumentTypeError, match="not above 0"):
            parse_data(text)
    (tmp_path / "scale=0.5").mkdir()
    assert parse_data(str(tmp_path / "scale=0.5")) == (tmp_path / "scale=0.5", 1.0)


def test_outputs_whose_pictures_were_cut_differently_are_refused_with_both_values(tmp_path: Path):
    a, b = write_curated(tmp_path / "a", expansion=1.7), write_curated(tmp_path / "b", expansion=2.0)
    assert read_all_curated([a, write_curated(tmp_path / "c")], "embedded")["steps/crop"]["expansion"] == 1.7
    with pytest.raises(ValueError, match=r"a and .*b hold clips of two kinds: steps/crop.expansion: 1.7 -> 2.0"):
        read_all_curated([a, b], "embedded")


def test_a_run_goes_on_with_the_weights_that_it_was_begun_with(tmp_path: Path):
    settings = load_settings("sayanything")
    one, two, other = (decisive("sayanything", settings, {}, weights) for weights in ((2.0,), (1, 0.5), (1, 1)))
    assert "mixture" not in one
    write_recipe(tmp_path, two, Ranks(0, 1, torch.device("cpu")))
    check_recipe(tmp_path, two)
    for recipe, value in ((one, "None"), (other, r"\[1, 1\]")):
        with pytest.raises(ValueError, match=rf"mixture.weights: \[1, 0\.5\] -> {value}"):
            check_recipe(tmp_path, recipe)
