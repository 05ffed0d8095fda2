import json
import logging
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from training.checkpoint import State
from training.cost import Cost
from training.distributed import Ranks
from training.listening import Estimate, Heard, Listening
from training.metric_logger import MetricLogger, start_wandb
from training.settings import TrainingSettings, load_settings

ALONE = Ranks(0, 1, torch.device("cpu"))
NO_COST = Cost(0.0, 0.0, 0.0)
MOST = Estimate(0.1, 0.01)
LISTENS, DOES_NOT = (Heard(Estimate(mean, 0.001), MOST) for mean in (0.0031, 0.0029))  # 3.1 and 2.9 standard errors


@pytest.fixture
def settings() -> TrainingSettings:
    found = load_settings("embedded")
    return replace(found, run=replace(found.run, validate_every=10, listening_patience=3))


def validate(run: Path, settings: TrainingSettings, steps: list[int], heard: Heard | None) -> list[dict]:
    """The lines of train.log after validations at some steps."""
    network = nn.Linear(1, 1)
    state = State(network, torch.optim.AdamW(network.parameters()), {})  # pyright: ignore[reportArgumentType]
    run.mkdir(exist_ok=True)
    with MetricLogger(run, settings, NO_COST, ALONE, state, resumed=False) as logger:
        for state.step in steps:
            logger.log_validation(0.5, Listening(heard, {5.0: heard}) if heard else None, None)
    return [json.loads(line) for line in (run / "train.log").read_text().splitlines()]


def test_a_validation_logs_its_loss_and_listening(tmp_path: Path, settings: TrainingSettings):
    _, line, _ = validate(tmp_path, settings, [10], LISTENS)
    name = "validation/listening"
    assert line["step"] == 10 and line["validation/loss"] == 0.5
    for suffix in ("", "_sigma_5"):
        assert line[f"{name}{suffix}"] == 0.0031
        assert line[f"{name}{suffix}_se"] == 0.001
        assert line[f"{name}{suffix}_share"] == pytest.approx(0.031)
        assert line[f"{name}{suffix}_share_se"] == pytest.approx(0.01)
        assert line[f"{name}{suffix}_attainable"] == 0.1
    assert (tmp_path / "curve.png").is_file()
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_validation_of_short_clips_logs_its_loss_alone(tmp_path: Path, settings: TrainingSettings):
    _, line, _ = validate(tmp_path, settings, [10], None)
    assert line == {"step": 10, "validation/loss": 0.5}


def test_a_network_that_does_not_listen_after_its_patience_is_warned_of(
    tmp_path: Path, settings: TrainingSettings, caplog: pytest.LogCaptureFixture
):
    lines = validate(tmp_path, settings, [0, 10, 20, 30], DOES_NOT)
    warnings = [line for line in lines if "warning" in line]
    assert [line["step"] for line in warnings] == [30]
    text = warnings[0]["warning"]
    assert text.startswith("listening: not above its error at step 30: 0.00290, standard error 0.00100, 2.9% of what")
    assert "look at" in text
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [text]


def test_a_network_that_listens_or_was_not_measured_is_not(tmp_path: Path, settings: TrainingSettings):
    for run, heard in (("a", LISTENS), ("b", None)):
        assert not any("warning" in line for line in validate(tmp_path / run, settings, [30, 40], heard))


def test_runs_of_the_same_name_are_two_runs_of_wandb_and_a_continued_one_stays_itself(tmp_path, monkeypatch):
    begun: list[dict[str, Any]] = []
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **given: begun.append(given)))
    settings = load_settings("embedded")
    for folder in ("a/run", "b/run", "a/run"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        start_wandb(tmp_path / folder, settings)
    first, second, again = (given["id"] for given in begun)
    assert first == again != second
