"""Fixtures that several rooms share."""

import fcntl
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # read when numpy is imported: equal sums, and tests run side by side
os.environ.setdefault("RAY_worker_niceness", "0")

import pytest
from hypothesis import settings

import models  # noqa: F401  (keeps ONNX Runtime's telemetry off, whichever test imports it first)
from tests.talkers import corpus, run_curation

# Ctrl-C is ignored by what a shell starts in the background, and by all that this starts: tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile("suite", deadline=None)  # how long an example takes depends on what else the machine does
settings.load_profile("suite")

BROWSERS = (
    "chromium",
    "chromium-headless-shell",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "msedge",
)


SLOW_FIXTURES = {"browser", "curated", "talkers"}  # each takes minutes once, on a machine without a cache


def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Mark as slow what uses a slow fixture, be it through others."""
    for item in items:
        if SLOW_FIXTURES & set(item.fixturenames):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless browser of the machine, driven by playwright; skips where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright, of the extra `dev`, is not installed")
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"no browser here: none of {', '.join(BROWSERS)} is installed (Debian: apt install chromium)")
    with api.sync_playwright() as playwright:
        # no sandbox: it needs a user that is not root; this browser opens pages that we wrote
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def s3() -> Iterator[Any]:
    """An S3 server of this test process, without faults until a test sets some; drivers find it."""
    pytest.importorskip("moto", reason="moto, of the extra `dev`, is not installed")
    from tests.stores import running_store

    with running_store() as found:
        before = {name: os.environ.get(name) for name in found.environment}
        os.environ.update(found.environment)
        yield found
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@pytest.fixture
def store(s3: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The server `s3`, without faults again after each test; what fails is tried again after a tenth of a second."""
    monkeypatch.setattr("storage.store.WAITS_S", (0.1,) * 5)
    yield s3
    s3.proxy.drop = s3.proxy.stall = 0
    s3.proxy.forbidden.clear()


@pytest.fixture(scope="session")
def talkers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Path]]:
    """Builds videos of the described corpus by name, or all; of several test processes one builds, the others wait."""
    lock = tmp_path_factory.getbasetemp().parent / "corpus.lock"

    def build(*only: str) -> Path:
        with lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            return corpus(*only)

    yield build


@pytest.fixture(scope="session")
def curated(talkers: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole described corpus, curated with the embedded profile by one of the test processes for all."""
    shared = tmp_path_factory.getbasetemp().parent
    output, done = shared / "curated", shared / "curated.done"
    with (shared / "curated.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not done.exists():
            found = run_curation("--profile", "embedded", "--videos", talkers(), "--output", output)
            assert found.returncode == 0, found.stderr
            done.touch()
    return output
