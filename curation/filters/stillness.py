"""Drops still photographs with a voice over them, by how little the crop changes from frame to frame.

Statues and paintings that were made to speak move like people (benchmarks/README.md): blinks and the head's motion are
columns to look at, not a rule. In no profile: the paper has no such rule.
"""

from dataclasses import dataclass

import numpy as np

from clock import FPS
from curation.clip import Clip
from curation.stage import CROPS, LANDMARKS, Filter
from curation.verdicts import Limit
from models.head_pose import head_pose

LIDS = (9, 10)  # of the 52 blendshapes: eyeBlinkLeft, eyeBlinkRight
SHUT, OPEN = 0.5, 0.3
EVERY = 4  # pixels: a quarter of the crop says as much


@dataclass(frozen=True)
class Stillness(Filter):
    min_change: float = 0.3  # benchmarks/columns.md: photographs, encoded once more, and people

    NEEDS = (CROPS, LANDMARKS)
    LIMITS = (Limit("picture_change", ">=", "min_change", "still_picture"),)
    SCORES = {
        "picture_change": "mean change of the crop from frame to frame, median, levels of 255",
        "blinks_per_min": "how often the lids shut after they were open, per minute",
        "head_motion_deg": "standard deviation of yaw, pitch and roll over the clip, the largest",
    }
    REASONS = {"still_picture": "the picture does not change: a photograph"}

    def measure(self, clip: Clip) -> dict[str, float]:
        assert clip.frames is not None and clip.mesh is not None
        grey = clip.frames[:, ::EVERY, ::EVERY].mean(-1, dtype=np.float32)
        change = np.abs(np.diff(grey, axis=0)).mean((1, 2))
        angles = head_pose(clip.mesh.points)
        seen = np.isfinite(angles[:, 0])
        return {
            "picture_change": float(np.median(change)) if len(change) else 0.0,
            "blinks_per_min": blinks(clip.mesh.blendshapes[:, LIDS].mean(1)) / (len(clip) / FPS / 60),
            "head_motion_deg": float(angles[seen].std(0).max()) if seen.any() else float("nan"),
        }


def blinks(lids: np.ndarray) -> int:
    """Return how often the lids [T] (0 open, 1 shut, NaN unknown) shut after they were open."""
    count, is_open = 0, False
    for value in lids[np.isfinite(lids)]:
        if value > SHUT:
            count, is_open = count + is_open, False
        elif value < OPEN:
            is_open = True
    return count
