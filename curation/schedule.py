"""Which worker has which task, and what follows when workers start, answer, die or are late. Knows nothing of Ray.

A worker is starting, idle or busy, and only an idle one, which has answered from its node, is given a task. Deaths are
judged late, because the death of a node shows some seconds after those of its workers: a task that was lost with a node
goes back into the queue without blame; one whose worker died alone is a suspect. Suspects wait until nothing else does,
and then run one per node, with nothing of ours beside them. A task that is twice guilty is lost.

Time is a number that the caller gives, so that a test or a simulation can let hours pass in a second.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

LOOK_AHEAD = 64  # tasks that must go to another node, looked through for one that an idle worker may have


@dataclass(frozen=True)
class Rules:
    """What is counted, and how long is waited."""

    deaths: int = 2  # of its worker alone, until a task is lost
    losses: int = 8  # with a node or a connection; any further one counts as a death
    judge_s: float = 25.0  # Ray declares a node dead 13 to 16 s after its workers' errors
    failed_starts: int = 3  # in a row on one node, until that is excluded
    look_s: float = 30.0  # between two looks at the nodes
    hurried_look_s: float = 2.0  # the same, while a death waits for its judgement


@dataclass(frozen=True)
class Task:
    """A call of a worker's method, and how many seconds it may take from the moment that a worker has it."""

    method: str
    item: Any
    deadline_s: float


@dataclass(frozen=True)
class Node:
    """A machine of the cluster: its name, and how many workers fit on it."""

    host: str
    slots: int


@dataclass(frozen=True)
class Death:
    """What a dead worker left: a reason such as `error:memory`, and the end of its log."""

    reason: str
    detail: str


@dataclass(eq=False)
class Job:
    """A task with what has happened to it."""

    task: Task
    deaths: int = 0
    losses: int = 0
    refused_by: set[str] = field(default_factory=set)


@dataclass(eq=False)
class Member:
    """A worker of the pool; without a node until it is placed, with a job while it is busy."""

    worker: Any
    node: str = ""
    job: Job | None = None
    until: float = 0.0
    late: bool = False
    idle_since: float = 0.0


@dataclass(frozen=True)
class Unjudged:
    """A death of which it is not known yet whether the node died too."""

    node: str
    at: float
    death: Death
    job: Job | None  # None: it was starting


