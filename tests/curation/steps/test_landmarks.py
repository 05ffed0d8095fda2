import numpy as np
import pytest

from curation.steps.landmarks import Landmarks
from models.face_landmarks import FACE_OVAL, LIPS, FaceMesh
from tests.clips import clip_of

FRAMES = 8


class Mesh:
    """A landmarker that finds point p of frame t at (p, t), and no face in frame 3."""

    def measure(self, frames: np.ndarray) -> FaceMesh:
        points = np.zeros((len(frames), 478, 3), np.float32)
        points[:, :, 0], points[:, :, 1] = np.arange(478), np.arange(len(frames))[:, None]
        points[3] = np.nan
        return FaceMesh(points, np.zeros((len(frames), 52), np.float32))


def test_lips_then_face_oval_of_every_frame_are_attached_and_nan_where_no_face_is() -> None:
    step = Landmarks()
    step.__dict__["model"] = Mesh()
    (clip,) = step(clip_of(FRAMES, frames=np.zeros((FRAMES, 4, 4, 3), np.uint8)))
    assert clip.landmarks is not None and clip.mesh is not None
    assert (clip.landmarks.shape, clip.landmarks.dtype) == ((FRAMES, len(LIPS) + len(FACE_OVAL), 2), np.float16)
    assert clip.landmarks[5, :, 0].tolist() == [*LIPS, *FACE_OVAL]
    assert set(clip.landmarks[5, :, 1].tolist()) == {5.0}
    assert np.flatnonzero(np.isnan(clip.landmarks).any((1, 2))).tolist() == [3]
    assert clip.scores["landmark_share"] == pytest.approx(7 / 8)
