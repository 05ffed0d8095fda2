"""The page in a real browser: upload, generate, see the result play."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from media.encode import encode_flac
from pipelines import ROOT
from tests.training.toys import make_checkpoint

pytestmark = pytest.mark.slow  # the page in a process of its own

pytest.importorskip("gradio", reason="gradio, of the extra `app`, is not installed")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with open_page(tmp_path_factory.mktemp("page"), signal.SIGINT) as address:
        yield address


@contextmanager
def open_page(folder: Path, end: signal.Signals) -> Iterator[str]:
    """`python training/app.py` on a free port until it gets this signal; nothing that was uploaded is left then."""
    temporary = folder / "temporary"
    temporary.mkdir()
    checkpoint = make_checkpoint(folder / "checkpoint")
    command = [sys.executable, str(ROOT / "training" / "app.py"), "--checkpoint", str(checkpoint), "--device", "cpu"]
    process = subprocess.Popen(
        [*command, "--port", "0", "--max-upload-mb", "8"],
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
        env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(temporary)},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"http://\S+", line):
            yield found[0]
            break
    process.send_signal(end)
    process.communicate(timeout=240)
    left = [path for path in temporary.rglob("*") if path.is_file()]
    assert not left, "uploads outlived the page"


def test_a_video_is_uploaded_lip_synced_and_played(
    browser: Any, address: str, talkers: Callable[..., Path], tmp_path: Path
) -> None:
    tone = tmp_path / "tone.flac"
    tone.write_bytes(encode_flac(0.3 * np.sin(np.arange(640 * 20) * 0.05).astype(np.float32)))
    tab = browser.new_page(viewport={"width": 1300, "height": 1000})
    outside = []
    tab.on("request", lambda request: outside.append(request.url) if address.split("/")[2] not in request.url else None)
    tab.goto(address)
    tab.locator("input[type=file][accept*=video]").set_input_files(str(talkers("talker_a") / "talker_a.mp4"))
    tab.locator("video").first.wait_for(timeout=60_000)
    tab.locator("input[type=file][accept*=audio]").set_input_files(str(tone))
    tab.get_by_test_id("waveform-Sound").wait_for(timeout=60_000)
    tab.get_by_label("right", exact=True).check()
    tab.get_by_label("Hear all").check()
    tab.get_by_label("Steps").first.fill("1")
    tab.get_by_role("button", name="Generate").click()
    tab.wait_for_function("document.querySelectorAll('video').length == 2", timeout=300_000)
    result = tab.locator("video").last
    result.evaluate("video => video.play()")
    tab.wait_for_function("document.querySelectorAll('video')[1].currentTime > 0.2", timeout=60_000)
    assert result.evaluate("video => video.videoWidth") == 1280
    assert result.evaluate("video => video.duration") == pytest.approx(0.8, abs=0.05)
    tab.screenshot(path=os.environ.get("APP_SCREENSHOT", str(tmp_path / "page.png")))
    assert not [url for url in outside if url.startswith("http")]


def test_an_upload_past_the_limit_is_refused_and_others_lie_in_the_temporary_folder(address: str) -> None:
    status, text = upload(address, bytes(1024))
    assert status == 200
    path = Path(json.loads(text)[0])
    assert path.is_relative_to(path.parents[[parent.name for parent in path.parents].index("uploads")])
    assert upload(address, bytes(9 * 1024**2))[0] == 413


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGHUP])
def test_uploads_do_not_outlive_a_page_that_is_ended_by_a_signal(end: signal.Signals, tmp_path: Path) -> None:
    with open_page(tmp_path, end) as address:
        assert upload(address, bytes(1024))[0] == 200


def upload(address: str, content: bytes) -> tuple[int, str]:
    """(status, answer) of gradio for a file that a visitor sends."""
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"\r\n\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    request = urllib.request.Request(
        f"{address.rstrip('/')}/gradio_api/upload", head + content + b"\r\n--x--\r\n", headers
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""


def test_every_choice_of_the_page_can_be_generated() -> None:
    from training.app import FACES, options_of

    chosen = [options_of(face, True, 1, 2, 1.5, "euler", "mouth") for face in FACES]
    assert [each.face for each in chosen] == ["largest", "left", "right", 1, 2, 3, 4]
    assert (chosen[0].hear_all, chosen[0].seed, chosen[0].steps, chosen[0].region) == (True, 1, 2, "mouth")


def test_what_is_missing_is_said(browser: Any, address: str) -> None:
    tab = browser.new_page()
    tab.goto(address)
    tab.get_by_role("button", name="Generate").click()
    tab.get_by_text("Give a video and a sound.").wait_for(timeout=60_000)
