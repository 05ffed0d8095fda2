"""A run on a cluster that loses nodes, as the driver sees it: its CPU and memory a source, time lost, time to resume.

    python -m benchmarks.cluster --sources 1000000 --workers 500 --nodes 10 --output FOLDER [--json FILE]
    python -m benchmarks.cluster --sources 20000 --judge 0      # the control: deaths judged at once

Only here Ray and the work are replaced: pretended workers take simulated time, and nodes die with all their workers at
random moments. Deaths show as measured on Ray 2.60: the errors of the workers 3.3 s after the node, the node's own
death after 13.5 s. What decides (intake, schedule), the attempts, the ledger and the resume are real. Ray's own calls
cost the driver more: benchmarks/driver.py.
"""

import argparse
import heapq
import logging
import random
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stdout
from io import StringIO
from itertools import count
from pathlib import Path
from typing import Any

import curation.intake
import pipelines
from benchmarks.driver import HEADER, drop_source
from benchmarks.result import write_json
from curation.ledger import Ledger
from curation.pool import Done, Lost
from curation.run import curate
from curation.schedule import Death, Node, Rules, Schedule, Task
from curation.source import Identity

ERROR_S, NODE_DEATH_S = 3.3, 13.5
PLACE_S, LOAD_S = 2.0, 20.0
BACK_S = 600.0  # until a new node stands in the place of a lost one
CRASH = Death("error:worker_crash", "the worker process was killed")


class Pretended:
    """A pool whose workers take `mean_s` of simulated time for a source, on nodes that live `node_s` on average."""

    def __init__(self, nodes: int, slots: int, mean_s: float, node_s: float, rules: Rules, seed: int = 0) -> None:
        self.random, self.schedule, self.slots = random.Random(seed), Schedule(rules), slots
        self.mean_s, self.node_s, self.now, self.numbers = mean_s, node_s, 0.0, count()
        self.events: list[tuple[float, int, Callable[[], Any]]] = []
        self.free: dict[str, int] = {}  # node -> places, of those that really live
        self.known: dict[str, Node] = {}  # as Ray's table has them
        self.at: dict[int, str] = {}  # worker -> node
        self.unplaced: list[int] = []
        self.ends: list[Done | Lost] = []
        self.node_losses, self.wasted_s, self.worked_s, self.workers_cpu_s = 0, 0.0, 0.0, 0.0
        for _ in range(nodes):
            self.join()

    def later(self, seconds: float, what: Callable[[], Any]) -> None:
        heapq.heappush(self.events, (self.now + seconds, next(self.numbers), what))

    def join(self) -> None:
        node = f"n{next(self.numbers)}"
        self.free[node], self.known[node] = self.slots, Node(node, self.slots)
        if self.node_s:
            self.later(self.random.expovariate(1 / self.node_s), lambda: self.lose(node))
        self.place()

    def lose(self, node: str) -> None:
        self.node_losses += 1
        del self.free[node]
        self.later(NODE_DEATH_S, lambda: self.known.pop(node))
        self.later(BACK_S, self.join)
        for worker in [worker for worker, place in self.at.items() if place == node]:
            del self.at[worker]
            self.later(ERROR_S, lambda worker=worker: self.fail(worker))

    def fail(self, worker: int) -> None:
        member = self.schedule.members.get(worker)
        if member is None or member in self.schedule.idle:
            return  # who is idle is found dead at the next look, or with the next task
        if member.job is None:
            self.schedule.start_failed(worker, "died", self.now)
        else:
            self.schedule.died(worker, CRASH, self.now)

    def start(self) -> None:
        worker = next(self.numbers)
        self.schedule.started(worker)
        self.unplaced.append(worker)
        self.place()

    def place(self) -> None:
        for node in self.free:
            while self.unplaced and self.free[node]:
                worker = self.unplaced.pop()
                self.free[node] -= 1
                self.at[worker] = node
                self.later(PLACE_S, lambda worker=worker, node=node: self.answer(worker, node))

    def answer(self, worker: int, node: str) -> None:
        if worker in self.at and self.schedule.placed(worker, node):
            self.later(LOAD_S, lambda: self.be_ready(worker))

    def be_ready(self, worker: int) -> None:
        if worker in self.at and worker in self.schedule.members:
            self.schedule.ready(worker, self.now)

    def work(self, worker: int, task: Task) -> None:
        if worker not in self.at:  # it died idle: it never opens the file
            self.later(ERROR_S, lambda: worker in self.schedule.members and self.schedule.vanished(worker))
            return
        seconds = self.random.expovariate(1 / self.mean_s) if task.method == "curate" else 0.2
        began = self.now
        self.later(seconds, lambda: self.end(worker, task, began))

    def end(self, worker: int, task: Task, began: float) -> None:
        if worker not in self.at:
            self.wasted_s += self.now - began  # more than it took until the node died: an upper bound
            return
        self.worked_s += self.now - began
        self.schedule.ended(worker, self.now)
        cpu = time.process_time()
        result = identify(task.item) if task.method == "identify" else drop_source(task.item)
        self.workers_cpu_s += time.process_time() - cpu  # a worker's, not the driver's
        self.ends.append(Done(task.item, result))

    def map(self, tasks: Iterable[Task], *, begin: Callable[[Task], Any], **_: Any) -> Iterator[Done | Lost]:
        self.schedule.add(tasks)
        while self.schedule.work:
            self.turn(begin)
            ends, self.ends = self.ends, []
            yield from ends

    def turn(self, begin: Callable[[Task], Any]) -> None:
        """What `Pool.turn` does, with the next event in place of a wait."""
        schedule = self.schedule
        if schedule.look_due(self.now):
            for worker in schedule.look(self.known, self.now):
                self.at.pop(worker, None)
        self.ends += [Lost(task.item, death.reason, death.detail) for task, death in schedule.judge(self.now)]
        for _ in range(schedule.missing(sum(node.slots for node in self.known.values()))):
            self.start()
        for worker, task in schedule.hand_out(self.now):
            begin(task)
            self.work(worker, task)
        rules = schedule.rules
        look = schedule.looked + (rules.hurried_look_s if schedule.unjudged else rules.look_s)
        if self.events and self.events[0][0] <= look:
            self.now, _, what = heapq.heappop(self.events)
            what()
        else:
            self.now = look

    def add_first(self, task: Task) -> None:
        self.schedule.add_first(task)

    def describe_places(self) -> str:
        return self.schedule.describe_places()


