import gc
import hashlib
import pickle
import random
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from webdataset.compat import WebDataset

from shards.index import read_index
from shards.packer import Need, PackError, ShardJob, pack, pack_order, retire, write_shard
from shards.reader import ShardError, iterate, read_member, read_sample, walk
from shards.sample import MEMBERS, Sample, encode_json, problems, sample_sha256
from shards.writer import write_tar
from storage.atomic_write import TEMPORARY_PREFIX
from tests.shards.conftest import Make

MakePart = Callable[[str, int], dict[str, Path]]
SMALL = 40_000  # a few samples per shard


@pytest.fixture
def clips(make_part: MakePart) -> dict[str, Path]:
    return make_part("anna", 7) | make_part("berta", 6) | make_part("cleo", 5)


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_every_clip_lies_in_one_shard_with_the_members_of_a_sample_only(tmp_path: Path, clips: dict[str, Path]) -> None:
    index = pack(clips, tmp_path / "shards", shard_bytes=SMALL)
    assert sorted(index["key"]) == sorted(clips)
    assert len(set(index["shard"])) > 2
    for row in index.to_dict("records"):
        sample = read_sample(tmp_path / "shards", row)
        assert sorted(sample.members) == sorted(MEMBERS)
        assert problems(sample) == []
        assert sample_sha256(sample.members) == row["sha256"]
        assert {name: read_member(tmp_path / "shards", row, name) for name in MEMBERS} == sample.members


def test_index_comes_back_with_its_dtypes(tmp_path: Path, clips: dict[str, Path]) -> None:
    index = pack(clips, tmp_path / "shards", shard_bytes=SMALL)
    plain = pd.read_parquet(tmp_path / "shards" / "index.parquet")
    pd.testing.assert_frame_equal(plain, index)
    assert index["frames"].dtype == "int64"
    assert index["flac_offset"].dtype == "Int64"
    assert index["key"].dtype == "str"


def test_order_of_the_parts_given_does_not_matter(tmp_path: Path, clips: dict[str, Path]) -> None:
    pack(clips, tmp_path / "a", shard_bytes=SMALL)
    shuffled = random.Random(1).sample(sorted(clips.items()), len(clips))
    pack(dict(shuffled), tmp_path / "b", shard_bytes=SMALL)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_another_seed_is_another_order(tmp_path: Path, clips: dict[str, Path]) -> None:
    assert list(pack(clips, tmp_path / "a", seed=1)["key"]) == pack_order(clips, 1) != pack_order(clips, 0)


def test_neighbours_come_from_different_sources_more_often_than_in_the_parts() -> None:
    keys = [f"{source:03d}-{i}" for source in range(50) for i in range(20)]
    order = pack_order(keys, 0)
    same = sum(a[:3] == b[:3] for a, b in zip(order, order[1:], strict=False))
    assert same < len(keys) * 0.04  # 1 in 50 by chance


def test_shards_are_no_larger_than_asked_unless_one_sample_is(tmp_path: Path, clips: dict[str, Path]) -> None:
    index = pack(clips, tmp_path / "a", shard_bytes=SMALL)
    assert all(sum(index["bytes"][index["shard"] == shard]) <= SMALL for shard in set(index["shard"]))
    alone = pack(clips, tmp_path / "b", shard_bytes=1)
    assert alone["shard"].is_unique


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_plain_webdataset_reads_the_shards(tmp_path: Path, clips: dict[str, Path]) -> None:
    index = pack(clips, tmp_path / "shards", shard_bytes=SMALL)
    paths = [str(tmp_path / "shards" / name) for name in sorted(index["shard"].unique())]
    samples = list(WebDataset(paths, shardshuffle=False))
    gc.collect()  # webdataset 1.0.2 leaves files to the collector
    assert [sample["__key__"] for sample in samples] == list(index["key"])
    for sample, row in zip(samples, index.to_dict("records"), strict=True):
        assert {name for name in sample if not name.startswith("__")} == set(MEMBERS)
        assert sample["flac"] == read_member(tmp_path / "shards", row, "flac")


