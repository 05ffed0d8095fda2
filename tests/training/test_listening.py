"""Does it learn, and does it listen: the whole trainer on the curated talkers, 200 seeded steps of the toy."""

import json
import signal
from pathlib import Path

import pytest

from demo.base import main as make_base
from training import train


def test_200_steps_lower_the_loss_and_make_it_listen(
    curated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A positive audio sensitivity: with another clip's sound the same windows have a higher loss."""
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    base, run = tmp_path / "base", tmp_path / "run"
    assert make_base(["--data", str(curated), "--output", str(base), "--steps", "80"]) == 0
    settings = [f"model.base={base}", "data.frames=8", "data.workers=0", "run.threads=1", "run.validate_every=200",
                "run.save_every=1000", "run.validation_windows=128", "run.validation_steps=2"]  # fmt: skip
    sets = [word for setting in settings for word in ("--set", setting)]
    assert train.main(["--profile", "embedded", "--data", str(curated), "--run", str(run), *sets]) == 0
    lines = [json.loads(line) for line in (run / "train.log").read_text().splitlines()]
    before, after = [line for line in lines if "validation/loss" in line]
    assert after["validation/loss"] < 0.6 * before["validation/loss"]  # the same windows, with the same noise
    assert after["validation/audio_sensitivity"] > 0
    assert (run / "curve.png").stat().st_size > 10_000
    assert list((run / "validation").rglob("*.mp4"))
