"""Drops a clip whose mouth is too dark, burnt out or flat to show lips and teeth. In no profile: the paper has none."""

from dataclasses import dataclass

import cv2
import numpy as np
from pydantic import PositiveInt

from curation.clip import Clip
from curation.filters.hyperiqa import spread
from curation.stage import CROPS, LANDMARKS, Filter
from curation.verdicts import Limit

AROUND = 0.3  # of the lips' width on each side


@dataclass(frozen=True)
class MouthLight(Filter):
    frames: PositiveInt = 5
    min_light: float = 30.0  # benchmarks/columns.md
    min_contrast: float = 15.0
    max_clipped: float = 0.2

    NEEDS = (CROPS, LANDMARKS)
    LIMITS = (
        Limit("mouth_light", ">=", "min_light", "mouth_light:dark", optional=True),
        Limit("mouth_contrast", ">=", "min_contrast", "mouth_light:flat", optional=True),
        Limit("mouth_clipped", "<=", "max_clipped", "mouth_light:clipped", optional=True),
    )
    SCORES = {
        "mouth_light": "brightness around the mouth, median over sampled frames, levels of 255",
        "mouth_contrast": "5th to 95th percentile of that brightness, median over sampled frames",
        "mouth_clipped": "share of the pixels around the mouth that are quite black or white, median",
    }
    REASONS = {
        "mouth_light:dark": "the mouth is too dark",
        "mouth_light:flat": "the mouth has too little contrast",
        "mouth_light:clipped": "too much of the mouth is quite black or white",
    }

    def measure(self, clip: Clip) -> dict[str, float]:
        assert clip.frames is not None and clip.mesh is not None
        chosen = spread(np.arange(len(clip)), self.frames)
        values = [light_of(mouth_of(clip.frames[i], clip.mesh.points[i])) for i in chosen if clip.mesh.has_face[i]]
        found = np.median(values, axis=0) if values else np.full(3, np.nan)
        return {name: float(value) for name, value in zip(self.SCORES, found, strict=True)}


def mouth_of(frame: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The part [h, w, 3] of a picture around the lips of landmarks [478, 3]."""
    from models.face_landmarks import LIPS

    lips = points[list(LIPS), :2]
    margin = AROUND * (lips[:, 0].max() - lips[:, 0].min())
    low = np.clip(np.floor(lips.min(0) - margin), 0, np.array(frame.shape[1::-1]) - 1).astype(int)
    high = np.clip(np.ceil(lips.max(0) + margin), low + 1, frame.shape[1::-1]).astype(int)
    return frame[low[1] : high[1], low[0] : high[0]]


def light_of(picture: np.ndarray) -> tuple[float, float, float]:
    """Brightness, contrast and clipped share of a picture [h, w, 3]."""
    grey = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY)
    low, high = np.percentile(grey, (5, 95))
    return float(grey.mean()), float(high - low), float(((grey <= 2) | (grey >= 253)).mean())
