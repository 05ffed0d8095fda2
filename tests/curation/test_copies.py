"""Files with the same bytes: one is curated, and another in its place when it fails or changes."""

import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pipelines
from curation.clip import Segment
from curation.intake import Intake
from curation.ledger import Ledger
from curation.outcome import StorageError
from curation.pool import Done
from curation.run import curate
from curation.schedule import Task
from curation.source import Identity, identify
from curation.source import curate as curate_source
from media.probe import Limits
from tests.videos import Pictures, Sound, tone, write_video

RECIPE: dict[str, Any] = {"profile": {"stages": []}, "hash": "aaa"}


class Here:
    """A pool in this process, without a stage; `before` is called before a source is curated."""

    def __init__(self, output: Path, before: Callable[[Path], object] = lambda _: None) -> None:
        self.output, self.before, self.curated, self.waiting = output, before, list[str](), deque[Task]()
        self.called: list[str] = []

    def map(self, tasks: Iterable[Task], *, begin: Any, **_: object) -> Iterator[Done]:
        self.waiting.extend(tasks)
        while self.waiting:
            task = self.waiting.popleft()
            begin(task)
            self.called.append(task.method)
            if task.method == "identify":
                yield Done(task.item, identify(task.item, Limits()))
            else:
                self.before(task.item.path)
                self.curated.append(task.item.path.name)
                yield Done(task.item, curate_source(task.item, (), self.output, Limits(), ""))

    def add_first(self, task: Task) -> None:
        self.waiting.appendleft(task)


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


def test_of_equal_files_the_first_by_name_is_curated_whichever_is_read_first(
    videos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Intake, "_place", lambda self, path: -ord(path.name[0]))
    assert run(videos, tmp_path / "out")[1] == {"a.mp4": "kept", "b.mp4": "duplicate", "c.mp4": "duplicate"}


def test_a_source_is_curated_before_the_next_is_read_unless_that_has_its_size(tmp_path: Path) -> None:
    """An interruption costs what was under way, not a second reading of every file."""
    videos = [write_video(tmp_path / f"{n}.mp4", Pictures(20 + n), [Sound(tone(1.2))]) for n in range(3)]
    ledger, pool = Ledger(tmp_path / "out", RECIPE), Here(tmp_path / "out")
    curate(videos, ledger, pool, pipelines.load("embedded"), None)  # type: ignore[arg-type]
    assert pool.called == ["identify", "curate"] * 3
    copies = [Path(shutil.copyfile(videos[0], tmp_path / name)) for name in ("c.mp4", "b.mp4")]
    ledger, pool = Ledger(tmp_path / "other", RECIPE), Here(tmp_path / "other")
    curate([videos[0], *copies], ledger, pool, pipelines.load("embedded"), None)  # type: ignore[arg-type]
    assert pool.called == ["identify", "identify", "identify", "curate"]


def test_many_files_that_are_gone_stop_the_run(tmp_path: Path) -> None:
    videos = [tmp_path / f"{n}.mp4" for n in range(40)]
    ledger, pool = Ledger(tmp_path / "out", RECIPE), Here(tmp_path / "out")
    with pytest.raises(StorageError, match="20 of 20 sources cannot be read"):
        curate(videos, ledger, pool, pipelines.load("embedded"), None)  # type: ignore[arg-type]
    assert len(pool.called) == 20
    curate(videos, ledger, pool, pipelines.load("embedded"), None, accept_unreadable=True)  # type: ignore[arg-type]
    assert len(ledger.done) == 40


def test_identities_of_copies_are_equal(videos: list[Path]) -> None:
    found: list[Identity] = [identify(path, Limits()) for path in videos]
    assert len({identity.source_id for identity in found}) == 1


def test_the_segments_of_a_source_reach_its_worker_and_copies_of_it_are_curated_once(
    videos: list[Path], tmp_path: Path
) -> None:
    ledger, pool = Ledger(tmp_path / "out", RECIPE), Here(tmp_path / "out")
    segments = {str(path): (Segment(5, 10), Segment(20, 25)) for path in videos}
    curate(videos, ledger, pool, pipelines.load("embedded"), None, segments=segments)  # type: ignore[arg-type]
    ledger.flush()
    rows = {curated.source["path"]: curated.clips for curated in ledger.read()}
    assert [(clip["start_frame"], clip["end_frame"], clip["reason"]) for clip in rows[str(videos[0])]] == [
        (0, 5, "outside_segments"),
        (5, 10, "kept"),
        (10, 20, "outside_segments"),
        (20, 25, "kept"),
        (25, 30, "outside_segments"),
    ]
    assert [len(rows[str(path)]) for path in videos[1:]] == [1, 1]
