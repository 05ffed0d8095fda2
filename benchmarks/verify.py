"""How fast curation.verify reads, beside `cat` and `sha256sum` of the same shards.

    python benchmarks/verify.py [--quick] [--gigabytes 1] [--rounds 5] [--json FILE]

Packs a synthetic output (real H.264 and FLAC, arrays of the embedded profile's shapes) into a folder that is removed
afterwards; needs twice its size of disk. Every round runs all commands in turn, so that a busy machine slows all of
them; medians are printed. Cold: the shards are dropped from the page cache before each command. `verify` is timed as a
user runs it, with its start of about a second, and without, as its last line states it.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.result import write_json
from manifests.summary import write_summary
from manifests.writer import write_manifests
from media.encode import encode_flac, encode_mp4
from shards.packer import pack
from shards.sample import Sample, encode_json, encode_npy
from shards.writer import write_tar

ROOT = Path(__file__).resolve().parents[1]
FRAMES, SIZE = 250, 320
SAMPLES_PER_SOURCE = 20
SHARD_BYTES = 250_000_000


def samples(source: str, streams: dict[str, bytes], rng: np.random.Generator) -> Iterator[Sample]:
    """Ten-second clips that share their video and sound; the other members are their own."""
    for n in range(SAMPLES_PER_SOURCE):
        place = {"source_id": source, "start_frame": n * FRAMES, "end_frame": (n + 1) * FRAMES}
        members = {
            **streams,
            "json": encode_json({**place, "frames": FRAMES, "size": SIZE}),
            "boxes.npy": encode_npy(rng.random((FRAMES, 4), np.float32)),
            "landmarks.npy": encode_npy(rng.random((FRAMES, 76, 2), np.float32).astype(np.float16)),
            "whisper.npy": encode_npy(rng.random((2 * FRAMES, 5, 384), np.float32).astype(np.float16)),
        }
        yield Sample(f"{source[:16]}-{n:04d}", members)


def write_parts(folder: Path, size: float) -> tuple[dict[str, Path], list[dict], list[dict]]:
    """Parts of about `size` bytes; gives key -> part, and the rows of their clips and sources."""
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (SIZE // 8, 2 * SIZE // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    video = encode_mp4(np.roll(picture, 3 * i, 1)[:, :SIZE] for i in range(FRAMES))
    streams = {"mp4": video, "flac": encode_flac(rng.normal(0, 0.05, FRAMES * 640))}
    parts, clips, sources = dict[str, Path](), list[dict](), list[dict]()
    while sum(path.stat().st_size for path in set(parts.values())) < size:
        source = f"{len(sources):064x}"[::-1]
        path = folder / f"{len(sources):04d}.tar"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tar(path, samples(source, streams, rng))
        sources.append({"path": f"/raw/{source}.mp4", "source_id": source, "status": "kept", "reason": "kept"})
        sources[-1]["frames"] = SAMPLES_PER_SOURCE * FRAMES
        for n in range(SAMPLES_PER_SOURCE):
            clips.append({"key": f"{source[:16]}-{n:04d}", "source": sources[-1]["path"], "source_id": source})
            clips[-1] |= {"start_frame": n * FRAMES, "end_frame": (n + 1) * FRAMES, "kept": True, "reason": "kept"}
            parts[clips[-1]["key"]] = path
    return parts, clips, sources


def build(output: Path, size: float) -> list[Path]:
    """An output of about `size` bytes; gives its shards."""
    parts, clips, sources = write_parts(output / "parts", size)
    index = pack(parts, output / "shards", shard_bytes=SHARD_BYTES)
    shards = dict(zip(index["key"], index["shard"], strict=True))
    write_manifests(output, [{**c, "shard": shards[c["key"]]} for c in clips], sources, scores={}, reasons={})
    write_summary(output)
    return sorted((output / "shards").glob("*.tar"))


def evict(paths: list[Path]) -> None:
    """Takes clean pages of these files out of the page cache."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def time_command(command: list[str]) -> tuple[float, str]:
    """Seconds that a command takes, and the end of what it says."""
    began = time.perf_counter()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:  # noqa: S603  our own commands
        assert process.stdout is not None
        said = b""
        while block := process.stdout.read(1 << 20):
            said = block
    assert process.returncode == 0, said
    return time.perf_counter() - began, said.decode(errors="replace")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="0.1 GB, one round")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.quick:
        options.gigabytes, options.rounds = 0.1, 1
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        paths = build(Path(folder), options.gigabytes * 1e9)
        size = sum(path.stat().st_size for path in paths)
        verify = [sys.executable, "-m", "curation.verify", folder]
        commands = {
            "cat": ["cat", *map(str, paths)],
            "sha256sum": ["sha256sum", *map(str, paths)],
            "verify --sample 0 --workers 1": [*verify, "--sample", "0", "--workers", "1"],
            "verify --sample 0": [*verify, "--sample", "0"],
            "verify": verify,
        }
        for _ in range(options.rounds):
            for cache, (name, command) in product(("cold", "warm"), commands.items()):
                if cache == "cold":
                    evict(paths)
                wall_s, said = time_command(command)
                seconds[name, cache].append(wall_s)
                if name.startswith("verify"):
                    stated = re.search(r"MB in ([0-9.]+) s", said)
                    assert stated is not None and said.startswith("all is well"), said
                    seconds[f"{name}, without its start", cache].append(float(stated[1]))
    print(f"{size / 1e6:.0f} MB in {len(paths)} shards, medians of {options.rounds}, {os.cpu_count()} cores")
    print(f"{'':45} {'cold MB/s':>10} {'of cat':>7} {'warm MB/s':>10} {'of cat':>7} {'of sha256sum':>13}")
    middle = {key: statistics.median(values) for key, values in seconds.items()}
    numbers: dict[str, Any] = {"bytes": size}
    for name in dict.fromkeys(name for name, _ in middle):
        cold, warm = middle[name, "cold"], middle[name, "warm"]
        cells = f"{size / cold / 1e6:10.0f} {middle['cat', 'cold'] / cold:7.2f}"
        cells += (
            f" {size / warm / 1e6:10.0f} {middle['cat', 'warm'] / warm:7.2f} {middle['sha256sum', 'warm'] / warm:13.2f}"
        )
        print(f"{name:45} {cells}")
        numbers[name] = {"cold_mb_per_s": size / cold / 1e6, "warm_mb_per_s": size / warm / 1e6}
        numbers[name] |= {"cold_of_cat": middle["cat", "cold"] / cold, "warm_of_cat": middle["cat", "warm"] / warm}
    write_json(options.json, numbers)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
