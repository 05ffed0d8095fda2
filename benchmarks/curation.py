"""What curation costs: CPU seconds per minute of source, beside bare decoding and beside the usual way of doing it.

    python benchmarks/curation.py --quick
    python benchmarks/curation.py [--sizes 720 1080 2160] [--dropped 0 10 50 90] [--rounds 3] [--json FILE]

The floor is PyAV decoding the same files on one thread and nothing else, in turn with the curation of each file, so
that a busy machine slows both; medians of the rounds and their range. One process, one thread, networks loaded before.
The sources are built by benchmarks/sources.py: talkers of which everything is kept, talkers without speech, speech
without a face. Nothing is shared between sources, so a corpus of which 90 % is dropped early (half of it for its sound,
half for its pictures) costs what its sources cost: its numbers are sums of the measured ones by their shares.

Once for all sources of one size (1080 where it is among them): the whole command with Ray, packing
and the report; and benchmarks/naive.py, whose verdicts are compared with the command's. `ratio_to_...` is always our
CPU time over the other's.

With --device cuda (written for it and never run on one): stages with a device use it, seconds are CPU seconds of a
process that spins while the GPU works, and the command with --workers gives source-hours per GPU-hour.
"""

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # read when numpy and torch are imported

import argparse
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import av
import cv2

import pipelines
from benchmarks.command import Ran, forget_peak, peak_of, run_command
from benchmarks.result import write_json
from benchmarks.sources import KEPT, KINDS, NO_FACE, NO_SPEECH, TALKERS, build, talkers
from clock import FPS
from curation.source import curate, identify
from curation.stage import Stage, build_stages
from media.probe import Limits

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = 1080  # the size that is compared with the usual way
DECODE, ENCODE, NETWORKS, TOTAL = "decode alone", "encode and write", "inside networks", "everything"

Costs = dict[str, float]  # CPU seconds per minute of source, by stage and for the names above


@dataclass(frozen=True)
class Size:
    """What was measured at one size: for each round, kind -> costs."""

    height: int
    mbits: float
    minutes: float
    kept_share: float  # of the sources of which everything should be kept
    rounds: list[dict[str, Costs]]
    peak_mb: float
    gpu_peak_mb: float | None

    def values(self, name: str, dropped: float) -> list[float]:
        return [
            mix_costs({kind: costs.get(name, 0.0) for kind, costs in each.items()}, dropped) for each in self.rounds
        ]

    def ratios(self, dropped: float) -> list[float]:
        pairs = zip(self.values(TOTAL, dropped), self.values(DECODE, dropped), strict=True)
        return [ours / decode for ours, decode in pairs]


class Timed:
    """A network whose calls are timed: an upper bound of its own time, as it holds what prepares its input."""

    def __init__(self, model: Any, spent: Callable[[float], None]) -> None:
        self._model, self._spent = model, spent

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._model, name)
        if not callable(value):
            return value

        def timed(*given: Any, **named: Any) -> Any:
            began = time.process_time()
            try:
                return value(*given, **named)
            finally:
                self._spent(time.process_time() - began)

        return timed


class Bench:
    """The profile's stages with loaded networks; anew for each round, as a stage may remember what it saw last."""

    def __init__(self, profile: pipelines.Profile) -> None:
        self.limits = Limits(**asdict(profile.limits))
        self.stages = build_stages(profile.stages, profile.device)
        self.in_networks_s = 0.0
        for stage in self.stages:
            self.load(stage)

    def load(self, stage: Stage) -> None:
        stage.load()
        if "model" in vars(stage):
            vars(stage)["model"] = Timed(vars(stage)["model"], self.spent)

    def spent(self, seconds: float) -> None:
        self.in_networks_s += seconds

    def measure(self, video: Path, output: Path) -> tuple[Costs, float, float]:
        """CPU seconds of one source, its seconds, and the kept ones."""
        found: Costs = {DECODE: decoding_s(video)}
        self.in_networks_s = 0.0
        began = time.process_time()
        identity = identify(video, self.limits)
        found["identify"] = time.process_time() - began
        curated = curate(identity, self.stages, output, self.limits, "")
        found[TOTAL] = time.process_time() - began
        named = {
            name.removeprefix("cpu_s_"): cost for name, cost in curated.source.items() if name.startswith("cpu_s_")
        }
        found |= named
        found[ENCODE] = found[TOTAL] - found["identify"] - sum(named.values())
        found[NETWORKS] = self.in_networks_s
        frames = [(clip["end_frame"] - clip["start_frame"], clip["kept"]) for clip in curated.clips]
        return found, sum(n for n, _ in frames) / FPS, sum(n for n, kept in frames if kept) / FPS


