import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from shards.index import read_index
from shards.member import OpenSample, read_rows
from shards.packer import pack
from shards.reader import ShardError, read_member
from shards.sample import encode_npy


@pytest.fixture
def shards(tmp_path: Path, make_part: Callable[[str, int], dict[str, Path]]) -> Path:
    pack(make_part("anna", 3), tmp_path / "shards")
    return tmp_path / "shards"


def test_a_member_reads_like_a_file_of_its_own(shards: Path):
    for _, row in read_index(shards).iterrows():
        whole = read_member(shards, row, "mp4")
        with OpenSample(shards, row) as sample:
            file = sample.member("mp4")
            assert file.read() == whole
            assert file.read() == b""
            assert (file.seek(10), file.read(5)) == (10, whole[10:15])
            assert (file.seek(-4, 2), file.read(100)) == (len(whole) - 4, whole[-4:])
            assert (file.seek(-2, 1), file.tell()) == (len(whole) - 2, len(whole) - 2)
            assert sample.member("json").read() == read_member(shards, row, "json")


def test_rows_of_an_array_are_those_of_the_array(shards: Path):
    row = read_index(shards).iloc[0]
    whole = np.load(io.BytesIO(read_member(shards, row, "whisper.npy")))
    with OpenSample(shards, row) as sample:
        for first, last in [(0, 2), (3, 5), (-4, 3), (len(whole) - 1, len(whole) + 9), (50, 60), (-9, -2)]:
            rows, count = read_rows(sample.member("whisper.npy"), first, last)
            assert np.array_equal(rows, whole[max(first, 0) : max(last, 0)])
            assert (count, rows.dtype) == (len(whole), whole.dtype)


def test_rows_read_nothing_else():
    class Counted(io.BytesIO):
        wanted = 0

        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            self.wanted += len(data)
            return data

    file = Counted(encode_npy(np.zeros((1000, 4), np.float16)))
    read_rows(file, 500, 510)
    assert file.wanted == 128 + 10 * 8


@pytest.mark.parametrize("data", [b"", b"junk" * 50, encode_npy(np.zeros(())), encode_npy(np.zeros((2, 2)))[:150]])
def test_what_is_no_array_is_an_error(data: bytes):
    with pytest.raises(ShardError):
        rows, _ = read_rows(io.BytesIO(data), 0, 2)
        assert len(rows) == 2


def test_a_missing_member_is_named(shards: Path):
    row = read_index(shards).iloc[0].copy()
    row["flac_offset"] = pd.NA
    with OpenSample(shards, row) as sample, pytest.raises(ShardError, match="anna-.: has no member flac"):
        sample.member("flac")


def test_a_missing_or_cut_off_tar_is_named(shards: Path):
    index = read_index(shards)
    path, last = shards / index["shard"][0], index.iloc[-1]
    with path.open("r+b") as file:
        file.truncate(int(last["mp4_offset"]) + 10)
    with OpenSample(shards, last) as sample, pytest.raises(ShardError, match=r"anna-.\.mp4: \d+ bytes expected"):
        sample.member("mp4").read()
    path.unlink()
    with pytest.raises(ShardError, match=r"shard-000000\.tar: No such file.*curate again"):
        OpenSample(shards, last)
