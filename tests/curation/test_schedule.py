"""What follows when workers start, answer, die or are late: the rules of the pool, without a process."""

from collections.abc import Iterable
from typing import Any

import pytest

from curation.schedule import Death, Node, Rules, Schedule, Task

CRASH = Death("error:worker_crash", "killed")
RULES = Rules()


def tasks(*items: str, seconds: float = 100.0) -> list[Task]:
    return [Task("curate", item, seconds) for item in items]


def nodes(*names: str, slots: int = 2) -> dict[str, Node]:
    return {name: Node(f"host-{name}", slots) for name in names}


def scheduled(items: Iterable[str], workers: Iterable[str], *, home: str = "", rules: Rules = RULES) -> Schedule:
    """A schedule with these tasks and ready workers; a worker `a1` is on node `a`."""
    schedule = Schedule(rules, home)
    schedule.add(tasks(*items))
    schedule.look(nodes(*{name[0] for name in workers}), 0.0)
    for name in workers:
        start(schedule, name)
    return schedule


def start(schedule: Schedule, name: str, now: float = 0.0) -> None:
    schedule.started(name)
    assert schedule.placed(name, name[0])
    schedule.ready(name, now)


def handed(schedule: Schedule, now: float = 0.0) -> dict[Any, Any]:
    return {worker: task.item for worker, task in schedule.hand_out(now)}


def judged(schedule: Schedule, now: float, *alive: str) -> list[tuple[Any, str]]:
    schedule.look(nodes(*alive), now)
    return [(task.item, death.reason) for task, death in schedule.judge(now)]


def test_only_a_worker_that_has_answered_gets_a_task() -> None:
    schedule = scheduled("xyz", [])
    schedule.look(nodes("a"), 0.0)
    schedule.started("a1")
    assert handed(schedule) == {}
    schedule.placed("a1", "a")
    assert handed(schedule) == {}
    schedule.ready("a1", 5.0)
    assert handed(schedule, 5.0) == {"a1": "x"}
    assert handed(schedule, 6.0) == {}  # one at a time


def test_the_deadline_runs_from_the_moment_that_the_worker_has_the_task() -> None:
    schedule = scheduled("x", [])
    schedule.look(nodes("a"), 0.0)
    start(schedule, "a1", 1000.0)  # it waited a quarter of an hour for a place
    handed(schedule, 1000.0)
    assert list(schedule.overdue(1099.0)) == []
    assert list(schedule.overdue(1101.0)) == ["a1"]
    assert list(schedule.overdue(1102.0)) == []  # is said once


def test_a_result_that_meets_the_order_to_kill_counts_and_its_worker_is_gone() -> None:
    schedule = scheduled("xy", ["a1"])
    handed(schedule)
    assert list(schedule.overdue(101.0)) == ["a1"]
    assert schedule.ended("a1", 101.0)
    assert "a1" not in schedule.members
    assert handed(schedule, 102.0) == {}
    assert schedule.work == 1


def test_what_was_lost_with_its_node_is_done_again_without_blame() -> None:
    """The node's death shows 13 s after its workers'."""
    schedule = scheduled("xy", ["a1", "b1"])
    assert handed(schedule) == {"b1": "x", "a1": "y"}
    schedule.died("a1", CRASH, 10.0)
    assert judged(schedule, 12.0, "a", "b") == []
    assert schedule.work == 2
    assert judged(schedule, 23.0, "b") == []
    assert not schedule.suspects
    schedule.ended("b1", 24.0)
    assert handed(schedule, 24.0) == {"b1": "y"}


def test_deaths_judged_at_once_would_blame_what_a_dying_node_had() -> None:
    """The control: without the wait, two nodes that die one after the other cost a healthy source."""
    schedule = scheduled("x", ["a1"], rules=Rules(judge_s=0.0))
    lost = []
    for node, now in (("a", 10.0), ("b", 40.0)):
        if node == "b":
            schedule.look(nodes("b"), now - 5)
            start(schedule, "b1", now - 5)
        handed(schedule, now - 1)
        schedule.died(f"{node}1", CRASH, now)
        lost += judged(schedule, now, node)
    assert lost == [("x", "error:worker_crash")]
    assert schedule.work == 0


