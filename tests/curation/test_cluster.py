"""The pool on several nodes: raylets of one machine that join, die, and see nothing. No healthy source is lost."""

import ctypes
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

import curation.pool
import pipelines
from curation import handshake
from curation.pool import Done, Pool
from curation.schedule import Rules, Task
from curation.worker import log_path

QUICK = Rules(look_s=1.0, hurried_look_s=1.0)
HEAD = {"num_cpus": 0, "object_store_memory": 80_000_000, "include_dashboard": False}
CLONE_NEWNS = 0x20000
PRIVATE = 0x44000  # MS_REC | MS_PRIVATE


@pytest.fixture(scope="module")
def head() -> Iterator[Cluster]:
    """A head without CPUs for workers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        cluster = Cluster(initialize_head=True, head_node_args=HEAD)
        patch.setenv("RAY_ADDRESS", str(cluster.address))
        yield cluster
        cluster.shutdown()


@pytest.fixture
def cluster(head: Cluster) -> Iterator[Cluster]:
    yield head
    for node in list(head.worker_nodes):
        with suppress(Exception):
            head.remove_node(node, allow_graceful=False)


def add_node(cluster: Cluster, **environment: str) -> Any:
    return cluster.add_node(num_cpus=1, object_store_memory=80_000_000, env_vars=environment, wait=False)


class Sleeper:
    """A worker that does nothing for a while and says where."""

    def __init__(self, _profile: Any, output: Path, *_: Any) -> None:
        self.output = output

    def ready(self, *_: Any) -> str:
        return ""

    def leave(self) -> None:
        pass

    def sleep(self, path: Path) -> str:
        log = log_path(self.output, path)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
        time.sleep(1.0)
        log.unlink()
        return ray.get_runtime_context().get_node_id()


@pytest.mark.timeout(600)
def test_two_of_three_nodes_die_and_another_joins_and_every_source_ends_well(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At first no CPU is free: the pool says so, and takes the nodes as they come."""
    monkeypatch.setattr(curation.pool, "Worker", Sleeper)
    said: list[str] = []

    def listen(text: str) -> None:
        said.append(text)
        if len(said) == 1:
            for _ in range(3):
                add_node(cluster)

    pool = Pool(pipelines.load("embedded"), tmp_path, "", False, 4, sources=60, rules=QUICK, say=listen)
    try:
        assert said[0].startswith("0 of 4 workers placed, the cluster is full")
        used: list[str] = []
        late = None
        for end in pool.map([Task("sleep", Path(f"{n}.mp4"), 300.0) for n in range(60)]):
            assert isinstance(end, Done), end  # nothing is quarantined
            used.append(end.result)
            if late is None and len(set(used)) == 3:
                for node in [node for node in cluster.worker_nodes if node.node_id != used[-1]]:
                    cluster.remove_node(node, allow_graceful=False)
                late = add_node(cluster)
    finally:
        pool.close()
    assert len(used) == 60
    assert late is not None and used.count(late.node_id) > 1
    assert sum("is lost" in text for text in said) == 2


@pytest.mark.timeout(600)
def test_a_node_with_gpus_is_used_whole_whatever_a_workers_share(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two GPUs and six cores, as Ray is told: shares of .4 lie on one GPU each, and small ones follow the cores."""
    monkeypatch.setattr(curation.pool, "Worker", Sleeper)
    cluster.add_node(num_cpus=6, num_gpus=2, object_store_memory=80_000_000, wait=False)
    most = {}
    for share in (0.4, 0.04):
        members: set[int] = set()
        profile = pipelines.load("embedded", ["device=cuda", f"workers.gpus={share}"])
        pool = Pool(profile, tmp_path, "", False, None, sources=20, rules=QUICK)
        try:
            tasks = [Task("sleep", Path(f"{n}.mp4"), 300.0) for n in range(20)]
            ends = []
            for end in pool.map(tasks):
                ends.append(end)
                members.add(len(pool.schedule.members))
        finally:
            pool.close()
        assert len(ends) == 20
        most[share] = max(members)
    assert most == {0.4: 4, 0.04: 6}  # and none that waits for ever


class Troubled(Sleeper):
    """A worker on a node that lacks what TROUBLE says; a folder is hidden really, from this process alone."""

    def __init__(self, profile: Any, output: Path, *_: Any) -> None:
        super().__init__(profile, output)
        trouble = os.environ.get("TROUBLE", "")
        if trouble == "init":
            raise ImportError("no such library")
        if trouble:
            hide({"input": output.parent / "videos", "output": output}[trouble])

    def ready(self, offered: handshake.Handshake, reply: str) -> str:
        handshake.answer(offered, reply)
        return ""


def hide(folder: Path) -> None:
    """Put an empty file system over a folder, seen by this thread only."""
    libc = ctypes.CDLL(None, use_errno=True)
    for failed in (
        lambda: libc.unshare(CLONE_NEWNS),
        lambda: libc.mount(b"none", b"/", None, PRIVATE, None),
        lambda: libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, b"size=100k"),
    ):
        if failed():
            raise OSError(ctypes.get_errno(), "cannot hide a folder")


@pytest.mark.timeout(600)
def test_nodes_that_see_nothing_or_cannot_start_are_excluded_by_name_and_stop_nobody(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid():
        pytest.skip("needs the right to mount")
    monkeypatch.setattr(curation.pool, "Worker", Troubled)
    nodes = {trouble: add_node(cluster, TROUBLE=trouble) for trouble in ("input", "output", "init")}
    good = add_node(cluster)
    videos = [tmp_path / "videos" / f"{n}.mp4" for n in range(10)]
    output = tmp_path / "out"
    for folder in (videos[0].parent, output):
        folder.mkdir()
    for video in videos:
        video.write_bytes(b"x")
    said: list[str] = []
    offered, rules = handshake.offer(output, videos), replace(QUICK, judge_s=1.0)
    pool = Pool(
        pipelines.load("embedded"), output, "", False, 4, sources=10, handshake=offered, rules=rules, say=said.append
    )
    words = {
        "input": "does not see the videos",
        "output": "does not see the output folder",
        "init": "ImportError: no such library",
    }
    found: dict[str, str] = {}
    try:
        tasks = [Task("sleep", video, 300.0) for video in videos]
        for end in pool.map(tasks):
            assert isinstance(end, Done) and end.result == good.node_id, end
            excluded = [text for text in said if "is excluded" in text]
            found = {name: text for name in words for text in excluded if nodes[name].node_id[:8] in text}
            if len(tasks) < 300 and len(found) < 3:  # as long as they have not all been met
                tasks.append(Task("sleep", videos[0], 300.0))
                pool.add_first(tasks[-1])
    finally:
        pool.close()
    assert found.keys() == words.keys(), said
    assert all(words[name] in text for name, text in found.items()), found
    assert all(good.node_id[:8] not in text for text in said)