class Schedule:
    """The tasks and workers of one run; the caller tells what happened and does what the answers say."""

    def __init__(self, rules: Rules = Rules(), home: str = "") -> None:
        """`home` is the node of the caller: when that dies nobody judges, so deaths there are judged at once."""
        self.rules, self.home = rules, home
        self.waiting, self.elsewhere, self.suspects = deque[Job](), deque[Job](), deque[Job]()
        self.members: dict[Any, Member] = {}
        self.idle: dict[Member, None] = {}
        self.busy: dict[Member, None] = {}
        self.busy_on: Counter[str] = Counter()
        self.ready_on: Counter[str] = Counter()
        self.alone: set[str] = set()  # nodes on which a suspect runs
        self.unjudged: list[Unjudged] = []
        self.lost: list[tuple[Task, Death]] = []
        self.nodes: dict[str, Node] = {}
        self.failures: Counter[str] = Counter()  # failed starts in a row, by node; "" where that is unknown
        self.excluded: dict[str, str] = {}  # node -> why
        self.last_words = ""
        self.looked = float("-inf")

    # Tasks.

    def add(self, tasks: Iterable[Task]) -> None:
        """Append tasks to the queue."""
        self.waiting.extend(Job(task) for task in tasks)

    def add_first(self, task: Task) -> None:
        """Put a task before all others."""
        self.waiting.appendleft(Job(task))

    @property
    def work(self) -> int:
        """Return how many tasks have no end yet."""
        judged = sum(each.job is not None for each in self.unjudged)
        return len(self.waiting) + len(self.elsewhere) + len(self.suspects) + len(self.busy) + judged

    def hand_out(self, now: float) -> Iterator[tuple[Any, Task]]:
        """Yield (worker, task) for each idle worker that gets one; it is busy then, and its time runs."""
        if not (self.waiting or self.elsewhere or self.suspects):
            return
        for member in reversed(list(self.idle)):  # who became idle last may have the file in its cache
            job = self._next_job(member.node)
            if job is not None:
                del self.idle[member]
                self.busy[member] = None
                self.busy_on[member.node] += 1
                member.job, member.until, member.late = job, now + job.task.deadline_s, False
                yield member.worker, job.task

    def _next_job(self, node: str) -> Job | None:
        if node in self.alone:
            return None
        one_node = len(self.ready_on) == 1
        for job in islice(self.elsewhere, LOOK_AHEAD):
            if one_node or node not in job.refused_by:
                self.elsewhere.remove(job)
                return job
        if self.waiting:
            return self.waiting.popleft()
        if self.suspects and not self.elsewhere and not self.busy_on[node]:
            self.alone.add(node)
            return self.suspects.popleft()
        return None

    def ended(self, worker: Any, now: float, refused: bool = False) -> bool:
        """A worker has returned and is idle. Return whether its result counts.

        With `refused` (a file could not be read there) it does not if another node may try.
        """
        member = self.members[worker]
        job = self._release(member)
        self.idle[member], member.idle_since = None, now
        if member.late:  # its end and the order to kill it have met
            self._remove(member)
        if not refused or job.refused_by or len(self.ready_on) < 2:
            return True
        job.refused_by.add(member.node)
        self.elsewhere.append(job)
        return False

    def overdue(self, now: float) -> Iterator[Any]:
        """Yield the workers that have had their task for longer than its deadline, each once; they must be killed."""
        for member in self.busy:
            if now > member.until and not member.late:
                member.late = True
                yield member.worker

    # Workers.

    def missing(self, limit: int, expected: int = 0) -> int:
        """Return how many workers to start: as many as there is work (or is `expected`), up to a limit."""
        failed = sum(each.job is None for each in self.unjudged)  # their places stay empty until they are judged
        return max(0, min(limit, max(self.work, expected)) - len(self.members) - failed)

    def started(self, worker: Any) -> None:
        """A worker was asked for; it has no node yet."""
        self.members[worker] = Member(worker)

    def placed(self, worker: Any, node: str) -> bool:
        """A worker runs on a node and loads. Return False if that is excluded; then it must be killed."""
        if node in self.excluded:
            del self.members[worker]
            return False
        self.members[worker].node = node
        self.failures[""] = 0
        return True

    def ready(self, worker: Any, now: float) -> None:
        """A worker has loaded and has answered: it is idle."""
        member = self.members[worker]
        self.idle[member], member.idle_since = None, now
        self.ready_on[member.node] += 1
        self.failures[member.node] = 0

    def start_failed(self, worker: Any, why: str, now: float, node: str = "") -> None:
        """A worker died or gave up before it was ready; `node` says where if it was not placed yet."""
        member = self.members.pop(worker)
        self._judge_later(member.node or node, now, Death("", why), None)

    def exclude(self, node: str, why: str) -> None:
        """Start nothing on a node any more; what works there goes on."""
        self.excluded.setdefault(node, why)
        self.last_words = why

    def retire(self, worker: Any) -> None:
        """Take an idle worker out of the pool."""
        self._remove(self.members[worker])

    def spare(self, now: float) -> list[Any]:
        """Return the workers for which there has been nothing to do since the last look but one."""
        long_idle = [each for each in self.idle if now - each.idle_since > self.rules.look_s]
        return [each.worker for each in long_idle[: max(0, len(self.members) - max(self.work, 1))]]

    def died(self, worker: Any, death: Death, now: float) -> None:
        """A worker that had a task is dead; `judge` says later what that means."""
        member = self.members[worker]
        job = member.job
        self._remove(member)
        self._judge_later(member.node, now, death, job)

    def vanished(self, worker: Any) -> None:
        """A worker that had a task, or its result, is lost by no fault of the task (preempted, disconnected)."""
        member = self.members[worker]
        job = member.job
        self._remove(member)
        if job is not None:
            self._put_back(job)

    # Nodes and judgements.

    def look_due(self, now: float) -> bool:
        """Return whether it is time to look at the nodes again."""
        hurried = self.rules.hurried_look_s if self.unjudged else self.rules.look_s
        return now - self.looked >= hurried

    def look(self, nodes: Mapping[str, Node], now: float) -> list[Any]:
        """Take in the nodes that are alive. Return the workers that are gone with others; their tasks wait again."""
        self.nodes, self.looked = dict(nodes), now
        gone = [each for each in self.members.values() if each.node and each.node not in self.nodes]
        for member in gone:
            self.vanished(member.worker)
        for node in [each for each in self.failures if each and each not in self.nodes]:
            del self.failures[node]
        return [member.worker for member in gone]

    def judge(self, now: float) -> list[tuple[Task, Death]]:
        """Return the tasks that are lost, after judging the deaths about which enough is known."""
        open_, self.unjudged = self.unjudged, []
        for each in open_:
            if each.node and each.node not in self.nodes:
                if each.job is not None:
                    self._put_back(each.job)
            elif now < each.at or self.looked < each.at:
                self.unjudged.append(each)
            elif each.job is not None:
                self._blame(each.job, each.death)
            else:
                self._count_failed_start(each.node, each.death.detail)
        lost, self.lost = self.lost, []
        return lost

    def stuck(self) -> str:
        """Return why no worker can ever start, or nothing."""
        if any(member.node for member in self.members.values()):
            return ""
        usable = [name for name, node in self.nodes.items() if node.slots]
        if self.failures[""] >= self.rules.failed_starts or (usable and all(name in self.excluded for name in usable)):
            return self.last_words
        return ""

    def describe_places(self) -> str:
        """Return a line such as `14 workers on 2 nodes: a 8, b 6; 3 starting`."""
        names = {name: self.nodes[name].host if name in self.nodes else name[:8] for name in self.ready_on}
        by_node = ", ".join(f"{names[name]} {count}" for name, count in sorted(self.ready_on.items()))
        count = sum(self.ready_on.values())
        starting = len(self.members) - count
        return f"{count} workers on {len(self.ready_on)} nodes{': ' if by_node else ''}{by_node}; {starting} starting"

    def _judge_later(self, node: str, now: float, death: Death, job: Job | None) -> None:
        """At once where the death of the node would not leave anybody to judge, and where there is no node to die."""
        at = float("-inf") if node in (self.home, "") else now + self.rules.judge_s
        self.unjudged.append(Unjudged(node, at, death, job))

    def _count_failed_start(self, node: str, why: str) -> None:
        self.failures[node] += 1
        self.last_words = why
        if node and self.failures[node] >= self.rules.failed_starts:
            self.exclude(node, why)

    def _put_back(self, job: Job) -> None:
        job.losses += 1
        if job.losses > self.rules.losses:
            self._blame(job, Death("error:worker_crash", f"its node was lost {job.losses} times"))
        elif job.deaths:
            self.suspects.append(job)
        else:
            self.waiting.appendleft(job)

    def _blame(self, job: Job, death: Death) -> None:
        job.deaths += 1
        if job.deaths < self.rules.deaths:
            self.suspects.append(job)
        else:
            self.lost.append((job.task, death))

    def _release(self, member: Member) -> Job:
        """Return the job of a busy worker, which has none then."""
        job = member.job
        assert job is not None, f"{member.worker} is not busy"
        member.job = None
        del self.busy[member]
        self.busy_on[member.node] -= 1
        if job.deaths and not self.busy_on[member.node]:
            self.alone.discard(member.node)
        return job

    def _remove(self, member: Member) -> None:
        was_ready = member in self.idle or member in self.busy
        if member.job is not None:
            self._release(member)
        self.idle.pop(member, None)
        del self.members[member.worker]
        if was_ready:
            self.ready_on[member.node] -= 1
            if not self.ready_on[member.node]:
                del self.ready_on[member.node]
