from types import SimpleNamespace

import numpy as np
import pytest

from curation.clip import Clip
from curation.filters.mouth_still import MouthStill
from models.mouth import REFERENCE, RIGID
from tests.clips import clip_of

FRAMES = 100


def clip_with(opening: np.ndarray, spoken: np.ndarray) -> Clip:
    """A face whose lips are `opening` [T] eye distances apart, and speech in the frames of `spoken` [T]."""
    points = np.random.default_rng(5).normal(scale=0.3, size=(len(opening), 478, 3))
    points[:, list(RIGID)] = REFERENCE
    points[:, 13], points[:, 14] = (0.0, 0.8, -0.4), (0.0, 0.8, -0.4)
    points[:, 14, 1] += opening
    mesh = SimpleNamespace(points=points, blendshapes=np.zeros((len(opening), 52)))
    voice = np.repeat(spoken, 40)[::32][: len(opening) * 40 // 32].astype(np.float32)  # 40 ms a frame, 32 ms a value
    return clip_of(len(opening), np.zeros(len(opening) * 640, np.float32), mesh=mesh, voice=voice)


def sway(size: float) -> np.ndarray:
    """Lips that open and close by `size` from one second to the next."""
    return 0.1 + size * (np.arange(FRAMES) % 25 > 12)


ALL = np.ones(FRAMES, bool)


def reason(opening: np.ndarray, spoken: np.ndarray = ALL) -> str:
    (clip,) = MouthStill(min_motion=0.02)(clip_with(opening, spoken))
    return clip.verdict.reason


def test_lips_that_move_are_kept_and_still_ones_dropped() -> None:
    assert reason(sway(0.1)) == "kept"
    assert reason(sway(0.0)) == "mouth_still"


def test_only_frames_in_which_somebody_speaks_count() -> None:
    half = np.arange(FRAMES) < FRAMES // 2
    assert reason(np.where(half, 0.1, sway(0.1)), half) == "mouth_still"
    assert reason(np.where(half, sway(0.1), 0.1), half) == "kept"


def test_too_little_speech_or_face_tells_nothing_and_is_kept() -> None:
    few = np.arange(FRAMES) < 24
    scores = MouthStill().measure(clip_with(sway(0.0), few))
    assert np.isnan(scores["lip_motion"]) and MouthStill().decide(scores).keep
    assert np.isnan(MouthStill().measure(clip_with(np.full(FRAMES, np.nan), ALL))["lip_motion"])


@pytest.mark.parametrize(("motion", "keep"), [(0.02, True), (0.0199, False)])
def test_the_threshold_itself_is_kept(motion: float, keep: bool) -> None:
    verdict = MouthStill(min_motion=0.02).decide({"lip_motion": motion})
    assert verdict.keep == keep
    assert verdict.reason == ("kept" if keep else "mouth_still")
