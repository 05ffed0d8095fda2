"""Memory of a run's driver and worker: with one long source, and with many small ones.

    python benchmarks/memory.py long --video TALKER.mp4 --hours 2
    python benchmarks/memory.py many --video TALKER.mp4 --sources 500

Both are built from one talking video without encoding anything: repeated until it is long enough, or its first seconds
with a number behind them, so that no two copies have the same sha256. The command itself curates them with one worker.
RSS is what a process has in memory, USS what nobody shares with it; peaks are the kernel's own (VmHWM), which no
sampling misses.
"""

import argparse
import re
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import av
import numpy as np
import psutil

from curation.pool import ROOT

WORKER = "ray::Worker"
ROWS = 12  # of a table
SETTLED = 100  # sources after which a process has everything that it loads once
MB = 1e6


@dataclass(frozen=True)
class Sample:
    """Memory in bytes of both processes at a moment; `sources` were handed out until then."""

    second: float
    sources: int
    worker_rss: int
    worker_uss: int
    driver_rss: int
    driver_uss: int


def repeat_packets(video: Path, seconds: float, path: Path) -> None:
    """The packets of a video again and again, until they last so long."""
    with av.open(str(video)) as given:
        streams = [given.streams.video[0], given.streams.audio[0]]
        length_s = float(streams[0].duration * streams[0].time_base)  # type: ignore[operator]
        packets = [packet for packet in given.demux(streams) if packet.pts is not None and packet.dts is not None]
        with av.open(str(path), "w") as output:
            copies = {stream.index: output.add_stream_from_template(stream) for stream in streams}
            for turn in range(int(np.ceil(seconds / length_s))):
                for packet in packets:
                    if belongs_to_turn(packet, length_s, turn):
                        output.mux(move_packet(packet, copies[packet.stream.index], turn * length_s))


def belongs_to_turn(packet: av.Packet, length_s: float, turn: int) -> bool:
    """Whether a packet belongs to its turn: sound that reaches beyond the pictures would overlap with the next."""
    start_s = float(packet.pts * packet.time_base)  # type: ignore[operator]
    end_s = start_s + float((packet.duration or 0) * packet.time_base)
    return packet.stream.type == "video" or (end_s <= length_s + 1e-6 and (turn == 0 or start_s >= 0))


def move_packet(packet: av.Packet, stream: av.VideoStream | av.AudioStream, by_s: float) -> av.Packet:
    assert packet.pts is not None and packet.dts is not None
    copy = av.Packet(bytes(packet))
    ticks = round(Fraction(by_s).limit_denominator(100_000) / packet.time_base)
    copy.pts, copy.dts, copy.duration = packet.pts + ticks, packet.dts + ticks, packet.duration
    copy.time_base, copy.is_keyframe, copy.stream = packet.time_base, packet.is_keyframe, stream
    return copy


def beginning(video: Path, seconds: float, path: Path) -> None:
    """The packets of the first seconds of a video."""
    with av.open(str(video)) as given, av.open(str(path), "w") as output:
        streams = [given.streams.video[0], given.streams.audio[0]]
        copies = {stream.index: output.add_stream_from_template(stream) for stream in streams}
        for packet in given.demux(streams):
            if packet.dts is not None and packet.pts is not None and packet.pts * packet.time_base < seconds:
                packet.stream = copies[packet.stream.index]
                output.mux(packet)


def append_number(content: bytes, number: int) -> bytes:
    """An MP4 file with a number in a `free` box at its end (ISO 14496-12, 8.1.2), which every player skips."""
    return content + struct.pack(">I4sQ", 16, b"free", number)


def numbered_copies(video: Path, count: int, folder: Path) -> None:
    """Copies of a video that differ by a number behind them."""
    content = video.read_bytes()
    for number in range(count):
        (folder / f"{number:04d}.mp4").write_bytes(append_number(content, number))


def sample_memory(
    videos: Path, output: Path, settings: list[str], every_s: float, peaks: dict[str, int]
) -> Iterator[Sample]:
    """Memory while the command runs, every so many seconds; `peaks` are kept up to date."""
    command = [sys.executable, ROOT / "curation" / "run.py", "--profile", "embedded", "--workers", "1"]
    command += ["--videos", videos, "--output", output, *(part for text in settings for part in ("--set", text))]
    began = time.monotonic()
    with (output.parent / "run.txt").open("w") as told:
        process = subprocess.Popen(list(map(str, command)), stdout=told, stderr=subprocess.STDOUT)  # noqa: S603
        driver = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                workers = [each for each in driver.children(recursive=True) if executable_of(each).startswith(WORKER)]
                pairs = [(each.memory_info().rss, each.memory_full_info().uss) for each in (driver, *workers[:1])]
                peaks["driver"] = max(peaks["driver"], peak(driver))
                peaks["worker"] = max(peaks["worker"], *(peak(each) for each in workers), 0)
            except (psutil.Error, OSError):  # one of them has just ended
                continue
            worker = pairs[1] if len(pairs) > 1 else (0, 0)
            yield Sample(time.monotonic() - began, handed_out(output), *worker, *pairs[0])
            time.sleep(every_s)
    said = (output.parent / "run.txt").read_text(errors="replace")
    print(said[-1500:])
    if process.returncode:
        raise SystemExit(f"the run ended with exit code {process.returncode}")


