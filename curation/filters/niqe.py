"""Drops unclear faces by NIQE, which needs no learned network; for use where HyperIQA's file cannot be had."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from pydantic import PositiveInt

import weights
from curation.clip import Clip
from curation.filters.hyperiqa import spread
from curation.stage import CROPS, Filter
from curation.verdicts import Limit

if TYPE_CHECKING:
    from models.niqe import Niqe as NiqeModel


@dataclass(frozen=True)
class Niqe(Filter):
    weights: str = "niqe"
    frames: PositiveInt = 5
    max_niqe: float = 10.0  # clean real crops reach 9.7, a noisy or ruined one 12 and more (benchmarks/README.md)

    NEEDS = (CROPS,)
    LIMITS = (Limit("niqe", "<=", "max_niqe", "niqe"),)
    SCORES = {"niqe": "NIQE of the face crop, median over sampled frames, lower is clearer"}
    REASONS = {"niqe": "NIQE above the maximum: blurred or heavily compressed"}

    @cached_property
    def model(self) -> "NiqeModel":
        from models.niqe import Niqe

        return Niqe(weights.require(self.weights)[self.weights])

    def measure(self, clip: Clip) -> dict[str, float]:
        assert clip.frames is not None
        return {"niqe": float(np.median(self.model.score(spread(clip.frames, self.frames))))}
