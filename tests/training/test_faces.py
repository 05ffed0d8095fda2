"""The face that is followed through real pictures: over cuts, and where there are several."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from media.frames import scan
from media.probe import probe
from models.mask import MaskSettings, bridge_gaps
from models.yolo_face import largest_faces
from tests.photograph import photograph
from tests.training.photograph import HERS, HIS, face_finder, film, portrait
from training.faces import FaceFinder, FollowedFace, bridge_in_shots
from training.person import FaceChoice
from training.plan import Run, runs

MASK = MaskSettings(crop="mouth")


@pytest.fixture(scope="module")
def finder() -> FaceFinder:
    return face_finder()


def follow(finder: FaceFinder, path: Path, choice: FaceChoice = "largest") -> FollowedFace:
    return finder.follow(path, probe(path), 100, MASK, choice=choice)


def runs_of(track: FollowedFace) -> list[Run]:
    return runs(track.has_face, track.boxes, track.shot, np.arange(len(track.boxes)))


def test_a_face_that_takes_anothers_place_at_a_cut_is_a_run_of_its_own(finder: FaceFinder, tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", 32, lambda i: portrait(HERS if i < 16 else HIS, i % 4))
    track = follow(finder, path)
    assert track.has_face.all()
    jump = np.abs(track.boxes[16] - track.boxes[15]).max()
    assert jump < 0.5 * (track.boxes[15, 2] - track.boxes[15, 0])  # its place does not tell
    assert runs_of(track) == [Run(0, 16), Run(16, 32)]


def test_two_people_are_told_apart_by_their_side(finder: FaceFinder, tmp_path: Path) -> None:
    """His face on the right is the larger one; for two frames it is covered."""
    both = cv2.resize(photograph(), (640, 360), interpolation=cv2.INTER_AREA)
    hers = both.copy()
    hers[:180, 420:560] = 128
    path = film(tmp_path / "a.mp4", 8, lambda i: hers if 3 <= i < 5 else both)
    middle = {choice: follow(finder, path, choice).boxes[:, [0, 2]].mean(axis=1) for choice in ("largest", "left", 2)}
    assert np.abs(middle["largest"] - HIS[0] / 2).max() < 8  # a short gap is bridged, as ever
    np.testing.assert_array_equal(middle[2], middle["largest"])
    assert np.abs(middle["left"] - HERS[0] / 2).max() < 8


def test_one_face_is_followed_as_it_was_before_there_was_a_choice(finder: FaceFinder, tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", 8, lambda i: portrait(HIS, 3 * i))
    described = probe(path)
    pictures = scan(path, described, finder.look_px)
    before, found = bridge_gaps(
        largest_faces(finder.detector, pictures, max(described.width, described.height)), MASK.max_gap_frames
    )
    track = follow(finder, path)
    assert found.all() and track.has_face.all()
    np.testing.assert_array_equal(track.boxes, before)


def test_a_gap_is_bridged_inside_a_shot_and_not_over_a_cut() -> None:
    boxes = np.tile(np.array([10.0, 10, 50, 50], np.float32), (12, 1))
    boxes[4:8] = np.nan
    whole, found = bridge_in_shots(boxes, np.zeros(12, int), 8)
    assert found.all() and np.isfinite(whole).all()
    assert bridge_in_shots(boxes, np.repeat([0, 1, 2], 4), 8)[1].tolist() == [True] * 4 + [False] * 4 + [True] * 4
