"""Caps the length of clips: a longer one becomes equal parts, so that no remainder is too short to keep."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from clock import FPS
from curation.clip import Clip
from curation.stage import UNCROPPED, WHOLE_SOURCE, Step
from pipelines import Seconds


@dataclass(frozen=True)
class Windows(Step):
    max_s: Seconds = 20.0  # bounds the memory of one clip: 500 frames of 320x320 RGB are 154 MB

    NEEDS = (UNCROPPED,)
    ENDS = (WHOLE_SOURCE,)

    def __call__(self, clip: Clip) -> Iterable[Clip]:
        parts = math.ceil(len(clip) / round(self.max_s * FPS))
        borders = np.linspace(clip.start_frame, clip.end_frame, parts + 1).round().astype(int).tolist()
        for start, end in pairwise(borders):
            yield clip.cut(start, end)
