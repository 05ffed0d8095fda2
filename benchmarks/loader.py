"""What a training window costs: CPU and bytes of the loader, beside PyAV decoding the same frames and nothing else.

    python benchmarks/loader.py [--data OUT] [--quick] [--rounds 7] [--json FILE]

A window is 16 frames and a reference frame, their masks and 40 Whisper rows, as tensors. All cases make the same number
of windows in each round, in turn, so that a busy machine slows all of them; CPU time, worker processes included; median
of the rounds and their range. Without --data, talkers of the test corpus are curated first (minutes). Everything is in
the page cache: this is about work, not about disks.

floor           PyAV opens the same clips, in memory, and decodes the same 16 + 1 frames and those before them in their
                groups of pictures; nothing is kept.
loader          training.data in the index mode, in this process (the row above all others in the targets), with workers
                (+ what it costs to hand tensors over), and with workers that convert to RGB before they hand over.
stream          training.stream in this process: whole samples are read.
webdataset      the usual way: WebDataset, whole clip to RGB, 16 random frames and a reference from the same clip.
jpeg            a store of one JPEG per frame (quality 90, 4:2:0), read by place, decoded by OpenCV; masks not made.

Bytes are those that the process asks the kernel for. "Needed" are the packets that have to be decoded, the Whisper rows
of the window, and landmarks of its frames.
"""

import argparse
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import av
import cv2
import numpy as np
import psutil
import torch
from av.container import InputContainer
from torch.utils.data import DataLoader

from benchmarks.result import write_json
from clock import FPS
from media.encode import decode_mp4
from models.mask import MaskSettings
from shards.index import read_index
from shards.member import read_rows
from shards.reader import read_member
from shards.sample import VIDEO, WHISPER, decode_npy
from training.batch import Batch
from training.data import Indexed, keep_batch, loader, open_data
from training.order import Place
from training.settings import DataSettings
from training.window import place_with_face

ROOT = Path(__file__).resolve().parents[1]
BATCH = 4
SETTINGS = DataSettings(workers=0, max_bad_share=0.0)
MASK = MaskSettings()


@dataclass
class Tally:
    """What a case did in one round."""

    cpu_ms: float
    bytes: float


def curated_talkers(folder: Path) -> Path:
    """Talkers of the test corpus, curated."""
    from tests.talkers import corpus

    names = [f"talker_{letter}" for letter in "abcdefghi"]
    videos = [str(corpus(*names) / f"{name}.mp4") for name in names]
    command = [sys.executable, str(ROOT / "curation" / "run.py"), "--profile", "embedded", "--output", str(folder)]
    subprocess.run([*command, "--videos", *videos], check=True)  # noqa: S603  our own command
    return folder


class Plan:
    """Which frames the loader decodes: [(row, first frame, frames)], the windows and references of a round."""

    def __init__(self, data: Indexed, windows: int) -> None:
        self.jobs: list[tuple[int, int, int]] = []
        for i in range(windows):
            row, random = int(data.order.rows(0)[i]), data.order.random(0, i)
            reference = data._of_source.row_of_frame(row, random)
            for each, frames in ((row, SETTINGS.frames), (reference, 1)):
                clip = data._clip(each)
                with clip.open() as sample:
                    start, *_ = place_with_face(clip, sample, SETTINGS.size, frames, random, MASK)
                self.jobs.append((each, start, frames))


def decode_frames(file: Any, start: int, frames: int) -> int:
    """Decode frames [start, start + frames) and what they depend on; gives the bytes of their packets."""
    with closing(av.open(file, "r", format="mp4")) as container:
        assert isinstance(container, InputContainer)
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        assert stream.time_base is not None
        ticks = 1 / (stream.time_base * FPS)
        container.seek(int(start * ticks), stream=stream)
        size = 0
        for packet in container.demux(stream):
            size += packet.size
            for frame in packet.decode():
                assert frame.pts is not None
                if round(frame.pts / ticks) == start + frames - 1:
                    return size
    raise AssertionError("the clip ends before its window")


