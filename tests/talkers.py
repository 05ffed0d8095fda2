"""The synthetic corpus for tests that need real faces and voices: built once a machine, then taken from the cache."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import weights
from pipelines import ROOT

NEEDED = ("random_face_synthesis_bin", "piper_joe_voice", "yolov8n_face", "face_landmarker", "whisper_tiny_en", "niqe")


def corpus(*only: str) -> Path:
    """The folder of the described corpus, or of some of its videos; skips if what draws them is not in the cache."""
    missing = [name for name in NEEDED if weights.find(name) is None]
    if missing:
        pytest.skip(f"not in the cache: {', '.join(missing)}; make test fetches them")
    subprocess.run(builder(*only), cwd=ROOT, check=True, capture_output=True, text=True)
    return folder()


def folder() -> Path:
    return weights.cache_folder() / "test-corpus"


def builder(*only: str) -> list[str]:
    """The command that builds the corpus, or some of its videos; a second run of it does nothing."""
    return [sys.executable, "-m", "demo.corpus", "--output", str(folder()), *(["--only", *only] if only else [])]


def described() -> list[dict]:
    """The table: one entry per video."""
    return yaml.safe_load((ROOT / "demo" / "corpus.yaml").read_text(encoding="utf-8"))


def run_curation(*arguments: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """`python curation/run.py ...` as a user types it."""
    command = [sys.executable, str(ROOT / "curation" / "run.py"), *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=840, check=False)


if __name__ == "__main__":  # `make test` builds it first: minutes on a fresh machine, with a progress bar
    raise SystemExit(subprocess.run(builder(), cwd=ROOT, check=False).returncode)
