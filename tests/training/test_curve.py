import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training import curve


def line(step: int, share: float | None, **more: float) -> dict:
    name = "validation/listening"
    found = {"step": step, "validation/loss": 1.0 / (step + 1), **more}
    if share is not None:
        found |= {f"{name}_share": share, f"{name}_share_se": 0.01, f"{name}_sigma_5_share": share / 2}
        found |= {f"{name}_sigma_20_share": share * 2, f"{name}_sigma_20_share_se": 0.02}
    return found


def listening_axes(lines: list[dict]) -> Any:
    axes = Figure().subplots()
    curve.draw_listening(axes, lines)
    return axes


def labels_of(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    assert legend
    return [text.get_text() for text in legend.get_texts()]


def test_listening_is_drawn_as_a_share_with_error_bars_and_a_line_for_each_noise_level():
    axes = listening_axes([line(0, 0.0), line(50, 0.1), line(100, 0.25)])
    labels = labels_of(axes)
    assert labels == ["sigma 5", "sigma 20", "all, +- 1 standard error"]
    lines = {
        each.get_label(): np.asarray(each.get_ydata()).tolist() for each in axes.lines if each.get_label() in labels
    }
    assert lines == {"sigma 5": [0.0, 0.05, 0.125], "sigma 20": [0.0, 0.2, 0.5]}
    points, _, (bars,) = axes.containers[0]
    assert points.get_xydata().tolist() == [[0, 0.0], [50, 0.1], [100, 0.25]]
    assert bars.get_segments()[1].round(6).tolist() == [[50, 0.09], [50, 0.11]]
    low, high = axes.get_ylim()
    assert low < 0 and 0.25 < high < 0.4


def test_every_share_is_inside_the_axis_and_small_ones_fill_it():
    low, high = listening_axes([line(0, -0.3), line(50, 1.2)]).get_ylim()
    assert low <= -0.3 and high > 1.2
    assert listening_axes([line(0, 0.0), line(50, 0.09)]).get_ylim()[1] < 0.15


def test_validations_without_listening_leave_the_axis_empty():
    axes = listening_axes([line(0, None), line(50, None)])
    assert len(axes.containers[0][0].get_xdata()) == 0


def test_a_share_that_is_missing_at_one_step_is_passed_over():
    points, _, _ = listening_axes([line(0, None), line(50, 0.1)]).containers[0]
    assert points.get_xydata().tolist() == [[50, 0.1]]


def test_the_loss_of_training_and_validation_share_an_axis():
    axes = Figure().subplots()
    curve.draw_loss(axes, [line(1, 0.1, loss=0.5), {"step": 1, "loss_by_sigma/below_0.5": 2.0}])
    assert labels_of(axes) == ["sigma below 0.5", "all", "validation"]


def test_a_step_logged_twice_counts_as_logged_last():
    assert curve.points([{"step": 2, "a": 1.0}, {"step": 1, "a": 5.0}, {"step": 2, "a": 3.0}], "a") == ([1, 2], [5, 3])


def test_the_picture_is_written_from_the_log(tmp_path: Path):
    lines = [{"event": "begun", "step": 0}, line(0, 0.0), {"step": 0, "warning": "x"}, line(50, 0.1, loss=0.3)]
    (tmp_path / "train.log").write_text("".join(json.dumps(each) + "\n" for each in lines))
    assert curve.draw(tmp_path).read_bytes().startswith(b"\x89PNG")
