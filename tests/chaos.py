"""A run on a real Ray that takes seconds, and what kills it: for tests/test_chaos.py and benchmarks/chaos.py.

The house is copied and gets two stages of its own: one draws a face track where a detector would look, and one does to
its worker what bad input does: dies, hangs, eats memory, raises.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import psutil

from curation.verify.command import verify
from pipelines import ROOT
from tests.videos import Pictures, Sound, numbered, tone, write_video

SEED = 20
KILLS = 4  # in each round
VICTIMS = ("worker", "driver", "raylet", "everything")
# Beside moments drawn at random: when a part, a ledger segment, the shards, the index or a manifest has just appeared.
EVENTS = ("parts/*/*.tar", "ledger/0*.parquet", "shards/.tmp-*", "shards/index.parquet", "manifests/clips.parquet")
OURS = "CHAOS_STARTED_BY"  # in the environment of all that is started here, and of what they start
HANG_S = 180.0  # a run takes 15 s

DRAWN_FACE = '''
"""A face in the same place of every frame."""
from dataclasses import dataclass, replace
import numpy as np
import pandas as pd
from curation.clip import FaceTrack
from curation.stage import TRACK, Step

@dataclass(frozen=True)
class DrawnFace(Step):
    GIVES = (TRACK,)

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
  workers: {gpus: 0.0, deadline_s: {deadline_s}, deadline_factor: 0.0, max_gb: 1.5, recycle_gb: 9.0, recycle_sources: 3}
  limits: {max_duration_s: 60.0, max_pixels: 1_000_000, max_bytes: 10_000_000}
  stages:
    - steps/drawn_face
    - steps/stable_spans
    - steps/windows: {max_s: 2.0}
    - steps/poison
    - steps/crop: {size: 64}
"""


class Whole(NamedTuple):
    """An undisturbed run: what a user gets of it, and how long it took."""

    result: dict[str, bytes]
    seconds: float


class Kill(NamedTuple):
    """One run: when it was struck (a share of a whole run, or a file), who, its end (`end_of`), what is wrong then."""

    moment: float | str
    victim: str
    outcome: str
    wrong: str


def build_house(folder: Path, deadline_s: float = 20.0) -> Path:
    """A copy of what curates, with the two stages and a profile of its own; a source that takes longer is late."""
    for room in ("curation", "media", "models", "shards", "manifests", "storage", "training"):
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("clock.py", "command.py", "pipelines.py", "renamed.py", "weights.py", "weights.yaml"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "curation/steps/drawn_face.py").write_text(DRAWN_FACE)
    (folder / "curation/steps/poison.py").write_text(POISON)
    (folder / "pipelines.yaml").write_text(PROFILE.replace("{deadline_s}", str(deadline_s)))
    return folder


def build_videos(folder: Path) -> Path:
    for i in range(8):
        frames = 60 + 15 * i
        write_video(
            folder / f"{i}.mp4", Pictures(frames, draw=lambda k, i=i: drawn(k + 31 * i)), [Sound(tone(frames / 25))]
        )
    return folder


def drawn(number: int) -> np.ndarray:
    return numbered(number % 256, 64, 64)


def start(house: Path, videos: Path | str, output: Path, *more: str) -> subprocess.Popen[str]:
    command = ["python", house / "curation/run.py", "--profile", "chaos", "--videos", videos, "--output", output]
    return spawn(*command, "--workers", "2", *more)