def test_a_worker_that_died_alone_is_blamed_when_its_node_has_outlived_it() -> None:
    schedule = scheduled("x", ["a1", "b1"])
    (worker,) = handed(schedule)
    schedule.died(worker, CRASH, 10.0)
    assert judged(schedule, 10.0 + RULES.judge_s - 1, "a", "b") == []
    assert judged(schedule, 10.0 + RULES.judge_s, "a", "b") == []
    assert [job.task.item for job in schedule.suspects] == ["x"]


def test_a_death_is_not_judged_by_an_old_look_at_the_nodes() -> None:
    schedule = scheduled("x", ["a1"])
    handed(schedule)
    schedule.died("a1", CRASH, 10.0)
    schedule.look(nodes("a"), 11.0)
    assert schedule.judge(100.0) == []
    assert not schedule.suspects
    assert schedule.look_due(13.0)
    assert judged(schedule, 100.0) == []
    assert [job.task.item for job in schedule.waiting] == ["x"]


def test_on_the_drivers_own_node_deaths_are_judged_at_once() -> None:
    schedule = scheduled("x", ["a1"], home="a")
    handed(schedule)
    schedule.died("a1", CRASH, 10.0)
    assert schedule.judge(10.0) == []
    assert [job.task.item for job in schedule.suspects] == ["x"]


def test_a_task_that_is_twice_guilty_is_lost_with_its_last_reason() -> None:
    schedule = scheduled("x", ["a1"], home="a")
    handed(schedule)
    schedule.died("a1", CRASH, 10.0)
    schedule.judge(10.0)
    start(schedule, "a2")
    assert handed(schedule, 11.0) == {"a2": "x"}
    schedule.died("a2", Death("error:timeout", ""), 12.0)
    assert judged(schedule, 12.0, "a") == [("x", "error:timeout")]
    assert schedule.work == 0


def test_suspects_run_one_per_node_with_nothing_beside_them() -> None:
    schedule = scheduled("pqrs", ["a1", "a2", "b1", "b2"], home="")
    schedule.look(nodes("a", "b"), 0.0)
    handed(schedule)
    for worker in ("a1", "b1"):  # p and q, say, kill their workers
        schedule.died(worker, CRASH, 1.0)
        start(schedule, worker.replace("1", "3"), 2.0)
    judged(schedule, 30.0, "a", "b")
    assert len(schedule.suspects) == 2
    assert handed(schedule, 30.0) == {}  # healthy ones still run on both nodes
    schedule.ended("a2", 31.0)
    assert len(handed(schedule, 31.0)) == 1
    schedule.ended("b2", 32.0)
    assert len(handed(schedule, 32.0)) == 1
    schedule.add(tasks("z"))
    assert handed(schedule, 33.0) == {}  # an idle worker is there, but it would run beside a suspect
    (busy_on_a,) = [member.worker for member in schedule.busy if member.node == "a"]
    schedule.ended(busy_on_a, 34.0)
    assert list(handed(schedule, 34.0).values()) == ["z"]


def test_what_loses_its_node_again_and_again_is_at_last_blamed() -> None:
    rules = Rules(losses=3)
    schedule = scheduled("x", [], rules=rules)
    lost: list[tuple[Any, str]] = []
    for n in range(20):
        now = 100.0 * n
        schedule.look(nodes("a"), now)
        start(schedule, f"a{n}", now)
        assert list(handed(schedule, now).values()) == ["x"]
        schedule.died(f"a{n}", CRASH, now + 1)
        lost += judged(schedule, now + 14, "b")
        if lost:
            break
    assert n == rules.losses + 1
    assert lost == [("x", "error:worker_crash")]


def test_a_suspect_whose_node_is_lost_stays_a_suspect() -> None:
    schedule = scheduled("x", ["a1", "b1"], home="a")
    schedule.waiting[0].deaths = 1
    schedule.suspects.append(schedule.waiting.popleft())
    (worker,) = handed(schedule)
    schedule.vanished(worker)
    assert [job.task.item for job in schedule.suspects] == ["x"]
    assert not schedule.alone


def test_a_lost_node_takes_its_workers_with_it_in_whatever_state() -> None:
    schedule = scheduled("x", ["a1", "a2"])
    handed(schedule)
    schedule.started("a3")
    schedule.placed("a3", "a")
    schedule.started("somewhere")
    assert sorted(schedule.look(nodes("b"), 30.0)) == ["a1", "a2", "a3"]
    assert list(schedule.members) == ["somewhere"]
    assert [job.task.item for job in schedule.waiting] == ["x"]
    assert schedule.describe_places() == "0 workers on 0 nodes; 1 starting"


