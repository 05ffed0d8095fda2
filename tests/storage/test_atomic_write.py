"""Files and folders appear complete or not at all."""

import resource
from pathlib import Path

import pytest

from storage.atomic_write import TEMPORARY_PREFIX, atomic_folder, atomic_write, remove_leftovers


def test_a_file_has_its_name_when_it_is_complete_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with atomic_write(path) as file:
        file.write(b"one")
        assert not path.exists()
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_raises_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"before")
    with pytest.raises(RuntimeError), atomic_write(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_raises_on_a_full_disk_raises_that_and_not_what_closing_says(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(KeyError), atomic_write(tmp_path / "a.txt") as file:
            file.write(b"x" * 2000)  # waits in the buffer
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
            raise KeyError
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_has_its_name_when_it_is_complete(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "out") as folder:
        (folder / "a").write_bytes(b"1")
        assert not (tmp_path / "out").exists()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a"]
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "other"):
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / f"{TEMPORARY_PREFIX}a.txt-12").write_bytes(b"")
    (tmp_path / f"{TEMPORARY_PREFIX}folder").mkdir()
    (tmp_path / f"{TEMPORARY_PREFIX}folder/b.txt").write_bytes(b"")
    (tmp_path / "a.txt").write_bytes(b"")
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
