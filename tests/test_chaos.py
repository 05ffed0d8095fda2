"""Nothing lost, nothing doubled: a real run on a real Ray is killed at many moments, and ends with the same bytes."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from curation.verify.command import verify
from manifests.reader import read_clips, read_sources
from shards.index import read_index
from tests import chaos
from tests.chaos import HANG_S, complete, drawn, result, start, wait_for
from tests.videos import Pictures, Sound, tone, write_video

pytestmark = pytest.mark.slow  # runs on a real Ray that are killed

ROUNDS = 4  # of 4 kills; benchmarks/chaos.py goes on


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chaos.build_house(tmp_path_factory.mktemp("house"))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chaos.build_videos(tmp_path_factory.mktemp("videos"))


@pytest.fixture(scope="module")
def whole(house: Path, videos: Path, tmp_path_factory: pytest.TempPathFactory) -> chaos.Whole:
    output = tmp_path_factory.mktemp("undisturbed")
    run = chaos.undisturbed_run(house, videos, output)
    clips = read_clips(output)
    assert clips.kept.sum() > 8
    assert len(list((output / "shards").glob("*.tar"))) > 2
    return run


@pytest.fixture
def no_orphans() -> Iterator[None]:
    """What a killed driver leaves behind must not outlive the test."""
    yield
    chaos.sweep()


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_a_run_killed_at_any_moment_ends_with_the_same_bytes(round_, house, videos, whole, tmp_path, no_orphans):
    story = list(chaos.kill_round(house, videos, tmp_path, round_, whole))
    assert not any(kill.wrong for kill in story), story
    wrong = chaos.damage(house, videos, tmp_path, whole)
    assert not wrong, (story, wrong)


def test_sources_that_kill_hang_eat_or_raise_are_quarantined_and_their_neighbours_kept(house, videos, tmp_path):
    poisoned = tmp_path / "videos"
    shutil.copytree(videos, poisoned)
    for i, name in enumerate(("aborts", "hangs", "eats", "raises")):  # of different bytes, or they were duplicates
        write_video(poisoned / f"{name}.mp4", Pictures(51 + i, draw=drawn), [Sound(tone(3))])
    complete(house, poisoned, tmp_path / "out")
    sources = read_sources(tmp_path / "out").set_index("path")
    sources.index = [Path(path).stem for path in sources.index]
    assert sources.loc[["aborts", "hangs", "eats", "raises"], "reason"].tolist() == [
        "error:worker_crash",
        "error:timeout",
        "error:memory",
        "error:exception",
    ]
    assert "poison.py" in sources.loc["aborts", "detail"]  # the stack of the dead worker
    assert "1.5 GB" in sources.loc["eats", "detail"]
    assert "no such luck" in sources.loc["raises", "detail"]
    assert (sources.drop(["aborts", "hangs", "eats", "raises"]).status == "kept").all()

    (poisoned / "aborts.mp4").rename(poisoned / "healed.mp4")
    shutil.copy(poisoned / "healed.mp4", poisoned / "aborts.mp4")
    told = complete(house, poisoned, tmp_path / "out", "--retry", "failed:exception")
    assert "raises.mp4: error:exception" in told
    assert "hangs.mp4" not in told


def test_without_its_parts_an_output_is_whole_and_takes_new_sources(house, videos, tmp_path):
    some = tmp_path / "videos"
    shutil.copytree(videos, some)
    last = (some / "7.mp4").rename(tmp_path / "7.mp4")
    told = complete(house, some, tmp_path / "out", "--drop-parts")
    assert "7 parts removed" in told
    assert not list((tmp_path / "out").glob("parts/*/*"))
    sealed = result(tmp_path / "out")
    last.rename(some / "7.mp4")
    complete(house, some, tmp_path / "out", "--drop-parts")
    assert verify(tmp_path / "out") == []
    found = result(tmp_path / "out")
    assert all(found[name] == content for name, content in sealed.items() if name.endswith(".tar"))
    assert sorted(read_index(tmp_path / "out/shards")["key"]) == sorted(read_clips(tmp_path / "out").query("kept").key)


def test_a_source_whose_part_is_gone_is_curated_again(house, videos, whole, tmp_path):
    complete(house, videos, tmp_path)
    shutil.rmtree(tmp_path / "shards")
    gone = sorted(tmp_path.glob("parts/*/*.tar"))[:2]
    for part in gone:
        part.unlink()
    told = complete(house, videos, tmp_path)
    assert "2 sources whose samples are gone" in told
    assert result(tmp_path) == whole.result
    assert verify(tmp_path) == []


def test_ctrl_c_and_sigterm_stop_within_half_a_minute(house, videos, whole, tmp_path):
    for number in (signal.SIGINT, signal.SIGTERM):
        process = start(house, videos, tmp_path)
        wait_for("parts/*/*.tar", tmp_path, process)
        began = time.monotonic()
        process.send_signal(number)
        told, _ = process.communicate(timeout=60)
        assert time.monotonic() - began < 30
        assert process.returncode == 1, told
        assert "the same command continues" in told
        assert not (tmp_path / "LOCK").exists()
    complete(house, videos, tmp_path)
    assert result(tmp_path) == whole.result


def test_a_second_driver_is_refused(house, videos, tmp_path):
    first = start(house, videos, tmp_path)
    wait_for("LOCK", tmp_path, first)
    second = start(house, videos, tmp_path)
    told, _ = second.communicate(timeout=60)
    assert second.returncode == 2
    assert f"process {first.pid}" in told
    told, _ = first.communicate(timeout=120)
    assert first.returncode == 0, told


def test_a_full_disk_stops_the_run_with_one_message_and_loses_nothing(house, videos, whole, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", small], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        process = start(house, videos, small)
        told, _ = process.communicate(timeout=120)
        assert process.returncode == 1, told
        assert "No space left on device" in told
        assert "Traceback" not in told
        subprocess.run(["mount", "-o", "remount,size=50m", small], check=True)
        complete(house, videos, small)
        assert result(small) == whole.result
    finally:
        subprocess.run(["umount", "-l", small], check=True)


def test_a_job_whose_head_was_killed_is_submitted_again_and_ends_with_the_same_bytes(
    house, videos, whole, tmp_path, no_orphans, monkeypatch
):
    def submit() -> subprocess.Popen[str]:
        head = ["ray", "start", "--head", "--block", "--num-cpus=2", "--disable-usage-stats", "--port=26479"]
        head += ["--dashboard-port=28465", "--dashboard-agent-listen-port=28466", "--ray-client-server-port=20003"]
        started.append(chaos.spawn(*head, f"--temp-dir={temporary}"))
        wait_for_port(28465, True)
        run = ["python", "curation/run.py", "--profile", "chaos", "--videos", videos, "--output", tmp_path / "out"]
        job = [
            "ray",
            "job",
            "submit",
            "--address",
            "http://127.0.0.1:28465",
            "--working-dir",
            house,
            "--",
            *run,
            "--workers",
            "2",
        ]
        started.append(chaos.spawn(*job))
        return started[-1]

    (tmp_path / "token").write_text("0123456789abcdef" * 4)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    started: list[subprocess.Popen[str]] = []
    temporary = Path("/tmp") / f"ray-head-{os.getpid()}"
    try:
        first = submit()
        wait_for("parts/*/*.tar", tmp_path / "out", first)
        chaos.sweep()  # the head, its workers, the driver and the client
        wait_for_port(28465, False)
        assert list((tmp_path / "out").glob("parts/*/*.tar")), first.communicate()[0]
        assert not (tmp_path / "out" / "manifests").exists()
        second = submit()
        told, _ = second.communicate(timeout=HANG_S)
        assert second.returncode == 0, told
        assert result(tmp_path / "out") == whole.result
    finally:
        chaos.sweep()
        for process in started:
            process.communicate()
        shutil.rmtree(temporary, ignore_errors=True)


def wait_for_port(port: int, is_open: bool) -> None:
    deadline = time.monotonic() + HANG_S
    while time.monotonic() < deadline:
        found = False
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            found = True
        if found == is_open:
            return
        time.sleep(0.5)
    raise TimeoutError(f"port {port} is {'closed' if is_open else 'open'} after {HANG_S:.0f} s")
