"""Who is followed where several faces are seen; boxes are drawn by hand."""

import numpy as np
import pytest

from training.person import follow_person, read_choice

SIZE = 40.0


def box(x: float, size: float = SIZE, y: float = 100.0) -> np.ndarray:
    """[4] a square face with its middle at x, y."""
    return np.array([x - size / 2, y - size / 2, x + size / 2, y + size / 2], np.float32)


def frame(*boxes: np.ndarray) -> np.ndarray:
    """[N, 4] largest first, as a detector gives them."""
    return np.array(sorted(boxes, key=lambda b: b[0] - b[2]), np.float32).reshape(-1, 4)


def middles(boxes: np.ndarray) -> list[float]:
    return ((boxes[:, 0] + boxes[:, 2]) / 2).tolist()


LEFT, MIDDLE, RIGHT = box(50), box(150, 36), box(250, 42)


@pytest.mark.parametrize(("choice", "x"), [("largest", 250), ("left", 50), ("right", 250), (1, 50), (2, 150), (3, 250)])
def test_each_rule_finds_its_face(choice, x) -> None:
    assert middles(follow_person([frame(LEFT, MIDDLE, RIGHT)] * 20, choice)) == [x] * 20


def test_a_fourth_face_of_three_is_not_there() -> None:
    assert np.isnan(follow_person([frame(LEFT, MIDDLE, RIGHT)] * 20, 4)).all()


def test_the_largest_is_not_left_for_one_that_is_larger_for_a_moment() -> None:
    """Two people whose faces are larger in turn, as heads move: each frame's largest would jump."""
    faces = [frame(box(50, 40), box(250, 38 + (4 if t % 10 < 3 else 0))) for t in range(50)]
    assert middles(follow_person(faces)) == [50] * 50


def test_others_are_not_taken_where_the_chosen_one_is_away() -> None:
    faces = [frame(LEFT, RIGHT)] * 20 + [frame(LEFT)] * 10 + [frame(LEFT, RIGHT)] * 20
    x = np.array(middles(follow_person(faces, "right")))
    assert (x[:20] == 250).all() and np.isnan(x[20:30]).all() and (x[30:] == 250).all()


def test_a_face_alone_is_the_same_person_wherever_it_is() -> None:
    """As before there was a choice: with at most one face in a frame, each frame has that face, bit for bit."""
    random = np.random.default_rng(0)
    faces = [frame(box(random.uniform(0, 900), random.uniform(20, 90))) if t % 7 else frame() for t in range(60)]
    for choice in ("largest", "left", "right"):
        found = follow_person(faces, choice)
        for t, there in enumerate(faces):
            assert np.isnan(found[t]).all() if not len(there) else np.array_equal(found[t], there[0])


def test_a_mistake_of_the_detector_is_not_the_leftmost_face() -> None:
    faces = [frame(box(10, 12), LEFT, RIGHT) if 5 <= t < 9 else frame(LEFT, RIGHT) for t in range(30)]
    assert middles(follow_person(faces, "left")) == [50] * 30


def test_people_who_walk_past_each_other_are_told_apart_by_their_way() -> None:
    faces = [frame(box(50 + 4 * t), box(250 - 4 * t, 44, y=160)) for t in range(50)]
    assert middles(follow_person(faces, "left"))[-1] == 50 + 4 * 49


def test_a_choice_is_read_or_refused() -> None:
    assert [read_choice(text) for text in ("largest", "left", "right", "2")] == ["largest", "left", "right", 2]
    for text in ("0", "-1", "middle", ""):
        with pytest.raises(ValueError, match="neither largest"):
            read_choice(text)
