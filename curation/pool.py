"""The workers, as Ray actors. The only file that imports ray; `curation/schedule.py` says what follows from events.

Ray places and starts them; retries are ours (`max_restarts=0`, `max_task_retries=0`). A worker is created, says on
which node it is, loads its networks, and has one source at a time from then on, so one that dies points to one source.
Every half minute the pool looks at the nodes again: it starts workers on new ones and takes back what lost ones had.
"""

import logging
import os
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import chdir, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import psutil
import ray
from ray._private.state import actors as actor_table
from ray.exceptions import (
    ActorUnavailableError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RaySystemError,
    RayTaskError,
)

import pipelines
from curation.handshake import Handshake, HandshakeError, check_reply
from curation.schedule import Death, Node, Rules, Schedule, Task
from curation.source import OutputError
from curation.worker import MEMORY, Worker, log_path
from shards.packer import PackError
from shards.reader import ShardError

ROOT = pipelines.ROOT
WAIT_S = 0.5
LAST_RESORT_S = 8.0
LEAVE_S = 5.0  # for a worker to remove its copies; who does not in this time has none, or hangs
LAST_WORDS_LINES = 12
NODE_LABEL = "ray.io/node-id"
CARRIED = ("SAYANYTHING_CACHE", "XDG_CACHE_HOME")  # where networks lie: on every node as here
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


@dataclass(frozen=True)
class Call:
    """What was asked of a worker: its node, to get ready, a task, or whether it is still there after a lost answer."""

    worker: Any
    kind: Literal["place", "ready", "task", "probe"]
    task: Task | None = None
    reply: str = ""