def identify(path: Path) -> Identity:
    return Identity(path, path.stem.rjust(64, "0"), size_of(path), 0, HEADER)


def size_of(path: Path) -> int:
    """A size of its own for nine of ten sources: the others wait for those of equal size."""
    number = int(path.stem)
    return 10_000_000 + (number if number % 10 else number % 1000)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--sources", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=500)
    parser.add_argument("--nodes", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=60.0, help="a source takes, on average")
    parser.add_argument("--node-hours", type=float, default=6.0, help="a node lives, on average; 0: for ever")
    parser.add_argument("--judge", type=float, default=Rules.judge_s, help="seconds from a death to its judgement")
    parser.add_argument("--output", type=Path, required=True, help="a new folder for the ledger; removed at the end")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    logging.disable()
    curation.intake.size_of = size_of
    profile = pipelines.load("embedded")
    videos = [Path(f"/videos/{n:07d}.mp4") for n in range(options.sources)]
    slots = options.workers // options.nodes
    pool = Pretended(options.nodes, slots, options.seconds, 3600 * options.node_hours, Rules(judge_s=options.judge))
    before_mb = peak_mb()
    ledger = Ledger(options.output, {"hash": "benchmark"})
    began, cpu = time.monotonic(), time.process_time()
    with redirect_stdout(StringIO()):
        curate(videos, ledger, pool, profile, None)  # type: ignore[arg-type]
    ledger.flush()
    cpu_s, wall_s = time.process_time() - cpu - pool.workers_cpu_s, time.monotonic() - began
    ends = [entry.reason for entry in ledger.done.values()]
    ideal_s = pool.worked_s / options.workers
    rows = {
        "sources": len(ends),
        "quarantined": sum(reason.startswith("error:") for reason in ends),
        "node_losses": pool.node_losses,
        "simulated_hours": pool.now / 3600,
        "hours_without_a_loss": ideal_s / 3600,
        "work_done_twice_share": pool.wasted_s / pool.worked_s,
        "driver_cpu_ms_a_source": 1000 * cpu_s / options.sources,
        "driver_wall_s": wall_s,
        "driver_kb_a_source": 1024 * (peak_mb() - before_mb) / options.sources,
    }
    del pool, ledger, ends
    began = time.monotonic()
    again = Ledger(options.output, {"hash": "benchmark"})
    left = curation.intake.Intake(videos, again, profile.workers, lambda *_: None).tasks()
    rows["resume_s"] = time.monotonic() - began
    rows["left_to_do"] = len(left)
    for name, value in rows.items():
        print(f"{name:24} {value:,.3f}" if isinstance(value, float) else f"{name:24} {value:,}")
    if options.json:
        write_json(options.json, rows)
    shutil.rmtree(options.output)
    return int(bool(rows["left_to_do"]))


if __name__ == "__main__":
    sys.exit(main())
