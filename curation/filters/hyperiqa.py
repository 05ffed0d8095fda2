"""Drops unclear faces by HyperIQA (paper, appendix A, after VFHQ): its mean over frames spread over the clip."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from pydantic import PositiveInt

import weights
from curation.clip import Clip
from curation.stage import CROPS, Filter
from curation.verdicts import Limit
from pipelines import Device

if TYPE_CHECKING:
    from models.hyperiqa import HyperIQA


@dataclass(frozen=True)
class Hyperiqa(Filter):
    weights: str = "hyperiqa"
    device: Device = "cpu"
    frames: PositiveInt = 5  # LatentSync looks at 3: first, middle, last
    min_quality: float = 0.40  # LatentSync's 40 of 100, by another training of this network; the paper has none

    NEEDS = (CROPS,)
    LIMITS = (Limit("hyperiqa", ">=", "min_quality", "hyperiqa"),)
    SCORES = {"hyperiqa": "HyperIQA (KonIQ-10k) of the face crop, mean over sampled frames, 0 to 1, higher is clearer"}
    REASONS = {"hyperiqa": "HyperIQA below the minimum: blurred, compressed or badly lit"}

    @cached_property
    def model(self) -> "HyperIQA":
        from models.hyperiqa import HyperIQA

        return HyperIQA(weights.require(self.weights)[self.weights], self.device)

    def measure(self, clip: Clip) -> dict[str, float]:
        assert clip.frames is not None
        return {"hyperiqa": float(self.model.score(spread(clip.frames, self.frames)).mean())}


def spread(frames: np.ndarray, count: int) -> np.ndarray:
    """`count` frames of a clip, evenly spread, the middle of each part."""
    return frames[((np.arange(count) + 0.5) * len(frames) / count).astype(int)]