def decoding_s(video: Path) -> float:
    """CPU seconds that PyAV takes for all pictures of a file."""
    began = time.process_time()
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for _ in container.decode(stream):
            pass
    return time.process_time() - began


def mix_costs(by_kind: Mapping[str, float], dropped: float) -> float:
    """The cost of a minute of which this share is dropped early, half for its sound and half for its pictures."""
    return (1 - dropped) * by_kind[KEPT] + dropped / 2 * (by_kind[NO_SPEECH] + by_kind[NO_FACE])


def measure_size(
    profile: pipelines.Profile, height: int, sources: Mapping[str, Sequence[Path]], rounds: int, folder: Path
) -> Size:
    Bench(profile).measure(sources[KEPT][0], folder)  # whatever is imported on first use
    gc.collect()
    forget_peak()
    found, kept_s, seconds = list[dict[str, Costs]](), 0.0, dict[str, float]()
    for _ in range(rounds):
        bench = Bench(profile)
        by_kind: dict[str, Costs] = {kind: defaultdict(float) for kind in KINDS}
        for kind, files in sources.items():
            seconds[kind] = 0.0
            for video in files:
                costs, length_s, kept = bench.measure(video, folder)
                seconds[kind] += length_s
                kept_s += kept if kind == KEPT else 0.0
                for name, cost in costs.items():
                    by_kind[kind][name] += cost
        found.append({k: {name: 60 * cost / seconds[k] for name, cost in c.items()} for k, c in by_kind.items()})
    bits = sum(video.stat().st_size * 8 for video in sources[KEPT])
    return Size(
        height=height,
        mbits=bits / seconds[KEPT] / 1e6,
        minutes=sum(seconds.values()) / 60,
        kept_share=kept_s / rounds / seconds[KEPT],
        rounds=found,
        peak_mb=peak_of(),
        gpu_peak_mb=gpu_peak_mb(),
    )


def gpu_peak_mb() -> float | None:
    """What torch had on the GPU at most, if a stage has imported it: this script does not, for its memory's sake."""
    torch = sys.modules.get("torch")
    return torch.cuda.max_memory_allocated() / 1e6 if torch is not None and torch.cuda.is_available() else None


