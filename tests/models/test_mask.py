from dataclasses import replace

import numpy as np
import pytest

from models.mask import (
    CORNERS,
    HEAD,
    POINTS,
    MaskSettings,
    bridge_gaps,
    context_frames,
    draw,
    lower_half,
    mask_boxes,
    median_face,
    shown_squares,
)

SETTINGS = MaskSettings()
FACE = np.array([60.0, 40, 220, 240])  # 200 high
CHIN = [POINTS.index(p) for p in (400, 377, 152, 148, 176)]
LIPS = list(range(40))


def talker(frames: int = 100, opening: np.ndarray | float = 0.0, at: np.ndarray | None = None) -> np.ndarray:
    """A drawn face 200 px high, its mouth open by a share of that, its head moved to `at` [T, 2]."""
    points = np.zeros((frames, len(POINTS), 2))
    points[:, :, 0] = 140
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    points[:, LIPS, 0] += 28 * np.cos(angles)
    opened = np.broadcast_to(np.asarray(opening, float), frames)[:, None] * 200
    points[:, LIPS, 1] = 185 + np.where(np.sin(angles) > 0, 0.8, -0.2) * opened * np.abs(np.sin(angles))
    points[:, HEAD, 1] = 90
    points[:, CORNERS, 1] = 185 + 0.1 * opened  # real corners move a little, too
    points[:, CORNERS, 0] = (112, 168)
    points[:, CHIN, 1] = 230 + 0.5 * opened
    points[:, POINTS.index(152), 1] = 235 + 0.6 * opened[:, 0]
    if at is not None:
        points += at[:, None]
    return points.astype(np.float16)


def syllables(frames: int, per_second: float = 5.0) -> np.ndarray:
    return 0.08 + 0.07 * np.sin(2 * np.pi * per_second * np.arange(frames) / 25)


def covered(boxes: np.ndarray, landmarks: np.ndarray) -> bool:
    points = landmarks[:, LIPS + CHIN].astype(float)
    return bool((points >= boxes[:, None, :2]).all() and (points <= boxes[:, None, 2:]).all())


@pytest.mark.parametrize("opening", [0.0, 0.1, 0.17])  # .17: the widest of the real clips
def test_lips_and_chin_are_covered_however_far_the_jaw_drops(opening: float):
    landmarks = talker(opening=opening)
    assert covered(mask_boxes(landmarks, FACE, SETTINGS), landmarks)


def test_speech_moves_neither_size_nor_place():
    boxes = mask_boxes(talker(opening=syllables(100)), FACE, SETTINGS)
    sizes = boxes[:, 2:] - boxes[:, :2]
    assert np.ptp(sizes, axis=0).max() < 1e-3
    corners = 0.1 * 200 * np.ptp(syllables(100))  # the landmark they follow
    assert np.ptp(boxes[15:-15], axis=0).max() < 0.03 * corners


def test_the_mask_goes_with_the_head():
    at = np.stack([30 * np.sin(np.arange(100) / 12), 10 * np.cos(np.arange(100) / 9)], axis=1)
    landmarks = talker(opening=0.15, at=at)
    boxes, still = mask_boxes(landmarks, FACE, SETTINGS), mask_boxes(talker(opening=0.15), FACE, SETTINGS)
    assert covered(boxes, landmarks)
    ahead = 0.75 * at + 0.25 * np.concatenate([at[1:], at[-1:]])
    np.testing.assert_allclose(boxes - still, np.tile(ahead, 2), atol=0.3)


def test_equation_6_by_hand():
    at = np.zeros((60, 2))
    at[30, 0] = 8.0
    moved = mask_boxes(talker(60, at=at), FACE, SETTINGS)[:, 0] - mask_boxes(talker(60), FACE, SETTINGS)[:, 0]
    assert moved[29] == pytest.approx(0.25 * 8, abs=0.01)
    assert moved[30] == pytest.approx(0.75 * 8, abs=0.01)
    assert moved[31] == pytest.approx(0, abs=0.01)
    at[:], at[-1] = 0, (4.0, 0)
    last = mask_boxes(talker(60, at=at), FACE, SETTINGS)[-1, 0] - mask_boxes(talker(60), FACE, SETTINGS)[-1, 0]
    assert last == pytest.approx(4, abs=0.01), "the last frame has none after it"


def test_a_gap_of_8_frames_is_bridged_by_what_is_around_it():
    at = np.stack([np.linspace(0, 50, 100), np.zeros(100)], axis=1)
    whole = talker(at=at)
    gap = whole.copy()
    gap[40:48] = np.nan
    boxes = mask_boxes(gap, FACE, SETTINGS)
    np.testing.assert_allclose(boxes, mask_boxes(whole, FACE, SETTINGS), atol=0.1)


def test_frames_in_a_longer_gap_have_no_mask_and_their_neighbours_a_good_one():
    landmarks = talker()
    landmarks[40:49] = np.nan
    boxes = mask_boxes(landmarks, FACE, SETTINGS)
    assert np.isnan(boxes).all(axis=1).tolist() == [40 <= t < 49 for t in range(100)]
    there = [t for t in range(100) if not 40 <= t < 49]
    np.testing.assert_allclose(boxes[there], mask_boxes(talker(), FACE, SETTINGS)[there], atol=0.05)


