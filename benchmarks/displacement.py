"""How fast face boxes move between frames, on a folder of videos: where `steps/stable_spans` draws its line.

python benchmarks/displacement.py --clips FOLDER --plot benchmarks/displacement.png
"""

import argparse
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from curation.clip import Clip, Source
from curation.stage import scan_together
from curation.steps.faces import Faces
from curation.steps.shots import Shots
from curation.steps.stable_spans import StableSpans
from media.errors import MediaError
from media.geometry import movement
from media.probe import probe

EDGES = np.geomspace(1e-3, 10, 81).tolist()


def movements(path: Path, faces: Faces) -> tuple[np.ndarray, np.ndarray]:
    """Displacements inside shots, and those across shot boundaries, of one video; in box sides per frame."""
    header = probe(path)
    clip = next(iter(scan_together(Clip(Source("", path, header), 0, header.frames), [Shots(), faces])))
    assert clip.track is not None
    found = np.flatnonzero(clip.track.found)
    if len(found) < 2:
        return np.zeros(0), np.zeros(0)
    steps = np.diff(found)
    moved = movement(clip.track.boxes[found]) / steps
    across = np.array([any(a < cut <= b for cut in clip.cuts) for a, b in pairwise(found)])
    near = steps <= StableSpans().max_gap_frames + 1
    return moved[near & ~across], moved[near & across]


def draw(inside: np.ndarray, across: np.ndarray, line: float, path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.2), layout="constrained")
    axes.hist(inside.tolist(), EDGES, label=f"inside a shot ({len(inside):,} steps)", color="tab:blue")
    axes.hist(across.tolist(), EDGES, label=f"across a cut ({len(across)})", color="tab:orange")
    axes.axvline(line, color="black", linestyle="--", label=f"max_displacement {line}")
    axes.set(xscale="log", yscale="log", xlabel="movement between frames, box sides per 40 ms", ylabel="steps")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--plot", type=Path, required=True)
    parser.add_argument("--size", type=int, default=480, help="pixels of the detector's input")
    options = parser.parse_args()
    faces, inside, across = Faces(size=options.size), [], []
    for path in sorted(options.clips.iterdir()):
        try:
            one, two = movements(path, faces)
        except MediaError:
            continue
        inside.append(one)
        across.append(two)
        fast = one[one > StableSpans().max_displacement / 2]
        if len(fast):
            print(f"{path.name}: {len(fast)} of {len(one)} steps above half the line: {np.round(fast, 2)}")
    steps, cuts = np.concatenate(inside), np.concatenate(across)
    line = StableSpans().max_displacement
    print(
        f"inside shots: {len(steps)} steps; 50/99/99.9/99.99 %: {np.percentile(steps, [50, 99, 99.9, 99.99]).round(4)}"
    )
    print(f"above {line}: {(steps > line).sum()}; across cuts: {len(cuts)}, below {line}: {(cuts < line).sum()}")
    draw(steps, cuts, line, options.plot)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
