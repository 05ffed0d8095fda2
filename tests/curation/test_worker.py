"""A worker: its networks run without torch, and what kills it is told."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import pipelines
import weights
from curation.worker import MEMORY, Worker, log_path
from pipelines import ROOT
from tests.videos import Pictures, write_video

CURATE = """
import sys
from pathlib import Path
import pipelines
from curation.worker import Worker
worker = Worker(pipelines.load("embedded"), Path(sys.argv[2]), "", False)
curated = worker.curate(worker.identify(Path(sys.argv[1])))
print(curated.source["reason"], *{"torch", "ultralytics", "pyiqa", "webdataset"} & set(sys.modules))
"""


def test_a_worker_of_networks_that_need_no_torch_does_not_import_it(
    talkers: Callable[..., Path], tmp_path: Path
) -> None:
    weights.require("yolov8n_face", "face_landmarker", "whisper_tiny_en", "niqe")
    command = [sys.executable, "-c", CURATE, str(talkers("talker_a") / "talker_a.mp4"), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "kept\n"


SMALL = """\
small:
  device: cpu
  workers: {gpus: 0.0, deadline_s: 60.0, deadline_factor: 1.0, max_gb: 4.0, recycle_gb: 4.0, recycle_sources: 10}
  seed: 0
  shard_bytes: 1_000_000
  limits: {max_duration_s: 60.0, max_pixels: 1_000_000, max_bytes: 100_000_000}
  stages:
    - steps/shots
"""
HELD = """
import os, sys, time
from pathlib import Path
import pipelines
from curation.worker import Worker
profile = pipelines.load("small", [f"workers.max_gb={sys.argv[2]}"], Path(sys.argv[1]))
worker = Worker(profile, Path(sys.argv[1]).parent, "", False)
with worker.record_crashes(Path("/videos/a.mp4")):
    if sys.argv[3] == "abort":
        os.abort()
    time.sleep(30)
"""


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    path = tmp_path / "pipelines.yaml"
    path.write_text(SMALL)
    return path


def test_a_source_comes_back_with_the_worker_and_its_seconds_and_leaves_no_log(profile: Path, tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", Pictures(50))
    worker = Worker(pipelines.load("small", path=profile), tmp_path, "", False)
    curated = worker.curate(worker.identify(video))
    assert curated.source["worker"] == worker.ready() and worker.ready().endswith(f":{os.getpid()}")
    assert 0 < curated.source["wall_s"] < 600 and 0.05 < curated.memory_gb < 64
    assert [clip["end_frame"] for clip in curated.clips] == [50]
    assert not list((tmp_path / "logs" / "workers").iterdir())


def ended(profile: Path, max_gb: float, how: str) -> tuple[int, str]:
    """The exit code of a worker that dies over a source, and the log that it leaves."""
    command = [sys.executable, "-c", HELD, str(profile), str(max_gb), how]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    return done.returncode, log_path(profile.parent, Path("/videos/a.mp4")).read_text()


def test_a_worker_above_its_memory_ends_itself_and_says_so(profile: Path) -> None:
    code, log = ended(profile, 0.04, "wait")
    assert code == 1 and log == f"{MEMORY}: the worker needed more than 0.04 GB"


def test_a_worker_that_is_killed_from_inside_leaves_its_stack(profile: Path) -> None:
    code, log = ended(profile, 4.0, "abort")
    assert code == -signal.SIGABRT and "Fatal Python error: Aborted" in log and "<string>" in log
