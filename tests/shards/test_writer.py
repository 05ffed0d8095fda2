import hashlib
import tarfile
from pathlib import Path

import pytest

from shards.sample import Sample
from shards.writer import ShardWriter, write_tar
from tests.shards.conftest import Make


def test_equal_samples_give_equal_bytes(tmp_path: Path, make_sample: Make) -> None:
    samples = [make_sample("one"), make_sample("two", frames=3)]
    backwards = [Sample(s.key, dict(reversed(s.members.items()))) for s in samples]
    write_tar(tmp_path / "a.tar", samples)
    write_tar(tmp_path / "b.tar", backwards)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_headers_hold_no_time_no_owner_and_no_pax_record(tmp_path: Path, make_sample: Make) -> None:
    write_tar(tmp_path / "a.tar", [make_sample("one")])
    with tarfile.open(tmp_path / "a.tar") as tar:
        members = tar.getmembers()
    assert [m.name for m in members] == [
        "one.boxes.npy", "one.flac", "one.json", "one.landmarks.npy", "one.mp4", "one.whisper.npy",
    ]  # fmt: skip
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(0, 0, 0, "", "", 0o644)}
    assert not any(m.pax_headers for m in members)
    assert members[0].offset_data == tarfile.BLOCKSIZE


def test_the_bytes_are_those_of_webdatasets_writer(tmp_path: Path, make_sample: Make) -> None:
    from webdataset.writer import TarWriter

    samples = [make_sample("one"), make_sample("two", frames=3)]
    write_tar(tmp_path / "a.tar", samples)
    with (
        (tmp_path / "b.tar").open("wb") as file,
        TarWriter(file, user="", group="", mode=0o644, encoder=False, mtime=0) as writer,
    ):
        for sample in samples:
            writer.write({"__key__": sample.key, **sample.members})
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_places_are_where_the_bytes_lie(tmp_path: Path, make_sample: Make) -> None:
    sample = make_sample("one")
    with ShardWriter(tmp_path / "a.tar") as writer:
        writer.write(make_sample("zero", frames=3))
        places = writer.write(sample)
    data = (tmp_path / "a.tar").read_bytes()
    assert {name: data[offset : offset + size] for name, (offset, size) in places.items()} == sample.members


def test_nothing_appears_before_the_end_or_after_an_error(tmp_path: Path, make_sample: Make) -> None:
    with pytest.raises(RuntimeError, match="stop"), ShardWriter(tmp_path / "a.tar") as writer:
        writer.write(make_sample("one"))
        assert not (tmp_path / "a.tar").exists()
        raise RuntimeError("stop")
    assert list(tmp_path.iterdir()) == []


def test_an_older_file_stays_whole_when_its_replacement_fails(tmp_path: Path, make_sample: Make) -> None:
    write_tar(tmp_path / "a.tar", [make_sample("one")])
    before = hashlib.sha256((tmp_path / "a.tar").read_bytes()).digest()
    with pytest.raises(ValueError, match=r"key 'a\.b'"):
        write_tar(tmp_path / "a.tar", [make_sample("two"), make_sample("a.b")])
    assert hashlib.sha256((tmp_path / "a.tar").read_bytes()).digest() == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_raises_and_leaves_nothing(
    tmp_path: Path, make_sample: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_open = Path.open
    monkeypatch.setattr(Path, "open", lambda path, mode: really_open(Path("/dev/full"), mode.replace("x", "w")))
    with pytest.raises(OSError, match="No space left"):
        write_tar(tmp_path / "a.tar", [make_sample("one")])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("member", ["", "_hidden", "a/b", "ümlaut", "x" * 33])
def test_member_names_that_webdataset_would_drop_or_split_are_refused(tmp_path: Path, member: str) -> None:
    with pytest.raises(ValueError, match="member"):
        write_tar(tmp_path / "a.tar", [Sample("one", {member: b""})])