def test_new_sources_go_to_further_shards_and_sealed_ones_stay(
    tmp_path: Path, clips: dict[str, Path], make_part: MakePart
) -> None:
    pack(clips, tmp_path / "shards", shard_bytes=SMALL)
    before = contents(tmp_path / "shards")
    first = clips["anna-0"]
    first.unlink()  # the parts of what is packed are not needed any more
    index = pack(clips | make_part("dora", 4), tmp_path / "shards", shard_bytes=SMALL)
    after = contents(tmp_path / "shards")
    del before["index.parquet"]
    assert {name: after[name] for name in before} == before
    new = index[~index["shard"].isin(list(before))]
    assert sorted(new["key"]) == [f"dora-{i}" for i in range(4)]
    assert list(new["shard"])[0] == f"shard-{len(before):06d}.tar"


def test_packing_again_changes_nothing(tmp_path: Path, clips: dict[str, Path]) -> None:
    first = pack(clips, tmp_path / "shards", shard_bytes=SMALL)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "shards").iterdir()}
    pd.testing.assert_frame_equal(pack(clips, tmp_path / "shards", shard_bytes=SMALL), first)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "shards").iterdir()} == times


@pytest.mark.parametrize("stop_after", [0, 1, 2])
def test_an_interrupted_packing_ends_with_the_same_bytes(
    tmp_path: Path, clips: dict[str, Path], stop_after: int
) -> None:
    pack(clips, tmp_path / "whole", shard_bytes=SMALL)
    written: list[str] = []

    def stop(jobs: Iterable[ShardJob]) -> Iterator[list[dict[str, Any]]]:
        for job in jobs:
            if len(written) == stop_after:
                raise KeyboardInterrupt
            written.append(job.path.name)
            yield write_shard(job)

    with pytest.raises(KeyboardInterrupt):
        pack(clips, tmp_path / "broken", shard_bytes=SMALL, do=stop)
    assert not (tmp_path / "broken" / "index.parquet").exists()
    (tmp_path / "broken" / ".tmp-shard-000001.tar-00ff").write_bytes(b"left by a kill")
    (tmp_path / "broken" / "shard-000031.tar").write_bytes(b"left by a run with more clips")
    (tmp_path / "broken" / "mine.tar").write_bytes(b"somebody's own")
    again: list[str] = []

    def watch(jobs: Iterable[ShardJob]) -> Iterator[list[dict[str, Any]]]:
        yield from (again.append(job.path.name) or write_shard(job) for job in jobs)

    pack(clips, tmp_path / "broken", shard_bytes=SMALL, do=watch)
    (tmp_path / "broken" / "mine.tar").unlink()
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")
    assert not set(again) & set(written)  # what was written is not written again
    assert len(written) == stop_after < len(written + again)


def test_shards_written_in_any_order_have_the_same_bytes(tmp_path: Path, clips: dict[str, Path]) -> None:
    def backwards(jobs: Iterable[ShardJob]) -> Iterator[list[dict[str, Any]]]:
        yield from (write_shard(pickle.loads(pickle.dumps(job))) for job in reversed(list(jobs)))

    pack(clips, tmp_path / "a", shard_bytes=SMALL)
    pack(clips, tmp_path / "b", shard_bytes=SMALL, do=backwards)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_writer_that_died_leaves_nothing_when_another_has_written_its_shard(
    tmp_path: Path, clips: dict[str, Path]
) -> None:
    def die_once(jobs: Iterable[ShardJob]) -> Iterator[list[dict[str, Any]]]:
        for job in jobs:
            (job.path.parent / f"{TEMPORARY_PREFIX}{job.path.name}-1a2b").write_bytes(b"half a shard")
            yield write_shard(job)

    pack(clips, tmp_path / "a", shard_bytes=SMALL)
    pack(clips, tmp_path / "b", shard_bytes=SMALL, do=die_once)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_notes_are_gone_after_a_packing_that_was_killed_behind_its_index(
    tmp_path: Path, clips: dict[str, Path]
) -> None:
    pack(clips, tmp_path / "shards")
    (tmp_path / "shards" / ".packed").mkdir()
    pack(clips, tmp_path / "shards")
    assert {path.suffix for path in (tmp_path / "shards").iterdir()} == {".tar", ".parquet"}


