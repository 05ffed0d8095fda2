"""Objects of a store are curated as local files are: the same rows and bytes, and nothing left on the node."""

import fcntl
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from curation import objects, source
from curation.clip import Clip
from curation.ledger_files import part_path
from curation.source import Curated
from curation.stage import Step
from curation.steps.crop import Crop
from curation.videos import VideoListError, list_videos, state_of
from media.probe import Limits
from shards.reader import iterate
from storage.scratch import Scratch
from storage.store import RemoteFile, parse_place, stat
from tests.clips import track_of
from tests.stores import Store
from tests.videos import Pictures, Sound, numbered, tone, write_video

LIMITS = Limits()
KEY, URL = "raw/deep/anna.mp4", "s3://videos/raw/deep/anna.mp4"


@dataclass(frozen=True)
class Gaze(Step):
    def __call__(self, clip: Clip) -> Iterable[Clip]:
        yield replace(clip, track=track_of(np.ones(len(clip), bool), side=30.0, x=10.0))


@dataclass(frozen=True)
class Fail(Step):
    def __call__(self, clip: Clip) -> Iterable[Clip]:
        raise RuntimeError(f"this network does not like {clip.source.path}")


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pictures = Pictures(60, draw=lambda i: numbered(i, 64, 64))
    return write_video(tmp_path_factory.mktemp("raw") / "anna.mp4", pictures, [Sound(tone(2.4), codec="aac")])


@pytest.fixture
def scratch(tmp_path: Path) -> Iterable[Scratch]:
    found = Scratch(tmp_path / "scratch")
    yield found
    found.close()


@pytest.fixture(autouse=True)
def put(store: Store, video: Path) -> None:
    store.put(KEY, video.read_bytes())


def work(file: RemoteFile, output: Path, scratch: Scratch, *stages: Step) -> Curated:
    run = partial(source.curate, stages=stages, output=output, limits=LIMITS, recipe="r")
    return objects.curate(objects.identify(file, LIMITS, scratch), run, scratch)


def files_in(scratch: Scratch) -> list[str]:
    return [path.name for path in scratch.root.rglob("*") if path.is_file() and not path.name.endswith("lock")]


def test_an_object_gives_what_its_file_gives_but_for_the_path(store, video, tmp_path, scratch) -> None:
    store.proxy.drop = 3
    stages = (Gaze(), Crop(size=64))
    here = source.curate(source.identify(video, LIMITS), stages, tmp_path / "here", LIMITS, "r")
    there = work(RemoteFile(URL), tmp_path / "there", scratch, *stages)
    assert there.source["path"] == there.clips[0]["source"] == URL
    timeless = {"path", *(name for name in here.source if name.startswith("cpu_s_"))}
    assert {n: v for n, v in there.source.items() if n not in timeless} == {
        n: v for n, v in here.source.items() if n not in timeless
    }
    assert [{**clip, "source": ""} for clip in there.clips] == [{**clip, "source": ""} for clip in here.clips]
    parts = [part_path(tmp_path / name, here.source["source_id"]) for name in ("here", "there")]
    assert parts[0].read_bytes() == parts[1].read_bytes()
    assert next(iterate(parts[1])).json["source"] == "anna.mp4"
    assert files_in(scratch) == []


def test_an_object_is_copied_once_for_both_of_its_tasks(store, tmp_path, scratch, monkeypatch) -> None:
    copies: list[str] = []
    download = objects.Scratch.copy.__globals__["download"]
    monkeypatch.setattr("storage.scratch.download", lambda file, path: copies.append(file.url) or download(file, path))
    identity = objects.identify(stat(URL), LIMITS, scratch)
    assert files_in(scratch) == ["anna.mp4"]
    objects.curate(identity, lambda each: source.failed(each, "no", ""), scratch)
    assert copies == [URL] and files_in(scratch) == []


def test_identity_has_hash_size_and_version_by_which_a_changed_object_is_seen(store, video, scratch) -> None:
    listed = stat(URL)
    identity = objects.identify(listed, LIMITS, scratch)
    assert identity.source_id == source.sha256(video) and identity.probe is not None
    assert (identity.bytes, identity.mtime_ns) == state_of(listed)[:2]  # pyright: ignore[reportOptionalSubscript]
    store.put(KEY, video.read_bytes()[:-1] + b"x")
    assert identity.mtime_ns != state_of(stat(URL))[1]  # pyright: ignore[reportOptionalSubscript]


def test_an_object_that_changes_before_it_is_curated_is_a_row(store, video, tmp_path, scratch) -> None:
    identity = objects.identify(stat(URL), LIMITS, scratch)
    store.put(KEY, video.read_bytes() + b"more")
    row = objects.curate(identity, lambda _: pytest.fail("curated other bytes"), scratch).source
    assert (row["reason"], row["path"]) == ("error:changed", URL)
    assert files_in(scratch) == []


def test_an_object_that_changes_while_it_is_copied_is_a_row(store, video, scratch, monkeypatch) -> None:
    download = objects.Scratch.copy.__globals__["download"]

    def change(file: RemoteFile, path: Path) -> str:
        sha256 = download(file, path)
        store.put(KEY, video.read_bytes() + b"more")
        return sha256

    monkeypatch.setattr("storage.scratch.download", change)
    assert objects.identify(stat(URL), LIMITS, scratch).reason == "error:changed"


