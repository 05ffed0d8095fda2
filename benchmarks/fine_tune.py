"""What minutes of one new talker buy: the speaker that comes with the code, fine-tuned on them, in full and by LoRA.

    python -m demo.corpus --output TALKS --people 174 --script train --size 640 --talkers 30 --seconds 20 --seed 41
    python -m demo.corpus --output TEST --people 174 --script test --size 640 --talkers 6 --seconds 4 --seed 7
    python curation/run.py --profile embedded --videos TALKS --output CURATED
    python -m benchmarks.fine_tune --data CURATED --test TEST --output FOLDER --json FILE

For every number of minutes the first clips of CURATED, as many as they take, are trained on in a run of its own; then
the talker of TEST says sentences that are in no training (benchmarks/speak.py). Minute 0 is the speaker as it comes.
CPU-seconds are of the training alone, all its processes. FOLDER keeps the runs; the same command goes on.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.result import write_json
from clock import FPS
from command import parser_of
from shards.index import read_index, write_index

ROOT = Path(__file__).resolve().parent.parent
WAYS = {  # settings of each; LoRA takes a larger rate, as its few weights move less of the network
    "full": ("optimizer.learning_rate=1.0e-3",),
    "lora": ("optimizer.learning_rate=3.0e-3", "model.lora_rank=8"),
}
COMMON = ("optimizer.warmup_steps=10", "data.validation_share=0.0", "run.validation_windows=16")
NUMBERS = ("own", "other_audio", "other_video", "closure", "mask_error")  # of benchmarks/speak.py


def take_minutes(data: Path, minutes: float, folder: Path) -> float:
    """Make of a curated output one that has only its first clips, and return their minutes.

    Tars are linked, not copied. Raises ValueError if the output has fewer minutes than that.
    """
    index = read_index(data / "shards")
    held_min = np.cumsum(index["frames"].to_numpy()) / FPS / 60
    if held_min[-1] < minutes:
        raise ValueError(f"{data}: {held_min[-1]:.1f} minutes of clips, {minutes:g} were asked for")
    count = int(np.searchsorted(held_min, minutes)) + 1
    kept = index.iloc[:count]
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "shards").mkdir(parents=True)
    for name in kept["shard"].unique():
        (folder / "shards" / name).symlink_to((data / "shards" / name).resolve())
    write_index(folder / "shards", kept)
    shutil.copy(data / "recipe.yaml", folder)
    return float(held_min[count - 1])


def fine_tune(data: Path, run: Path, way: str, steps: int) -> float:
    """Train in a process of its own, and return its CPU-seconds. Raises CalledProcessError if it fails."""
    settings = [*COMMON, *WAYS[way], f"optimizer.steps={steps}", f"run.validate_every={steps}"]
    command = [sys.executable, str(ROOT / "training" / "train.py"), "--profile", "embedded", "--init", "speaker"]
    command += ["--data", str(data), "--run", str(run), *(word for each in settings for word in ("--set", each))]
    return run_timed(command)


def run_timed(command: Sequence[str]) -> float:
    """CPU-seconds of a command on one thread, its children included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})  # noqa: S603
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def speak(checkpoint: str, test: Path, clips: int, file: Path) -> dict[str, object]:
    """Mean and interval of each of NUMBERS, measured once and kept in `file`."""
    if not file.is_file():
        command = [sys.executable, str(ROOT / "benchmarks" / "speak.py"), "--run", checkpoint, "--unseen", str(test)]
        run_timed([*command, "--clips", str(clips), "--seconds", "3", "--json", str(file)])
    found = json.loads(file.read_text(encoding="utf-8"))["unseen"]
    return {name: found[name] for name in NUMBERS}


def measure(options: argparse.Namespace) -> list[dict[str, object]]:
    """A row for the speaker as it comes, and for every number of minutes in each way."""
    options.output.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, object]] = [
        {"minutes": 0.0, "way": "as it comes", "cpu_s": 0.0,
         **speak("speaker", options.test, options.clips, options.output / "speaker.json")}
    ]  # fmt: skip
    for minutes in options.minutes:
        data = options.output / f"data-{minutes:g}"
        held = take_minutes(options.data, minutes, data)
        for way in options.ways:
            run, spent = options.output / f"{way}-{minutes:g}", options.output / f"{way}-{minutes:g}.cpu_s"
            if not spent.is_file():
                spent.write_text(str(fine_tune(data, run, way, options.steps)), encoding="ascii")
            found = speak(str(run), options.test, options.clips, options.output / f"{way}-{minutes:g}.json")
            rows.append({"minutes": held, "way": way, "cpu_s": float(spent.read_text(encoding="ascii")), **found})
            write_json(options.json, {"steps": options.steps, "rows": rows})
    return rows


def show(rows: Sequence[dict[str, object]]) -> None:
    table = Table("minutes", "way", "CPU-s of training", *NUMBERS)
    for row in rows:
        cells = (row[name] for name in NUMBERS)
        numbers = ("" if cell["mean"] is None else f"{cell['mean']:.2f}" for cell in cells)  # pyright: ignore
        table.add_row(f"{row['minutes']:.1f}", str(row["way"]), f"{row['cpu_s']:.0f}", *numbers)
    Console(width=120).print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        rows = measure(options)
    except (ValueError, OSError, subprocess.CalledProcessError) as error:
        print(f"refused: {error}", file=sys.stderr)
        return 2
    write_json(options.json, {"steps": options.steps, "rows": rows})
    show(rows)
    return 0


def parser() -> argparse.ArgumentParser:
    found = parser_of("python -m benchmarks.fine_tune", __doc__)
    found.add_argument("--data", type=Path, required=True, help="curated output of one talker")
    found.add_argument("--test", type=Path, required=True, help="the same talker with other sentences, with truth.json")
    found.add_argument("--output", type=Path, required=True, help="folder for the runs; continued if it exists")
    found.add_argument("--json", type=Path, required=True)
    found.add_argument("--minutes", type=float, nargs="+", default=[0.5, 1.0, 2.0, 5.0, 10.0])
    found.add_argument("--ways", choices=tuple(WAYS), nargs="+", default=[*WAYS])
    found.add_argument("--steps", type=int, default=300, help="of each training (default: %(default)s)")
    found.add_argument("--clips", type=int, default=6, help="of TEST (default: %(default)s)")
    return found


if __name__ == "__main__":
    raise SystemExit(main())