class Floor:
    def __init__(self, data: Indexed, videos: list[bytes], plan: Plan) -> None:
        self.videos, self.plan = videos, plan
        rows = 2 * (SETTINGS.frames + 2 * SETTINGS.window_frames) * data.layers * data.dim * 2
        landmarks = (SETTINGS.frames + 1) * 76 * 2 * 2
        self.needed = self() / (len(plan.jobs) / 2) + rows + landmarks

    def __call__(self) -> int:
        return sum(decode_frames(io.BytesIO(self.videos[row]), start, n) for row, start, n in self.plan.jobs)


class InRgb(torch.utils.data.Dataset[tuple[torch.Tensor, Batch]]):
    """The dataset with its pictures converted in the worker."""

    def __init__(self, data: Indexed) -> None:
        self.data = data

    def __getitem__(self, places: list[Place]) -> tuple[torch.Tensor, Batch]:  # pyright: ignore
        batch = self.data[places]
        planes = batch.video.numpy().reshape(-1, *batch.video.shape[2:])
        pictures = np.stack([cv2.cvtColor(p, cv2.COLOR_YUV2RGB_I420) for p in planes])
        return torch.from_numpy(pictures), replace(batch, video=batch.video[:0])


def webdataset_windows(shards: list[str], windows: int) -> None:
    """The usual way, one window for each clip that is read."""
    from webdataset.compat import WebDataset

    random, left = np.random.default_rng(0), windows
    while left:
        samples = WebDataset(shards, shardshuffle=False, empty_check=False)
        for sample in islice(samples, left):
            frames = decode_mp4(sample["mp4"])
            start, k = int(random.integers(len(frames) - SETTINGS.frames + 1)), SETTINGS.window_frames
            torch.from_numpy(frames[start : start + SETTINGS.frames].copy())
            torch.from_numpy(frames[random.integers(len(frames))].copy())
            rows = decode_npy(sample[WHISPER])
            torch.from_numpy(rows[max(2 * (start - k), 0) : 2 * (start + SETTINGS.frames + k)].copy())
            left -= 1


class Jpegs:
    """One JPEG for each frame in one file, read by place."""

    def __init__(self, videos: list[bytes], path: Path) -> None:
        self.places: list[list[tuple[int, int]]] = []
        with path.open("wb") as file:
            for video in videos:
                self.places.append([])
                for picture in decode_mp4(video):
                    _, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
                    self.places[-1].append((file.tell(), len(data)))
                    file.write(data.tobytes())
        self.descriptor = os.open(path, os.O_RDONLY)

    def read(self, row: int, start: int, frames: int) -> np.ndarray:
        pictures = []
        for offset, size in self.places[row][start : start + frames]:
            data = np.frombuffer(os.pread(self.descriptor, size, offset), np.uint8)
            pictures.append(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)))
        return np.stack(pictures)


def jpeg_windows(data: Indexed, jpegs: Jpegs, plan: Plan) -> None:
    for row, start, frames in plan.jobs:
        torch.from_numpy(jpegs.read(row, start, frames))
        if frames > 1:
            clip, k = data._clip(row), SETTINGS.window_frames
            with clip.open() as sample:
                rows, _ = read_rows(sample.member(WHISPER), 2 * (start - k), 2 * (start + frames + k))
                torch.from_numpy(rows.copy())


def cpu_s() -> float:
    """CPU seconds of this process and of its living children."""
    times = [child.cpu_times() for child in psutil.Process().children()]
    return time.process_time() + sum(each.user + each.system for each in times)


def bytes_read() -> int:
    """Bytes that this process and its living children asked the kernel for."""
    lines = [
        Path(f"/proc/{p.pid}/io").read_text().splitlines() for p in (psutil.Process(), *psutil.Process().children())
    ]
    return sum(int(dict(line.split(": ") for line in each)["rchar"]) for each in lines)


def measure(work: Callable[[], Any], windows: int) -> Tally:
    began, before = cpu_s(), bytes_read()
    work()
    return Tally(1000 * (cpu_s() - began) / windows, (bytes_read() - before) / windows)


