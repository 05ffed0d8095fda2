from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from media.frames import Picture, rgb_matrix
from media.geometry import smooth
from training.composite import (
    BOX_FRAMES,
    PlacedCrop,
    average_over_time,
    bounds_of,
    compose,
    feather,
    paste,
    region_of,
    to_yuv,
)

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
    made = compose(source, np.full((40, 40, 3), 255, np.uint8), np.array([18.7, 9.4, 61.3, 51.2]))
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
    y, u, v = compose(source, np.tile(colour, (40, 40, 1)), np.array([20, 10, 60, 50]))
    yuv = np.array([y[30, 40], u[15, 20], v[15, 20], 1.0])
    np.testing.assert_allclose(source.to_rgb @ yuv, colour, atol=2.5)


def test_to_yuv_undoes_to_rgb():
    matrix = rgb_matrix(1, 1, "yuv420p", PROBE)  # pyright: ignore[reportArgumentType]
    rgb = np.array([[[255, 255, 255], [0, 0, 0], [10, 200, 90]]], np.uint8)
    yuv = to_yuv(rgb, matrix)
    np.testing.assert_allclose(yuv[0, 0], [235, 128, 128], atol=0.01)
    np.testing.assert_allclose(yuv[0, 1], [16, 128, 128], atol=0.01)


def test_the_feather_falls_to_nothing_at_the_edge_without_a_step():
    alpha = feather(np.array([10, 20, 70, 60]))
    assert alpha.shape == (40, 60)
    assert not alpha[0].any() and not alpha[:, -1].any()
    assert alpha[20, 30] == 1
    assert np.abs(np.diff(alpha, axis=1)).max() < 0.4


def test_the_feather_moves_by_parts_of_a_pixel():
    region = np.array([10.0, 20, 70, 60])
    steps = [feather(region + np.array([shift, 0, shift, 0]))[20, :8].astype(float) for shift in (0, -0.2, -0.4, -0.6)]
    moved = np.abs(np.diff(steps, axis=0)).max(axis=1)
    assert (moved > 0.01).all() and (moved < 0.1).all()


def test_the_region_is_the_dilated_box_inside_square_and_picture():
    square = np.array([0, 0, 100, 100])
    region = region_of(np.array([20.0, 20, 60, 45]), square, 96, 64)
    assert region.tolist() == pytest.approx([16.8, 18, 63.2, 47])
    assert bounds_of(region) == (18, 18, 62, 46)
    assert bounds_of(region_of(np.array([-50.0, -50, 300, 300]), square, 96, 64)) == (0, 0, 96, 64)


def test_a_region_of_nothing_changes_nothing():
    source = picture()
    made = compose(source, np.empty((0, 0, 3), np.uint8), np.array([20.0, 10, 20, 10]))
    assert all(np.array_equal(a, b) for a, b in zip(source.planes, made, strict=True))


def test_an_average_over_time_is_smooths():
    values = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    for length in (1, 4, 40):
        found = list(average_over_time(zip(range(length), values[:length], strict=True), BOX_FRAMES))
        assert [item for item, _ in found] == list(range(length))
        np.testing.assert_allclose([v for _, v in found], smooth(values[:length], BOX_FRAMES), atol=1e-5)


SQUARE, MASK, BOX = np.array([20, 4, 76, 60]), np.array([24.0, 20, 44, 44]), np.array([22.0, 6, 74, 58])