@pytest.mark.parametrize("kind", ["gone", "forbidden", "unreachable"])
def test_an_object_that_cannot_be_read_is_a_row_with_the_reason(store, tmp_path, scratch, kind, monkeypatch) -> None:
    monkeypatch.setattr("storage.store.WAITS_S", (0.1,))
    listed = stat(URL)
    if kind == "gone":
        store.remove(KEY)
    elif kind == "forbidden":
        store.proxy.forbidden.add(KEY)
    else:
        store.proxy.drop = 1
    identity = objects.identify(listed, LIMITS, scratch)
    assert (identity.reason, identity.source_id, identity.bytes) == ("error:io", None, listed.size)
    assert {"gone": "not there", "forbidden": "forbidden", "unreachable": "2 times"}[kind] in identity.detail
    assert files_in(scratch) == []


def test_empty_large_and_broken_objects_are_rows_that_name_the_url(store, scratch) -> None:
    store.put("raw/empty.mp4", b"")
    store.put("raw/broken.mp4", b"no video at all" * 9)
    found = objects.identify(RemoteFile("s3://videos/raw/empty.mp4"), LIMITS, scratch)
    assert (found.reason, found.detail) == ("error:probe", "s3://videos/raw/empty.mp4: empty file")
    found = objects.identify(RemoteFile(URL), replace(LIMITS, max_bytes=100), scratch)
    assert found.reason == "error:limits" and scratch.folder is None
    found = objects.identify(RemoteFile("s3://videos/raw/broken.mp4"), LIMITS, scratch)
    assert found.reason == "error:probe" and found.source_id
    assert found.detail.startswith("s3://videos/raw/broken.mp4: ") and str(scratch.root) not in found.detail
    assert files_in(scratch) == []


def test_a_stage_that_raises_leaves_no_copy_and_names_the_url(store, tmp_path, scratch) -> None:
    found = work(RemoteFile(URL), tmp_path, scratch, Fail())
    assert found.source["reason"] == "error:exception"
    assert URL in found.source["detail"] and str(scratch.root) not in json.dumps([found.source, found.clips])
    assert files_in(scratch) == []


def test_what_ends_a_worker_in_the_middle_leaves_no_copy(store, scratch) -> None:
    identity = objects.identify(RemoteFile(URL), LIMITS, scratch)
    with pytest.raises(KeyboardInterrupt):
        objects.curate(identity, lambda _: (_ for _ in ()).throw(KeyboardInterrupt), scratch)
    assert files_in(scratch) == []


def test_a_disk_without_room_is_a_row_that_says_what_to_do(store, scratch, monkeypatch) -> None:
    monkeypatch.setattr("storage.scratch.SPARE_BYTES", 10**18)
    found = objects.identify(RemoteFile(URL), LIMITS, scratch)
    assert found.reason == "error:io" and "give --scratch a folder on a larger disk" in found.detail


def test_the_copies_of_dead_processes_are_removed_and_those_of_living_ones_stay(store, scratch) -> None:
    for name in ("dead", "alive"):
        (scratch.root / name).mkdir(parents=True)
        (scratch.root / name / "lock").touch()
        (scratch.root / name / "video.mp4").write_bytes(b"1")
    with (scratch.root / "alive" / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        scratch.copy(URL)
        assert sorted(files_in(scratch)) == ["anna.mp4", "video.mp4"]
        assert not (scratch.root / "dead").exists()


def test_prefixes_lists_and_objects_give_the_videos_of_a_run(store, tmp_path, video) -> None:
    for key in ("raw/b.MOV", "raw/.hidden.mp4", "raw/.git/c.mp4", "raw/notes.pdf"):
        store.put(key, b"1")
    for key in ("raw/empty.mp4", "raw/broken.mp4"):
        store.remove(key)
    videos, ignored = list_videos([parse_place("s3://videos/raw/"), video])
    assert list(map(str, videos)) == [str(video), "s3://videos/raw/b.MOV", URL]
    assert ignored == {".pdf": 1}
    assert state_of(videos[2]).bytes == video.stat().st_size  # pyright: ignore[reportOptionalMemberAccess]
    (tmp_path / "list.csv").write_text(f"path\n{URL}\ns3://videos/gone.mp4\n{video}\n")
    listed, _ = list_videos([tmp_path / "list.csv"])
    assert list(map(str, listed)) == [str(video), "s3://videos/gone.mp4", URL]
    assert [state_of(each) is None for each in listed] == [False, True, False]
    store.put("raw/list.txt", f"deep/anna.mp4\n{URL}\n".encode())
    assert list(map(str, list_videos([parse_place("s3://videos/raw/list.txt")])[0])) == [URL]


@pytest.mark.parametrize("url", ["s3://nobody-has-this/raw", "s3://videos/nothing-below"])
def test_a_bucket_or_a_prefix_that_is_not_there_is_refused_at_once(store, url: str) -> None:
    with pytest.raises(VideoListError, match=f"{url}: not there"):
        list_videos([parse_place(url)])
