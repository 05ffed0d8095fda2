"""One driver at a time."""

import json
import os
import socket
import time
from pathlib import Path

import pytest

from curation.lock import STALE_S, Lock, LockError, process_space


def write(path: Path, age_s: float = 0.0, **owner: object) -> None:
    (path / "LOCK").write_text(
        json.dumps({"host": socket.gethostname(), "pid": os.getppid(), "began": "then", **owner})
    )
    now = time.time() - age_s
    os.utime(path / "LOCK", (now, now))


def test_a_second_driver_is_refused_and_told_who_works(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(LockError, match=f"process {os.getppid()} on {socket.gethostname()}"), Lock(tmp_path):
        pass
    assert (tmp_path / "LOCK").exists()


def test_the_lock_is_gone_when_its_driver_is(tmp_path: Path) -> None:
    with Lock(tmp_path):
        assert (tmp_path / "LOCK").exists()
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_dead_process_of_this_boot_and_container_is_taken_over_at_once(tmp_path: Path) -> None:
    write(tmp_path, pid=2**22 - 1, space=process_space())
    with Lock(tmp_path):
        assert json.loads((tmp_path / "LOCK").read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("owner", [{"space": "another container"}, {}, {"pid": 1, "host": "elsewhere"}, {"pid": "no"}])
@pytest.mark.parametrize(("age_s", "taken"), [(STALE_S - 10, False), (STALE_S + 10, True)])
def test_a_lock_lives_by_its_heartbeat(tmp_path: Path, age_s: float, taken: bool, owner: dict[str, object]) -> None:
    """Also one with this host's name and a process id that is not there: of another container."""
    write(tmp_path, age_s, **{"pid": 2**22 - 1, **owner})
    if taken:
        with Lock(tmp_path):
            pass
    else:
        with pytest.raises(LockError), Lock(tmp_path):
            pass


def test_a_running_process_with_the_id_of_a_dead_driver_does_not_keep_the_lock(tmp_path: Path) -> None:
    write(tmp_path, STALE_S + 10, pid=os.getppid(), space=process_space())
    with Lock(tmp_path):
        pass


def make_old(path: Path) -> None:
    """Set a lock's last sign of life to before the moment from which it counts as left behind."""
    then = time.time() - STALE_S - 10
    os.utime(path, (then, then))


@pytest.mark.parametrize("content", [b"{", b"", b"[]", b"5", b"\xff\xfe", b'{"pid": null}'])
def test_a_torn_lock_is_waited_for_until_it_is_old(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "LOCK"
    path.write_bytes(content)
    with pytest.raises(LockError), Lock(tmp_path):
        pass
    make_old(path)
    with Lock(tmp_path):
        pass


def test_a_folder_in_place_of_the_lock_is_a_message(tmp_path: Path) -> None:
    (tmp_path / "LOCK").mkdir()
    with pytest.raises(LockError, match="cannot be read"), Lock(tmp_path):
        pass


def test_a_driver_whose_lock_was_taken_over_is_told_before_it_commits(tmp_path: Path) -> None:
    with Lock(tmp_path) as first:
        first.check()
        make_old(first.path)
        with Lock(tmp_path) as second:
            with pytest.raises(LockError, match="another driver took this output over"):
                first.check()
            first.__exit__()
            second.check()
    with pytest.raises(LockError), Lock(tmp_path) as lock:
        lock.path.unlink()
        lock.check()


def test_the_heart_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curation.lock.BEAT_S", 0.01)
    with Lock(tmp_path) as lock:
        os.utime(lock.path, (0, 0))
        deadline = time.monotonic() + 5
        while lock.path.stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert lock.path.stat().st_mtime > 0