def taken(batches: Iterator[Any], windows: int) -> Callable[[], None]:
    """Takes so many windows from a loader that goes on from round to round."""

    def work() -> None:
        for _ in islice(batches, windows // BATCH):
            pass

    return work


def in_rgb(data: Indexed, workers: int) -> Iterator[tuple[torch.Tensor, Batch]]:
    _, places = data.reader(BATCH, BATCH, 0, 1, 0)
    return iter(
        DataLoader(InRgb(data), sampler=places, batch_size=None, num_workers=workers, collate_fn=keep_batch)  # pyright: ignore
    )


def run(output: Path, windows: int, rounds: int, folder: Path) -> tuple[dict[str, list[Tally]], float]:
    """Every case in every round; and the bytes that a window needs."""
    data = open_data(output, SETTINGS, MASK)
    assert isinstance(data, Indexed)
    shards = data.shards
    index = read_index(shards)
    videos = [read_member(shards, row, VIDEO) for _, row in index[index["frames"] >= SETTINGS.frames].iterrows()]
    plan = Plan(data, windows)
    floor, jpegs = Floor(data, videos, plan), Jpegs(videos, folder / "frames")
    stream = open_data(output, replace(SETTINGS, mode="stream"), MASK)
    tars = [str(path) for path in sorted(shards.glob("*.tar"))]
    few = max(windows // 8, 1)
    cases: dict[str, tuple[Callable[[], Any], int]] = {
        "floor": (floor, windows),
        "loader": (lambda: taken(loader(data, BATCH), windows)(), windows),
        "loader, 1 worker": (taken(loader(data, BATCH, workers=1), windows), windows),
        "loader, 1 worker, RGB": (taken(in_rgb(data, 1), windows), windows),
        "stream": (taken(loader(stream, BATCH), windows), windows),
        "webdataset, whole clip": (lambda: webdataset_windows(tars, few), few),
        "jpeg": (lambda: jpeg_windows(data, jpegs, plan), windows),
    }
    tallies: dict[str, list[Tally]] = defaultdict(list)
    for round_ in range(rounds + 1):
        for name, (work, count) in cases.items():
            tally = measure(work, count)
            if name == "stream":  # it reads a clip once for all its windows, at some time
                tally.bytes = sum(Path(tar).stat().st_size for tar in tars) / len(stream)
            if round_:  # the first warms up
                tallies[name].append(tally)
    return tallies, floor.needed


def worker_mb(output: Path, workers: int = 2) -> float:
    """Memory of a worker of its own (USS), median after 50 batches, MB."""
    batches = loader(open_data(output, SETTINGS, MASK), BATCH, workers=workers)
    for _ in islice(batches, 50):
        pass
    own = [child.memory_full_info().uss / 1e6 for child in psutil.Process().children()]
    return statistics.median(sorted(own)[-workers:])


def report(tallies: dict[str, list[Tally]], needed: float) -> dict[str, dict[str, float]]:
    """Print a row for each case; gives the same as numbers."""
    floor = statistics.median(tally.cpu_ms for tally in tallies["floor"])
    found = {}
    print(
        f"| | CPU ms a window | range | windows/s/core | of PyAV's rate | KB read | of the {needed / 1e3:.0f} needed |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, rounds in tallies.items():
        times = [tally.cpu_ms for tally in rounds]
        ratios = [f.cpu_ms / tally.cpu_ms for f, tally in zip(tallies["floor"], rounds, strict=True)]
        cpu, read = statistics.median(times), statistics.median(tally.bytes for tally in rounds)
        row = {"cpu_ms": cpu, "per_s": 1000 / cpu, "of_floor": statistics.median(ratios), "bytes": read}
        found[name] = row
        print(
            f"| {name} | {cpu:.2f} | {min(times):.2f} to {max(times):.2f} | {row['per_s']:.0f} | {row['of_floor']:.0%} "
            f"| {read / 1e3:.0f} | {read / needed:.2f}x |"
        )
    assert floor > 0
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="output of curation/run.py")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--windows", type=int, default=96, help="of a case in a round")
    parser.add_argument("--quick", action="store_true", help="3 rounds of 32 windows")
    parser.add_argument("--json", type=Path, help="write the numbers there, too")
    options = parser.parse_args()
    rounds, windows = (3, 32) if options.quick else (options.rounds, options.windows)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        output = options.data or curated_talkers(folder / "curated")
        tallies, needed = run(output, windows, rounds, folder)
        found = report(tallies, needed)
        found["worker"] = {"mb": worker_mb(output)}
        print(f"memory of a worker of its own: {found['worker']['mb']:.0f} MB")
    write_json(options.json, found)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
