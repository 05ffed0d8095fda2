from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from media.frames import GridReader, read_crops
from media.geometry import squares as squares_around
from media.probe import Probe, probe
from media.regions import Region, Regions
from tests.videos import Pictures, turn, write_video

WIDTH, HEIGHT, FRAMES = 96, 80, 12


def noise(i: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """No two pixels alike, so that one beside the right one shows."""
    return np.random.default_rng(i).integers(0, 255, (height, width, 3)).astype(np.uint8)


def kept(path: Path, header: Probe, box: np.ndarray, sides: float = 2.0) -> Regions:
    """All of a file, as `steps/faces` keeps it around a face that never moves."""
    regions, last = Regions(), None
    for i, frame in GridReader(path, header).frames():
        if frame is last:
            regions.repeat(i)
        else:
            regions.keep(i, Region.of(frame, box, sides, header))
        last = frame
    return regions


def cut(regions: Regions, header: Probe, start: int, squares: np.ndarray, size: int) -> np.ndarray:
    """The crops that can be had."""
    crops = np.zeros((len(squares), size, size, 3), np.uint8)
    return crops[: regions.crops(start, squares, header, crops)]


def squares_inside(box: np.ndarray, count: int) -> np.ndarray:
    """Squares of many sizes and fractions of pixels, around the box and within twice its size."""
    draw = np.random.default_rng(1)
    centre, side = (box[:2] + box[2:]) / 2, box[2] - box[0]
    half = draw.uniform(0.2, 0.45, (count, 1)) * side
    middle = centre + draw.uniform(-1, 1, (count, 2)) * (side - half)
    return np.concatenate([middle - half, middle + half], axis=1).astype(np.float32)


@pytest.mark.parametrize("size", [16, 100])  # made smaller, and larger
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv444p", "yuv420p10le"])
@pytest.mark.parametrize("clockwise", [0, 90])
def test_a_crop_of_what_was_kept_is_the_crop_of_the_frame(
    tmp_path: Path, size: int, pixel_format: str, clockwise: int
) -> None:
    path = write_video(tmp_path / "a.mp4", Pictures(FRAMES, draw=noise, pixel_format=pixel_format))
    path = turn(path, clockwise) if clockwise else path
    header = probe(path)
    box = np.array([25, 25, 57, 49], np.float32)
    squares = squares_inside(box, FRAMES)
    ours = cut(kept(path, header, box), header, 0, squares, size)
    np.testing.assert_array_equal(ours, read_crops(GridReader(path, header), 0, squares, size))
    assert len(ours) == FRAMES


@pytest.mark.parametrize("box", [(60, 56, 90, 80), (0, 0, 25, 30), (10, 0, 85, 80)])
def test_at_the_border_what_is_kept_moves_inside_as_the_squares_do(tmp_path: Path, box: tuple[float, ...]) -> None:
    path = write_video(tmp_path / "a.mp4", Pictures(FRAMES, draw=noise))
    header, face = probe(path), np.array(box, np.float32)
    squares = squares_around(np.tile(face, (FRAMES, 1)), 1.7, 5.0, WIDTH, HEIGHT)
    ours = cut(kept(path, header, face), header, 0, squares, 32)
    np.testing.assert_array_equal(ours, read_crops(GridReader(path, header), 0, squares, 32))


def test_crops_end_where_too_little_was_kept(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", Pictures(FRAMES, draw=noise))
    header, box = probe(path), np.array([40, 30, 60, 50], np.float32)
    squares = np.tile(np.array([35, 25, 65, 55], np.float32), (FRAMES, 1))
    wide = squares.copy()
    wide[7] += (-20, 0, 0, 20)  # beyond twice the face
    assert len(cut(kept(path, header, box), header, 0, wide, 16)) == 7
    regions = Regions()
    for i, frame in GridReader(path, header).frames(0, 5):
        regions.keep(i, Region.of(frame, box, 2.0, header))
    assert len(cut(regions, header, 2, squares, 16)) == 3
    assert len(cut(Regions(), header, 0, squares, 16)) == 0


def test_a_picture_that_is_shown_twice_is_kept_once_and_belongs_to_the_next_clip_too(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", Pictures(FRAMES, draw=noise, fps=Fraction(25, 2)))
    header, box = probe(path), np.array([40, 30, 60, 50], np.float32)
    regions = kept(path, header, box)
    assert regions.bytes == FRAMES * 40 * 40 * 1.5
    squares = np.tile(np.array([35, 25, 65, 55], np.float32), (2 * FRAMES - 1, 1))
    shown = read_crops(GridReader(path, header), 0, squares, 16)
    repeated = next(i for i in range(8, 12) if (shown[i] == shown[i - 1]).all())
    first = cut(regions, header, 0, squares[:repeated], 16)
    second = cut(regions, header, repeated, squares[repeated:], 16)
    np.testing.assert_array_equal(np.concatenate([first, second]), shown)
    assert len(cut(regions, header, 0, squares[:3], 16)) == 0  # what was cut is forgotten