def shaded(width: int = 96, height: int = 64) -> Picture:
    """A picture whose light falls off to one side."""
    luma = np.tile(np.linspace(60, 180, width), (height, 1)).round().astype(np.uint8)
    chroma = [np.full((height // 2, width // 2), value, np.uint8) for value in (118, 140)]
    matrix = rgb_matrix(*BT709_LIMITED, "yuv420p", PROBE)  # pyright: ignore[reportArgumentType]
    return Picture((luma, chroma[0], chroma[1]), matrix, False, 1)


def crops(added: Sequence[np.ndarray]) -> list[PlacedCrop]:
    """Crops of a shaded picture as a network would make them that adds these colours to it, [64, 64, 3] or less."""
    source = shaded()
    shown = source.crop(SQUARE, SimpleNamespace(width=96, height=64), 64)  # pyright: ignore[reportArgumentType]
    made = [np.clip(shown + colours, 0, 255).astype(np.uint8) for colours in added]
    return [PlacedCrop(source, shown, each, MASK, SQUARE, BOX) for each in made]


INSIDE = np.zeros((64, 64, 1))
INSIDE[20:44, 24:44] = 1


@pytest.mark.parametrize("where", [np.ones((1, 1, 1)), INSIDE], ids=["everywhere", "inside the mask"])
def test_a_wrong_colour_vanishes_with_no_step_at_the_edge_of_the_mask(where):
    wrong = np.array([18.0, 6, -10])
    given = crops([wrong * where] * 20)
    source = given[0].picture
    untouched = compose(source, cv2.resize(given[0].made, (56, 56)), region_of(BOX, SQUARE, 96, 64))
    before = np.abs(untouched[0].astype(int) - source.planes[0])
    assert before.max() >= 6
    for planes in paste(given, None):
        after = [np.abs(new.astype(int) - old) for new, old in zip(planes, source.planes, strict=True)]
        assert [plane.max() for plane in after] <= [3, 2, 2]
        assert after[0].mean() < before.mean() / 8


def test_a_mouth_that_differs_is_not_painted_over():
    dark = np.zeros((64, 64, 3))
    dark[30:36, 28:40] = -50  # lips that the source does not have
    source = shaded()
    planes = next(iter(paste(crops([dark]), None)))
    assert (source.planes[0][32:35, 48:52].astype(int) - planes[0][32:35, 48:52]).min() > 30


def test_a_share_of_a_crop_lies_between_the_source_and_all_of_it():
    dark = np.zeros((64, 64, 3))
    dark[30:36, 28:40] = -50
    given = crops([dark] * 3)
    source = given[0].picture
    shared = [replace(crop, share=share) for crop, share in zip(given, (0.25, 0.5, 1.0), strict=True)]
    quarter, half, whole = paste(shared, None)
    for plane, all_of_it in zip(whole, list(paste(given, None))[2], strict=True):
        assert np.array_equal(plane, all_of_it)
    change = [planes[0].astype(int) - source.planes[0] for planes in (quarter, half, whole)]
    assert change[2].min() < -30
    assert np.abs(change[1] - change[2] / 2).max() <= 1
    assert np.abs(change[0] - change[2] / 4).max() <= 1


def test_colours_that_flicker_are_not_followed():
    given = crops([np.array([12.0 * (-1) ** t] * 3) for t in range(30)])
    lumas = np.array([planes[0][32, 48].astype(float) for planes in paste(given, None)])
    assert np.abs(np.diff(lumas)).min() > 15  # what the network does from frame to frame stays; only its mean is moved


def test_the_edges_of_what_is_pasted_follow_smoothed_boxes():
    random, source = np.random.default_rng(2), shaded()
    boxes = BOX + random.normal(0, 2.0, (40, 4))
    found = np.array([box for _, box in average_over_time(((None, box) for box in boxes), BOX_FRAMES)])
    jitter = [np.sqrt((np.diff(track, 2, axis=0) ** 2).mean()) for track in (boxes, found)]
    assert jitter[1] < jitter[0] / 15
    green = [PlacedCrop(source, c.source, np.full_like(c.made, (0, 255, 0)), MASK, SQUARE, box)
             for c, box in zip(crops([np.zeros(3)] * 40), boxes, strict=True)]  # fmt: skip
    areas = [int((planes[0] != source.planes[0]).sum()) for planes in paste(green, None)]
    raw = [
        int(np.prod(np.diff(np.reshape(bounds_of(region_of(box, SQUARE, 96, 64)), (2, 2)), axis=0))) for box in boxes
    ]
    assert np.abs(np.diff(areas)).mean() < np.abs(np.diff(raw)).mean() / 2
