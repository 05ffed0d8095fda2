from pathlib import Path
from typing import Any

import pytest

import curation.ledger
import pipelines
from curation.ledger import Ledger, LedgerError, changed_thresholds, code_sha256, differences, recipe_of, storable
from curation.lock import LockError
from curation.source import Curated, Identity, OutputError

RECIPE: dict[str, Any] = {"profile": {"stages": [{"filters/niqe": {"max_niqe": 9.0}}]}, "hash": "aaa"}


def finish(ledger: Ledger, path: Path, reason: str = "kept") -> Curated:
    """Adds a source that was just curated."""
    found = path.stat()
    identity = Identity(path, "ab" * 32, found.st_size, found.st_mtime_ns, None)
    clip = {"key": "k", "start_frame": 0, "end_frame": 50, "reason": reason, "niqe": 1 / 3, "blur": float("nan")}
    status = "kept" if reason == "kept" else "error" if reason.startswith("error:") else "dropped"
    curated = Curated({"path": str(path), "status": status, "reason": reason}, [clip], {"k": "0" * 64})
    ledger.add(identity, curated)
    return curated


def failed_row(path: Path) -> Curated:
    return Curated({"path": str(path), "status": "error", "reason": "error:io"}, [], {})


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "anna.mp4"
    path.write_bytes(b"film")
    return path


def test_what_was_flushed_is_there_again_exactly(tmp_path: Path, video: Path) -> None:
    ledger = Ledger(tmp_path / "out", RECIPE)
    curated = finish(ledger, video)
    ledger.flush()
    again = Ledger(tmp_path / "out", RECIPE)
    assert again.is_finished(video)
    (found,) = again.read_in_order()
    assert (found.source, found.sampled) == (curated.source, curated.sampled)
    assert repr(sorted(found.clips[0].items())) == repr(sorted(curated.clips[0].items()))
    entry = again.done[str(video)]
    assert (entry.bytes, entry.source_id, entry.status, entry.reason) == (4, "ab" * 32, "kept", "kept")


def test_what_was_not_flushed_is_done_again(tmp_path: Path, video: Path) -> None:
    ledger = Ledger(tmp_path / "out", RECIPE)
    finish(ledger, video)
    assert ledger.is_finished(video)
    assert not Ledger(tmp_path / "out", RECIPE).is_finished(video)


def test_a_changed_file_is_curated_again_and_the_later_rows_count(tmp_path: Path, video: Path) -> None:
    ledger = Ledger(tmp_path / "out", RECIPE)
    finish(ledger, video, "short")
    ledger.flush()
    video.write_bytes(b"longer film")
    again = Ledger(tmp_path / "out", RECIPE)
    assert not again.is_finished(video)
    finish(again, video, "kept")
    again.flush()
    last = Ledger(tmp_path / "out", RECIPE)
    assert last.is_finished(video)
    assert [curated.source["reason"] for curated in last.read_in_order()] == ["kept"]


def test_a_file_of_equal_size_and_another_time_has_changed(tmp_path: Path, video: Path) -> None:
    import os

    ledger = Ledger(tmp_path / "out", RECIPE)
    finish(ledger, video)
    os.utime(video, ns=(0, 12345))
    assert not ledger.is_finished(video)


def test_a_finished_file_that_is_gone_stays_finished_and_a_missing_one_that_comes_is_curated(
    tmp_path: Path, video: Path
) -> None:
    ledger = Ledger(tmp_path / "out", RECIPE)
    finish(ledger, video)
    gone = tmp_path / "berta.mp4"
    ledger.add(Identity(gone, None, None, None, None, "error:io", "gone"), failed_row(gone))
    ledger.flush()
    again = Ledger(tmp_path / "out", RECIPE)
    assert again.is_finished(gone)
    video.rename(gone)
    assert again.is_finished(video)
    assert not again.is_finished(gone)


def test_segments_never_change_and_never_overwrite_one_another(tmp_path: Path) -> None:
    contents: dict[str, bytes] = {}
    for i in range(3):
        ledger = Ledger(tmp_path / "out", RECIPE)
        path = tmp_path / f"{i}.mp4"
        path.touch()
        finish(ledger, path)
        ledger.flush()
        ledger.flush()
        found = {file.name: file.read_bytes() for file in sorted(ledger.folder.iterdir())}
        assert contents.items() <= found.items()
        contents = found
    assert list(contents) == ["000000.parquet", "000001.parquet", "000002.parquet"]
    (tmp_path / "out/ledger/000001.parquet").unlink()
    assert Ledger(tmp_path / "out", RECIPE).next_segment == 3