def test_a_shard_of_an_interrupted_packing_is_written_again_when_it_would_differ(
    tmp_path: Path, clips: dict[str, Path], make_part: MakePart
) -> None:
    def first_only(jobs: Iterable[ShardJob]) -> Iterator[list[dict[str, Any]]]:
        yield write_shard(next(iter(jobs)))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(clips, tmp_path / "broken", shard_bytes=SMALL, do=first_only)
    more = clips | make_part("dora", 4)
    pack(more, tmp_path / "whole", shard_bytes=SMALL)
    pack(more, tmp_path / "broken", shard_bytes=SMALL)
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")


def add_score(sample: Sample) -> Sample:
    fields = {**sample.json, "scores": {"lip_audio_confidence": np.float32(2.5)}}
    return Sample(sample.key, {**sample.members, "json": encode_json(fields)})


def test_edit_changes_what_is_packed(tmp_path: Path, clips: dict[str, Path]) -> None:
    index = pack(clips, tmp_path / "shards", edit=lambda _: add_score)
    (shard,) = index["shard"].unique()
    assert all(s.json["scores"] == {"lip_audio_confidence": 2.5} for s in iterate(tmp_path / "shards" / shard))


def test_a_broken_sample_stops_the_packing_and_is_named(tmp_path: Path, make_sample: Make) -> None:
    whole = make_sample("bad-1")
    write_tar(tmp_path / "bad.tar", [Sample("bad-1", {**whole.members, "flac": whole.members["flac"][:41]})])
    with pytest.raises(PackError, match=r"bad\.tar: bad-1: flac: not a FLAC file"):
        pack({"bad-1": tmp_path / "bad.tar"}, tmp_path / "shards")
    assert list((tmp_path / "shards").iterdir()) == []


def test_members_that_are_not_required_may_be_missing(tmp_path: Path, make_sample: Make) -> None:
    members = {k: v for k, v in make_sample("a-1").members.items() if k in ("mp4", "flac", "json")}
    write_tar(tmp_path / "a.tar", [Sample("a-1", members)])
    index = pack({"a-1": tmp_path / "a.tar"}, tmp_path / "shards", required=("mp4", "flac", "json"))
    assert pd.isna(index["whisper_npy_offset"].iloc[0])
    assert index["flac_size"].iloc[0] == len(members["flac"])


def test_a_clip_that_its_part_lacks_is_an_error_before_anything_is_written(
    tmp_path: Path, clips: dict[str, Path]
) -> None:
    with pytest.raises(PackError, match="has no clip anna-99"):
        pack(clips | {"anna-99": clips["anna-0"]}, tmp_path / "shards")
    assert list((tmp_path / "shards").iterdir()) == []


def test_sealed_shards_with_clips_that_are_not_kept_any_more_are_an_error(
    tmp_path: Path, clips: dict[str, Path]
) -> None:
    pack(clips, tmp_path / "shards")
    with pytest.raises(PackError, match="1 packed clips are not kept any more"):
        pack({key: part for key, part in clips.items() if key != "anna-0"}, tmp_path / "shards")


def test_clips_that_are_not_kept_any_more_leave_the_shards_and_nothing_else_does(
    tmp_path: Path, clips: dict[str, Path]
) -> None:
    shards = tmp_path / "shards"
    before = pack(clips, shards, shard_bytes=SMALL).set_index("key")
    gone = {"anna-0", *before.index[before["shard"] == before["shard"].iloc[-1]]}  # one of a shard, all of another
    kept = {key: part for key, part in clips.items() if key not in gone}
    untouched = contents(shards)
    stale = retire(shards, kept)
    assert set(stale["key"]) == gone
    after = pack(kept, shards, shard_bytes=SMALL).set_index("key")
    assert sorted(after.index) == sorted(kept)
    assert (after["sha256"] == before.loc[after.index, "sha256"]).all()
    for row in after.reset_index().to_dict("records"):
        assert sample_sha256(read_sample(shards, row).members) == row["sha256"]
    assert {path.name for path in shards.glob("*.tar")} == set(after["shard"])
    same = set(contents(shards)) & set(untouched) - {"index.parquet"}
    assert same and all(contents(shards)[name] == untouched[name] for name in same)
    assert not set(before.loc[list(gone), "shard"]) & set(after["shard"])
    assert not len(retire(shards, kept))


