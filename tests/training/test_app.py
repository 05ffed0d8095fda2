"""The page in a real browser: upload, generate, see the result play."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from media.encode import encode_flac
from pipelines import ROOT
from tests.training.toys import make_checkpoint

pytest.importorskip("gradio", reason="gradio, of the extra `app`, is not installed")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`python training/app.py` on a free port."""
    checkpoint = make_checkpoint(tmp_path_factory.mktemp("checkpoint"))
    command = [sys.executable, str(ROOT / "training" / "app.py"), "--checkpoint", str(checkpoint), "--device", "cpu"]
    process = subprocess.Popen(
        [*command, "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"http://\S+", line):
            yield found[0]
            break
    process.terminate()
    process.communicate(timeout=30)


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


def test_what_is_missing_is_said(browser: Any, address: str) -> None:
    tab = browser.new_page()
    tab.goto(address)
    tab.get_by_role("button", name="Generate").click()
    tab.get_by_text("Give a video and a sound.").wait_for(timeout=60_000)
