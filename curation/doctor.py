"""Whether this machine can run a profile: each check with what was found and what to do.

    python -m curation.doctor --profile embedded [--output DIR]

Takes a few seconds and loads no network; every run begins with the same checks and prints those that are not well.
Exit code 0: fit, perhaps with warnings; 2: the run would fail.
"""

import ctypes
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import av
import psutil
from rich.console import Console
from rich.table import Table

import pipelines
import weights
from command import parser_of

DECODERS = ("h264", "hevc", "vp9", "av1", "mpeg4", "aac", "mp3", "opus", "flac")
ENCODERS = ("libx264", "flac")
WORKER_GB = 1.5  # resident, measured (benchmarks/README.md)
MIN_FREE_GB = 5.0
MIN_OPEN_FILES = 4096  # Ray holds a few hundred for each worker
MIN_SHM_GB = 0.5  # frames never enter Ray's object store; below this Ray moves it to /tmp
SLOW_DISK_MB_S = 50.0
WRITTEN_MB = 32

State = Literal["ok", "warning", "failure"]


@dataclass(frozen=True)
class CheckResult:
    check: str
    state: State
    found: str
    remedy: str = ""


def examine(profile: pipelines.Profile, output: Path | None, workers: int | None = None) -> list[CheckResult]:
    """Every check for a run into `output`; on a cluster this machine's own GPU and memory do not count."""
    here = not os.environ.get("RAY_ADDRESS")
    return [
        *codecs(),
        *networks(profile),
        *(gpu(profile) if here else ()),
        *ray_installed(),
        *(memory(workers or os.cpu_count() or 1) if here else ()),
        *limits(),
        *(disk(output) if output is not None else ()),
    ]


def codecs() -> Iterator[CheckResult]:
    there = av.codecs_available
    missing = [
        name for name in DECODERS if name not in there and f"lib{name}" not in there and f"lib{name[:2]}x" not in there
    ]
    unable = [name for name in ENCODERS if name not in there]
    library = f"PyAV {av.__version__}, FFmpeg {'.'.join(map(str, av.library_versions['libavcodec']))}"
    if unable:
        yield CheckResult(
            "codecs", "failure", f"{library} cannot encode {', '.join(unable)}", "pip install av, from its wheel"
        )
    elif missing:
        yield CheckResult(
            "codecs", "warning", f"{library} cannot decode {', '.join(missing)}", "such sources become error rows"
        )
    else:
        yield CheckResult("codecs", "ok", library)


def networks(profile: pipelines.Profile) -> Iterator[CheckResult]:
    names = pipelines.weights_of(profile)
    missing = [name for name in names if weights.find(name) is None]
    if missing:
        remedy = f"python weights.py fetch --profile {profile.name}"
        yield CheckResult("networks", "failure", f"missing or not as in weights.yaml: {', '.join(missing)}", remedy)
    else:
        yield CheckResult("networks", "ok", f"{len(names)} files, sha256 as in weights.yaml")


def gpu(profile: pipelines.Profile) -> Iterator[CheckResult]:
    """Asks the driver itself: importing torch would take longer than all other checks."""
    found = cuda_devices()
    if profile.device != "cuda":
        yield CheckResult("GPU", "ok", f"not used by this profile ({found or 'none'})")
    elif not found:
        yield CheckResult(
            "GPU", "failure", "no CUDA driver or no device", "install NVIDIA's driver, or --set device=cpu, slowly"
        )
    else:
        yield CheckResult("GPU", "ok", found)


