"""Drops a clip in which the head is turned too far aside. Its angles are also columns to balance a corpus by.

In no profile: the paper has no such rule. The error of the angles on turned faces is in benchmarks/columns.md.
"""

from dataclasses import dataclass

import numpy as np

from curation.clip import Clip
from curation.stage import LANDMARKS, Filter
from curation.verdicts import Limit
from models.head_pose import head_pose


@dataclass(frozen=True)
class HeadPose(Filter):
    max_turned_deg: float = 45.0  # Hallo asks for 30; beyond some 45 half of the lips is hidden

    NEEDS = (LANDMARKS,)
    LIMITS = (Limit("turned_deg", "<=", "max_turned_deg", "head_pose", optional=True),)
    SCORES = {
        "yaw_deg": "how far the head is turned aside, median, positive to the right of the picture",
        "pitch_deg": "how far the head is raised, median, negative for a lowered one",
        "roll_deg": "how far the head leans over, median, positive clockwise",
        "turned_deg": "how far the head is turned aside, either way, 90th percentile of the frames",
    }
    REASONS = {"head_pose": "the head is turned too far aside"}

    def measure(self, clip: Clip) -> dict[str, float]:
        assert clip.mesh is not None
        angles = head_pose(clip.mesh.points)
        angles = angles[np.isfinite(angles[:, 0])]
        if not len(angles):
            return dict.fromkeys(self.SCORES, float("nan"))
        yaw, pitch, roll = (float(value) for value in np.median(angles, axis=0))
        turned = float(np.percentile(np.abs(angles[:, 0]), 90))
        return {"yaw_deg": yaw, "pitch_deg": pitch, "roll_deg": roll, "turned_deg": turned}
