"""How long report and refilter take for many clips, and how large the page gets.

    python benchmarks/report.py --output OUT --rows 100000

Repeats the rows of a real run under other names until there are so many, with links to its videos for the pictures, in
a folder that is removed afterwards. For the report every number is moved by up to 5 %, so that nothing compresses
better than it would; for refilter they stay, since it checks that they give the verdicts that are stored.
"""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from curation.limits import ORIGIN, read_recipe
from curation.refilter import apply_verdict, by_name, check_replay, judge_sources, records, replay_all
from curation.review.report import write_report
from manifests.reader import read_clips, read_run_notes, read_sources
from manifests.writer import write_manifests


def repeat_rows(output: Path, folder: Path, rows: int, jitter: float) -> Path:
    """An output folder with so many clips, all of them those of `output`."""
    clips: Any = read_clips(output)
    sources, notes = read_sources(output), read_run_notes(output)
    scores, rng = list(notes.scores), np.random.default_rng(0)
    many_clips, many_sources = [], []
    for copy in range(-(-rows // len(clips))):
        links = folder / "videos" / f"{copy:04d}"
        links.mkdir(parents=True)
        names = {path: str(links / Path(path).name) for path in sources["path"]}
        for path, link in names.items():
            Path(link).symlink_to(path)
        moved = clips.assign(key=clips["key"] + f"-{copy}", source=[names[path] for path in clips["source"]])
        moved[scores] *= 1 + rng.uniform(-jitter, jitter, (len(moved), len(scores)))
        many_clips += records(moved)
        many_sources += records(sources.assign(path=list(names.values())))
    for row in many_sources:
        row["duplicate_of"] = None
    out = folder / "out"
    write_manifests(out, many_clips, many_sources, scores=notes.scores, reasons=notes.reasons, stages=notes.stages)
    recipe = {**read_recipe(output), ORIGIN: str(output.absolute())}
    (out / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return out


def time_report(output: Path) -> None:
    began = time.monotonic(), time.process_time()
    path = write_report(output)
    wall, cpu = time.monotonic() - began[0], time.process_time() - began[1]
    print(
        f"report: {len(read_clips(output))} clips, {wall:.1f} s ({cpu:.1f} CPU s), {path.stat().st_size / 1e6:.1f} MB"
    )


def time_refilter(output: Path, setting: str) -> None:
    """All of refilter but the packing, which goes at the speed of the disk."""
    began = time.monotonic(), time.process_time()
    old, new = read_recipe(output), read_recipe(output, [setting])
    clips, sources, notes = read_clips(output), read_sources(output), read_run_notes(output)
    rows = records(clips)
    check_replay(rows, by_name(old), old["score_only"])
    verdicts = replay_all(rows, by_name(new), new["score_only"], output / "recompute.csv")
    stages = by_name(old)
    changed = [apply_verdict(row, verdict, stages) for row, verdict in zip(rows, verdicts, strict=True)]
    judged = time.monotonic() - began[0]
    of_sources = judge_sources(records(sources), changed)
    write_manifests(output, changed, of_sources, scores=notes.scores, reasons=notes.reasons, stages=notes.stages)
    wall, cpu = time.monotonic() - began[0], time.process_time() - began[1]
    kept = [sum(row["kept"] for row in these) for these in (rows, changed)]
    print(f"refilter: {len(rows)} clips, {kept[0]} -> {kept[1]} kept; verdicts {judged:.1f} s")
    print(f"refilter with manifests: {wall:.1f} s ({cpu:.1f} CPU s)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="output folder of a run with --score-only")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--set", default="filters/blur.max_blur=0.5", help="a threshold for refilter")
    options = parser.parse_args()
    for jitter, measure in ((0.05, time_report), (0.0, lambda output: time_refilter(output, options.set))):
        folder = Path(tempfile.mkdtemp())
        try:
            measure(repeat_rows(options.output, folder, options.rows, jitter))
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
