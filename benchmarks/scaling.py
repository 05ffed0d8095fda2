"""What a second worker gains, and whether a source-hour costs the same after many: the real command on one corpus.

    python benchmarks/scaling.py --quick
    python benchmarks/scaling.py --workers 2 --hours 0.167 1 10 --dropped 90 --work FOLDER [--json FILE]

workers      the same sources with one worker and with two: wall time from handing out the first source to the end of
             the last one, so without Ray's start, the loading of networks, corpus, packing and report; also the seconds
             that workers spent inside sources. On a machine with other work the ratio says little: see its load.
hours        the same talkers again and again, with a number behind each copy so that no two are the same file: CPU
             seconds of all processes per source-hour, and the same without what a run costs anyway (a line through the
             points). With the most workers; of the sources `--dropped` per cent have no speech or no face, in turn.
             Nothing is encoded; a source-hour takes 0.9 GB, and its output up to 0.2 GB.
overhead     of the driver: `python benchmarks/driver.py` (milliseconds a source, with nothing to curate).
"""

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain, cycle, islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.command import Ran, run_command
from benchmarks.memory import append_number
from benchmarks.result import write_json
from benchmarks.sources import KEPT, NO_FACE, NO_SPEECH, build, talkers
from clock import FPS

HEIGHT = 720


def copies(videos: Sequence[Path], count: int, folder: Path) -> list[Path]:
    """So many sources, none with the bytes of another."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for number, video in enumerate(islice(cycle(videos), count)):
        found.append(folder / f"{number:05d}.mp4")
        if not found[-1].exists():
            found[-1].write_bytes(append_number(video.read_bytes(), number))
    return found


def hours_of(ran: Ran) -> float:
    return sum(ran.sources["frames"].tolist()) / FPS / 3600


def busy_s(ran: Ran) -> float:
    """Seconds that workers spent inside sources, of the busiest worker."""
    spent: Counter[str] = Counter()
    for worker, wall_s in zip(ran.sources["worker"], ran.sources["wall_s"], strict=True):
        spent[worker] += wall_s
    return max(spent.values())


def by_workers(videos: Sequence[Path], workers: Sequence[int], rounds: int, folder: Path) -> list[dict[str, Any]]:
    rows = []
    for round_ in range(rounds):
        for count in workers:
            ran = run_command(videos, folder / f"{count}-{round_}", count)
            row = {"workers": count, "round": round_, "sources_wall_s": ran.sources_s, "busiest_s": busy_s(ran)}
            row |= {"wall_s": ran.wall_s, "cpu_s": ran.cpu_s, "hours": hours_of(ran)}
            rows.append(row)
            print(
                f"{count} worker(s): {ran.sources_s:7.1f} s for the sources, {row['busiest_s']:7.1f} s in the busiest "
                f"worker, {ran.cpu_s:7.1f} CPU s, {ran.wall_s:7.1f} s the whole command",
                flush=True,
            )
            shutil.rmtree(folder / f"{count}-{round_}")
    return rows


def gain(rows: Sequence[dict[str, Any]], name: str) -> float:
    """One worker's seconds over those of the most workers, medians of the rounds."""
    most = max(row["workers"] for row in rows)
    one, many = (np.median([row[name] for row in rows if row["workers"] == count]) for count in (1, most))
    return float(one / many)


def mix_sources(sources: Mapping[str, Sequence[Path]], dropped: float) -> list[Path]:
    """Sources in an order in which this share of any stretch has no speech or no face."""
    others = cycle(chain.from_iterable(zip(sources[NO_SPEECH], sources[NO_FACE], strict=True)))
    return [file for kept in sources[KEPT] for file in (kept, *islice(others, round(dropped / (1 - dropped))))]


def by_hours(
    videos: Sequence[Path], seconds: float, hours: Sequence[float], workers: int, folder: Path
) -> list[dict[str, float]]:
    rows = []
    for wanted in hours:
        sources = copies(videos, max(1, round(3600 * wanted / seconds)), folder / "copies")
        ran = run_command(sources, folder / "out", workers)
        found = hours_of(ran)
        row = {"hours": found, "sources": len(sources), "cpu_s": ran.cpu_s, "cpu_s_per_hour": ran.cpu_s / found}
        row |= {"wall_s": ran.wall_s, "worker_peak_mb": ran.worker_peak_mb, "driver_peak_mb": ran.driver_peak_mb}
        rows.append(row)
        print(
            f"{found:6.2f} h in {len(sources):5d} sources: {ran.cpu_s:8.1f} CPU s, {row['cpu_s_per_hour']:7.1f} per "
            f"source-hour, {ran.wall_s:.0f} s; "
            f"peaks: worker {ran.worker_peak_mb:.0f} MB, driver {ran.driver_peak_mb:.0f} MB",
            flush=True,
        )
        shutil.rmtree(folder / "out")
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--hours", type=float, nargs="*", default=[1 / 6, 0.5, 1.0])
    parser.add_argument("--dropped", type=float, default=0.0, metavar="PER CENT", help="of the hours, early")
    parser.add_argument("--rounds", type=int, default=2, help="of the workers (default: %(default)s)")
    parser.add_argument("--talkers", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each source (default: %(default)s)")
    parser.add_argument("--work", type=Path, help="where sources are built and kept; default: nowhere")
    parser.add_argument("--quick", action="store_true", help="8 sources of 10 s; 80 and 160 s of input")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.talkers, options.seconds, options.hours = 1, 2, 10.0, [80 / 3600, 160 / 3600]
    numbers: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        place, dropped = options.work or folder, options.talkers if options.dropped else 0
        built = build(place, talkers(options.talkers), HEIGHT, options.seconds, dropped)
        videos = built[KEPT]
        if len(options.workers) > 1:
            count = 4 * max(options.workers)  # equal sources that end together
            sources = copies(videos, count, folder / "equal")
            rows = numbers["workers"] = by_workers(sources, options.workers, options.rounds, folder)
            numbers["gain"], numbers["gain_in_sources"] = gain(rows, "sources_wall_s"), gain(rows, "busiest_s")
            print(f"{max(options.workers)} workers are {numbers['gain']:.2f} times as fast as one", end=" ")
            print(f"({numbers['gain_in_sources']:.2f} by the time inside sources)")
        if options.hours:
            videos, workers = mix_sources(built, options.dropped / 100), max(options.workers or [1])
            rows = numbers["hours"] = by_hours(videos, options.seconds, options.hours, workers, place)
            if len(rows) > 1:
                slope, start = np.polyfit([row["hours"] for row in rows], [row["cpu_s"] for row in rows], 1).tolist()
                numbers |= {"cpu_s_per_hour": slope, "cpu_s_of_a_run": start}
                print(f"a source-hour costs {slope:.0f} CPU s, a run {start:.0f} before the first")
    write_json(options.json, numbers)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
