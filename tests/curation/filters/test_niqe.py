import cv2
import numpy as np
import pytest
from skimage.data import astronaut

import weights
from curation.filters.niqe import Niqe
from tests.clips import clip_of


@pytest.fixture(scope="module")
def step() -> Niqe:
    if weights.find("niqe") is None:
        pytest.skip("python weights.py fetch niqe")
    return Niqe(frames=2)


def portrait(sigma: float) -> np.ndarray:
    """A still portrait (NASA, public domain), blurred: [4, 320, 320, 3]."""
    picture = astronaut()[:320, 60:380]
    return np.repeat((cv2.GaussianBlur(picture, (0, 0), sigma) if sigma else picture)[None], 4, 0)


def test_a_sharp_face_is_kept_and_a_blurred_one_dropped(step: Niqe) -> None:
    sharp, blurred = (next(iter(step(clip_of(4, frames=portrait(sigma))))) for sigma in (0, 4))
    assert (sharp.verdict.reason, blurred.verdict.reason) == ("kept", "niqe")
    assert sharp.scores["niqe"] < step.max_niqe < blurred.scores["niqe"]


def test_one_bad_frame_of_many_does_not_decide() -> None:
    class Scores:
        def score(self, images: np.ndarray) -> np.ndarray:
            return np.array([4.0, 4.0, 99.0, 4.0, 5.0])

    step = Niqe()
    step.__dict__["model"] = Scores()
    assert step.measure(clip_of(10, frames=np.zeros((10, 2, 2, 3), np.uint8))) == {"niqe": 4.0}


def test_the_threshold_itself_is_kept() -> None:
    decide = Niqe(max_niqe=9.25).decide
    assert decide({"niqe": 9.25}).keep
    assert decide({"niqe": 9.2501}).reason == "niqe"
