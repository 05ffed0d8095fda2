"""Drops a clip of a moving camera, by how the picture beside the face moves in the source.

Only the upper corners of the crop are looked at, where the background is; a background without texture says nothing,
and counts as still. In no profile: the paper has no such rule.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from pydantic import PositiveInt

from clock import FPS
from curation.clip import Clip
from curation.stage import CROPS, Filter
from curation.verdicts import Limit

CORNER = 0.25  # of the crop's side
MIN_RESPONSE = 0.2  # of phase correlation: below it the two corners have nothing in common


@dataclass(frozen=True)
class CameraMotion(Filter):
    every: PositiveInt = 2  # frames from one look to the next
    max_motion: float = 0.25  # face sides a second; benchmarks/columns.md

    NEEDS = (CROPS,)
    LIMITS = (Limit("camera_motion", "<=", "max_motion", "camera_motion"),)
    SCORES = {"camera_motion": "speed of the background beside the face, median, in face sides a second"}
    REASONS = {"camera_motion": "the camera moves"}

    def measure(self, clip: Clip) -> dict[str, float]:
        assert clip.frames is not None and clip.crop_boxes is not None and clip.track is not None
        boxes, inside = clip.track.boxes[:: self.every], clip.crop_boxes[:: self.every]
        side = (boxes[:, 2:] - boxes[:, :2]).max(1)
        scale = (inside[:, 2:] - inside[:, :2]).max(1) / side  # crop pixels in one of the source
        corner = boxes[:, :2] - inside[:, :2] / scale[:, None]  # of the crop, in the source
        moved = background_shifts(clip.frames[:: self.every]) / scale[1:, None] + np.diff(corner, axis=0)
        speed = np.linalg.norm(moved, axis=1) / side[1:] * FPS / self.every
        return {"camera_motion": float(np.median(speed[np.isfinite(speed)])) if np.isfinite(speed).any() else 0.0}


def background_shifts(frames: np.ndarray) -> np.ndarray:
    """[T-1, 2] how far the upper corners moved in the crop from frame to frame, pixels; NaN where nothing tells."""
    size = int(CORNER * frames.shape[1])
    window = cv2.createHanningWindow((size, size), cv2.CV_32F)
    shifts = np.full((2, len(frames) - 1, 2), np.nan)
    for k, part in enumerate((frames[:, :size, :size], frames[:, :size, -size:])):
        grey = part.mean(-1, dtype=np.float32)
        for t in range(len(frames) - 1):
            shift, response = cv2.phaseCorrelate(grey[t], grey[t + 1], window)
            if response > MIN_RESPONSE:
                shifts[k, t] = shift
    count = np.isfinite(shifts[..., 0]).sum(0)[:, None]
    return np.where(count > 0, np.nansum(shifts, axis=0) / np.maximum(count, 1), np.nan)