class Pool:
    """The workers of a run; one that died, grew too large or did `recycle_sources` sources is replaced.

    `sources` says for how many sources workers are wanted at first. Without `workers` there are as many as the cluster
    has room for, now and later; with it so many are asked for, and those that do not fit wait for room.
    """

    def __init__(
        self,
        profile: pipelines.Profile,
        output: Path,
        recipe: str,
        score_only: bool,
        workers: int | None,
        *,
        sources: int = 1,
        handshake: Handshake | None = None,
        scratch: Path | None = None,
        rules: Rules = Rules(),
        say: Callable[[str], None] = print,
    ) -> None:
        self.profile, self.output, self.handshake, self.asked, self.say = profile, output, handshake, workers, say
        start_ray()
        self.closing, self.closed = False, threading.Event()
        if not in_cluster():
            threading.Thread(target=self.watch_ray, daemon=True).start()
        self.gpus = 0.0 if profile.device == "cpu" else profile.workers.gpus
        have = ray.cluster_resources()
        if self.gpus and not in_cluster() and have.get("GPU", 0) < self.gpus:
            ray.shutdown()
            raise ClusterError(
                f"profile {profile.name} runs on {profile.device}, and Ray sees {have.get('GPU', 0):.0f} GPUs; "
                "add --set device=cpu, or submit to a cluster with GPUs"
            )
        actor = ray.remote(num_cpus=1, num_gpus=self.gpus, max_restarts=0, max_task_retries=0)(Worker)
        self.create: Callable[..., Any] = lambda **options: actor.options(**options).remote(
            profile, output, recipe, score_only, scratch
        )
        self.schedule = Schedule(rules, home=ray.get_runtime_context().get_node_id())
        self.expected, self.replies = max(1, sources), 0
        self.unplaced: set[Any] = set()
        self.said: set[str] = set()
        self.calls: dict[Any, Call] = {}
        self.done: Counter[Any] = Counter()
        self.wait_for_first()

    def wait_for_first(self) -> None:
        """Return when a worker is ready. Raises ClusterError if none can be."""
        try:
            while not self.schedule.idle:
                list(self.turn())
        except BaseException:
            self.close()
            raise

    def map(
        self,
        tasks: Iterable[Task],
        *,
        begin: Callable[[Task], Any] = lambda _: None,
        refused: Callable[[Any], bool] = lambda _: False,
        tick: Callable[[], Any] = lambda: None,
    ) -> Iterator[Done | Lost]:
        """Do these tasks and those that `add_first` adds meanwhile; yield each end once, in the order of their ends.

        `begin` is called before a task is handed out. A result of which `refused` is true is not taken before another
        node, if there is one, had the task too. `tick` is called twice a second or more often. Raises OutputError when
        a worker cannot write, PackError or ShardError when it cannot pack, ClusterError when Ray has stopped or no
        worker can start.
        """
        self.schedule.add(tasks)
        self.begin, self.refused, self.expected = begin, refused, 0
        while self.schedule.work:
            tick()
            yield from self.turn()

    def describe_places(self) -> str:
        """Return a line such as `14 workers on 2 nodes: a 8, b 6; 3 starting`."""
        return self.schedule.describe_places()

    def add_first(self, task: Task) -> None:
        """Do this task next."""
        self.schedule.add_first(task)

    def turn(self) -> Iterator[Done | Lost]:
        """Look at the nodes if it is time, start and hand out what can be, and wait a moment for what ends."""
        now = time.monotonic()
        if self.schedule.look_due(now):
            self.look(now)
        for task, death in self.schedule.judge(now):
            yield Lost(task.item, death.reason, death.detail)
        for node, why in self.schedule.excluded.items():
            self.say_once(f"node {self.host(node)} is excluded from this run: {why}")
        if why := self.schedule.stuck():
            raise ClusterError(f"a worker cannot start: {why}")
        for _ in range(self.schedule.missing(self.limit(), self.expected)):
            self.start()
        for worker, task in self.schedule.hand_out(now):
            self.begin(task)
            self.calls[getattr(worker, task.method).remote(task.item)] = Call(worker, "task", task)
        for reference in self.wait_for_calls():
            yield from self.take(reference)
        for worker in self.schedule.overdue(time.monotonic()):
            ray.kill(worker)

    # Workers and nodes.

    def start(self) -> None:
        """Ask Ray for one more worker, not on an excluded node."""
        excluded = self.schedule.excluded.keys() & self.schedule.nodes.keys()
        options = {"label_selector": {NODE_LABEL: f"!in({','.join(sorted(excluded))})"}} if excluded else {}
        worker = self.create(**options)
        self.schedule.started(worker)
        self.calls[worker.__ray_call__.remote(node_of)] = Call(worker, "place")

    def limit(self) -> int:
        """Return how many workers there may be. On this machine alone no more than fit; of a cluster, all asked for."""
        slots = sum(node.slots for name, node in self.schedule.nodes.items() if name not in self.schedule.excluded)
        if self.asked is None or not in_cluster():
            return max(1, min(slots, self.asked or slots))
        return self.asked

    def look(self, now: float) -> None:
        """Take in the nodes, let go of workers that have had nothing to do, and say what does not start."""
        try:
            alive = {node["NodeID"]: self.node(node) for node in ray.nodes() if node["Alive"]}
        except Exception as error:  # ray.exceptions.RaySystemError, ConnectionError, ...: its processes are gone
            raise ClusterError(f"Ray is gone: {error}") from error
        known = self.schedule.nodes
        for name in known.keys() - alive.keys():
            self.say_once(f"node {self.host(name)} is lost; what ran there is done again")
        for worker in self.schedule.look(alive, now):
            ray.kill(worker)
        for worker in self.schedule.spare(now):
            self.dismiss(worker)
        self.say_unplaced()

    def node(self, row: dict[str, Any]) -> Node:
        cpus, gpus = row["Resources"].get("CPU", 0.0), row["Resources"].get("GPU", 0.0)
        return Node(row["NodeManagerHostname"], count_places(cpus, gpus, self.gpus))

    def say_unplaced(self) -> None:
        """Say how many workers have a place, if some have waited for one since the last look."""
        members = self.schedule.members.values()
        unplaced = {member.worker for member in members if not member.node}
        if unplaced & self.unplaced and in_cluster():  # on this machine alone they are merely slow to start
            need = f"1 CPU and {self.gpus:g} GPU" if self.gpus else "1 CPU"
            placed = f"{len(members) - len(unplaced)} of {len(members)} workers placed"
            self.say_once(f"{placed}, the cluster is full: each of the others waits for {need} free on one node")
        self.unplaced = unplaced

    def say_once(self, text: str) -> None:
        if text not in self.said:
            self.said.add(text)
            log.info("%s", text)
            self.say(text)

    def dismiss(self, worker: Any) -> None:
        """End a worker that has no task."""
        if worker in self.schedule.members:
            self.schedule.retire(worker)
        self.done.pop(worker, None)
        leave([worker])
        ray.kill(worker)

    # What comes back.

    def wait_for_calls(self) -> list[Any]:
        """Return the calls that have ended, after waiting a moment for the first."""
        if not self.calls:
            time.sleep(WAIT_S)
            return []
        try:
            some, _ = ray.wait(list(self.calls), timeout=WAIT_S)
            if some:
                some, _ = ray.wait(list(self.calls), num_returns=len(self.calls), timeout=0)
        except Exception as error:  # ray.exceptions.RaySystemError, ConnectionError, ...: its processes are gone
            raise ClusterError(f"Ray is gone: {error}") from error
        return some

    def take(self, reference: Any) -> Iterator[Done | Lost]:
        """Take in what a call has returned or raised."""
        call = self.calls.pop(reference)
        if call.worker not in self.schedule.members:
            return  # given up before
        try:
            result = ray.get(reference)
        except RaySystemError as error:
            raise ClusterError(f"Ray is gone: {error}") from error
        except RayError as error:
            (self.take_failed_start if call.kind in ("place", "ready") else self.take_failure)(call, error)
        else:
            if call.kind == "task":
                yield from self.take_result(call, result)
            elif call.kind == "probe":  # it lives, and its answer is lost
                self.give_up(call.worker)
            else:
                self.take_start(call, result)

    def take_result(self, call: Call, result: Any) -> Iterator[Done]:
        assert call.task is not None
        counts = self.schedule.ended(call.worker, time.monotonic(), refused=self.refused(result))
        self.done[call.worker] += 1
        grown = getattr(result, "memory_gb", 0.0) > self.profile.workers.recycle_gb
        enough = self.done[call.worker] >= self.profile.workers.recycle_sources
        if grown or (enough and call.task.method != "identify"):  # it has the copy of what it identified
            self.dismiss(call.worker)
        if counts:
            yield Done(call.task.item, result)
        else:
            log.info("%s: cannot be read on one node, tried on another", call.task.item)

    def take_start(self, call: Call, result: Any) -> None:
        """A worker says on which node it is, or that it is ready there."""
        if call.kind == "place":
            if self.schedule.placed(call.worker, result):
                self.replies += 1
                reply = f"{self.replies:06d}"
                self.calls[call.worker.ready.remote(self.handshake, reply)] = replace(call, kind="ready", reply=reply)
            else:
                ray.kill(call.worker)
            return
        try:
            if self.handshake is not None:
                check_reply(self.handshake, call.reply)
        except HandshakeError as error:
            self.refuse_node(call.worker, error)
        else:
            self.schedule.ready(call.worker, time.monotonic())

    def take_failed_start(self, call: Call, error: Exception) -> None:
        cause = getattr(error, "cause", None)
        if isinstance(cause, HandshakeError):
            self.refuse_node(call.worker, cause)
            return
        why = last_line(error)
        log.info("a worker did not start: %s", why)
        self.schedule.start_failed(call.worker, why, time.monotonic(), node_of_dead(call.worker))
        with suppress(Exception):  # it may be alive: what it raised is no death
            ray.kill(call.worker)

    def refuse_node(self, worker: Any, why: Exception) -> None:
        """Exclude the node of a worker that does not see the storage."""
        node = self.schedule.members[worker].node
        self.schedule.vanished(worker)
        with suppress(Exception):
            ray.kill(worker)
        self.schedule.exclude(node, f"it {why}")

    def host(self, node: str) -> str:
        """Return the name of a node and the beginning of its id, by which Ray's dashboard knows it."""
        known = self.schedule.nodes.get(node)
        return f"{known.host if known else 'unknown'} ({node[:8]})"

    def take_failure(self, call: Call, error: Exception) -> None:
        """A worker with a task has died, has raised, or does not answer."""
        if isinstance(error, RayTaskError):
            raise error.cause if isinstance(error.cause, OutputError | PackError | ShardError) else error
        if isinstance(error, ActorUnavailableError) and call.kind == "task":
            self.calls[call.worker.__ray_call__.remote(node_of)] = replace(call, kind="probe")
        elif isinstance(error, RayActorError | OutOfMemoryError) and not isinstance(error, ActorUnavailableError):
            self.bury(call, error)
        else:  # its answer, not the worker, is lost
            self.give_up(call.worker)

    def bury(self, call: Call, error: Exception) -> None:
        """Take in the death of a worker with a task: without blame if Ray took it away, or it never opened the file."""
        assert call.task is not None
        opened = log_path(self.output, call.task.item).exists()
        late = self.schedule.members[call.worker].late
        self.done.pop(call.worker, None)
        if getattr(error, "preempted", False) or not (opened or late):
            self.schedule.vanished(call.worker)
            return
        reason, detail = self.explain_death(call.task.item, late, error)
        log.info("%s: a worker died (%s)", call.task.item, reason)
        self.schedule.died(call.worker, Death(reason, detail), time.monotonic())

    def give_up(self, worker: Any) -> None:
        self.schedule.vanished(worker)
        self.done.pop(worker, None)
        with suppress(Exception):
            ray.kill(worker)

    def explain_death(self, item: Any, late: bool, error: Exception) -> tuple[str, str]:
        """Return (reason, last lines of its log) for a worker that died, and remove that log: the next begins anew."""
        path = log_path(self.output, item)
        words = last_words(path)
        path.unlink(missing_ok=True)
        if late:
            return "error:timeout", f"no result in time; {words}"
        if isinstance(error, OutOfMemoryError) or MEMORY in words:
            return "error:memory", words
        return "error:worker_crash", words

    # The end.

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
            leave([member.worker for member in self.schedule.idle])
            ray.shutdown()
        self.closed.set()


