"""The face that is followed through real pictures: over cuts, and where there are several."""

from pathlib import Path

import numpy as np
import pytest

from media.probe import probe
from models.mask import MaskSettings
from tests.training.photograph import HERS, HIS, face_finder, film, portrait
from training.faces import FaceFinder, FollowedFace, bridge_in_shots
from training.plan import Run, runs

MASK = MaskSettings(crop="mouth")


@pytest.fixture(scope="module")
def finder() -> FaceFinder:
    return face_finder()


def follow(finder: FaceFinder, path: Path) -> FollowedFace:
    return finder.follow(path, probe(path), 100, MASK)


def runs_of(track: FollowedFace) -> list[Run]:
    return runs(track.has_face, track.boxes, track.shot, np.arange(len(track.boxes)))


def test_a_face_that_takes_anothers_place_at_a_cut_is_a_run_of_its_own(finder: FaceFinder, tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", 32, lambda i: portrait(HERS if i < 16 else HIS, i % 4))
    track = follow(finder, path)
    assert track.has_face.all()
    jump = np.abs(track.boxes[16] - track.boxes[15]).max()
    assert jump < 0.5 * (track.boxes[15, 2] - track.boxes[15, 0])  # its place does not tell
    assert runs_of(track) == [Run(0, 16), Run(16, 32)]


def test_a_gap_is_bridged_inside_a_shot_and_not_over_a_cut() -> None:
    boxes = np.tile(np.array([10.0, 10, 50, 50], np.float32), (12, 1))
    boxes[4:8] = np.nan
    whole, found = bridge_in_shots(boxes, np.zeros(12, int), 8)
    assert found.all() and np.isfinite(whole).all()
    assert bridge_in_shots(boxes, np.repeat([0, 1, 2], 4), 8)[1].tolist() == [True] * 4 + [False] * 4 + [True] * 4
