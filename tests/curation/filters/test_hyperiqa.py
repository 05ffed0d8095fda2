import numpy as np
import pytest

from curation.filters.hyperiqa import Hyperiqa, spread
from tests.clips import clip_of


class Brightness:
    """Scores a picture by its brightness, 0 to 1."""

    def score(self, images: np.ndarray) -> np.ndarray:
        return images.mean(axis=(1, 2, 3)) / 255


def judged(levels: list[int], **settings: float) -> tuple[str, float]:
    step = Hyperiqa(**settings)  # type: ignore[arg-type]
    step.__dict__["model"] = Brightness()
    frames = np.repeat(np.array(levels, np.uint8), 12).reshape(-1, 2, 2, 3)
    (clip,) = step(clip_of(len(frames), frames=frames))
    return clip.verdict.reason, clip.scores["hyperiqa"]


def test_clear_faces_are_kept_and_unclear_ones_dropped() -> None:
    assert judged([200] * 50)[0] == "kept"
    assert judged([50] * 50)[0] == "hyperiqa"


def test_the_score_is_the_mean_over_frames_of_the_whole_clip() -> None:
    assert judged([0] * 20 + [255] * 30)[1] == pytest.approx(0.6)


def test_the_threshold_itself_is_kept() -> None:
    decide = Hyperiqa(min_quality=0.4).decide
    assert decide({"hyperiqa": 0.4}).keep
    assert decide({"hyperiqa": 0.3999}).reason == "hyperiqa"


def test_frames_are_spread_over_the_clip() -> None:
    frames = np.arange(100)
    assert spread(frames, 5).tolist() == [10, 30, 50, 70, 90]
    assert spread(frames, 1).tolist() == [50]
    assert spread(frames[:2], 5).tolist() == [0, 0, 1, 1, 1]