def spawn(command: str, *arguments: str | Path) -> subprocess.Popen[str]:
    """Start a command of this environment, marked for `sweep`; what it and its children say is in one pipe."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_ADDRESS")}
    environment[OURS] = str(os.getpid())
    path = Path(sys.executable).parent
    environment["PATH"] = f"{path}:{environment['PATH']}"
    return subprocess.Popen(
        [str(path / command), *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def complete(house: Path, videos: Path, output: Path, *more: str, hang_s: float = HANG_S) -> str:
    outcome, told = end_of(start(house, videos, output, *more), hang_s)
    assert outcome == "finished", (outcome, told)
    return told


def undisturbed_run(house: Path, videos: Path, output: Path, hang_s: float = HANG_S) -> Whole:
    began = time.monotonic()
    complete(house, videos, output, hang_s=hang_s)
    return Whole(result(output), time.monotonic() - began)


def result(output: Path) -> dict[str, bytes]:
    """All bytes that a user gets: shards, index, manifests without timings, summary."""
    files = [*(output / "shards").iterdir(), *(output / "manifests").iterdir()]
    return {f.name: f.read_bytes() for f in sorted(files) if f.name != "timings.parquet"}


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


def wait_for(moment: float | str, output: Path, process: subprocess.Popen[str], most_s: float = HANG_S) -> None:
    """So many seconds, or until a file of this pattern appears that was not there."""
    if not isinstance(moment, str):
        time.sleep(moment)
        return
    before, deadline = set(output.glob(moment)), time.monotonic() + most_s
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


def kill_round(
    house: Path, videos: Path, output: Path, round_: int, whole: Whole, hang_s: float = HANG_S
) -> Iterator[Kill]:
    """Starts the command again and again, each time killing something of it at a moment, as the round's dice say.

    A run that gets to its end all the same must have the whole result. The next begins anew: nothing is left to kill.
    """
    dice = random.Random(SEED + round_)
    for _ in range(KILLS):
        moment: float | str = dice.choice([round(dice.uniform(0.03, 0.9), 2), dice.choice(EVENTS)])
        victim = dice.choice(VICTIMS)
        process = start(house, videos, output)
        wait_for(moment if isinstance(moment, str) else moment * whole.seconds, output, process, hang_s)
        struck = kill(process, victim, dice)
        outcome, told = end_of(process, hang_s)
        wrong = told if outcome in ("hung", "refused") else ""
        if outcome == "finished":
            wrong = difference(output, whole)
            shutil.rmtree(output)
            output.mkdir()
        yield Kill(moment, victim if struck else "nobody", outcome, wrong)


def end_of(process: subprocess.Popen[str], hang_s: float) -> tuple[str, str]:
    """`finished`, `stopped` (it may be run again), `refused`, `hung`, or the signal that ended it; and what it said."""
    try:
        told, _ = process.communicate(timeout=hang_s)
    except subprocess.TimeoutExpired:
        sweep()
        return "hung", process.communicate()[0]
    code = process.returncode
    return {0: "finished", 1: "stopped", 2: "refused"}.get(code) or signal.Signals(-code).name, told


def damage(house: Path, videos: Path, output: Path, whole: Whole, hang_s: float = HANG_S) -> str:
    """Brings a killed output to its end; what is wrong with it then, or nothing."""
    outcome, told = end_of(start(house, videos, output, "--retry"), hang_s)
    return difference(output, whole) if outcome == "finished" else f"the last run: {outcome}\n{told}"


def difference(output: Path, whole: Whole) -> str:
    """How a finished output differs from an undisturbed one, and what `curation.verify` finds in it; or nothing."""
    found, wanted = result(output), whole.result
    differing = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
    log = (output / "logs" / "run.log").read_text()
    return "; ".join(
        [f"other bytes: {', '.join(differing)}\n{log}"] * bool(differing) + [f.text for f in verify(output)]
    )


def difference_of_runs(one: Path, other: Path) -> str:
    """How two outputs of the same videos under other paths differ but for these; or nothing."""
    shards = [{f.name: f.read_bytes() for f in (output / "shards").iterdir()} for output in (one, other)]
    wrong = sorted(n for n in shards[0].keys() | shards[1].keys() if shards[0].get(n) != shards[1].get(n))
    wrong += [f.text for f in verify(other)]
    for name, path in (("clips", "source"), ("sources", "path")):
        tables = [pd.read_parquet(output / "manifests" / f"{name}.parquet") for output in (one, other)]
        plain = [table.assign(**{path: [str(each).rpartition("/")[2] for each in table[path]]}) for table in tables]
        by = [path, "start_frame"] if name == "clips" else [path]
        if not plain[0].sort_values(by, ignore_index=True).equals(plain[1].sort_values(by, ignore_index=True)):
            wrong.append(f"{name}.parquet")
    return "; ".join(wrong)


def sweep() -> None:
    """Ends what killed drivers of this process left behind: the parts of Ray that do not notice that they are alone."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(OURS) == str(os.getpid()) and process.pid != os.getpid():
                process.kill()
