"""The workers, as Ray actors, and what happens when one dies. The only file that imports ray.

Ray places and starts them; retries are ours (`max_restarts=0`, `max_task_retries=0`). Each worker has one source at a
time, so a worker that dies points to one source. That source is tried once more, alone, after all others; if the worker
dies again, the source becomes an error row. Sources that ran beside it are not affected.
"""

import logging
import os
import re
import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import chdir, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError

import pipelines
from curation.source import OutputError
from curation.worker import MEMORY, Worker, log_path

ROOT = pipelines.ROOT
MAX_DEATHS = 2
WAIT_S = 0.5
LAST_RESORT_S = 8.0
LAST_WORDS_LINES = 12
log = logging.getLogger("curation")


class ClusterError(ValueError):
    """Ray has not the resources that the profile names, or has stopped."""


class RayStartError(ClusterError):
    """Ray cannot be started or joined now; the same command may succeed later."""


@dataclass(frozen=True)
class Done:
    """An item and what a worker returned for it."""

    item: Any
    result: Any


@dataclass(frozen=True)
class Lost:
    """An item whose workers died twice: the reason, such as `error:timeout`, and the end of the worker's log."""

    item: Any
    reason: str
    detail: str


@dataclass
class Running:
    item: Any
    worker: Any
    deadline: float
    late: bool = False


class Pool:
    """The workers of a run; one that died, grew too large or did `recycle_sources` sources is replaced."""

    def __init__(
        self, profile: pipelines.Profile, output: Path, recipe: str, score_only: bool, workers: int | None
    ) -> None:
        self.profile, self.output = profile, output
        start_ray()
        self.closing, self.closed = False, threading.Event()
        threading.Thread(target=self.watch_ray, daemon=True).start()
        gpus = 0.0 if profile.device == "cpu" else profile.workers.gpus
        have = ray.cluster_resources()
        if gpus and have.get("GPU", 0) < gpus:
            ray.shutdown()
            raise ClusterError(
                f"profile {profile.name} runs on {profile.device}, and Ray sees {have.get('GPU', 0):.0f} GPUs; "
                "add --set device=cpu, or submit to a cluster with GPUs"
            )
        most = max(1, int(min(have.get("CPU", 1), have.get("GPU", 0) / gpus if gpus else float("inf"))))
        actor = ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=0, max_task_retries=0)(Worker)
        self.start = lambda: actor.remote(profile, output, recipe, score_only)
        self.workers = [self.start() for _ in range(min(workers or most, most))]
        self.done: Counter[Any] = Counter()
        for worker in list(self.workers):
            self.wait_until_ready(worker)

    def wait_until_ready(self, worker: Any) -> None:
        """Return when the worker, or its replacement if it died, has loaded its networks. Raises ClusterError."""
        for _ in range(MAX_DEATHS):
            try:
                ray.get(worker.ready.remote())
                return
            except (RayActorError, RayTaskError) as error:
                refused = last_line(error)
                if getattr(error, "actor_init_failed", False):
                    break
                worker = self.replace(worker)
        self.close()
        raise ClusterError(f"a worker cannot start: {refused}")

    def map(
        self,
        method: str,
        items: Iterable[Any],
        *,
        deadline_s: Callable[[Any], float],
        begin: Callable[[Any], Any] = lambda _: None,
    ) -> Iterator[Done | Lost]:
        """Call `method` of some worker for every item; yield each item once, in the order in which they end.

        An item has `deadline_s` of it; `begin` is called before it is handed out. Raises OutputError when a worker
        cannot write, ClusterError when Ray has stopped.
        """
        waiting, suspects, deaths = deque(items), deque[Any](), Counter[int]()
        idle, running = deque(self.workers), dict[Any, Running]()
        while waiting or suspects or running:
            if not waiting and not running and suspects:
                waiting.append(suspects.popleft())  # alone: nothing else runs, nothing else can be blamed
            while waiting and idle:
                item, worker = waiting.popleft(), idle.popleft()
                begin(item)
                until = time.monotonic() + deadline_s(item)
                running[getattr(worker, method).remote(item)] = Running(item, worker, until)
            for reference in self.wait_for_results(running):
                job = running.pop(reference)
                try:
                    result = ray.get(reference)
                except (RayActorError, OutOfMemoryError) as error:
                    if getattr(error, "actor_init_failed", False):
                        raise ClusterError(f"a worker cannot start: {last_line(error)}") from error
                    reason, detail = self.explain_death(job, error)
                    deaths[id(job.item)] += 1
                    log.info("%s: a worker died (%s), attempt %d", job.item, reason, deaths[id(job.item)])
                    idle.append(self.replace(job.worker))
                    if deaths[id(job.item)] < MAX_DEATHS:
                        suspects.append(job.item)
                    else:
                        yield Lost(job.item, reason, detail)
                except RayTaskError as error:
                    raise error.cause if isinstance(error.cause, OutputError) else error from error
                else:
                    idle.append(self.renew(job.worker, result))
                    yield Done(job.item, result)

    def wait_for_results(self, running: dict[Any, Running]) -> Iterator[Any]:
        """Yield the references that have a result; kill the workers of those that are past their deadline."""
        try:
            references, _ = ray.wait(list(running), timeout=WAIT_S)
        except Exception as error:  # ray.exceptions.RaySystemError, ConnectionError, ...: its processes are gone
            raise ClusterError(f"Ray is gone: {error}") from error
        yield from references
        for reference, job in running.items():
            if time.monotonic() > job.deadline and not job.late and reference not in references:
                job.late = True
                ray.kill(job.worker)

    def explain_death(self, job: Running, error: Exception) -> tuple[str, str]:
        """Return (reason, last lines of its log) for a worker that died."""
        words = last_words(log_path(self.output, job.item))
        if job.late:
            return "error:timeout", f"no result in time; {words}"
        if isinstance(error, OutOfMemoryError) or MEMORY in words:
            return "error:memory", words
        return "error:worker_crash", words

    def replace(self, worker: Any) -> Any:
        fresh = self.start()
        self.workers[self.workers.index(worker)] = fresh
        return fresh

    def renew(self, worker: Any, result: Any) -> Any:
        """Return the worker, or a new one if it has grown too large or has done `recycle_sources` sources."""
        self.done[worker] += 1
        grown = getattr(result, "memory_gb", 0.0) > self.profile.workers.recycle_gb
        if not grown and self.done[worker] < self.profile.workers.recycle_sources:
            return worker
        ray.kill(worker)
        del self.done[worker]
        return self.replace(worker)

    def watch_ray(self) -> None:
        """End this process when the Ray that it started dies, because calls into a dead Ray may block without end."""
        raylets = [each for each in psutil.Process().children(recursive=True) if each.name() == "raylet"]
        while not self.closed.wait(WAIT_S):
            if any(not each.is_running() or each.status() == psutil.STATUS_ZOMBIE for each in raylets):
                if not self.closing:
                    print("Ray is gone: its process on this machine died", file=sys.stderr)
                    os.kill(os.getpid(), signal.SIGTERM)  # the main thread stops as on request, if it can
                if not self.closed.wait(LAST_RESORT_S):
                    os._exit(1)
                return

    def close(self) -> None:
        self.closing = True
        with suppress(Exception):  # whatever is wrong with Ray now, it must not hide why we stop
            ray.shutdown()
        self.closed.set()