def test_ends_are_held_as_long_as_a_gap_may_be():
    landmarks = talker()
    landmarks[:8], landmarks[-9:] = np.nan, np.nan
    boxes = mask_boxes(landmarks, FACE, SETTINGS)
    assert np.isfinite(boxes[:91]).all()
    assert np.isnan(boxes[91:]).all()


def test_a_clip_without_a_face_has_no_mask():
    assert np.isnan(mask_boxes(np.full((20, len(POINTS), 2), np.nan), FACE, SETTINGS)).all()


def test_a_mask_needs_only_the_landmarks_around_it():
    random = np.random.default_rng(0)
    landmarks = talker(400, syllables(400), np.cumsum(random.normal(size=(400, 2)), axis=0))
    for first in random.integers(0, 380, 40):
        landmarks[first : first + random.integers(1, 14)] = np.nan
    whole, around = mask_boxes(landmarks, FACE, SETTINGS), context_frames(SETTINGS)
    for start in range(0, 384, 16):
        first = max(start - around, 0)
        part = mask_boxes(landmarks[first : start + 16 + around], FACE, SETTINGS)[start - first :][:16]
        np.testing.assert_allclose(part, whole[start : start + 16], atol=1e-3)


def test_size_is_a_share_of_the_face():
    near, far = mask_boxes(talker(), FACE, SETTINGS), mask_boxes(talker(), FACE * 0.5, SETTINGS)
    np.testing.assert_allclose(far[:, 2:] - far[:, :2], (near[:, 2:] - near[:, :2]) / 2, rtol=1e-4)


def test_the_fixed_mask_never_moves_and_is_larger():
    at = np.stack([np.linspace(0, 20, 100), np.zeros(100)], axis=1)
    boxes = mask_boxes(talker(at=at), FACE, replace(SETTINGS, kind="fixed"))
    assert np.unique(boxes, axis=0).shape == (1, 4)
    np.testing.assert_allclose(boxes[0], lower_half(FACE))
    adaptive = mask_boxes(talker(), FACE, SETTINGS)[0]
    assert np.prod(boxes[0, 2:] - boxes[0, :2]) > 1.5 * np.prod(adaptive[2:] - adaptive[:2])


def test_the_face_of_a_clip_does_not_grow_with_single_frames():
    boxes = np.tile(FACE, (51, 1))
    boxes[:20, 3] += 30
    boxes[20:30, 3] -= 30
    assert median_face(boxes).tolist() == FACE.tolist()


def test_bridging_by_hand():
    track = np.array([[np.nan], [1], [np.nan], [np.nan], [4], [np.nan], [np.nan], [np.nan], [8]])
    filled, found = bridge_gaps(track, max_gap=2)
    assert filled[:, 0].tolist() == [1, 1, 2, 3, 4, 5, 6, 7, 8]
    assert found.tolist() == [True] * 5 + [False] * 3 + [True]


def test_drawing_fills_pixels_whose_centre_is_inside():
    mask = draw(np.array([[1.0, 2.0, 3.4, 3.6]], np.float32), 5, 6)
    assert mask.shape == (1, 1, 5, 6)
    assert mask.dtype == np.float32
    assert np.argwhere(mask[0, 0]).tolist() == [[2, 1], [2, 2], [3, 1], [3, 2]]
    assert draw(np.full((1, 4), np.nan), 5, 6).sum() == 0


def walking(frames: int = 400) -> np.ndarray:
    random = np.random.default_rng(0)
    return np.clip(np.cumsum(random.normal(size=(frames, 2)), axis=0), -25, 25)


MOUTH = replace(SETTINGS, crop="mouth")


def test_a_mouth_crop_is_a_square_of_even_pixels_around_the_mask_and_never_leaves_the_picture():
    boxes = mask_boxes(talker(400, syllables(400), walking()), FACE, MOUTH)
    squares = shown_squares(boxes, FACE, 320, MOUTH)
    assert set((squares[:, 2:] - squares[:, :2]).ravel()) == {168.0}, "0.84 of a face of 200"
    assert not (squares % 2).any()
    assert squares.min() >= 0 and squares.max() <= 320
    assert (boxes[:, :2] > squares[:, :2]).all() and (boxes[:, 2:] < squares[:, 2:]).all()
    low = shown_squares(boxes + 150, FACE, 320, MOUTH)
    assert low.max() == 320, "moved inwards where the face is at the edge"


def test_a_face_crop_shows_all_of_the_picture():
    boxes = mask_boxes(talker(10), FACE, SETTINGS)
    assert (shown_squares(boxes, FACE, 320, SETTINGS) == [0, 0, 320, 320]).all()


def test_a_mouth_crop_needs_only_the_landmarks_around_it_and_gaps_do_not_move_it():
    landmarks = talker(400, syllables(400), walking())
    landmarks[100:130] = np.nan
    around = context_frames(MOUTH)

    def squares(part: np.ndarray) -> np.ndarray:
        return shown_squares(mask_boxes(part, FACE, MOUTH), FACE, 320, MOUTH)

    whole = squares(landmarks)
    assert np.isnan(whole[100:130]).all() and np.isfinite(whole[130:]).all()
    for start in range(0, 384, 16):
        first = max(start - around, 0)
        part = squares(landmarks[first : start + 16 + around])[start - first :][:16]
        assert np.nanmax(np.abs(part - whole[start : start + 16]), initial=0) <= 2, "a rounding at most"
