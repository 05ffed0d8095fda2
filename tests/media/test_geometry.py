import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from media.geometry import centres, fill_gaps, movement, sides, smooth, squares, within


def boxes(*rows: tuple[float, float, float, float]) -> np.ndarray:
    return np.array(rows, np.float32)


def test_centre_and_sides() -> None:
    box = boxes((10, 20, 30, 60))
    assert centres(box).tolist() == [[20, 40]]
    assert sides(box).tolist() == [[20, 40]]


def test_movement_is_in_box_sides() -> None:
    """By hand: 50 pixels of a 100 pixel box are 0.5; growth from 100 to 120 is 0.2."""
    moved = boxes((0, 0, 100, 100), (30, 40, 130, 140), (20, 30, 140, 150))
    np.testing.assert_allclose(movement(moved), [0.5, 0.2])


def test_gaps_are_filled_in_a_straight_line_and_held_at_the_ends() -> None:
    track = boxes((9, 9, 9, 9), (0, 0, 10, 10), (7, 7, 7, 7), (8, 8, 8, 8), (30, 60, 40, 70), (5, 5, 5, 5))
    filled = fill_gaps(track, np.array([False, True, False, False, True, False]))
    assert filled[:, 0].tolist() == [0, 0, 10, 20, 30, 30]
    assert filled[:, 1].tolist() == [0, 0, 20, 40, 60, 60]
    assert filled.dtype == np.float32


@given(st.lists(st.booleans(), min_size=1, max_size=40).filter(any), st.integers(0, 99))
def test_what_was_found_is_never_moved(found: list[bool], seed: int) -> None:
    track = np.random.default_rng(seed).uniform(0, 100, (len(found), 4)).astype(np.float32)
    mask = np.array(found)
    filled = fill_gaps(track, mask)
    np.testing.assert_array_equal(filled[mask], track[mask])
    assert (filled.min(axis=0) >= track[mask].min(axis=0)).all() and (
        filled.max(axis=0) <= track[mask].max(axis=0)
    ).all()


@pytest.mark.parametrize("frames", [1, 2, 7, 100])
def test_smoothing_keeps_length_constants_and_slopes(frames: int) -> None:
    np.testing.assert_allclose(smooth(np.full((frames, 2), 7.0), 5.0), 7.0, rtol=1e-6)
    line = np.arange(100.0)
    np.testing.assert_allclose(smooth(line, 5.0)[20:80], line[20:80], rtol=1e-6)


def test_no_smoothing_leaves_a_track_as_it_is() -> None:
    track = np.random.RandomState(0).normal(size=(9, 4)).astype(np.float32)
    assert np.array_equal(smooth(track, 0.0), track)


def test_smoothing_is_a_gaussian() -> None:
    """An impulse becomes the kernel: its ratio one sigma away is exp(-1/2)."""
    impulse = np.zeros(101)
    impulse[50] = 1
    found = smooth(impulse, 5.0)
    assert found.sum() == pytest.approx(1, abs=1e-6)
    assert found[55] / found[50] == pytest.approx(np.exp(-0.5), rel=1e-5)
    assert found[45] == pytest.approx(found[55])


def test_squares_stand_around_the_box_at_the_expansion() -> None:
    track = np.tile(boxes((100, 100, 180, 200)), (30, 1))
    found = squares(track, expansion=1.6, sigma_frames=5.0, width=640, height=360)
    np.testing.assert_allclose(found, np.tile([140 - 80, 150 - 80, 140 + 80, 150 + 80], (30, 1)), atol=1e-3)


def test_the_size_is_smoothed_over_twice_the_time_of_the_place() -> None:
    track = np.tile(boxes((100, 100, 200, 200)), (121, 1))
    track[60] += (-10, -10, 10, 10)  # larger for a frame, and in place
    size = sides(squares(track, 1.0, 5.0, 640, 360))[:, 0] - 100
    assert size[70] / size[60] == pytest.approx(np.exp(-0.5), rel=1e-2)
    track = np.tile(boxes((100, 100, 200, 200)), (121, 1))
    track[60] += 100  # elsewhere for a frame, and of the same size
    place = centres(squares(track, 1.0, 5.0, 640, 360))[:, 0] - 150
    assert place[65] / place[60] == pytest.approx(np.exp(-0.5), rel=1e-2)


@given(st.integers(1, 60), st.integers(0, 99))
def test_squares_are_square_and_stay_inside_the_picture(frames: int, seed: int) -> None:
    corner = np.random.default_rng(seed).uniform(0, 500, (frames, 2))
    size = np.random.default_rng(seed + 1).uniform(20, 300, (frames, 2))
    found = squares(np.hstack([corner, corner + size]).astype(np.float32), 1.6, 5.0, 640, 360)
    width, height = sides(found).T
    np.testing.assert_allclose(width, height, atol=1e-2)
    assert (found >= -1e-2).all()
    assert (found <= (640 + 1e-2, 360 + 1e-2, 640 + 1e-2, 360 + 1e-2)).all()


def test_boxes_are_carried_into_the_cut_out() -> None:
    found = within(boxes((100, 100, 180, 200)), boxes((60, 70, 220, 230)), 320)
    assert found.tolist() == [[80, 60, 240, 260]]
