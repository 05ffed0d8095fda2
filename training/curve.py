"""RUN/train.log -> RUN/curve.png: the loss by noise level, and listening as a share of what is attainable.

python -m training.curve RUN
"""

import io
import json
import re
import sys
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from storage.atomic_write import atomic_write

LISTENING = "validation/listening"
SHARE_OF_SIGMA = re.compile(rf"{LISTENING}_sigma_([\d.]+)_share")


def draw(run: Path) -> Path:
    """Write the picture anew from the log. Uses no display and no global state of matplotlib."""
    lines = [json.loads(line) for line in (run / "train.log").read_text(encoding="utf-8").splitlines()]
    figure = Figure(figsize=(10, 4), layout="constrained")
    loss, listening = figure.subplots(1, 2)
    draw_loss(loss, lines)
    draw_listening(listening, lines)
    figure.suptitle(f"{run.name}")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    with atomic_write(run / "curve.png") as file:
        file.write(picture.getvalue())
    return run / "curve.png"


def draw_loss(axes: Axes, lines: list[dict]) -> None:
    names = sorted({name for line in lines for name in line if name.startswith("loss_by_sigma/")})
    for name in names:
        axes.plot(*points(lines, name), label=f"sigma {name.partition('/')[2].replace('_', ' ')}", linewidth=1)
    axes.plot(*points(lines, "loss"), label="all", color="black")
    axes.plot(*points(lines, "validation/loss"), label="validation", color="black", linestyle="--", marker="o")
    axes.set(xlabel="step", ylabel="loss (equation 5)", yscale="log")
    axes.legend()


def draw_listening(axes: Axes, lines: list[dict]) -> None:
    """Share of attainable with bars of one standard error: over all noise levels, and a thin line for each."""
    sigmas = {match[1] for line in lines for name in line if (match := SHARE_OF_SIGMA.fullmatch(name))}
    for sigma in sorted(sigmas, key=float):
        axes.plot(*points(lines, f"{LISTENING}_sigma_{sigma}_share"), label=f"sigma {sigma}", linewidth=1)
    steps, shares = points(lines, f"{LISTENING}_share")
    errors = points(lines, f"{LISTENING}_share_se")[1]
    axes.errorbar(steps, shares, yerr=errors, label="all, +- 1 standard error", color="black", marker="o", capsize=3)
    axes.axhline(0, color="grey", linewidth=1)
    top = 1.3 * max([0.05, *shares])  # real windows differ by more than the lips, so few curves come near 1
    axes.set(xlabel="step", ylabel="listening, share of attainable", ylim=(min([-top / 20, *shares]), top))
    axes.legend()


def points(lines: list[dict], name: str) -> tuple[list[int], list[float]]:
    """(steps, values) of one curve; a step that was logged twice, before and after a resume, counts as logged last."""
    found = {line["step"]: line[name] for line in lines if name in line}
    return sorted(found), [found[step] for step in sorted(found)]


if __name__ == "__main__":
    print(draw(Path(sys.argv[1])))
