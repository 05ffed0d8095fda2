"""The main job: draw talkers, curate them, train a speaker on them, let it speak, and measure whether it does.

    python -m demo.run --output demo/output

The training begins with random weights, or goes on from the speaker that comes with the code, in minutes, once there
is one (training/speaker; --from-nothing leaves it aside). Says first what it will do and how long each part takes on
two quiet cores. Every part continues where it was interrupted and does nothing when it is done, so the same command may
be given again at any time.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipelines import ROOT

PEOPLE = ("0", "7", "11", "18", "21", "23", "85", "60")  # seven of them are in the described corpus as well
FINE_TUNED, FROM_NOTHING = (8, 20), (24, 30)  # talkers and their seconds
TRAIN_SEED = 11
CLOSE = ("--size", "640", "--people", *PEOPLE)
CLIPS, CLIP_S, TEST_SEED = 20, 4, 12  # of the same people with sentences that are never trained on
SHOWN, HEARD = "talker_0001", "talker_0012"  # who is shown at the end, and whose sentence he or she then speaks
RANKS = 2
FINE_TUNING = ("optimizer.steps=300", "optimizer.learning_rate=1.0e-3", "optimizer.warmup_steps=20",
               "run.validate_every=100")  # fmt: skip


@dataclass(frozen=True)
class Part:
    """One command of the demo: what it does, and its minutes on two quiet cores."""

    what: str
    minutes: float
    command: tuple[str, ...]
    makes: Path | None = None  # what need not be made again if it is newer than all that `of` holds
    of: Path | None = None

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do; parts that say nothing of it find out themselves."""
        if self.makes is None or self.of is None or not self.makes.exists():
            return False
        return all(path.stat().st_mtime < self.makes.stat().st_mtime for path in self.of.glob("*"))


def plan(output: Path, from_nothing: bool = False) -> list[Part]:
    """Return the parts in order; `from_nothing` trains without the speaker that comes with the code."""
    described, train, test, curated, base, run = (
        str(output / name) for name in ("videos", "speaking", "unheard", "curated", "base", "run")
    )
    made, beside, measured = (output / name for name in ("generated.mp4", "side_by_side.mp4", "speak.json"))
    trained = output / "run" / "checkpoints"
    shown, heard = f"{test}/{SHOWN}.mp4", f"{test}/{HEARD}.mp4"
    ranks = min(RANKS, len(os.sched_getaffinity(0)))
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks))
    embedded = ("--profile", "embedded")

    def draw(folder: str, count: int, seconds: int, script: str, seed: int) -> Part:
        words = ("--talkers", str(count), "--seconds", str(seconds), "--script", script, "--seed", str(seed))
        what = f"draw {count} talkers of {seconds} s, sentences to {script}"
        return part(what, count * seconds / 130, "-m", "demo.corpus", "--output", folder, *CLOSE, *words)

    def learn(what: str, minutes: float, *words: str) -> Part:
        command = (*torchrun, "training/train.py", *embedded, "--data", curated, "--output", run)
        return part(f"{what}, {ranks} processes", minutes, *command, *words)

    if from_nothing:
        drawn = draw(train, *FROM_NOTHING, "train", TRAIN_SEED)
        learned = [
            part("fit the codec and make the base", 0.5, "-m", "demo.base", "--data", curated, "--output", base),
            learn("train a speaker", 23, "--set", f"model.base={base}"),
        ]
    else:
        drawn = draw(train, *FINE_TUNED, "train", TRAIN_SEED)
        settings = [word for setting in FINE_TUNING for word in ("--set", setting)]
        learned = [learn("train the speaker of training/speaker on them", 4.5, "--init", "speaker", *settings)]
    return [
        part("draw 30 videos with known faults and merits", 4.5, "-m", "demo.corpus", "--output", described),
        drawn,
        draw(test, CLIPS, CLIP_S, "test", TEST_SEED),
        part("curate: raw video to shards, manifest and report", 5 if from_nothing else 2.5,
             "curation/run.py", *embedded, "--videos", described, train, "--output", curated),
        *learned,
        part("let a talker speak a sentence that was never trained on", 0.5,
             "training/generate.py", "--checkpoint", run, "--video", shown, "--audio", heard, "--output", str(made),
             makes=made, of=trained),
        part("put source and generated side by side", 0.1,
             "-m", "demo.side_by_side", shown, str(made), "--audio", heard, "-o", str(beside),
             makes=beside, of=trained),
        part("measure whether the mouths follow the sound", 4,
             "-m", "benchmarks.speak", "--run", run, "--seen", test, "--json", str(measured),
             "--seconds", "3", "--workers", str(ranks), makes=measured, of=trained),
    ]  # fmt: skip


def part(what: str, minutes: float, *words: str, makes: Path | None = None, of: Path | None = None) -> Part:
    return Part(what, minutes, (sys.executable, *words), makes, of)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m demo.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=ROOT / "demo" / "output", help="folder (default: %(default)s)")
    parser.add_argument(
        "--from-nothing", action="store_true", help="train without the speaker that comes with the code"
    )
    options = parser.parse_args(arguments)
    from_nothing = options.from_nothing or not (ROOT / "training" / "speaker").is_dir()
    console, parts = Console(), plan(options.output.absolute(), from_nothing)
    total = sum(each.minutes for each in parts)
    console.print(
        f"{len(parts)} parts, about {total:.0f} minutes on two quiet cores the first time; faces are kept in the cache"
    )
    for number, each in enumerate(parts, 1):
        console.print(f"  {number}. {each.what} ({each.minutes:.1f} min)", highlight=False)
    table = Table("part", "minutes", "said to take", title="where the time went")
    for number, each in enumerate(parts, 1):
        console.rule(f"{number} of {len(parts)}: {each.what}")
        if each.is_done:
            console.print(f"{each.makes}: there already")
            continue
        began = time.monotonic()
        code = subprocess.run(each.command, cwd=ROOT, check=False).returncode  # noqa: S603 our own commands, no shell
        if code:
            console.print(f"stopped in part {number} with exit code {code}; the same command goes on from there")
            return code
        table.add_row(each.what, f"{(time.monotonic() - began) / 60:.1f}", f"{each.minutes:.1f}")
    console.print(table)
    console.print(summarize(json.loads((options.output / "speak.json").read_text(encoding="utf-8"))))
    console.print(f"open {options.output}/side_by_side.mp4, generated.mp4, run/curve.png, curated/report/index.html")
    return 0


def summarize(measured: dict) -> str:
    """Return the line that says how far the mouths followed, from what benchmarks/speak.py wrote."""
    seen = measured["seen"]
    own, other, video = (seen[name]["mean"] for name in ("own", "other_audio", "other_video"))
    return (
        f"opening of the generated mouths over {seen['own']['clips']} clips: correlation {own:.2f} with the truth of "
        f"their own sound, {other:.2f} with that of another sound they were given, {video:.2f} then with their video"
    )


if __name__ == "__main__":
    raise SystemExit(main())