def format_range(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def print_sizes(sizes: Sequence[Size], shares: Sequence[float]) -> list[dict[str, float]]:
    """The table of sizes and shares; gives the same as numbers."""
    rows = []
    print(
        "\n| size | Mbit/s | dropped | CPU s / source min | minutes / core-min | x decode | inside networks | peak MB |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for size in sizes:
        for share in shares:
            totals, ratios = size.values(TOTAL, share), size.ratios(share)
            row = {
                "height": size.height,
                "dropped": share,
                "cpu_s_per_minute": statistics.median(totals),
                "cpu_s_per_minute_range": [min(totals), max(totals)],
                "minutes_per_core_minute": 60 / statistics.median(totals),
                "decode_s_per_minute": statistics.median(size.values(DECODE, share)),
                "networks_s_per_minute": statistics.median(size.values(NETWORKS, share)),
                "ratio_to_decode": statistics.median(ratios),
                "ratio_to_decode_range": [min(ratios), max(ratios)],
                "peak_mb": size.peak_mb,
                "gpu_peak_mb": size.gpu_peak_mb,
            }
            rows.append(row)
            print(
                f"| {size.height}p | {size.mbits:.1f} | {share:.0%} | {format_range(totals)} "
                f"| {row['minutes_per_core_minute']:.2f} | {format_range(ratios)} | {row['networks_s_per_minute']:.1f} "
                f"| {size.peak_mb:.0f} |"
            )
    return rows


def print_stages(size: Size) -> dict[str, dict[str, float]]:
    """CPU seconds per minute by stage for each kind of source; gives the same as numbers."""
    names = list(dict.fromkeys(name for each in size.rounds for costs in each.values() for name in costs))
    table = {
        kind: {name: statistics.median(each[kind].get(name, 0.0) for each in size.rounds) for name in names}
        for kind in KINDS
    }
    print(f"\n{size.height}p, CPU s per minute of source\n\n| | {' | '.join(KINDS)} |\n|---|---|---|---|")
    for name in names:
        print(f"| {name} | {' | '.join(f'{table[kind][name]:.2f}' for kind in KINDS)} |")
    return table


def run_naive(videos: Sequence[Path], folder: Path, settings: Sequence[str], profile: str) -> list[dict[str, Any]]:
    """What benchmarks/naive.py says of each source."""
    told = folder / "naive.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "naive.py"), "--profile", profile, "--json", str(told)]
    command += ["--output", str(folder / "naive"), "--videos", *map(str, videos)]
    subprocess.run([*command, *(part for text in settings for part in ("--set", text))], check=True)  # noqa: S603
    return json.loads(told.read_text(encoding="utf-8"))["sources"]


def compare(ran: Ran, naive: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How far the two agree about what is kept: by seconds and by source."""
    same_s, seconds, ours_s, theirs_s, differ = 0.0, 0.0, 0.0, 0.0, []
    for source in naive:
        rows = [row for row in ran.clips.to_dict("records") if row["source"] == source["path"]]
        ours = [(row["start_frame"], row["end_frame"]) for row in rows if row["kept"]]
        theirs = [(start, end) for start, end, kept, _ in source["spans"] if kept]
        frames = round(source["seconds"] * FPS)
        one, two = mark_frames(ours, frames), mark_frames(theirs, frames)
        same_s += sum(a == b for a, b in zip(one, two, strict=True)) / FPS
        seconds, ours_s, theirs_s = seconds + frames / FPS, ours_s + sum(one) / FPS, theirs_s + sum(two) / FPS
        if any(one) != any(two):
            differ.append(
                {"path": source["path"], "ours": sorted({row["reason"] for row in rows}), "naive": source["spans"]}
            )
    return {
        "seconds": seconds,
        "same_verdict_share": same_s / seconds,
        "kept_s": ours_s,
        "naive_kept_s": theirs_s,
        "sources": len(naive),
        "sources_with_another_verdict": differ,
    }


def mark_frames(spans: Sequence[tuple[int, int]], frames: int) -> list[bool]:
    found = [False] * frames
    for start, end in spans:
        found[start:end] = [True] * (min(end, frames) - start)
    return found


def naive_costs(
    naive: Sequence[Mapping[str, Any]], sources: Mapping[str, Sequence[Path]], without: str = ""
) -> dict[str, float]:
    """CPU seconds per minute of source of each kind, of all stages or all but one."""
    by_path = {source["path"]: source for source in naive}
    found = {}
    for kind, files in sources.items():
        rows = [by_path[str(file)] for file in files]
        spent = sum(cost for row in rows for stage, cost in row["cpu_s"].items() if stage != without)
        found[kind] = 60 * spent / sum(row["seconds"] for row in rows)
    return found


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--videos", type=Path, nargs="+", help="talkers of your own, all of it fit to be kept")
    found.add_argument("--sizes", type=int, nargs="+", default=[720, 1080, 2160])
    found.add_argument("--dropped", type=float, nargs="+", default=[0, 10, 50, 90], metavar="PER CENT")
    found.add_argument("--rounds", type=int, default=3)
    found.add_argument("--sources", type=int, default=len(TALKERS), help="talkers (default: %(default)s)")
    found.add_argument("--seconds", type=float, default=45.0, help="of each source (default: %(default)s)")
    found.add_argument("--fill", type=float, default=1.0, help="share of the height that a talker takes (default: 1)")
    found.add_argument("--naive", action=argparse.BooleanOptionalAction, default=True)
    found.add_argument("--command", action=argparse.BooleanOptionalAction, default=True, help="run.py once, and naive")
    found.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    found.add_argument("--workers", type=int, default=1, help="of the whole command (default: %(default)s)")
    found.add_argument("--profile", default="embedded")
    found.add_argument("--set", action="append", default=[], metavar="STAGE.SETTING=VALUE")
    found.add_argument("--work", type=Path, help="where the sources are built and kept; default: nowhere")
    found.add_argument("--quick", action="store_true", help="two talkers of 12 s at 1080p and 4 Mbit/s, one round")
    found.add_argument("--json", type=Path)
    return found


def main() -> int:
    options = parser().parse_args()
    if options.quick:
        options.sizes, options.rounds, options.sources, options.seconds = [REFERENCE], 1, 2, 12.0
    cv2.setNumThreads(1)
    settings = [*options.set, f"device={options.device}"]
    profile, shares = pipelines.load(options.profile, settings), [each / 100 for each in options.dropped]
    videos = options.videos or talkers(options.sources)
    dropped = max(1, len(videos) // 3)
    numbers: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        place = options.work or folder
        sources = {h: build(place, videos, h, options.seconds, dropped, options.fill) for h in options.sizes}
        sizes = [measure_size(profile, h, files, options.rounds, folder / "out") for h, files in sources.items()]
        numbers["table"] = print_sizes(sizes, shares)
        numbers["stages"] = {f"{size.height}p": print_stages(size) for size in sizes}
        reference = next((size for size in sizes if size.height == REFERENCE), sizes[-1])
        numbers["ratio_to_decode"] = statistics.median(reference.ratios(0.0))
        print(
            f"\n{reference.minutes:.1f} minutes at {reference.height}p; {reference.kept_share:.1%} of the talkers kept"
        )
        if options.device == "cuda":
            print_gpu(reference)
        if options.command:
            corpus = sources[reference.height]
            files = [file for files in corpus.values() for file in files]
            numbers |= whole(options, files, folder, settings)
            if options.naive:
                naive = run_naive(files, folder, options.set, options.profile)
                numbers |= beside_naive(reference, naive_costs(naive, corpus), shares)
                print("without its resampling, which LatentSync spares a source of 25 fps:")
                rest = beside_naive(reference, naive_costs(naive, corpus, without="resample"), shares)
                numbers["naive_without_resampling"] = rest["naive"]
                numbers["agreement"] = compare(numbers.pop("ran"), naive)
                print_agreement(numbers["agreement"])
            numbers.pop("ran", None)
    write_json(options.json, numbers)
    return 0


def whole(options: argparse.Namespace, files: Sequence[Path], folder: Path, settings: list[str]) -> dict[str, Any]:
    """The whole command over all sources of a size."""
    ran = run_command(files, folder / "curated", options.workers, settings, options.profile)
    minutes = sum(ran.sources["frames"].tolist()) / FPS / 60
    found = {
        "cpu_s": ran.cpu_s,
        "cpu_s_per_minute": ran.cpu_s / minutes,
        "wall_s": ran.wall_s,
        "sources_wall_s": ran.sources_s,
        "worker_peak_mb": ran.worker_peak_mb,
        "driver_peak_mb": ran.driver_peak_mb,
        "source_hours_per_hour": 60 * minutes / ran.sources_s,
        "reasons": {str(k): int(v) for k, v in ran.clips["reason"].value_counts().items()},
    }
    print(
        f"the command, {options.workers} worker(s): {ran.cpu_s:.0f} CPU s for {minutes:.1f} min with the start of Ray, "
        f"the corpus and the report; sources took {ran.sources_s:.0f} s of wall, {found['source_hours_per_hour']:.2f} "
        f"source-hours per hour; peaks: worker {ran.worker_peak_mb:.0f} MB, driver {ran.driver_peak_mb:.0f} MB"
    )
    print(f"clips: {found['reasons']}")
    return {"command_run": found, "ran": ran}


def beside_naive(size: Size, costs: Mapping[str, float], shares: Sequence[float]) -> dict[str, Any]:
    """Our cost over that of the usual way, for each share that is dropped."""
    rows = {}
    for share in dict.fromkeys((0.0, *shares)):
        naive = mix_costs(costs, share)
        ours = statistics.median(size.values(TOTAL, share))
        rows[f"{share:.0%}"] = {"naive_cpu_s_per_minute": naive, "ratio_to_naive": ours / naive}
        print(
            f"{share:.0%} dropped: the usual way takes {naive:.1f} CPU s a minute, ours {ours / naive:.4f} of it",
            end="",
        )
        print(f" (1/{naive / ours:.1f})")
    return {"ratio_to_naive": rows["0%"]["ratio_to_naive"], "naive": {"by_kind": dict(costs), "by_share": rows}}


def print_agreement(found: Mapping[str, Any]) -> None:
    print(
        f"verdicts: the same for {found['same_verdict_share']:.2%} of {found['seconds']:.0f} s; "
        f"kept {found['kept_s']:.1f} s against {found['naive_kept_s']:.1f} s; another verdict for "
        f"{len(found['sources_with_another_verdict'])} of {found['sources']} sources"
    )
    for each in found["sources_with_another_verdict"]:
        print(f"  {Path(each['path']).name}: ours {each['ours']}, the usual way {each['naive']}")


def print_gpu(size: Size) -> None:
    costs = {name: statistics.median(size.values(name, 0.0)) for name in size.rounds[0][KEPT]}
    stages = {name: cost for name, cost in costs.items() if name not in (DECODE, NETWORKS, TOTAL)}
    slowest = max(stages, key=lambda name: stages[name])
    print(f"one process: {60 / costs[TOTAL]:.2f} source-hours per hour; {slowest} takes", end=" ")
    print(f"{stages[slowest] / costs[TOTAL]:.0%} of it; torch's peak on the GPU {size.gpu_peak_mb or 0:.0f} MB")


if __name__ == "__main__":
    raise SystemExit(main())
