"""Nothing lost, nothing doubled: a real run on a real Ray is killed at many moments, and ends with the same bytes.

The house is copied and gets two stages of the test's own: one draws a face track where a detector would look, so that
a run takes seconds, and one does to its worker what bad input does: dies, hangs, eats memory, raises.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from manifests.reader import read_clips, read_sources
from pipelines import ROOT
from tests.videos import Pictures, Sound, numbered, tone, write_video

SEED = 20
ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "5"))  # benchmarks/README.md has the longer run
KILLS = 4  # in each round
VICTIMS = ("worker", "driver", "raylet", "everything")
# Beside moments drawn at random: when a part, a ledger segment, the shards, the index or a manifest has just appeared.
EVENTS = ("parts/*/*.tar", "ledger/0*.parquet", "shards/.tmp-*", "shards/index.parquet", "manifests/clips.parquet")

DRAWN_FACE = '''
"""A face in the same place of every frame."""
from dataclasses import dataclass, replace
import numpy as np
from curation.clip import FaceTrack
from curation.stage import Step

@dataclass(frozen=True)
class DrawnFace(Step):
    def __call__(self, clip):
        frames = len(clip)
        boxes = np.tile(np.float32([8, 8, 40, 40]), (frames, 1))
        found = np.ones(frames, bool)
        yield replace(clip, track=FaceTrack(boxes, np.ones(frames, np.float32), found, found.astype(np.uint8),
                                            np.zeros(frames, np.float32)))
'''
POISON = '''
"""Does what bad input does, if the file's name says so; otherwise takes a moment, in which it can be killed."""
import os, time
from dataclasses import dataclass
from curation.stage import Step

@dataclass(frozen=True)
class Poison(Step):
    seconds: float = 0.1
    def __call__(self, clip):
        name = clip.source.path.stem
        if name == "aborts":
            os.abort()
        if name == "hangs":
            time.sleep(3600)
        if name == "eats":
            eaten = []
            while True:
                eaten.append(bytearray(b"x" * 50_000_000))
        if name == "raises":
            raise RuntimeError("no such luck")
        time.sleep(self.seconds)
        yield clip
