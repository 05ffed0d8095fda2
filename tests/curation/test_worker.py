"""A worker of the embedded profile: its networks run without torch."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import weights
from pipelines import ROOT

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
