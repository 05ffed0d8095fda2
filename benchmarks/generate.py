"""What generation promises, measured: exact lengths, untouched pixels, no seam at joints, memory that does not grow.

    python benchmarks/generate.py --checkpoint RUN VIDEO...                  lengths, pixels and seams
    python benchmarks/generate.py --checkpoint RUN --memory VIDEO            peak memory from 10 s to 5 min

Each video gets its own sound: half of it, all of it, and three times over. Written at crf 0 (lossless) and read back: a
byte outside the square that was cut out either equals the decoded source's or is counted. A seam is the step from one
frame to the next where chunks join or the video turns round, inside the face, over the median step of the others.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.result import write_json
from clock import SAMPLE_RATE
from media.audio import read_sound
from media.encode import encode_flac
from media.frames import GridReader, Picture, read_pictures
from media.probe import probe
from training.generator import Generator, Job, Options
from training.plan import chunks, runs, source_frames


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python benchmarks/generate.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--memory", action="store_true", help="peak memory by length instead")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--most-s", type=float, default=8.0, help="of each video's sound (default: %(default)s)")
    parser.add_argument(
        "--quick", action="store_true", help="one step, 2 s of sound, the first video; memory at 2 and 4 s"
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--once", type=float, help=argparse.SUPPRESS)  # one length, in a process of its own
    parser.add_argument("videos", type=Path, nargs="+")
    options = parser.parse_args(arguments)
    if options.once:
        return once(options)
    if options.quick:
        options.steps, options.most_s, options.videos = 1, 2.0, options.videos[:1]
    return memory(options) if options.memory else promises(options)


def promises(options: argparse.Namespace) -> int:
    generator = Generator(options.checkpoint, torch.device("cpu"))
    chosen = Options(steps=options.steps, crf=0, payload=None)
    columns = ("frames wanted", "written", "bytes changed outside", "seam / median", "s a frame")
    table, rows = Table("video", "source", "sound", *columns), []
    for video in options.videos:
        heard = read_sound(video)
        part = heard[: int(options.most_s * SAMPLE_RATE)]
        described = probe(video)
        rate = "variable" if described.variable_frame_rate else f"{described.fps:.2f} fps"
        rate = f"{described.width}x{described.height} {rate}"
        for name, sound in (("half", part[: len(part) // 2]), ("equal", part), ("3x", np.tile(part, 3))):
            cells = measure_promises(generator, video, sound, chosen)
            table.add_row(video.name, rate, name, *cells)
            rows.append({"video": video.name, "source": rate, "sound": name, **dict(zip(columns, cells, strict=True))})
    Console(width=140).print(table)
    write_json(options.json, {"promises": rows})
    return 0


def measure_promises(generator: Generator, video: Path, sound: np.ndarray, options: Options) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        tone = Path(folder) / "sound.flac"
        tone.write_bytes(encode_flac(sound))
        job = Job(video, tone, Path(folder) / "out.mp4")
        began = time.perf_counter()
        frames = generator.generate(job, options)
        seconds = time.perf_counter() - began
        described, wanted = probe(video), -(-len(sound) // 640)
        track = generator.faces.follow(video, described, frames, generator.mask)
        shown = source_frames(len(track.boxes), frames)
        before = read_pictures(GridReader(video, described), 0, int(shown.max()) + 1)
        after = read_pictures(GridReader(job.output, probe(job.output)), 0, frames)
        changed = sum(outside(before[shown[t]], after[t], track.squares[shown[t]]) for t in range(frames))
        return [str(wanted), str(len(after)), str(changed), seam(after, track, shown), f"{seconds / frames:.2f}"]


def outside(source: Picture, made: Picture, square: np.ndarray) -> int:
    """Bytes of the luma outside the square that differ."""
    height, width = made.planes[0].shape
    differs = source.planes[0][:height, :width] != made.planes[0]
    if np.isfinite(square).all():
        x0, y0, x1, y1 = np.round(square).astype(int)
        differs[max(y0, 0) : y1, max(x0, 0) : x1] = False
    return int(differs.sum())


def seam(pictures: list[Picture], track, shown: np.ndarray) -> str:
    """The largest step at a joint over the median step inside runs, both of the luma inside the face box."""
    steps, joints = [], []
    for run in runs(track.has_face, track.boxes, track.shot, shown):
        starts = {chunk.start for chunk in chunks(run)[1:]}
        turns = {t for t in range(run.start + 1, run.end - 1) if shown[t + 1] - shown[t] != shown[t] - shown[t - 1]}
        for t in range(run.start + 1, run.end):
            x0, y0, x1, y1 = np.maximum(track.boxes[shown[t]], 0).astype(int)
            a, b = (pictures[i].planes[0][y0:y1, x0:x1].astype(np.float32) for i in (t - 1, t))
            step = float(np.abs(a - b).mean())
            (joints if t in turns or starts & {t, t - 4} else steps).append(step)
    if not joints:
        return "no joint"
    return f"{max(joints) / max(float(np.median(steps)), 1e-3):.2f}"


def memory(options: argparse.Namespace) -> int:
    table, rows = Table("sound", "frames", "peak memory", "seconds"), []
    for seconds in (2, 4) if options.quick else (10, 60, 300):
        command = [
            sys.executable,
            __file__,
            "--checkpoint",
            str(options.checkpoint),
            "--once",
            str(seconds),
            str(options.videos[0]),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
        cells = done.stdout.split()
        table.add_row(f"{seconds} s", *cells)
        rows.append({"sound_s": seconds, **dict(zip(("frames", "peak_memory", "seconds"), cells, strict=True))})
    Console().print(table)
    write_json(options.json, {"memory": rows})
    return 0


def once(options: argparse.Namespace) -> int:
    """Frames, peak resident memory and time of one length: `options.once` seconds of the video's sound, repeated."""
    generator = Generator(options.checkpoint, torch.device("cpu"))
    heard = read_sound(options.videos[0])
    samples = int(options.once * SAMPLE_RATE)
    sound = np.resize(heard[:], samples).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        tone = Path(folder) / "sound.flac"
        tone.write_bytes(encode_flac(sound))
        began = time.perf_counter()
        quick = replace(Options(), steps=1, guidance=1.0)
        frames = generator.generate(Job(options.videos[0], tone, Path(folder) / "out.mp4"), quick)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        print(frames, f"{peak:.0f}_MiB", f"{time.perf_counter() - began:.0f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
