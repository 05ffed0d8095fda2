"""RUN/train.log -> RUN/curve.png: the loss by noise level, and the audio sensitivity.

python -m training.curve RUN
"""

import io
import json
import sys
from pathlib import Path

from matplotlib.figure import Figure

from storage.atomic_write import atomic_write


def draw(run: Path) -> Path:
    """Write the picture anew from the log. Uses no display and no global state of matplotlib."""
    lines = [json.loads(line) for line in (run / "train.log").read_text(encoding="utf-8").splitlines()]
    figure = Figure(figsize=(10, 4), layout="constrained")
    loss, sensitivity = figure.subplots(1, 2)
    names = sorted({name for line in lines for name in line if name.startswith("loss_by_sigma/")})
    for name in names:
        loss.plot(*points(lines, name), label=f"sigma {name.partition('/')[2].replace('_', ' ')}", linewidth=1)
    loss.plot(*points(lines, "loss"), label="all", color="black")
    loss.set(xlabel="step", ylabel="loss (equation 5)", yscale="log")
    loss.legend()
    sensitivity.plot(*points(lines, "validation/audio_sensitivity"), marker="o", color="black")
    sensitivity.axhline(0, color="grey", linewidth=1)
    sensitivity.set(xlabel="step", ylabel="loss with another clip's sound - loss with its own")
    figure.suptitle(f"{run.name}")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    with atomic_write(run / "curve.png") as file:
        file.write(picture.getvalue())
    return run / "curve.png"


def points(lines: list[dict], name: str) -> tuple[list[int], list[float]]:
    """(steps, values) of one curve; a step that was logged twice, before and after a resume, counts as logged last."""
    found = {line["step"]: line[name] for line in lines if name in line}
    return sorted(found), [found[step] for step in sorted(found)]


if __name__ == "__main__":
    print(draw(Path(sys.argv[1])))
