"""Videos of two real people, from the photograph that ultralytics brings along."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import pipelines
import weights
from tests.photograph import photograph
from tests.videos import Pictures, write_video
from training.curated import deciding
from training.faces import FaceFinder

HIS, HERS = (984, 188), (604, 345)  # middles of the faces; the right one is larger: 142 x 181 pixels, 121 x 180
WIDTH, HEIGHT = 400, 224  # of a part of the photograph that shows one of them


def portrait(middle: tuple[int, int], shift: int = 0) -> np.ndarray:
    """[HEIGHT, WIDTH, 3]: the photograph around a place, moved to the right by some pixels."""
    x, y = middle[0] - WIDTH // 2 + shift, middle[1] - HEIGHT // 2
    return np.ascontiguousarray(photograph()[y : y + HEIGHT, x : x + WIDTH])


def film(path: Path, frames: int, draw: Callable[[int], np.ndarray]) -> Path:
    return write_video(path, Pictures(frames, draw=draw))


def face_finder() -> FaceFinder:
    """The detector and landmarker of the embedded profile; skips where they are not in the cache."""
    missing = [name for name in ("yolov8n_face", "face_landmarker") if weights.find(name) is None]
    if missing:
        pytest.skip(f"not in the cache: {', '.join(missing)}; make test fetches them")
    return FaceFinder(deciding(pipelines.load("embedded").stages), "cpu")
