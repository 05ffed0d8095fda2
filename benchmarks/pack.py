"""How fast parts become shards, beside `cat` of the same bytes into one file.

    python benchmarks/pack.py [--quick] [--gigabytes 1] [--rounds 5] [--json FILE]

The parts are those of benchmarks/verify.py (clips of ten seconds, 20 to a source, of which the packer takes a sample
here and a sample there). Both read from the page cache and end with their bytes on the disk (fsync); in turn, so that a
busy machine slows both. The packer also hashes each sample (SHA-256) and writes the index. Without `edit`, so without
what changes in a sample when its sound is moved.
"""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.result import write_json
from benchmarks.verify import SHARD_BYTES, write_parts
from shards.packer import pack


def cat(parts: Mapping[str, Path], folder: Path) -> None:
    folder.mkdir()
    files = [str(path) for path in sorted(set(parts.values()))]
    with (folder / "all").open("wb") as file:
        subprocess.run(["cat", *files], stdout=file, check=True)  # noqa: S603, S607  our own paths
        os.fsync(file.fileno())


def hash_all(parts: Mapping[str, Path], _: Path) -> None:
    files = [str(path) for path in sorted(set(parts.values()))]
    subprocess.run(["sha256sum", *files], stdout=subprocess.DEVNULL, check=True)  # noqa: S603, S607


def pack_parts(parts: Mapping[str, Path], folder: Path) -> None:
    pack(parts, folder, shard_bytes=SHARD_BYTES)


def cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def measure_s(work: Callable[[Mapping[str, Path], Path], Any], parts: Mapping[str, Path], folder: Path) -> list[float]:
    """Wall and CPU seconds."""
    shutil.rmtree(folder, ignore_errors=True)
    began, before = time.perf_counter(), cpu_s()
    work(parts, folder)
    return [time.perf_counter() - began, cpu_s() - before]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="0.1 GB, two rounds")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.quick:
        options.gigabytes, options.rounds = 0.1, 2
    cases = {"cat": cat, "sha256sum": hash_all, "pack": pack_parts}
    seconds: dict[str, list[list[float]]] = {name: [] for name in cases}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts, _, _ = write_parts(folder / "parts", options.gigabytes * 1e9)
        size = sum(path.stat().st_size for path in set(parts.values()))
        for round_ in range(options.rounds + 1):
            for case, work in cases.items():
                found = measure_s(work, parts, folder / "made")
                if round_:  # the first fills the page cache and imports
                    seconds[case].append(found)
    wall_s = {name: statistics.median(wall for wall, _ in rounds) for name, rounds in seconds.items()}
    used_s = {name: statistics.median(cpu for _, cpu in rounds) for name, rounds in seconds.items()}
    print(f"{size / 1e6:.0f} MB, {len(parts)} samples, medians of {options.rounds}")
    print(f"{'':10} {'MB/s':>8} {'of cat':>7} {'CPU s/GB':>9} {'range':>16} {'of cat':>7}")
    rows = {}
    for name, rounds in seconds.items():
        each = sorted(1e9 * cpu / size for _, cpu in rounds)
        row = {"mb_per_s": size / wall_s[name] / 1e6, "wall_of_cat": wall_s["cat"] / wall_s[name]}
        row |= {"cpu_s_per_gb": 1e9 * used_s[name] / size, "cpu_of_cat": used_s[name] / used_s["cat"]}
        rows[name] = row
        print(
            f"{name:10} {row['mb_per_s']:8.0f} {row['wall_of_cat']:7.2f} {row['cpu_s_per_gb']:9.2f} "
            f"{each[0]:7.2f} to {each[-1]:5.2f} {row['cpu_of_cat']:7.2f}"
        )
    write_json(options.json, {"bytes": size, "samples": len(parts), **rows})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
