"""A worker process: holds the networks once and takes one source at a time. What runs inside each of Ray's actors."""

import faulthandler
import hashlib
import os
import resource
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TextIO

from curation import objects
from curation.handshake import Handshake, answer
from curation.source import Curated, Identity, curate, identify, writing
from curation.stage import Stage, build_stages
from curation.videos import Video
from media.probe import Limits
from pipelines import Profile
from shards.packer import ShardJob, write_shard
from storage.scratch import Scratch, default_folder
from storage.store import RemoteFile

MEMORY = "memory limit"  # what a worker writes last when it ends itself
WATCH_S = 0.2
GB = 1e9


class Worker:
    """One thread per library (the pool sets OMP_NUM_THREADS), whatever the number of workers that share a machine."""

    def __init__(
        self, profile: Profile, output: Path, recipe: str, score_only: bool, scratch_folder: Path | None = None
    ) -> None:
        self.limits, self.output, self.recipe, self.score_only = (
            Limits(**asdict(profile.limits)),
            output,
            recipe,
            score_only,
        )
        self.profile, self.max_gb = profile, profile.workers.max_gb
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self.scratch = Scratch(scratch_folder or default_folder())

    @cached_property
    def stages(self) -> list[Stage]:
        """The profile's stages, with their networks loaded."""
        stages = build_stages(self.profile.stages, self.profile.device)
        for stage in stages:
            stage.load()
        return stages

    def ready(self, handshake: Handshake | None = None, reply: str = "") -> str:
        """Return the worker's name, `host:pid`; by then its networks are loaded. Raises HandshakeError before."""
        if handshake is not None:
            answer(handshake, reply)
        _ = self.stages
        return self.name

    def identify(self, path: Video) -> Identity:
        with self.record_crashes(path):
            if isinstance(path, RemoteFile):
                return objects.identify(path, self.limits, self.scratch)
            return identify(path, self.limits)

    def curate(self, identity: Identity) -> Curated:
        began = time.monotonic()
        with self.record_crashes(identity):
            if isinstance(identity.path, RemoteFile):
                curated = objects.curate(identity, self.curate_file, self.scratch)
            else:
                curated = self.curate_file(identity)
        timing = {"wall_s": time.monotonic() - began, "worker": self.name}
        return replace(curated, source={**curated.source, **timing}, memory_gb=resident_gb())

    def curate_file(self, identity: Identity) -> Curated:
        return curate(identity, self.stages, self.output, self.limits, self.recipe, self.score_only)

    def leave(self) -> None:
        """Remove what this worker has on its node, before it is ended."""
        self.scratch.close()

    def pack(self, job: ShardJob) -> list[dict[str, Any]]:
        """Write one shard; return its rows of the index. Raises PackError, ShardError or OutputError."""
        with self.record_crashes(job), writing(job.path):
            return write_shard(job)

    @contextmanager
    def record_crashes(self, item: Video | Identity | ShardJob) -> Iterator[None]:
        """Keep a log file while the block runs: a crash leaves its stack in it, too much memory a line."""
        path = log_path(self.output, item)
        over = threading.Event()
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            log = path.open("w", encoding="utf-8")
        with log:
            faulthandler.enable(log, all_threads=False)
            threading.Thread(target=self.watch_memory, args=(log, over), daemon=True).start()
            try:
                yield
            finally:
                over.set()
                faulthandler.enable(sys.__stderr__) if sys.__stderr__ else faulthandler.disable()
        path.unlink(missing_ok=True)

    def watch_memory(self, log: TextIO, over: threading.Event) -> None:
        """End this process when it has more than `max_gb`, before the machine runs out of memory."""
        while not over.wait(WATCH_S):
            if resident_gb() > self.max_gb:
                log.write(f"{MEMORY}: the worker needed more than {self.max_gb:g} GB")
                log.flush()
                os._exit(1)


def resident_gb() -> float:
    """Return the resident memory of this process, in GB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / GB


def log_path(output: Path, item: Video | Identity | ShardJob) -> Path:
    """Return the path of the log that a worker writes while it works on this item."""
    path = item if isinstance(item, Video) else item.path
    name = hashlib.sha256(os.fsencode(str(path))).hexdigest()[:16]
    return output / "logs" / "workers" / f"{name}.log"