def count_places(cpus: float, gpus: float, gpus_each: float) -> int:
    """Return how many workers a node has room for: each takes a CPU, and `gpus_each` of one GPU (or whole GPUs)."""
    if not gpus_each:
        return int(cpus)
    on_gpus = gpus * int(1 / gpus_each + 1e-6) if gpus_each <= 1 else gpus // gpus_each
    return int(min(cpus, on_gpus))


def leave(workers: Sequence[Any]) -> None:
    """Let workers without a task remove what they have on their nodes."""
    if workers:
        ray.wait([worker.leave.remote() for worker in workers], num_returns=len(workers), timeout=LEAVE_S)


def node_of(_: Any) -> str:
    """Return the node on which this runs; called inside a worker."""
    return ray.get_runtime_context().get_node_id()


def node_of_dead(worker: Any) -> str:
    """Return the node on which a worker was when it failed, as Ray's table of actors has it; empty if it has not."""
    with suppress(Exception):  # no public call gives it before the worker itself could answer
        return actor_table(worker._actor_id.hex())["Address"]["NodeID"]
    return ""


def last_line(error: Exception) -> str:
    """The last line of an exception's text, or its class if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def in_cluster() -> bool:
    """Whether this run joins a Ray that others started: it is a submitted job, or RAY_ADDRESS names one."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ or "RAY_ADDRESS" in os.environ


def start_ray() -> None:
    """Join the cluster of a submitted job or of RAY_ADDRESS, or start Ray here. Raises ClusterError if it cannot."""
    environment = {"env_vars": {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}}
    environment["env_vars"] |= {name: os.environ[name] for name in CARRIED if name in os.environ}
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ:  # a submitted job brings its own copy of the code
        environment["env_vars"]["PYTHONPATH"] = str(ROOT)
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's coming default; it warns otherwise
    try:
        with chdir(ROOT):  # Ray puts the driver's folder first on the workers' path: it must be ours
            ray.init(
                # Without an address Ray would join whatever its temporary folder says was started here, or hang on it.
                address=None if in_cluster() else "local",
                runtime_env=environment,
                include_dashboard=None if in_cluster() else False,
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
