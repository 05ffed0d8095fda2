"""When listening counts as risen, when the log says that it does not, and that a run can end for it."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.training.test_metric_logger import ALONE, MOST, NO_COST
from training import curve
from training.listening import Estimate, Heard, Listening
from training.metric_logger import MetricLogger
from training.plateau import Plateau, read_curve, rings
from training.settings import TrainingSettings, load_settings
from training.train import Trainer

RISING = [0.002, 0.004, 0.006, 0.0065, 0.0069, 0.0071, 0.0069, 0.007]  # by 0.001 twice, and once more in three parts


@pytest.fixture(autouse=True)
def no_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes half a second for each validation, and has tests of its own."""
    monkeypatch.setattr(curve, "draw", lambda run: run)


@pytest.fixture
def settings() -> TrainingSettings:
    found = load_settings("embedded")
    return replace(found, run=replace(found.run, validate_every=10, listening_flat_steps=20, stop_after_flat_steps=30))


def log_validations(run: Path, settings: TrainingSettings, means: list[float], first: int = 10) -> list[dict]:
    """The warnings that stand in train.log after validations every 10 steps, and how flat they left it."""
    run.mkdir(exist_ok=True)
    state = SimpleNamespace(step=first - 10)
    with MetricLogger(run, settings, NO_COST, ALONE, state, resumed=first > 10) as logger:  # pyright: ignore
        for mean in means:
            state.step += 10
            heard = Heard(Estimate(mean, 0.001), MOST)
            logger.log_validation(0.5, Listening(heard, {5.0: heard}), None)
    lines = [json.loads(line) for line in (run / "train.log").read_text().splitlines()]
    return [line for line in lines if "did not rise" in line.get("warning", "")]


def test_a_rise_is_more_than_an_error_above_the_last_rise():
    curve = [(10 * i, Estimate(mean, 0.001)) for i, mean in enumerate(RISING, 1)]
    assert [Plateau.of(curve[:n]).step for n in range(1, 9)] == [10, 20, 30, 30, 30, 60, 60, 60]
    assert Plateau.of(curve).flat_steps(95) == 35
    assert Plateau().flat_steps(95) == 0, "it was never measured"


def test_the_alarm_rings_once_for_each_stretch():
    assert [n for n in range(10, 100, 10) if rings(n, n - 10, 40)] == [40, 80]
    assert not any(rings(n, n - 10, 0) for n in range(10, 100, 10))
    assert not rings(0, 30, 40), "it has just risen"


def test_flat_listening_is_warned_of_with_what_to_look_at(tmp_path: Path, settings: TrainingSettings):
    warnings = log_validations(tmp_path, settings, RISING)
    assert [line["step"] for line in warnings] == [50, 80]
    assert warnings[0]["warning"].startswith(
        "listening: did not rise in 20 steps (at step 50: 0.00690, standard error 0.00100, 6.9% of what is attainable)"
    )
    assert f"Look at {tmp_path / 'curve.png'}" in warnings[0]["warning"]
    off = replace(settings, run=replace(settings.run, listening_flat_steps=0))
    assert not log_validations(tmp_path / "off", off, RISING)


def test_a_resumed_run_remembers_and_forgets_what_came_after_its_checkpoint(tmp_path: Path, settings: TrainingSettings):
    log_validations(tmp_path, settings, [0.002, 0.004, 0.006, 0.009])
    assert [step for step, _ in read_curve(tmp_path, 30)] == [10, 20, 30]
    assert not read_curve(tmp_path / "new", 30)
    warnings = log_validations(tmp_path, settings, [0.006, 0.006], first=40)
    assert [line["step"] for line in warnings] == [50], "0.009 came after the checkpoint of step 30"


@pytest.mark.parametrize(("limit", "ends"), [(0, False), (31, False), (30, True)])
def test_a_run_ends_for_it_only_if_told(settings: TrainingSettings, limit: int, ends: bool):
    chosen = replace(settings, run=replace(settings.run, stop_after_flat_steps=limit))
    trainer = SimpleNamespace(settings=chosen, ranks=ALONE, state=SimpleNamespace(step=90), ended_flat=False)
    assert Trainer._flat(trainer, SimpleNamespace(flat_steps=lambda: 30)) is ends  # pyright: ignore
    assert load_settings("sayanything").run.stop_after_flat_steps == 0, "off by default"