def cuda_devices() -> str:
    """Names of the devices and the driver's CUDA version, or nothing."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return ""
    count, number = ctypes.c_int(), ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return ""
    driver.cuDriverGetVersion(ctypes.byref(number))
    names = []
    for ordinal in range(count.value):
        device, name = ctypes.c_int(), ctypes.create_string_buffer(100)
        driver.cuDeviceGet(ctypes.byref(device), ordinal)
        driver.cuDeviceGetName(name, 100, device)
        names.append(name.value.decode())
    return f"{', '.join(names)}; driver for CUDA {number.value // 1000}.{number.value % 1000 // 10}"


def ray_installed() -> Iterator[CheckResult]:
    try:
        found = version("ray")
    except PackageNotFoundError:
        yield CheckResult("Ray", "failure", "not installed", 'pip install "ray[default]"')
        return
    address = os.environ.get("RAY_ADDRESS")
    yield CheckResult(
        "Ray", "ok", f"{found}, {f'joins the cluster at {address}' if address else 'its own is started here'}"
    )
    shm = Path("/dev", "shm")
    if shm.is_dir() and (free := shutil.disk_usage(shm).free / 1e9) < MIN_SHM_GB:
        yield CheckResult(
            "shared memory", "warning", f"{free:.2f} GB free", "in a container --shm-size=1g; Ray then uses /tmp"
        )


def memory(workers: int) -> Iterator[CheckResult]:
    free, needed = psutil.virtual_memory().available / 1e9, workers * WORKER_GB + 1
    told = f"{free:.1f} GB available, {workers} workers take about {needed:.1f}"
    if free < needed:
        yield CheckResult("memory", "warning", told, f"--workers {max(1, int((free - 1) / WORKER_GB))}")
    else:
        yield CheckResult("memory", "ok", told)


def limits() -> Iterator[CheckResult]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < MIN_OPEN_FILES:
        yield CheckResult(
            "open files", "warning", f"limit {soft} (hard {hard})", f"ulimit -n {max(MIN_OPEN_FILES, min(hard, 65536))}"
        )
    else:
        yield CheckResult("open files", "ok", f"limit {soft}")


def disk(output: Path) -> Iterator[CheckResult]:
    """Whether results can be written, how much fits and, where 32 MB to try it with are little, how fast."""
    place = next(folder for folder in (output, *output.parents) if folder.is_dir())
    free = shutil.disk_usage(place).free / 1e9
    try:
        if free < MIN_FREE_GB:
            with tempfile.TemporaryFile(dir=place):
                yield CheckResult(
                    "output",
                    "warning",
                    f"{place}: {free:.1f} GB free",
                    "an hour of kept clips takes 2.5 GB with its parts",
                )
            return
        speed = written_mb_s(place)
    except OSError as error:
        yield CheckResult(
            "output", "failure", f"{place}: cannot be written ({error.strerror})", "another --output, or its rights"
        )
        return
    told = f"{place}: {free:.0f} GB free, {speed:.0f} MB/s"
    if speed < SLOW_DISK_MB_S:
        yield CheckResult("output", "warning", told, "a local disk is faster than most network folders")
    else:
        yield CheckResult("output", "ok", told)


def written_mb_s(folder: Path) -> float:
    block = os.urandom(2**20)
    began = time.perf_counter()
    with tempfile.TemporaryFile(dir=folder, prefix=".tmp-doctor-") as file:
        for _ in range(WRITTEN_MB):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    return WRITTEN_MB * 1.048576 / (time.perf_counter() - began)


def unwell(findings: Sequence[CheckResult]) -> list[str]:
    """A line for each check that is not well."""
    return [f"{f.check}: {f.found}; {f.remedy}" for f in findings if f.state != "ok"]


def fails(findings: Sequence[CheckResult]) -> bool:
    return any(finding.state == "failure" for finding in findings)


def show(findings: Sequence[CheckResult]) -> None:
    table = Table("check", "", "found", "what to do")
    colours = {"ok": "green", "warning": "yellow", "failure": "red"}
    for finding in findings:
        table.add_row(finding.check, f"[{colours[finding.state]}]{finding.state}[/]", finding.found, finding.remedy)
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("python -m curation.doctor", __doc__)
    parser.add_argument("--profile", required=True)
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE")
    parser.add_argument("--output", type=Path, help="where results would go: is it writable, large and fast enough")
    parser.add_argument("--workers", type=int)
    options = parser.parse_args(arguments)
    try:
        profile = pipelines.load(options.profile, options.set)
    except pipelines.ProfileError as error:
        print(f"refused: {error}", file=sys.stderr)
        return 2
    findings = examine(profile, options.output, options.workers)
    show(findings)
    return 2 if fails(findings) else 0


if __name__ == "__main__":
    raise SystemExit(main())
