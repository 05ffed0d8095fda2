"""Where what is generated comes and goes softly, and where at once."""

import numpy as np
import pytest

from training.fade import shares
from training.plan import Run, runs

STILL = np.tile(np.array([10.0, 10, 50, 50]), (40, 1))
FACE = np.ones(40, bool)
ONE_SHOT = np.zeros(40, int)
UP = [0.2, 0.4, 0.6, 0.8]


def test_a_face_that_is_always_there_is_not_faded() -> None:
    assert shares(Run(0, 40), FACE, ONE_SHOT, np.arange(40)).tolist() == [1] * 40


def test_a_face_that_comes_and_goes_is_faded_there_alone() -> None:
    face = FACE.copy()
    face[15:20] = False
    first, second = runs(face, STILL, ONE_SHOT, np.arange(40))
    assert shares(first, face, ONE_SHOT, np.arange(40)).tolist() == pytest.approx([1] * 11 + UP[::-1])
    assert shares(second, face, ONE_SHOT, np.arange(40)).tolist() == pytest.approx(UP + [1] * 16)


def test_nothing_is_faded_at_a_cut() -> None:
    """With or without a face beyond it."""
    face, shot = FACE.copy(), np.repeat([0, 1], 20)
    for there in (True, False):
        face[20:] = there
        assert shares(Run(0, 20), face, shot, np.arange(40)).tolist() == [1] * 20


def test_a_run_of_few_frames_is_seen_as_far_as_there_is_time() -> None:
    face = ~FACE
    face[10:13] = True
    assert shares(Run(10, 13), face, ONE_SHOT, np.arange(40)).tolist() == pytest.approx([0.2, 0.4, 0.2])


def test_a_video_that_runs_back_fades_where_it_does() -> None:
    face = FACE.copy()
    face[0] = False
    shown = np.array([3, 2, 1, 0, 1, 2, 3, 4, 5, 6])
    runs_back, runs_on = runs(face, STILL, ONE_SHOT, shown)
    assert shares(runs_back, face, ONE_SHOT, shown).tolist() == pytest.approx([0.6, 0.4, 0.2])
    assert shares(runs_on, face, ONE_SHOT, shown).tolist() == pytest.approx([*UP, 1, 1])
