"""Blurred faces are told by how little a further blur changes them."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from curation.clip import Clip, Source
from curation.filters.blur import Blur
from media.probe import Probe

PROBE = Probe(2.0, 0.0, 640, 360, 25.0, False, 0, 1.0, "h264", "yuv420p", 8, None, None, None, None, 0)


def clip(sigma: float) -> Clip:
    """A still portrait (NASA, public domain), blurred."""
    picture = astronaut()[:320, 60:380]
    picture = cv2.GaussianBlur(picture, (0, 0), sigma) if sigma else picture
    return Clip(Source("a" * 64, Path("a.mp4"), PROBE), 0, 50, frames=np.repeat(picture[None], 50, 0))


def test_a_blurred_picture_scores_higher():
    scores = [Blur().measure(clip(sigma))["blur"] for sigma in (0, 1, 2, 4)]
    assert scores == sorted(scores)
    assert scores[-1] > Blur().max_blur > scores[0]


@pytest.mark.parametrize(("blur", "keep"), [(0.5, True), (0.68, True), (0.6801, False)])
def test_the_threshold_itself_is_kept(blur, keep):
    verdict = Blur(max_blur=0.68).decide({"blur": blur})
    assert verdict.keep == keep
    assert verdict.reason == ("kept" if keep else "blur")
