"""Points on a real face, and index lists that are MediaPipe's own."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

import weights
from models.face_landmarks import BLENDSHAPES, FACE_OVAL, LIPS, LIPS_INNER, LIPS_OUTER, FaceLandmarks

ROOT = Path(weights.__file__).parent


def required_weights() -> Path:
    path = weights.find("face_landmarker")
    if path is None:
        pytest.skip("python weights.py fetch face_landmarker")
    return path


@pytest.fixture(scope="module")
def landmarks() -> FaceLandmarks:
    return FaceLandmarks(required_weights())


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    """A smiling astronaut, 256x256, teeth showing."""
    data = pytest.importorskip("skimage.data")
    return np.ascontiguousarray(data.astronaut()[0:256, 96:352])


def edges(*rings: tuple[int, ...]) -> set[frozenset[int]]:
    return {frozenset(edge) for ring in rings for edge in zip(ring, ring[1:] + ring[:1], strict=True)}


def test_outlines_are_mediapipes_connections() -> None:
    from mediapipe.tasks.python.vision import FaceLandmarksConnections as Tables

    assert edges(LIPS_OUTER, LIPS_INNER) == {frozenset((c.start, c.end)) for c in Tables.FACE_LANDMARKS_LIPS}
    assert edges(FACE_OVAL) == {frozenset((c.start, c.end)) for c in Tables.FACE_LANDMARKS_FACE_OVAL}
    assert LIPS == LIPS_OUTER + LIPS_INNER


def test_blendshapes_are_in_the_models_order(landmarks: FaceLandmarks, face: np.ndarray) -> None:
    assert tuple(shape.category_name for shape in landmarks._detect(face).face_blendshapes[0]) == BLENDSHAPES


def test_lips_lie_in_the_face_and_the_inner_in_the_outer(landmarks: FaceLandmarks, face: np.ndarray) -> None:
    mesh = landmarks.measure(face[None])
    assert mesh.points.shape == (1, 478, 3) and mesh.points.dtype == np.float32
    assert mesh.blendshapes.shape == (1, 52) and mesh.blendshapes.dtype == np.float32
    assert mesh.has_face.all()
    outlines = [mesh.points[0, list(ring), :2] for ring in (FACE_OVAL, LIPS_OUTER, LIPS_INNER)]
    for outer, inner in pairwise(outlines):
        for point in inner:
            assert cv2.pointPolygonTest(outer[:, None], point.tolist(), measureDist=True) > -1.5
    left, right = mesh.points[0, 61, :2], mesh.points[0, 291, :2]
    np.testing.assert_allclose((left + right) / 2, (128, 142), atol=5)  # where her mouth is in the picture
    assert mesh.blendshapes[0, BLENDSHAPES.index("mouthSmileLeft")] > 0.3


def test_points_are_pixels_in_x_y_and_z(landmarks: FaceLandmarks, face: np.ndarray) -> None:
    small = landmarks.measure(face[None]).points[0]
    large = landmarks.measure(cv2.resize(face, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)[None]).points[0]
    np.testing.assert_allclose(large / 2, small, atol=3)
    wide = landmarks.measure(np.pad(face, ((0, 0), (0, 128), (0, 0)))[None]).points[0]
    np.testing.assert_allclose(wide, small, atol=6)


def test_no_face_is_nan(landmarks: FaceLandmarks, face: np.ndarray) -> None:
    mesh = landmarks.measure(np.stack([np.zeros_like(face), face]))
    assert mesh.has_face.tolist() == [False, True]
    assert np.isnan(mesh.points[0]).all() and np.isnan(mesh.blendshapes[0]).all()
    assert landmarks.measure(np.zeros((0, 64, 64, 3), np.uint8)).points.shape == (0, 478, 3)


def test_a_picture_is_measured_alike_whatever_came_before(landmarks: FaceLandmarks, face: np.ndarray) -> None:
    frames = np.stack([face, np.roll(face, 9, axis=1), face[:, ::-1], face // 2])
    forward, backward = landmarks.measure(frames), landmarks.measure(frames[::-1])
    np.testing.assert_array_equal(forward.points, backward.points[::-1])
    np.testing.assert_array_equal(forward.blendshapes, backward.blendshapes[::-1])
    np.testing.assert_array_equal(FaceLandmarks(required_weights()).measure(frames[:1]).points, forward.points[:1])


def test_native_code_says_nothing_from_start_to_exit() -> None:
    code = (
        "import sys; from pathlib import Path; import numpy as np; from models.face_landmarks import FaceLandmarks\n"
        "landmarks = FaceLandmarks(Path(sys.argv[1]))\n"
        "print(landmarks.measure(np.zeros((1, 64, 64, 3), np.uint8)).has_face)"
    )
    command = [sys.executable, "-c", code, str(required_weights())]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "[False]\n", "")


def test_a_file_that_is_no_model_is_an_error(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.task"
    wrong.write_bytes(b"not a model")
    with pytest.raises((RuntimeError, ValueError)):
        FaceLandmarks(wrong)
