"""Fixtures that several rooms share."""

import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # read when numpy is imported: equal sums, and tests run side by side
os.environ.setdefault("RAY_worker_niceness", "0")

import pytest

import models  # noqa: F401  (keeps ONNX Runtime's telemetry off, whichever test imports it first)
from tests.talkers import corpus


@pytest.fixture(scope="session")
def talkers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Path]]:
    """Builds videos of the described corpus by name, or all; of several test processes one builds, the others wait."""
    lock = tmp_path_factory.getbasetemp().parent / "corpus.lock"

    def build(*only: str) -> Path:
        with lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            return corpus(*only)

    yield build