def test_many_sources_are_flushed_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curation.ledger, "SEGMENT_SOURCES", 2)
    ledger = Ledger(tmp_path / "out", RECIPE)
    for i in range(5):
        path = tmp_path / f"{i}.mp4"
        path.touch()
        finish(ledger, path)
    assert len(Ledger(tmp_path / "out", RECIPE).done) == 4


def test_what_a_killed_writer_left_is_swept_away(tmp_path: Path) -> None:
    from storage.atomic_write import TEMPORARY_PREFIX

    ledger = Ledger(tmp_path / "out", RECIPE)
    (ledger.folder / f"{TEMPORARY_PREFIX}000000.parquet-1234").write_bytes(b"half")
    Ledger(tmp_path / "out", RECIPE)
    assert list(ledger.folder.iterdir()) == []


def test_names_that_are_not_utf8_are_kept_apart(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "out", RECIPE)
    paths = [tmp_path / "\udce9.mp4", tmp_path / "\udce8.mp4"]
    for path in paths:
        path.touch()
        finish(ledger, path)
    ledger.flush()
    again = Ledger(tmp_path / "out", RECIPE)
    assert [again.is_finished(path) for path in paths] == [True, True] and len(again.done) == 2


def test_another_recipe_is_refused_with_what_differs(tmp_path: Path) -> None:
    Ledger(tmp_path, RECIPE)
    other = {"profile": {"stages": [{"filters/niqe": {"max_niqe": 7.5}}]}, "hash": "bbb"}
    with pytest.raises(LedgerError) as caught:
        Ledger(tmp_path, other)
    text = str(caught.value)
    assert "profile.stages.0.filters/niqe.max_niqe: 9.0 -> 7.5" in text
    assert "hash:" not in text and "another --output" in text
    assert Ledger(tmp_path, RECIPE).done == {}


def test_thresholds_alone_need_no_new_curation_and_the_message_says_what_to_type(tmp_path: Path) -> None:
    Ledger(tmp_path / "the output", RECIPE)
    other = {"profile": {"stages": [{"filters/niqe": {"max_niqe": 0.00003}}]}, "hash": "bbb"}
    with pytest.raises(LedgerError) as caught:
        Ledger(tmp_path / "the output", other)
    command = "python -m curation.refilter '{0}' --set filters/niqe.max_niqe=3.0e-05 --to '{0}-refiltered'"
    assert command.format(tmp_path / "the output") in str(caught.value)


def test_a_setting_that_measures_or_anything_else_needs_one() -> None:
    def recipe(code: str = "c", stages: int = 2, **settings: Any) -> dict[str, Any]:
        given = [{"filters/niqe": {"frames": 5, "max_niqe": 9.0, **settings}}, {"steps/windows": {"max_s": 20.0}}]
        return {"profile": {"stages": given[:stages]}, "code": code, "hash": str((code, stages, settings))}

    assert changed_thresholds(recipe(), recipe(max_niqe=8.0)) == ["filters/niqe.max_niqe=8.0"]
    for other in (recipe(), recipe(frames=3), recipe(max_niqe=8.0, frames=3), recipe("d", max_niqe=8.0)):
        assert changed_thresholds(recipe(), other) == []
    assert changed_thresholds(recipe(), recipe(stages=1, max_niqe=8.0)) == []
    longer = recipe(max_niqe=8.0)
    longer["profile"]["stages"][1]["steps/windows"]["max_s"] = 10.0  # a step's settings cut the clips themselves
    assert changed_thresholds(recipe(), longer) == []


def test_differences_name_what_came_and_what_went() -> None:
    assert list(differences({"a": 1, "b": [1, 2]}, {"b": [1, 3], "c": {"d": 4}})) == [
        "a: 1 -> None",
        "b.1: 2 -> 3",
        "c: None -> {'d': 4}",
    ]
    assert list(differences({"a": [1]}, {"a": [1]})) == []


