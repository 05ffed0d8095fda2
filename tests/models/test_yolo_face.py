"""Two detectors on the photograph that ultralytics brings along: 1280x720, two faces."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import weights
from models.yolo_face import UltralyticsYolo, YoloFace
from tests import photograph as two_people

ROOT = Path(weights.__file__).parent
# Boxes that other detectors agree on within a few pixels: SCRFD 909,95,1055,280 and 537,263,663,436.
LARGE = (913, 97, 1055, 278)
SMALL = (543, 255, 664, 435)


def load(name: str) -> YoloFace:
    path = weights.find(name)
    if path is None:
        pytest.skip(f"python weights.py fetch {name}")
    return YoloFace(path)


@pytest.fixture(scope="module")
def detector() -> YoloFace:
    return load("yolov8n_face")


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    return two_people.photograph()


def test_both_faces_are_found_the_larger_first(detector: YoloFace, photograph: np.ndarray) -> None:
    (faces,) = detector.detect([photograph])
    assert faces.shape == (2, 5)
    assert faces.dtype == np.float32
    np.testing.assert_allclose(faces[0, :4], LARGE, atol=10)
    np.testing.assert_allclose(faces[1, :4], SMALL, atol=10)
    assert (faces[:, 4] > 0.5).all() and (faces[:, 4] <= 1).all()


def test_boxes_are_in_pixels_of_the_given_picture(detector: YoloFace, photograph: np.ndarray) -> None:
    half = cv2.resize(photograph, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(detector.detect([half])[0][:, :4] * 2, [LARGE, SMALL], atol=10)


def test_colours_are_read_as_rgb(detector: YoloFace, photograph: np.ndarray) -> None:
    right = detector.detect([photograph])[0][:, 4]
    swapped = detector.detect([photograph[..., ::-1]])[0][:, 4]
    assert right.sum() > swapped.sum()


def test_a_picture_without_a_face_has_no_rows(detector: YoloFace) -> None:
    (faces,) = detector.detect([np.full((360, 640, 3), 128, np.uint8)])
    assert faces.shape == (0, 5)
    assert faces.dtype == np.float32
    assert detector.detect([]) == []


def test_boxes_do_not_depend_on_the_other_pictures(detector: YoloFace, photograph: np.ndarray) -> None:
    pictures = [photograph, photograph[:, ::-1], np.zeros_like(photograph), photograph // 2]
    together = detector.detect(pictures)
    for picture, faces in zip(pictures, together, strict=True):
        np.testing.assert_array_equal(detector.detect([picture])[0], faces)


@pytest.mark.parametrize(("height", "width"), [(720, 1280), (270, 480), (500, 333), (100, 100)])
def test_boxes_are_those_of_ultralytics(detector: YoloFace, photograph: np.ndarray, height: int, width: int) -> None:
    right = photograph[:, -720 * width // height - 100 : -100] if width < height else photograph
    picture = cv2.resize(right, (width, height), interpolation=cv2.INTER_AREA)
    path = weights.require("yolov8n_face")["yolov8n_face"]
    (expected,) = UltralyticsYolo(path, "cpu", size=640, min_score=0.25)([picture])
    (found,) = detector.detect([picture])
    assert len(expected)
    np.testing.assert_allclose(
        found[found[:, 0].argsort()], expected[expected[:, 0].argsort()], atol=0.2
    )  # its border is rounded


def test_min_score_is_a_lower_bound(photograph: np.ndarray) -> None:
    path = weights.find("yolov8n_face")
    if path is None:
        pytest.skip("python weights.py fetch yolov8n_face")
    scores = YoloFace(path).detect([photograph])[0][:, 4]
    between = float(scores.mean())
    assert len(YoloFace(path, min_score=between).detect([photograph])[0]) == 1


def test_the_large_detector_agrees_with_the_small_one(detector: YoloFace, photograph: np.ndarray) -> None:
    small = detector.detect([photograph])[0]
    large = load("yolo11m_face").detect([photograph])[0]
    from_left = [faces[faces[:, 0].argsort(), :4] for faces in (small, large)]
    np.testing.assert_allclose(from_left[1], from_left[0], atol=25)  # one forehead ends 22 pixels higher
    np.testing.assert_allclose(from_left[1][1], LARGE, atol=5)


@pytest.mark.slow
def test_nothing_is_written_outside_the_cache_and_nothing_is_said(tmp_path: Path) -> None:
    path = weights.find("yolov8n_face")
    if path is None:
        pytest.skip("python weights.py fetch yolov8n_face")
    home, cache, work = (tmp_path / name for name in ("home", "cache", "work"))
    for folder in (home, work):
        folder.mkdir()
    code = (
        "import sys; from pathlib import Path; import numpy as np; from models.yolo_face import UltralyticsYolo\n"
        "detector = UltralyticsYolo(Path(sys.argv[1]), 'cpu', 640, 0.25)\n"
        "print(len(detector([np.zeros((90, 160, 3), np.uint8)])[0]))"
    )
    environment = {**os.environ, "HOME": str(home), "SAYANYTHING_CACHE": str(cache), "PYTHONPATH": str(ROOT)}
    for name in ("XDG_CONFIG_HOME", "YOLO_CONFIG_DIR", "YOLO_VERBOSE", "YOLO_OFFLINE"):
        environment.pop(name, None)
    result = subprocess.run(
        [sys.executable, "-c", code, str(path)], cwd=work, env=environment, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "0\n", "")
    assert list(work.iterdir()) == []
    assert list(home.iterdir()) == []
    assert '"sync": false' in (cache / "Ultralytics" / "settings.json").read_text()