def flip_a_bit(tar: Path, key: str, member: str) -> None:
    place = next(entry for entry in walk(tar) if (entry.key, entry.member) == (key, member))
    data = bytearray(tar.read_bytes())
    data[place.offset + place.size // 2] ^= 4
    tar.write_bytes(data)


def hashes_of(clips: dict[str, Path]) -> dict[str, str]:
    return {each.key: sample_sha256(each.members) for part in set(clips.values()) for each in iterate(part)}


@pytest.mark.parametrize("member", MEMBERS)
def test_a_sample_that_was_damaged_since_it_was_written_is_not_packed(
    tmp_path: Path, clips: dict[str, Path], member: str
) -> None:
    sha256 = hashes_of(clips)
    pack({key: part for key, part in clips.items() if key != "berta-2"}, tmp_path / "shards", sha256=sha256)
    before = contents(tmp_path / "shards")
    flip_a_bit(clips["berta-2"], "berta-2", member)
    with pytest.raises(ShardError, match=r"berta\.tar: berta-2: damaged since it was written"):
        pack(clips, tmp_path / "shards", sha256=sha256)
    assert contents(tmp_path / "shards") == before


def test_damage_is_not_copied_out_of_a_shard_when_a_neighbour_is_retired(
    tmp_path: Path, clips: dict[str, Path]
) -> None:
    shards = tmp_path / "shards"
    index = pack(clips, shards)
    flip_a_bit(shards / index["shard"].iloc[0], "cleo-1", "flac")
    before = contents(shards)
    with pytest.raises(ShardError, match="cleo-1: damaged since it was written"):
        retire(shards, set(clips) - {"anna-0"})
    assert contents(shards) == before


def test_a_lost_shard_is_an_error(tmp_path: Path, clips: dict[str, Path]) -> None:
    pack(clips, tmp_path / "shards")
    (tmp_path / "shards" / "shard-000000.tar").unlink()
    with pytest.raises(PackError, match=r"shard-000000\.tar: named by index\.parquet and missing"):
        pack(clips, tmp_path / "shards")


def test_what_the_shards_will_take_is_told_before_anything_is_written(tmp_path: Path, clips: dict[str, Path]) -> None:
    told: list[tuple[Need, int]] = []

    def announce(need: Need) -> None:
        told.append((need, len(list((tmp_path / "shards").iterdir()))))

    pack(clips, tmp_path / "shards", announce=announce)
    pack(clips, tmp_path / "shards", announce=announce)
    (need, files), (nothing, _) = told
    assert (need.clips, files) == (len(clips), 0)
    assert need.free > 1e6
    taken = sum(path.stat().st_size for path in (tmp_path / "shards").iterdir())
    assert taken < need.bytes + 2 * 10_240 + 20_000  # the tar's last record, and what index.parquet takes for no rows
    assert need.bytes < taken * 1.2
    assert (nothing.clips, nothing.bytes) == (0, 0)


def test_too_little_disk_is_said_before_starting(
    tmp_path: Path, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))  # type: ignore[attr-defined]
    with pytest.raises(PackError, match="packing needs 0.00 GB"):
        pack(clips, tmp_path / "shards")
    assert list((tmp_path / "shards").iterdir()) == []


def test_no_clips_give_an_empty_index(tmp_path: Path) -> None:
    assert len(pack({}, tmp_path / "shards")) == 0
    assert len(read_index(tmp_path / "shards")) == 0