def test_a_recipe_hash_follows_settings_scoring_and_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curation.ledger.weights, "sha256_of", lambda name: name * 2)
    plain, changed = pipelines.load("embedded"), pipelines.load("embedded", ["filters/niqe.max_niqe=7.5"])
    hashes = [recipe_of(plain, False)["hash"], recipe_of(changed, False)["hash"], recipe_of(plain, True)["hash"]]
    assert recipe_of(plain, False)["hash"] == hashes[0]
    monkeypatch.setattr(curation.ledger, "code_sha256", lambda: "other code")
    hashes.append(recipe_of(plain, False)["hash"])
    assert len(set(hashes)) == 4


def test_the_code_hash_sees_every_room_that_makes_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deciding = ("clock.py", *(f"{room}/a.py" for room in ("curation", "media", "models", "shards", "storage")))
    others = ("training/a.py", "curation/review/a.py", "curation/verify/a.py", "curation/refilter.py")
    for name in (*deciding, *others):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    monkeypatch.setattr(pipelines, "ROOT", tmp_path)
    before = code_sha256()
    for name in others:
        (tmp_path / name).write_text("2")
    assert code_sha256() == before
    for name in deciding:
        (tmp_path / name).write_text("2")
        assert code_sha256() != before
        before = code_sha256()


def test_what_was_under_way_when_a_run_died_is_known(tmp_path: Path, video: Path) -> None:
    other = tmp_path / "berta \udce9.mp4"
    other.touch()
    ledger = Ledger(tmp_path / "out", RECIPE)
    for path in (video, other):
        ledger.begin(Identity(path, "ab" * 32, 4, 0, None))
    finish(ledger, video)
    ledger.flush()
    with ledger.attempts.open("a") as file:
        file.write('"torn')
    assert Ledger(tmp_path / "out", RECIPE).interrupted == {storable(other)}


@pytest.mark.parametrize(("retry", "finished"), [(None, True), ("", False), ("timeout", False), ("memory", True)])
def test_a_failed_source_is_opened_again_only_if_asked(tmp_path: Path, video: Path, retry: str, finished: bool) -> None:
    ledger = Ledger(tmp_path / "out", RECIPE)
    finish(ledger, video, "error:timeout")
    assert ledger.is_finished(video, retry) == finished


def test_what_was_dropped_is_not_opened_again(tmp_path: Path, video: Path) -> None:
    ledger = Ledger(tmp_path / "out", RECIPE)
    finish(ledger, video, "face_size")
    assert ledger.is_finished(video, "")


def test_a_fork_goes_on_with_another_recipe_and_remembers_the_old(tmp_path: Path, video: Path) -> None:
    finish(ledger := Ledger(tmp_path / "out", RECIPE), video)
    ledger.flush()
    other = {**RECIPE, "hash": "bbb"}
    assert Ledger(tmp_path / "out", other, fork=True).is_finished(video)
    assert Ledger(tmp_path / "out", other).is_finished(video)
    assert (tmp_path / "out" / "recipe-aaa.yaml").exists()


def test_a_disk_that_cannot_be_written_is_not_the_source_s_fault(tmp_path: Path, video: Path) -> None:
    ledger = Ledger(tmp_path / "out", RECIPE)
    finish(ledger, video)
    ledger.folder.rename(tmp_path / "gone")
    with pytest.raises(OutputError, match="ledger: cannot be written"):
        ledger.flush()


@pytest.mark.parametrize("text", ["", "[]", "hash: 5", "a: ["])
def test_a_recipe_that_is_none_is_refused_with_a_message(tmp_path: Path, text: str) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(LedgerError, match="recipe.yaml"):
        Ledger(tmp_path, RECIPE)


def test_nothing_is_committed_once_the_guard_refuses(tmp_path: Path) -> None:
    def refuse() -> None:
        raise LockError("taken over")

    ledger = Ledger(tmp_path, RECIPE, guard=refuse)
    path = tmp_path / "a.mp4"
    path.touch()
    with pytest.raises(LockError):
        ledger.begin(Identity(path, "ab" * 32, 0, 0, None))
    ledger.add(Identity(path, None, 0, 0, None), failed_row(path))
    with pytest.raises(LockError):
        ledger.flush()
    assert not list((tmp_path / "ledger").glob("*.parquet"))
