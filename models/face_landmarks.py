"""478 face points and 52 blendshapes per picture, from MediaPipe's Face Landmarker.

Each picture is measured by itself (IMAGE mode), so a result does not depend on the pictures before it. MediaPipe's own
detector finds only faces that fill a good part of the picture: give it face crops, not whole frames.
"""

import atexit
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

POINTS = 478
MIN_CONFIDENCE = 0.3  # below MediaPipe's 0.5: the pictures are crops around a face that was already detected

# The closed outlines of MediaPipe's connection tables, as polygons, each once around from its first point.
# fmt: off
LIPS_OUTER = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
LIPS_INNER = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191)
FACE_OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)
LIPS = LIPS_OUTER + LIPS_INNER

BLENDSHAPES = (
    "_neutral", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff",
    "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight",
    "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight",
    "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen", "jawRight",
    "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel",
    "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight", "mouthPucker",
    "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft",
    "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight",
    "noseSneerLeft", "noseSneerRight",
)
# fmt: on


@dataclass(frozen=True)
class FaceMesh:
    """The measured faces of T pictures; NaN where none was found."""

    points: np.ndarray  # float32 [T, 478, 3]: x, y in pixels of the picture, z in the same scale, smaller is nearer
    blendshapes: np.ndarray  # float32 [T, 52]: 0..1, in the order of BLENDSHAPES

    @property
    def has_face(self) -> np.ndarray:
        """Which pictures have a face: bool [T]."""
        return ~np.isnan(self.points[:, 0, 0])


class FaceLandmarks:
    """MediaPipe's Face Landmarker for one face per picture, on the CPU."""

    def __init__(self, weights: Path) -> None:
        self._landmarker, self._image = _open(weights)

    def measure(self, frames: np.ndarray) -> FaceMesh:
        """The face of each of the RGB uint8 pictures [T, H, W, 3]; see FaceMesh."""
        points = np.full((len(frames), POINTS, 3), np.nan, np.float32)
        blendshapes = np.full((len(frames), len(BLENDSHAPES)), np.nan, np.float32)
        for i, frame in enumerate(frames):
            result = self._detect(frame)
            if result.face_landmarks:
                height, width = frame.shape[:2]
                points[i] = [(point.x, point.y, point.z) for point in result.face_landmarks[0]]
                points[i] *= (width, height, width)  # z has the scale of x
                blendshapes[i] = [shape.score for shape in result.face_blendshapes[0]]
        return FaceMesh(points, blendshapes)

    def _detect(self, frame: np.ndarray) -> Any:
        return self._landmarker.detect(self._image(np.ascontiguousarray(frame)))


@cache
def _open(weights: Path) -> tuple[Any, Any]:
    """The landmarker, and what makes its input of an RGB array; imported here to keep the constants above cheap.

    One for each file and process, until its end: MediaPipe may wait for itself for ever when one is deleted.
    """
    with _quiet_stderr():
        import mediapipe
        from mediapipe.tasks.python import vision
        from mediapipe.tasks.python.core.base_options import BaseOptions

        options = vision.FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_path=str(weights), delegate=BaseOptions.Delegate.CPU),
            running_mode=vision.RunningMode.IMAGE,
            num_faces=1,
            min_face_detection_confidence=MIN_CONFIDENCE,
            min_face_presence_confidence=MIN_CONFIDENCE,
            output_face_blendshapes=True,
        )

        def image(frame: np.ndarray) -> Any:
            return mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=frame)

        landmarker = vision.FaceLandmarker.create_from_options(options)
        landmarker.detect(image(np.zeros((64, 64, 3), np.uint8)))  # the rest of its notes come with the first picture
    atexit.register(_let_go, landmarker)
    return landmarker, image


def _let_go(landmarker: Any) -> None:
    """Leaves the native part to the end of the process: MediaPipe's __del__, called that late, fails to stderr."""
    landmarker._handle = None


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Keeps what native code writes to stderr, and shows it only if the block fails; MediaPipe has no switch for it."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as notes:
        os.dup2(notes.fileno(), 2)
        failed = True
        try:
            yield
            failed = False
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            if failed:
                notes.seek(0)
                sys.stderr.write(notes.read().decode(errors="replace"))
