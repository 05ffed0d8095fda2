import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from models.head_pose import head_pose
from models.mouth import REFERENCE, RIGID


def turned(rotation: Rotation) -> np.ndarray:
    """[1, 478, 3] landmarks of the reference face so turned, somewhere in a picture."""
    points = np.zeros((1, 478, 3))
    points[0, list(RIGID)] = REFERENCE @ rotation.as_matrix().T * 80 + [160, 140, 3]
    return points


@pytest.mark.parametrize(
    ("axis", "expected"),  # x right, y down, z away: a turn about -y brings the nose, at -z, to the right
    [((0, -1, 0), (30, 0, 0)), ((-1, 0, 0), (0, 30, 0)), ((0, 0, 1), (0, 0, 30)), ((0, 1, 0), (-30, 0, 0))],
)
def test_a_turn_about_one_axis_is_that_angle(axis: tuple[int, int, int], expected: tuple[int, int, int]) -> None:
    rotation = Rotation.from_rotvec(30 * np.array(axis), degrees=True)
    nose = rotation.apply([0, 0, -1])  # where the words of the docstring have it
    assert np.allclose((nose[0] > 0.1, -nose[1] > 0.1), (expected[0] > 0, expected[1] > 0))
    np.testing.assert_allclose(head_pose(turned(rotation))[0], expected, atol=1e-6)


def test_a_frame_without_a_face_has_no_angles() -> None:
    points = np.concatenate([turned(Rotation.identity()), np.full((1, 478, 3), np.nan)])
    assert np.isfinite(head_pose(points)).all(1).tolist() == [True, False]