def test_as_many_workers_are_asked_for_as_there_is_work_up_to_the_limit() -> None:
    schedule = scheduled("xyz", ["a1"])
    assert schedule.missing(limit=10) == 2
    assert schedule.missing(limit=2) == 1
    assert schedule.missing(limit=10, expected=7) == 6
    schedule.started("new")
    assert schedule.missing(limit=10) == 1


def test_workers_without_work_are_let_go_after_a_while() -> None:
    schedule = scheduled("x", ["a1", "a2", "b1"])
    (busy,) = handed(schedule)
    assert schedule.spare(10.0) == []
    assert sorted(schedule.spare(31.0)) == sorted({"a1", "a2", "b1"} - {busy})


def test_a_node_on_which_three_starts_fail_is_excluded_and_named() -> None:
    schedule = scheduled("xyz", ["b1"])
    schedule.look(nodes("a", "b"), 0.0)
    for n in range(3):
        schedule.started(f"a{n}")
        schedule.placed(f"a{n}", "a")
        assert schedule.excluded == {}
        schedule.start_failed(f"a{n}", "no such library", 10.0)
    assert schedule.missing(limit=9) == 0  # their places stay empty until it is known that the node lives
    judged(schedule, 10.0 + RULES.judge_s, "a", "b")
    assert schedule.excluded == {"a": "no such library"}
    assert schedule.missing(limit=9) == 2
    schedule.started("late")
    assert not schedule.placed("late", "a")
    assert schedule.stuck() == ""


def test_failed_starts_of_a_node_that_dies_exclude_nothing() -> None:
    schedule = scheduled("xyz", ["b1"])
    schedule.look(nodes("a", "b"), 0.0)
    for n in range(3):
        schedule.started(f"a{n}")
        schedule.start_failed(f"a{n}", "gone", 10.0, node="a")
    judged(schedule, 23.0, "b")
    judged(schedule, 100.0, "a", "b")
    assert schedule.excluded == {}


def test_a_start_that_succeeds_forgives_those_that_failed() -> None:
    schedule = scheduled("x", [], home="a")
    schedule.look(nodes("a"), 0.0)
    for n in range(8):
        schedule.started(f"a{n}")
        schedule.placed(f"a{n}", "a")
        if n % 3 == 2:
            schedule.ready(f"a{n}", 1.0)
        else:
            schedule.start_failed(f"a{n}", "flaky", 1.0)
        judged(schedule, 2.0, "a")
    assert schedule.excluded == {}


@pytest.mark.parametrize("node", ["a", ""])
def test_nothing_can_start_when_every_node_is_excluded_or_nothing_gets_so_far(node: str) -> None:
    schedule = scheduled("x", [], home="a")
    schedule.look(nodes("a") | nodes("head", slots=0), 0.0)
    for n in range(3):
        assert schedule.stuck() == ""
        schedule.started(n)
        schedule.start_failed(n, "no such library", 1.0, node=node)
        schedule.look(nodes("a") | nodes("head", slots=0), 2.0)
        schedule.judge(2.0)
    assert schedule.stuck() == "no such library"


def test_what_cannot_be_read_on_one_node_is_tried_on_another() -> None:
    schedule = scheduled("xy", ["a1", "b1"])
    first = handed(schedule)
    assert not schedule.ended("a1", 1.0, refused=True)
    assert handed(schedule, 1.0) == {}  # not on the same node, and the other is busy
    assert schedule.work == 2
    assert schedule.ended("b1", 2.0)
    assert handed(schedule, 2.0) == {"b1": first["a1"]}
    assert schedule.ended("b1", 3.0, refused=True)  # two nodes agree
    assert schedule.work == 0


def test_what_cannot_be_read_counts_where_there_is_one_node() -> None:
    schedule = scheduled("x", ["a1", "a2"])
    (worker,) = handed(schedule)
    assert schedule.ended(worker, 1.0, refused=True)


def test_what_waits_for_another_node_is_done_on_the_same_when_that_is_the_last() -> None:
    schedule = scheduled("xy", ["a1", "b1"])
    first = handed(schedule)
    schedule.ended("a1", 1.0, refused=True)
    schedule.died("b1", CRASH, 2.0)
    judged(schedule, 15.0, "a")
    assert handed(schedule, 15.0) == {"a1": first["a1"]}
    assert schedule.ended("a1", 16.0, refused=True)