def last_line(error: Exception) -> str:
    """The last line of an exception's text, or its class if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def start_ray() -> None:
    """Join the cluster of a submitted job or of RAY_ADDRESS, or start Ray here. Raises ClusterError if it cannot."""
    environment = {"env_vars": {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}}
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ:  # a submitted job brings its own copy of the code
        environment["env_vars"]["PYTHONPATH"] = str(ROOT)
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's coming default; it warns otherwise
    try:
        with chdir(ROOT):  # Ray puts the driver's folder first on the workers' path: it must be ours
            ray.init(
                runtime_env=environment,
                include_dashboard=False if "RAY_ADDRESS" not in os.environ else None,
                logging_level=logging.ERROR,
                log_to_driver=False,
            )
    except Exception as error:  # ConnectionError, RuntimeError, TimeoutError, ...: Ray names no common class
        where = f" at {os.environ['RAY_ADDRESS']}" if "RAY_ADDRESS" in os.environ else " on this machine"
        raise RayStartError(f"Ray{where} cannot start or be joined: {last_line(error)}") from error


def last_words(path: Path) -> str:
    """Return the first lines of a dead worker's log, without memory addresses: the same text for the same crash."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "the worker process left no log"
    return re.sub(r"0x[0-9a-f]+", "0x…", "\n".join(lines[:LAST_WORDS_LINES])) or "the worker process was killed"
