from types import SimpleNamespace

import numpy as np
import pytest

from media.frames import Picture, rgb_matrix
from training.composite import compose, feathered, region_of, to_yuv

BT709_LIMITED, BT601_FULL = (1, 1), (5, 2)


PROBE = SimpleNamespace(width=1280, height=720)


def picture(width: int = 96, height: int = 64, colours: tuple[int, int] = BT709_LIMITED) -> Picture:
    random = np.random.default_rng(0)
    planes = tuple(
        random.integers(16, 236, size).astype(np.uint8) for size in ((height, width), *[(height // 2, width // 2)] * 2)
    )
    matrix = rgb_matrix(*colours, "yuv420p", PROBE)  # pyright: ignore[reportArgumentType]
    return Picture((planes[0], planes[1], planes[2]), matrix, colours[1] == 2, colours[0])


def test_outside_the_region_every_byte_stays():
    source = picture()
    region = (20, 10, 60, 50)
    made = compose(source, np.full((40, 40, 3), 255, np.uint8), region)
    for k, (old, new) in enumerate(zip(source.planes, made, strict=True)):
        scale = 1 if k == 0 else 2
        changed = np.argwhere(old != new)
        assert len(changed)
        assert changed.min(axis=0)[0] >= 10 // scale and changed.max(axis=0)[0] < 50 // scale
        assert changed.min(axis=0)[1] >= 20 // scale and changed.max(axis=0)[1] < 60 // scale
    assert source.planes[0] is not made[0]


@pytest.mark.parametrize("colours", [BT709_LIMITED, BT601_FULL])
def test_the_middle_is_the_generated_colour_in_the_frames_own_matrix_and_range(colours):
    source = picture(colours=colours)
    colour = np.array([200, 120, 60], np.uint8)
    y, u, v = compose(source, np.tile(colour, (40, 40, 1)), (20, 10, 60, 50))
    yuv = np.array([y[30, 40], u[15, 20], v[15, 20], 1.0])
    np.testing.assert_allclose(source.to_rgb @ yuv, colour, atol=2.5)


def test_to_yuv_undoes_to_rgb():
    matrix = rgb_matrix(1, 1, "yuv420p", PROBE)  # pyright: ignore[reportArgumentType]
    rgb = np.array([[[255, 255, 255], [0, 0, 0], [10, 200, 90]]], np.uint8)
    yuv = to_yuv(rgb, matrix)
    np.testing.assert_allclose(yuv[0, 0], [235, 128, 128], atol=0.01)
    np.testing.assert_allclose(yuv[0, 1], [16, 128, 128], atol=0.01)


def test_the_feather_falls_to_nothing_at_the_edge_without_a_step():
    alpha = feathered(60, 40)
    assert not alpha[0].any() and not alpha[:, -1].any()
    assert alpha[20, 30] == 1
    assert np.abs(np.diff(alpha, axis=1)).max() < 0.4


def test_the_region_is_the_union_of_the_dilated_boxes_inside_square_and_picture():
    square = np.array([0, 0, 100, 100])
    boxes = [np.array([20.0, 20, 40, 40]), np.array([30.0, 25, 60, 45])]
    x0, y0, x1, y1 = region_of(boxes, square, 96, 64)
    assert 16 < x0 <= 20 and 16 < y0 <= 20 and 60 <= x1 <= 63 and 45 <= y1 <= 47
    assert not any(edge % 2 for edge in (x0, y0, x1, y1))
    assert region_of([np.array([-50.0, -50, 300, 300])], square, 96, 64) == (0, 0, 96, 64)


def test_a_region_of_nothing_changes_nothing():
    source = picture()
    made = compose(source, np.empty((0, 0, 3), np.uint8), (20, 10, 20, 10))
    assert all(np.array_equal(a, b) for a, b in zip(source.planes, made, strict=True))