'''
PROFILE = """
chaos:
  device: cpu
  seed: 0
  shard_bytes: 60_000
  workers: {gpus: 0.0, deadline_s: 20.0, deadline_factor: 0.0, max_gb: 1.5, recycle_gb: 9.0, recycle_sources: 3}
  limits: {max_duration_s: 60.0, max_pixels: 1_000_000, max_bytes: 10_000_000}
  stages:
    - steps/drawn_face
    - steps/stable_spans
    - steps/windows: {max_s: 2.0}
    - steps/poison
    - steps/crop: {size: 64}
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("house")
    for room in ("curation", "media", "models", "shards", "manifests"):
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pipelines.py", "weights.py", "weights.yaml"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "curation/steps/drawn_face.py").write_text(DRAWN_FACE)
    (folder / "curation/steps/poison.py").write_text(POISON)
    (folder / "pipelines.yaml").write_text(PROFILE)
    return folder


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for i in range(8):
        frames = 60 + 15 * i
        write_video(
            folder / f"{i}.mp4", Pictures(frames, draw=lambda k, i=i: drawn(k + 31 * i)), [Sound(tone(frames / 25))]
        )
    return folder


def drawn(number: int) -> np.ndarray:
    return numbered(number % 256, 64, 64)


def start(house: Path, videos: Path, output: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, house / "curation/run.py", "--profile", "chaos", "--videos", videos, "--output", output]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_ADDRESS")}
    return subprocess.Popen(
        [*map(str, command), "--workers", "2", *more],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def complete(house: Path, videos: Path, output: Path, *more: str) -> str:
    process = start(house, videos, output, *more)
    told, _ = process.communicate(timeout=180)
    assert process.returncode == 0, told
    return told


def result(output: Path) -> dict[str, bytes]:
    """All bytes that a user gets: shards, index, manifests without timings, summary."""
    files = [*(output / "shards").iterdir(), *(output / "manifests").iterdir()]
    return {f.name: f.read_bytes() for f in sorted(files) if f.name != "timings.parquet"}


@pytest.fixture(scope="module")
def undisturbed(house: Path, videos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    output = tmp_path_factory.mktemp("undisturbed")
    complete(house, videos, output)
    clips = read_clips(output)
    assert clips.kept.sum() > 8
    assert len(list((output / "shards").glob("*.tar"))) > 2
    return result(output)


def processes(driver: psutil.Process, victim: str) -> list[psutil.Process]:
    try:
        family = driver.children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    named = {"worker": "ray::Worker", "raylet": "raylet"}
    if victim in named:
        return [p for p in family if called(p).startswith(named[victim])]
    return [driver, *family] if victim == "everything" else [driver]


def called(process: psutil.Process) -> str:
    try:
        command = process.cmdline()
    except psutil.Error:
        return ""
    return Path(command[0]).name if command else ""


def wait_for(moment: float | str, output: Path, process: subprocess.Popen[str]) -> None:
    """So many seconds, or until a file of this pattern appears that was not there."""
    if not isinstance(moment, str):
        time.sleep(moment)
        return
    before = set(output.glob(moment))
    deadline = time.monotonic() + 60
    while process.poll() is None and not set(output.glob(moment)) - before and time.monotonic() < deadline:
        time.sleep(0.001)


def kill(process: subprocess.Popen[str], victim: str, dice: random.Random) -> bool:
    """SIGKILL, as the out-of-memory killer or a pre-empted node would; False if there was none to kill."""
    found = processes(psutil.Process(process.pid), victim) if process.poll() is None else []
    if not found:
        return False
    for each in found if victim == "everything" else [dice.choice(found)]:
        try:
            each.kill()
        except psutil.NoSuchProcess:
            continue
    return True


@pytest.fixture
def no_orphans() -> Iterator[None]:
    """What a killed driver leaves behind must not outlive the test."""
    yield
    for process in psutil.process_iter():
        if process.ppid() == 1 and called(process).startswith(("raylet", "gcs_server")):
            process.kill()


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_a_run_killed_at_any_moment_ends_with_the_same_bytes(round_, house, videos, undisturbed, tmp_path, no_orphans):
    dice = random.Random(SEED + round_)
    story = []
    for _ in range(KILLS):
        moment: float | str = dice.choice([round(dice.uniform(0.5, 12.0), 2), dice.choice(EVENTS)])
        victim = dice.choice(VICTIMS)
        process = start(house, videos, tmp_path)
        wait_for(moment, tmp_path, process)
        struck = kill(process, victim, dice)
        try:
            told, _ = process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            kill(process, "everything", dice)
            pytest.fail(f"hung after {victim} was killed at {moment}; before: {story}")
        story.append((moment, victim if struck else "nobody", process.returncode))
        assert process.returncode != 2, (story, told)
    told = complete(house, videos, tmp_path, "--retry")
    assert result(tmp_path) == undisturbed, (story, told)


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


def test_ctrl_c_and_sigterm_stop_within_ten_seconds(house, videos, undisturbed, tmp_path):
    for number in (signal.SIGINT, signal.SIGTERM):
        process = start(house, videos, tmp_path)
        wait_for("parts/*/*.tar", tmp_path, process)
        began = time.monotonic()
        process.send_signal(number)
        told, _ = process.communicate(timeout=60)
        assert time.monotonic() - began < 10
        assert process.returncode == 1, told
        assert "the same command continues" in told
        assert not (tmp_path / "LOCK").exists()
    complete(house, videos, tmp_path)
    assert result(tmp_path) == undisturbed


def test_a_second_driver_is_refused(house, videos, tmp_path):
    first = start(house, videos, tmp_path)
    wait_for("LOCK", tmp_path, first)
    second = start(house, videos, tmp_path)
    told, _ = second.communicate(timeout=60)
    assert second.returncode == 2
    assert f"process {first.pid}" in told
    told, _ = first.communicate(timeout=120)
    assert first.returncode == 0, told


def test_a_full_disk_stops_the_run_with_one_message_and_loses_nothing(house, videos, undisturbed, tmp_path):
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
        assert result(small) == undisturbed
    finally:
        subprocess.run(["umount", "-l", small], check=True)
