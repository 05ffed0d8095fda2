"""Known turns of a known face."""

import numpy as np
import pytest

from demo.directions import load
from demo.geometry import MOUTH, RIGID, align, eye_distance, measure_mouth, mouth_shape, pose, similarity


def turned(yaw: float = 0, pitch: float = 0, roll: float = 0) -> np.ndarray:
    """A rotation by degrees: to the picture's right, nose up or down, clockwise."""
    y, p, r = np.radians([yaw, pitch, roll])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    about_z = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    """478 points that hold the reference's rigid points and a mouth of width .6 opened by .1."""
    points = np.random.default_rng(0).normal(0, 0.3, (478, 3))
    points[list(RIGID)] = load().reference
    points[[61, 291]] = [[-0.3, 0.7, -0.1], [0.3, 0.7, -0.1]]
    points[[13, 14]] = [[0, 0.65, -0.2], [0, 0.75, -0.2]]
    points[[0, 17]] = [[0, 0.6, -0.22], [0, 0.82, -0.22]]
    points[2] = [0, 0.45, -0.3]
    return points


def test_similarity_is_found_again():
    points = np.random.default_rng(1).normal(size=(20, 3))
    rotation = turned(20, -10, 5)
    scale, found, shift = similarity(points, 2.5 * points @ rotation.T + [1, 2, 3])
    assert scale == pytest.approx(2.5)
    np.testing.assert_allclose(found, rotation, atol=1e-12)
    np.testing.assert_allclose(shift, [1, 2, 3], atol=1e-12)


def test_mouth_numbers_are_the_distances_they_are_named_after(face):
    opening, width, corner_height, upper_lip, lower_lip, lip_depth = mouth_shape(face)
    assert (opening, width, corner_height) == pytest.approx((0.1, 0.6, 0.25))
    assert (upper_lip, lower_lip, lip_depth) == pytest.approx((np.hypot(0.05, 0.02), np.hypot(0.07, 0.02), -0.22))
    assert len(MOUTH) == 6


@pytest.mark.parametrize("turn", [{"yaw": 25}, {"pitch": -15}, {"roll": 30}, {"yaw": -10, "pitch": 8, "roll": 4}])
def test_mouth_does_not_change_when_the_head_turns_or_comes_closer(face, turn):
    reference = load().reference
    moved = 300 * face @ turned(**turn).T + [500, 400, 0]
    np.testing.assert_allclose(measure_mouth(moved, reference), mouth_shape(align(face, reference)[0]), atol=1e-6)


@pytest.mark.parametrize("turn", [(25, 0, 0), (0, -15, 0), (0, 0, 30), (-10, 8, 4)])
def test_pose_is_read_from_the_alignment(face, turn):
    yaw, pitch, roll = turn
    _, rotation = align(face @ turned(yaw, pitch, roll).T, load().reference)
    assert pose(rotation) == pytest.approx((yaw, pitch, roll), abs=1e-6)


def test_missing_face_has_missing_numbers():
    assert np.isnan(measure_mouth(np.full((478, 3), np.nan), load().reference)).all()


def test_eye_distance_is_in_the_picture_plane(face):
    assert eye_distance(200 * face) == pytest.approx(200 * np.linalg.norm(face[33, :2] - face[263, :2]))
