"""RUN/train.log of training/sync.py -> a picture: loss as a share of guessing, how often the right sound wins.

python -m training.sync_curve RUN [RUN...] --output PNG
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from storage.atomic_write import atomic_write
from training.curve import points


def draw(runs: Sequence[Path], output: Path) -> None:
    figure = Figure(figsize=(10, 4), layout="constrained")
    loss, correct = figure.subplots(1, 2)
    for run in runs:
        lines = [json.loads(line) for line in (run / "train.log").read_text(encoding="utf-8").splitlines()]
        lines = [{**line, **over_chance(line)} for line in lines]
        (drawn,) = loss.plot(*points(lines, "share"), label=run.name, linewidth=1)
        held_out = {"color": drawn.get_color(), "linestyle": "--", "marker": "o"}
        loss.plot(*points(lines, "validation/share"), label=f"{run.name}, sources held out", **held_out)
        correct.plot(*points(lines, "correct"), color=drawn.get_color(), linewidth=1)
        correct.plot(*points(lines, "validation/correct"), **held_out)
    loss.axhline(1, color="grey", linewidth=0.5)
    loss.set(xlabel="step", ylabel="loss, 1: guessing", ylim=(0, None))
    correct.set(xlabel="step", ylabel="own sound in time comes first, share", ylim=(0, 1))
    loss.legend()
    with atomic_write(output) as file:
        figure.savefig(file, format="png", dpi=110)


def over_chance(line: dict) -> dict[str, float]:
    """The losses of a line of the log as shares of that of guessing."""
    pairs = {"share": ("loss", "chance"), "validation/share": ("validation/loss", "validation/chance")}
    return {name: line[loss] / line[chance] for name, (loss, chance) in pairs.items() if loss in line}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.sync_curve", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    draw(options.runs, options.output)


if __name__ == "__main__":
    main()