def executable_of(process: psutil.Process) -> str:
    command = process.cmdline()
    return command[0] if command else ""


def peak(process: psutil.Process) -> int:
    """The largest RSS that a process ever had."""
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii", errors="replace")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return 1024 * int(found[1]) if found else 0


def handed_out(output: Path) -> int:
    """Sources that a worker was given so far."""
    attempts = output / "ledger" / "attempts.log"
    return attempts.read_bytes().count(b"\n") if attempts.exists() else 0


def print_table(title: str, groups: list[tuple[str, list[Sample]]]) -> None:
    """The largest values of each group of samples."""
    print(f"{title:>10} {'worker RSS':>11} {'USS':>7} {'driver RSS':>11} {'USS':>7}   (MB, largest)")
    for name, samples in groups:
        if samples:
            worker = [max(each.worker_rss for each in samples), max(each.worker_uss for each in samples)]
            driver = [max(each.driver_rss for each in samples), max(each.driver_uss for each in samples)]
            shown = [f"{value / MB:,.0f}" for value in (*worker, *driver)]
            print(f"{name:>10} {shown[0]:>11} {shown[1]:>7} {shown[2]:>11} {shown[3]:>7}")


def growth(samples: list[Sample], name: str) -> str:
    """KB of USS per source, fitted over the samples after the first sources."""
    settled = [each for each in samples if each.sources >= SETTLED and getattr(each, name)]
    if len(settled) < 2:
        return "too few sources to tell"
    slope = np.polyfit([each.sources for each in settled], [getattr(each, name) / 1e3 for each in settled], 1)[0]
    return f"{slope:+.1f} KB per source"


def long(options: argparse.Namespace, folder: Path) -> None:
    seconds = 3600 * options.hours
    repeat_packets(options.video, seconds, folder / "videos" / "long.mp4")
    samples, peaks = watch(folder, options, every_s=2.0)
    borders = np.linspace(0, samples[-1].second + 1e-6, ROWS + 1)
    groups = [
        (f"{end / 60:.0f}", [each for each in samples if start <= each.second < end])
        for start, end in pairwise(borders)
    ]
    print_table("minutes", groups)
    print(f"peaks over {options.hours:g} h of video: " + format_peaks(peaks))


def many(options: argparse.Namespace, folder: Path) -> None:
    beginning(options.video, options.seconds, folder / "short.mp4")
    numbered_copies(folder / "short.mp4", options.sources, folder / "videos")
    samples, peaks = watch(folder, options, every_s=1.0)
    working = [each for each in samples if each.worker_rss and each.sources]
    borders = np.linspace(1, options.sources + 1, min(10, options.sources) + 1).round().astype(int)
    groups = [(str(end - 1), [s for s in working if start <= s.sources < end]) for start, end in pairwise(borders)]
    print_table("sources", groups)
    print(f"after the first {SETTLED}: worker {growth(working, 'worker_uss')}, driver {growth(working, 'driver_uss')}")
    print(f"peaks over {options.sources} sources, finishing the corpus included: " + format_peaks(peaks))


def watch(folder: Path, options: argparse.Namespace, every_s: float) -> tuple[list[Sample], dict[str, int]]:
    peaks = {"driver": 0, "worker": 0}
    return list(sample_memory(folder / "videos", folder / "out", options.set, every_s, peaks)), peaks


def format_peaks(peaks: dict[str, int]) -> str:
    return ", ".join(f"{name} {value / MB:,.0f} MB" for name, value in peaks.items())


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--video", type=Path, required=True, help="somebody talks in it, with a face above 228 pixels")
    parser.add_argument("--folder", type=Path, help="where videos and output are kept; default: nowhere")
    parser.add_argument("--set", action="append", default=[], metavar="STAGE.SETTING=VALUE")
    kinds = parser.add_subparsers(required=True)
    one = kinds.add_parser("long", help="one source of some hours")
    one.add_argument("--hours", type=float, default=2.0)
    one.set_defaults(measure=long)
    small = kinds.add_parser("many", help="many sources of some seconds")
    small.add_argument("--sources", type=int, default=500)
    small.add_argument("--seconds", type=float, default=3.0)
    small.set_defaults(measure=many)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        (folder / "videos").mkdir(parents=True, exist_ok=True)
        options.measure(options, folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
