"""A worker process: holds the networks once and takes one source at a time. What runs inside each of Ray's actors."""

import os
import socket
import time
from dataclasses import replace
from pathlib import Path

from curation.source import Curated, Identity, curate, identify
from curation.stage import build_stages
from media.probe import Limits
from pipelines import Profile


class Worker:
    """One thread per library, so that results and speed do not depend on how many workers share a machine."""

    def __init__(self, profile: Profile, limits: Limits, output: Path, recipe: str, score_only: bool) -> None:
        import torch

        torch.set_num_threads(1)
        self.limits, self.output, self.recipe, self.score_only = limits, output, recipe, score_only
        self.stages = build_stages(profile.stages, profile.device)
        for stage in self.stages:
            stage.load()
        self.name = f"{socket.gethostname()}:{os.getpid()}"

    def ready(self) -> str:
        """Who this is: the networks are loaded when it answers."""
        return self.name

    def identify(self, path: Path) -> Identity:
        return identify(path, self.limits)

    def curate(self, identity: Identity) -> Curated:
        began = time.monotonic()
        curated = curate(identity, self.stages, self.output, self.limits, self.recipe, self.score_only)
        timing = {"wall_s": time.monotonic() - began, "worker": self.name}
        return replace(curated, source={**curated.source, **timing})
