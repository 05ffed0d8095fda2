import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from models.mask import MaskSettings
from shards.index import INDEX_NAME, read_index
from shards.reader import ShardError
from tests.training.conftest import CLIPS
from tests.training.numbered import DIM, LAYERS, SIDE, damage, number_of, numbers_in
from training.batch import Batch
from training.data import DataError, held_out_sources, loader, open_data
from training.settings import DataSettings
from training.stream import Stream, mix_clips

SETTINGS = DataSettings(size=SIDE, workers=0, max_bad_share=1.0, mode="stream")
SOURCES = [source for source, _ in CLIPS]


def opened(shards: Path, **settings: object) -> Stream:
    data = open_data(shards, replace(SETTINGS, **settings), MaskSettings())  # pyright: ignore[reportArgumentType]
    assert isinstance(data, Stream)
    return data


def read(data: Stream, batches: int, micro_batch: int = 4, **how: int) -> list[Batch]:
    return list(islice(loader(data, micro_batch, **how), batches))


@pytest.fixture
def copy(shards: Path, tmp_path: Path) -> Path:
    return shutil.copytree(shards, tmp_path / "copy")


def test_a_stream_has_the_windows_of_the_index_mode(shards: Path):
    data, indexed = opened(shards), open_data(shards, replace(SETTINGS, mode="index"), MaskSettings())
    assert (len(data), data.layers, data.dim) == (len(indexed), LAYERS, DIM)
    seen = set()
    for batch in read(data, 20):
        for b, key in enumerate(batch.keys):
            clips, frames = zip(*numbers_in(batch.video[b].numpy()), strict=True)
            assert set(clips) == {number_of(key)}
            assert list(frames) == list(range(frames[0], frames[0] + 16))
            inside = batch.whisper[b, 4:-4, 0, 1].tolist()
            assert inside == list(range(2 * frames[0], 2 * frames[0] + 32))
            seen.add(key)
        assert [number for number, _ in numbers_in(batch.reference.numpy())] == [number_of(key) for key in batch.keys]
    assert len(seen) == 6, "all clips but the one that is too short"


def test_samples_are_counted_over_ranks_and_workers(shards: Path):
    numbers = [
        n
        for rank in range(2)
        for batch in read(opened(shards), 4, 2, rank=rank, world=2, workers=1, start_sample=100)
        for n in batch.sample.tolist()
    ]
    assert sorted(numbers) == list(range(100, 116))


def test_each_shard_has_one_reader_in_an_epoch(shards: Path):
    index = read_index(shards / "shards").set_index("key")
    readers = [opened(shards).reader(4, 8, rank, 2, 0)[0] for rank in range(2)]
    for epoch in range(3):
        keys = [[sample.key for sample in reader.epoch(epoch, k, 2, [])] for k, reader in enumerate(readers)]
        assert sorted([*keys[0], *keys[1]]) == sorted(index.index)
        assert set(index["shard"][keys[0]]).isdisjoint(index["shard"][keys[1]])
    assert len({tuple(sample.key for sample in readers[0].epoch(epoch, 0, 2, [])) for epoch in range(5)}) > 1


def test_a_clip_comes_as_often_as_it_should():
    clips = iter([("a", 3), ("b", 1), ("c", 2)] * 100)
    drawn = [str(clip) for clip in islice(mix_clips(clips, np.random.default_rng(0)), 360)]  # pyright: ignore
    assert drawn.count("a") == pytest.approx(180, abs=25)
    assert drawn.count("b") == pytest.approx(60, abs=20)


def test_a_folder_without_an_index_is_read_by_its_tars(copy: Path):
    (copy / "shards" / INDEX_NAME).unlink()
    data = opened(copy)
    assert (len(data), data.layers, data.dim) == (13, LAYERS, DIM)
    assert len({key for batch in read(data, 10) for key in batch.keys}) == 6
    with pytest.raises(DataError, match="validation_share needs an index"):
        opened(copy, validation_share=0.1)
    for tar in (copy / "shards").glob("*.tar"):
        tar.unlink()
    with pytest.raises(DataError, match=r"no tar with whisper\.npy"):
        opened(copy)


def test_a_cut_off_sample_is_refused_although_webdataset_gives_it(copy: Path):
    index = read_index(copy / "shards")
    row = index[index["key"] == "clip-004"].iloc[0]
    with (copy / "shards" / row["shard"]).open("r+b") as file:
        file.truncate(int(row["mp4_offset"]) - 512)  # webdataset takes what is left of it for a sample
    batches = read(opened(copy), 20)
    assert "clip-004" not in {key for batch in batches for key in batch.keys}
    reasons = {reason for batch in batches for key, reason in batch.quarantined if key == "clip-004"}
    assert len(reasons) == 1
    assert "has no member mp4" in reasons.pop()


def test_a_stream_without_a_readable_clip_ends(copy: Path):
    for key in read_index(copy / "shards")["key"]:
        damage(copy, key, 40, 20_000)  # leaves the header that is looked at first
    with pytest.raises(ShardError, match="33 windows of one batch cannot be read; the last, clip-"):
        read(opened(copy), 1)


def test_held_out_sources_are_passed_over(shards: Path):
    data = opened(shards, validation_share=0.3)
    held_out = held_out_sources(SOURCES, 0.3)
    assert held_out
    assert {SOURCES[number_of(key)] for batch in read(data, 20) for key in batch.keys} == {
        source for source, frames in CLIPS if frames >= 16
    } - held_out
    validation = data.validation()
    keys = {key for batch in islice(loader(validation, 1), 10) for key in batch.keys}
    assert {SOURCES[number_of(key)] for key in keys} <= held_out


def test_fewer_shards_than_readers_are_an_error(shards: Path):
    with pytest.raises(ShardError, match="shards for 64 readers; use fewer workers"):
        read(opened(shards), 1, 1, world=64)


def test_windows_of_another_length_come_from_clips_that_are_long_enough(shards: Path):
    data = opened(shards, seed=3)
    for batch in read(data.of_length(40), 4, 2):
        assert batch.video.shape[1] == 40
        assert all(CLIPS[number_of(key)][1] >= 40 for key in batch.keys)
    with pytest.raises(ShardError, match="found no clip"):
        read(data.of_length(1000), 1, 1)
