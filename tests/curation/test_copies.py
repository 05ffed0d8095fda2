"""Files with the same bytes: one is curated, and another in its place when it fails or changes."""

import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pipelines
from curation.ledger import Ledger
from curation.pool import Done
from curation.run import curate
from curation.source import Identity, identify
from curation.source import curate as curate_source
from media.probe import Limits
from tests.videos import Pictures, Sound, tone, write_video

RECIPE: dict[str, Any] = {"profile": {"stages": []}, "hash": "aaa"}


class Here:
    """A pool in this process, without a stage; `before` is called before a source is curated."""

    def __init__(self, output: Path, before: Callable[[Path], object] = lambda _: None) -> None:
        self.output, self.before, self.curated = output, before, list[str]()

    def map(self, method: str, items: Iterable[Any], *, begin: Any = None, **_: object) -> Iterator[Done]:
        for item in items:
            if method == "identify":
                yield Done(item, identify(item, Limits()))
            else:
                begin(item)
                self.before(item.path)
                self.curated.append(item.path.name)
                yield Done(item, curate_source(item, (), self.output, Limits(), ""))


@pytest.fixture
def videos(tmp_path: Path) -> list[Path]:
    first = write_video(tmp_path / "a.mp4", Pictures(30), [Sound(tone(1.2), codec="aac")])
    return [first, *(Path(shutil.copyfile(first, tmp_path / name)) for name in ("b.mp4", "c.mp4"))]


def run(videos: list[Path], output: Path, before: Callable[[Path], object] = lambda _: None) -> tuple[list[str], dict]:
    """The names of the sources that were curated, and name -> status in the ledger."""
    ledger, pool = Ledger(output, RECIPE), Here(output, before)
    curate(videos, ledger, pool, pipelines.load("embedded"), None)  # type: ignore[arg-type]
    ledger.flush()
    return pool.curated, {Path(path).name: entry.reason for path, entry in ledger.done.items()}


def test_of_equal_files_one_is_curated(videos: list[Path], tmp_path: Path) -> None:
    assert run(videos, tmp_path / "out") == (["a.mp4"], {"a.mp4": "kept", "b.mp4": "duplicate", "c.mp4": "duplicate"})
    assert run(videos, tmp_path / "out")[0] == []


def test_a_copy_is_curated_where_its_original_changed_on_the_way(videos: list[Path], tmp_path: Path) -> None:
    def spoil(path: Path) -> None:
        if path.name == "a.mp4":
            path.write_bytes(b"other")

    curated, reasons = run(videos, tmp_path / "out", spoil)
    assert curated == ["a.mp4", "b.mp4"]
    assert reasons == {"a.mp4": "error:changed", "b.mp4": "kept", "c.mp4": "duplicate"}


def test_a_copy_is_curated_where_its_original_was_replaced_since(videos: list[Path], tmp_path: Path) -> None:
    run(videos, tmp_path / "out")
    write_video(videos[0], Pictures(40), [Sound(tone(1.6), codec="aac")])
    curated, reasons = run(videos, tmp_path / "out")
    assert sorted(curated) == ["a.mp4", "b.mp4"]
    assert reasons == {"a.mp4": "kept", "b.mp4": "kept", "c.mp4": "duplicate"}
    assert run(videos, tmp_path / "out")[0] == []


def test_identities_of_copies_are_equal(videos: list[Path]) -> None:
    found: list[Identity] = [identify(path, Limits()) for path in videos]
    assert len({identity.source_id for identity in found}) == 1
