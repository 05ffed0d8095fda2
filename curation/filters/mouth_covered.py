"""Drops a clip whose mouth is covered by a hand, a microphone or a caption: the lips have no colour of their own there.

The landmarker guesses lips also behind what covers them. In no profile: measured on drawn covers only
(benchmarks/columns.md), and lips of a colour like the skin's are taken for covered.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from pydantic import PositiveInt

from curation.clip import Clip
from curation.filters.hyperiqa import spread
from curation.stage import CROPS, LANDMARKS, Filter
from curation.verdicts import Limit

RING = 1.5  # the skin that is compared: the lips' outline, so much larger


@dataclass(frozen=True)
class MouthCovered(Filter):
    frames: PositiveInt = 15
    min_difference: float = 0.5  # benchmarks/columns.md: covered lips at most .04, those of eight clips at least .85

    NEEDS = (CROPS, LANDMARKS)
    LIMITS = (Limit("lip_redness", ">=", "min_difference", "mouth_covered", optional=True),)
    SCORES = {"lip_redness": "how much redder the lips are than the skin around them, CIELAB a*, 20th percentile"}
    REASONS = {"mouth_covered": "something covers the mouth"}

    def measure(self, clip: Clip) -> dict[str, float]:
        assert clip.frames is not None and clip.mesh is not None
        chosen = spread(np.arange(len(clip)), self.frames)
        values = [redness(clip.frames[i], clip.mesh.points[i]) for i in chosen if clip.mesh.has_face[i]]
        return {"lip_redness": float(np.percentile(values, 20)) if values else float("nan")}


def redness(frame: np.ndarray, points: np.ndarray) -> float:
    """How much redder than the ring around them the lips are, without what lies between them."""
    from models.face_landmarks import LIPS_INNER, LIPS_OUTER

    outer, inner = points[list(LIPS_OUTER), :2], points[list(LIPS_INNER), :2]
    ring = outer.mean(0) + RING * (outer - outer.mean(0))
    lips = filled(frame, outer) & ~filled(frame, inner)
    skin = filled(frame, ring) & ~filled(frame, outer)
    a = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2LAB)[..., 1].astype(np.float32)
    return float(a[lips].mean() - a[skin].mean()) if lips.any() and skin.any() else 0.0


def filled(frame: np.ndarray, outline: np.ndarray) -> np.ndarray:
    """[H, W] bool: the inside of an outline [N, 2]."""
    mask = np.zeros(frame.shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.round(outline).astype(np.int32)], 1)
    return mask.astype(bool)
