"""The pool on a Ray of this machine; on several nodes: test_cluster.py; its rules without Ray: test_schedule.py."""

import argparse
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import curation.pool
import pipelines
from curation.pool import LAST_WORDS_LINES, ClusterError, Done, Lost, Pool, count_places, last_words, start_ray
from curation.run import retry_option
from curation.schedule import Task
from curation.worker import log_path


def test_last_words_are_the_innermost_calls_without_addresses(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("Fatal Python error: Aborted\n\nThread 0x00007f12ab (most recent call first):\n" + "  File x\n" * 50)
    words = last_words(log)
    assert words.startswith("Fatal Python error: Aborted\n\nThread 0x… (most recent call first):\n  File x")
    assert len(words.splitlines()) == LAST_WORDS_LINES


def test_a_worker_that_was_killed_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.log").touch()
    assert last_words(tmp_path / "a.log") == "the worker process was killed"
    assert last_words(tmp_path / "b.log") == "the worker process left no log"


def test_every_item_has_a_log_of_its_own_whatever_its_name(tmp_path: Path) -> None:
    names = [Path("/v/a.mp4"), Path("/w/a.mp4"), Path("/v/\udce9.mp4"), Path("/v/" + "x" * 250)]
    assert len({log_path(tmp_path, name) for name in names}) == 4


@pytest.mark.parametrize(
    ("option", "reason"),
    [("failed", ""), ("failed:timeout", "timeout"), ("failed:error:timeout", "timeout")],
)
def test_retry_names_a_reason_or_none(option: str, reason: str) -> None:
    assert retry_option(option) == reason


def test_retry_of_anything_else_is_refused() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="write failed"):
        retry_option("dropped")


def test_a_ray_that_cannot_start_is_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise RuntimeError("no node\ncould not be reached")

    monkeypatch.setattr("ray.init", refuse)
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    with pytest.raises(ClusterError, match="Ray at head:6379 cannot start or be joined: could not be reached"):
        start_ray()


@pytest.mark.parametrize(
    ("cpus", "gpus", "gpus_each", "places"),
    [
        (180, 8, 0.04, 180),  # every core of a large node
        (16, 2, 0.04, 16),
        (180, 8, 0.25, 32),
        (16, 2, 0.4, 4),  # a worker's share lies on one GPU: two on each, and not five
        (16, 2, 1 / 3, 6),
        (16, 4, 2, 2),
        (16, 0, 0.04, 0),
        (16, 2, 0.0, 16),
    ],
)
def test_a_node_has_room_for_as_many_workers_as_ray_can_place(
    cpus: float, gpus: float, gpus_each: float, places: int
) -> None:
    assert count_places(cpus, gpus, gpus_each) == places


class Echo:
    """A worker that returns what it is given; `die` ends its process, `hang` never returns."""

    def __init__(self, _profile: Any, output: Path, *_: Any) -> None:
        self.output = output

    def ready(self, *_: Any) -> str:
        return "echo"

    def leave(self) -> None:
        pass

    def echo(self, path: Path) -> str:
        log = log_path(self.output, path)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
        if path.name == "die":
            os._exit(1)
        if path.name == "hang":
            time.sleep(600)
        log.unlink()
        return path.name.upper()


def test_every_item_ends_once_and_those_whose_worker_died_twice_are_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curation.pool, "Worker", Echo)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    profile = pipelines.load("embedded")
    begun: list[str] = []
    pool = Pool(replace(profile, workers=replace(profile.workers, recycle_sources=2)), tmp_path, "recipe", False, 2)
    try:
        first, *more = (
            Task("echo", Path(name), 3.0 if name == "hang" else 300.0) for name in ("a", "die", "b", "hang", "c", "d")
        )
        ends = []
        for end in pool.map([first], begin=lambda task: begun.append(task.item.name)):
            ends.append(end)
            if end.item == first.item:
                for task in more:
                    pool.add_first(task)
    finally:
        pool.close()
    assert sorted(end.item.name for end in ends) == ["a", "b", "c", "d", "die", "hang"]
    assert {end.result for end in ends if isinstance(end, Done)} == {"A", "B", "C", "D"}
    lost = {end.item.name: end.reason for end in ends if isinstance(end, Lost)}
    assert lost == {"die": "error:worker_crash", "hang": "error:timeout"}
    assert [begun.count(name) for name in ("a", "die", "hang")] == [1, 2, 2]


class Broken(Echo):
    """A worker whose networks cannot be loaded."""

    def ready(self, *_: Any) -> str:
        raise ImportError("no such library")


def test_workers_of_which_none_can_start_are_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curation.pool, "Worker", Broken)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    said: list[str] = []
    with pytest.raises(ClusterError, match="a worker cannot start: .*no such library"):
        Pool(pipelines.load("embedded"), tmp_path, "recipe", False, 2, say=said.append)
    assert len(said) == 1
    assert "is excluded from this run: ImportError: no such library" in said[0]


def test_ray_is_started_here_unless_an_address_or_a_job_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray itself would join what its temporary folder names, or wait for it: another's cluster, or a dead one."""
    asked: list[Any] = []
    monkeypatch.setattr("ray.init", lambda **options: asked.append(options["address"]))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    start_ray()
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    start_ray()
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR")
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    start_ray()
    assert asked == ["local", None, None]
