"""Table 3 in small: the paper's four ablations with the speaker's recipe, each with the same steps and seeds.

    python -m benchmarks.ablations --data OUT --base BASE --work FOLDER --seen TALKERS --json FILE

Every run is `training/train.py` with the profile `embedded` and one setting changed; then `benchmarks/speak.py` lets it
speak. Runs that are done are not done again, so the same command continues. The paper's order (Sync-C, HDTF) is:
whole 7.23, fixed mask 6.54, video fusion 6.09, VAE feature 5.88, no condition masking 5.14.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats

from benchmarks.result import write_json
from command import parser_of
from pipelines import ROOT

VARIANTS = {
    "whole": (),
    "fixed mask": ("mask.kind=fixed",),
    "video fusion": ("model.fusion=video_fusion", "data.cache=pictures"),  # its latents need every picture
    "VAE feature": ("model.fusion=vae_feature",),
    "no condition masking": ("noise.drop_audio=0.0", "noise.drop_identity=0.0"),
}
SPOKEN = ("own", "other_audio", "other_video", "mask_error")


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    for seed in options.seeds:  # all variants of a seed first: a run that is stopped has whole rows
        for name in VARIANTS:
            folder = options.work / f"{name.replace(' ', '_')}-{seed}"
            try:
                train(folder, name, seed, options)
                found[name].append({"seed": float(seed), **read_validation(folder), **speak(folder, options)})
            except subprocess.CalledProcessError as error:
                print(f"stopped in {name}, seed {seed}: exit code {error.returncode}", file=sys.stderr)
                return 1
            Console(width=120).print(draw_table(found))
    write_json(options.json, {"steps": options.steps, "variants": found})
    return 0


def train(folder: Path, name: str, seed: int, options: argparse.Namespace) -> None:
    """Train one variant, or go on with it. Raises CalledProcessError."""
    settings = [f"model.base={options.base}", f"data.seed={seed}", f"optimizer.steps={options.steps}",
                f"optimizer.global_batch={options.batch}", f"optimizer.micro_batch={options.batch}",
                f"run.validate_every={options.steps}", f"run.save_every={options.steps}", *VARIANTS[name]]  # fmt: skip
    words = [word for setting in settings for word in ("--set", setting)]
    command = ["training/train.py", "--profile", "embedded", "--data", str(options.data), "--run", str(folder / "run")]
    if not (folder / "run" / "checkpoints" / f"step-{options.steps:08d}").is_dir():
        subprocess.run([sys.executable, *command, *words], cwd=ROOT, check=True)  # noqa: S603


def speak(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Means over the clips of what benchmarks/speak.py measures. Raises CalledProcessError."""
    if options.seen is None:
        return {}
    file = folder / "speak.json"
    if not file.is_file():
        command = ["-m", "benchmarks.speak", "--run", str(folder / "run"), "--seen", str(options.seen),
                   "--clips", str(options.clips), "--seconds", str(options.seconds), "--json", str(file)]  # fmt: skip
        subprocess.run([sys.executable, *command], cwd=ROOT, check=True)  # noqa: S603
    seen = json.loads(file.read_text(encoding="utf-8"))["seen"]
    return {name: seen[name]["mean"] for name in SPOKEN}


def read_validation(folder: Path) -> dict[str, float]:
    """Loss and listening of the last validation, on held-out clips with the averaged weights."""
    lines = [json.loads(line) for line in (folder / "run" / "train.log").read_text(encoding="utf-8").splitlines()]
    last = [line for line in lines if "validation/loss" in line][-1]
    return {"loss": last["validation/loss"], "listening": last["validation/listening"]}


def draw_table(found: dict[str, list[dict[str, float]]]) -> Table:
    """A row for each variant: mean over the seeds and its 95 % interval."""
    names = next((list(row)[1:] for rows in found.values() for row in rows), [])
    table = Table("", "seeds", *names)
    for variant, rows in found.items():
        table.add_row(variant, str(len(rows)), *(summarize([row[name] for row in rows]) for name in names))
    return table


def summarize(values: Sequence[float]) -> str:
    if not values:
        return ""
    mean = float(np.mean(values))
    if len(values) == 1:
        return f"{mean:.4f}"
    reach = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return f"{mean:.4f} +- {reach:.4f}"


def parser() -> argparse.ArgumentParser:
    found = parser_of("python -m benchmarks.ablations", __doc__)
    found.add_argument("--data", type=Path, required=True, help="output folder of a curation")
    found.add_argument("--base", type=Path, required=True, help="what demo.base made")
    found.add_argument("--work", type=Path, required=True, help="folder of the runs")
    found.add_argument("--seen", type=Path, help="talkers of demo.corpus that were not trained on; else nobody speaks")
    found.add_argument("--json", type=Path, help="file for the numbers")
    found.add_argument("--steps", type=int, default=300, help="of each run (default: %(default)s)")
    found.add_argument("--batch", type=int, default=16, help="windows a step (default: %(default)s)")
    found.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    found.add_argument("--clips", type=int, default=8, help="that speak (default: %(default)s)")
    found.add_argument("--seconds", type=float, default=2.0, help="of each (default: %(default)s)")
    return found


if __name__ == "__main__":
    raise SystemExit(main())
