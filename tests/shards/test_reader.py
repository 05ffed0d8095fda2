from pathlib import Path

import pytest

from shards.reader import Extent, ShardError, extents, iterate, read_extent, read_member, read_sample, walk
from shards.sample import Sample
from shards.writer import ShardWriter, write_tar
from tests.shards.conftest import Make


@pytest.fixture
def samples(make_sample: Make) -> list[Sample]:
    return [make_sample("one"), make_sample("two", frames=3), make_sample("three", frames=4)]


@pytest.fixture
def tar(tmp_path: Path, samples: list[Sample]) -> Path:
    write_tar(tmp_path / "a.tar", samples)
    return tmp_path / "a.tar"


def test_all_samples_come_back_in_order(tar: Path, samples: list[Sample]) -> None:
    assert list(iterate(tar)) == samples


def test_one_sample_comes_back_by_its_place(tar: Path, samples: list[Sample]) -> None:
    places = list(extents(tar))
    assert [read_extent(tar, place) for place in reversed(places)] == samples[::-1]


def test_one_member_comes_back_by_its_row(tmp_path: Path, samples: list[Sample]) -> None:
    with ShardWriter(tmp_path / "a.tar") as writer:
        writer.write(samples[0])
        offset, size = writer.write(samples[1])["whisper.npy"]
    row = {"shard": "a.tar", "key": "two", "whisper_npy_offset": offset, "whisper_npy_size": size}
    assert read_member(tmp_path, row, "whisper.npy") == samples[1].members["whisper.npy"]


def test_a_tar_of_nothing_has_no_samples(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [])
    assert list(iterate(tmp_path / "a.tar")) == []


@pytest.mark.parametrize("left", [0, 100, 512, 3000])
def test_a_cut_off_tar_is_an_error_that_names_it(tar: Path, left: int) -> None:
    tar.write_bytes(tar.read_bytes()[:left])
    with pytest.raises(ShardError, match=r"a\.tar: .*cut off|a\.tar: one: .* expected"):
        list(iterate(tar))


def test_a_damaged_header_is_an_error_with_its_place(tar: Path) -> None:
    second = list(walk(tar))[1]
    data = bytearray(tar.read_bytes())
    data[second.offset - 512 + 130] ^= 1
    tar.write_bytes(data)
    with pytest.raises(ShardError, match=f"byte {second.offset - 512}: damaged"):
        list(walk(tar))


def test_another_sample_at_the_place_is_an_error(tar: Path) -> None:
    _, two, _ = extents(tar)
    with pytest.raises(ShardError, match="one does not lie at byte"):
        read_extent(tar, Extent("one", two.offset, two.bytes))


def test_a_key_that_comes_twice_is_an_error(tmp_path: Path, samples: list[Sample]) -> None:
    write_tar(tmp_path / "a.tar", [samples[0], samples[1], samples[0]])
    with pytest.raises(ShardError, match="one comes twice"):
        list(extents(tmp_path / "a.tar"))


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"b\.tar: missing"):
        read_sample(tmp_path, {"shard": "b.tar", "key": "one", "offset": 0, "bytes": 512, "sha256": ""})
