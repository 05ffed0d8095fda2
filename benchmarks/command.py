"""`python curation/run.py` as a user starts it, with the CPU time of all its processes."""

import re
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pandas as pd
import psutil

from manifests.reader import read_clips, read_sources

ROOT = Path(__file__).resolve().parents[1]
EVERY_S = 0.1


@dataclass(frozen=True)
class Ran:
    wall_s: float
    sources_s: float  # from handing out the first source to the last one's end: without Ray's start and the corpus
    cpu_s: float  # of all processes, Ray's and the report included; what they do in their last 0.1 s is missed
    worker_peak_mb: float
    driver_peak_mb: float
    clips: pd.DataFrame
    sources: pd.DataFrame  # with their timings


def run_command(
    videos: Sequence[Path], output: Path, workers: int, settings: Sequence[str] = (), profile: str = "embedded"
) -> Ran:
    """Curates the videos into a new folder; raises SystemExit with the command's last words if it fails."""
    output.mkdir(parents=True)
    command = [sys.executable, ROOT / "curation" / "run.py", "--profile", profile, "--workers", workers]
    command += ["--videos", *videos, "--output", output, *(part for text in settings for part in ("--set", text))]
    attempts, log = output / "ledger" / "attempts.log", output / "logs" / "run.log"
    cpu_s, peak_mb, first = dict[psutil.Process, float](), {"worker": 0.0, "driver": 0.0}, None
    began = time.time()
    with (output / "told.txt").open("w") as told:
        process = subprocess.Popen([*map(str, command)], stdout=told, stderr=subprocess.STDOUT, cwd=ROOT)  # noqa: S603
        driver = psutil.Process(process.pid)
        while process.poll() is None:
            if first is None and attempts.exists():
                first = time.time()
            look(driver, cpu_s, peak_mb)
            time.sleep(EVERY_S)
    wall_s = time.time() - began
    if process.returncode or first is None:
        raise SystemExit((output / "told.txt").read_text(errors="replace")[-1500:])
    return Ran(
        wall_s=wall_s,
        sources_s=log.stat().st_mtime - first,
        cpu_s=sum(cpu_s.values()),
        worker_peak_mb=peak_mb["worker"],
        driver_peak_mb=peak_mb["driver"],
        clips=read_clips(output),
        sources=read_sources(output),
    )


def look(driver: psutil.Process, cpu_s: dict[psutil.Process, float], peak_mb: dict[str, float]) -> None:
    """CPU seconds of each process so far, and the kernel's own peaks of memory."""
    with suppress(psutil.Error, OSError):
        for process in (driver, *driver.children(recursive=True)):
            with suppress(psutil.Error, OSError):
                times = process.cpu_times()
                cpu_s[process] = times.user + times.system
                role = "driver" if process == driver else "worker" if is_worker(process) else ""
                if role:
                    peak_mb[role] = max(peak_mb[role], peak_of(process.pid))


def is_worker(process: psutil.Process) -> bool:
    return "ray::Worker" in "".join(process.cmdline()[:1])


def peak_of(pid: int | str = "self") -> float:
    """The largest RSS that a process ever had, or has had since `forget_peak`, MB."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) * 1024 / 1e6 if found else 0.0


def forget_peak() -> None:
    """Lets this process' peak begin anew (proc(5), clear_refs)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
