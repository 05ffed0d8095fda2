"""The mark is found after H.264 at CRF 23, is not found where it is not, and touches nothing but what it is given."""

import math
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from media.errors import MediaError
from media.frames import scan
from media.probe import probe
from tests.videos import Pictures, write_video
from training.watermark import (
    MAX_FALSE_ALARM,
    PAYLOADS,
    Detection,
    detect,
    embed,
    provenance,
    strongest,
)

SHARED = Path(__file__).resolve().parents[3] / "shared" / "media"
FRAMES, WIDTH, HEIGHT = 50, 320, 240
SIZE = 144  # of the generated region


def textures(seed: int = 0) -> np.ndarray:
    """A film of blobs as soft as faces are, slowly drifting, with the grain of a camera: [T, H, W, 3] uint8."""
    random = np.random.default_rng(seed)
    blobs = [cv2.GaussianBlur(random.normal(size=(HEIGHT + 16, WIDTH + 16)), (0, 0), size) for size in (3, 6, 12, 24)]
    wall = np.sum([blob / blob.std() for blob in blobs], axis=0)
    wall = 128 + 25 * wall / wall.std()
    film = [wall[t // 10 : t // 10 + HEIGHT, t // 5 : t // 5 + WIDTH] for t in range(FRAMES)]
    grain = random.normal(0, 2, (FRAMES, HEIGHT, WIDTH))
    return np.clip(np.stack(film) + grain, 0, 255).astype(np.uint8)[..., None].repeat(3, -1)


def corners() -> np.ndarray:
    """Where the region is in each frame: [T, 2], wandering with the head."""
    t = np.arange(FRAMES)
    return np.column_stack([80 + t // 5, 40 + np.round(8 * np.sin(t / 6))]).astype(int)


def regions(film: np.ndarray) -> np.ndarray:
    return np.stack([frame[y : y + SIZE, x : x + SIZE] for frame, (x, y) in zip(film, corners(), strict=True)])


def pasted(film: np.ndarray, pieces: np.ndarray) -> np.ndarray:
    film = film.copy()
    for frame, piece, (x, y) in zip(film, pieces, corners(), strict=True):
        frame[y : y + SIZE, x : x + SIZE] = piece
    return film


def encoded(film: np.ndarray, path: Path, crf: int) -> Path:
    options = {"crf": str(crf), "preset": "medium"}
    return write_video(path, Pictures(len(film), draw=lambda i: film[i], options=options))


@pytest.fixture(scope="module")
def film() -> np.ndarray:
    return textures()


@pytest.fixture(scope="module")
def marked(film: np.ndarray) -> np.ndarray:
    return pasted(film, embed(regions(film), 37, corners()))


@pytest.mark.parametrize("crf", [18, 23])
def test_mark_is_read_from_the_video_alone(marked: np.ndarray, tmp_path: Path, crf: int) -> None:
    found = detect(encoded(marked, tmp_path / "marked.mp4", crf))
    assert found.payload == 37
    assert found.false_alarm < MAX_FALSE_ALARM


def test_mark_survives_a_second_encoding(marked: np.ndarray, tmp_path: Path) -> None:
    first = encoded(marked, tmp_path / "first.mp4", 18)
    again = np.stack([picture for _, picture in scan(first, probe(first), WIDTH)])
    assert detect(encoded(again, tmp_path / "again.mp4", 23)).payload == 37


def test_unmarked_video_says_nothing(film: np.ndarray, tmp_path: Path) -> None:
    found = detect(encoded(film, tmp_path / "plain.mp4", 23))
    assert found.payload is None
    assert found.false_alarm > MAX_FALSE_ALARM


def test_mark_is_more_than_40_db_down_and_at_most_three_levels(film: np.ndarray, marked: np.ndarray) -> None:
    before, after = regions(film).astype(float), regions(marked).astype(float)
    assert 10 * math.log10(255**2 / ((after - before) ** 2).mean()) > 42
    assert np.abs(after - before).max() == 3


def test_pixels_outside_of_the_region_are_the_same(film: np.ndarray, marked: np.ndarray) -> None:
    assert np.array_equal(pasted(marked, regions(film)), film)


def test_where_the_mask_is_zero_pixels_are_the_same(film: np.ndarray) -> None:
    mask = np.zeros((FRAMES, HEIGHT, WIDTH), np.float32)
    mask[:, 60:200, 90:260] = 1
    changed = (embed(film, 5, mask=mask) != film).any(-1)
    assert not changed[mask == 0].any()
    assert changed[mask == 1].mean() > 0.5


def test_region_gets_its_part_of_the_frames_mark(film: np.ndarray, marked: np.ndarray) -> None:
    """Only how strong it is may differ near the edge, where the region does not see the texture beyond."""
    whole, part = (regions(found).astype(int) - regions(film) for found in (embed(film, 37), marked))
    assert np.array_equal(np.sign(whole), np.sign(part)) or np.abs(whole - part).max() <= 1
    inside = slice(30, -30)
    assert np.array_equal(whole[:, inside, inside], part[:, inside, inside])


def test_same_input_has_the_same_mark_twice_and_payloads_differ(film: np.ndarray) -> None:
    assert np.array_equal(embed(film[:2], 1), embed(film[:2], 1))
    assert not np.array_equal(embed(film[:2], 1), embed(film[:2], 2))


def test_dark_and_bright_pictures_do_not_wrap() -> None:
    flat = np.stack([np.zeros((32, 32, 3), np.uint8), np.full((32, 32, 3), 255, np.uint8)])
    after = embed(flat)
    assert after[0].max() == 1
    assert after[1].min() == 254


def test_noise_is_rarely_taken_for_a_mark() -> None:
    """Of 256 payloads times 12 films of chance the best is what the bound allows."""
    for seed in range(12):
        residual = np.random.default_rng(seed).normal(0, 1, (240, 320)).astype(np.float32)
        z, _, tried = strongest(residual)
        assert min(1.0, tried * PAYLOADS * math.exp(-(z**2) / 2)) > MAX_FALSE_ALARM


def test_picture_smaller_than_a_block_says_nothing() -> None:
    assert strongest(np.ones((16, 200), np.float32))[0] == 0


def test_wrong_payloads_and_pictures_are_refused(film: np.ndarray) -> None:
    with pytest.raises(ValueError, match="from 0 to 255"):
        embed(film[:1], PAYLOADS)
    with pytest.raises(ValueError, match=r"float64 \[1, 240, 320, 3\]"):
        embed(film[:1] / 255)


def test_file_that_is_no_video_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "page.mp4"
    path.write_text("<html>")
    with pytest.raises(MediaError):
        detect(path)


def test_container_says_what_it_holds_and_no_date(film: np.ndarray, tmp_path: Path) -> None:
    def write(path: Path) -> Path:
        with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
            container.metadata.update(provenance(37))
            stream = container.add_stream("libx264", rate=25, options={"threads": "1"})
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(film[0], format="rgb24")))
            container.mux(stream.encode(None))
        return path

    path = write(tmp_path / "a.mp4")
    assert path.read_bytes() == write(tmp_path / "b.mp4").read_bytes()
    with av.open(str(path)) as container:
        kept = container.metadata
    assert "Synthetic media" in kept["comment"]
    assert "payload: 37" in kept["comment"]
    assert kept["description"].endswith("compositeWithTrainedAlgorithmicMedia")
    assert "creation_time" not in kept


@pytest.mark.parametrize("name", ["real__hdtf_RD_Radio2_000.mp4", "real__visualvoice_noisy_restaurant.mp4"])
def test_mark_is_read_from_a_real_talker(name: str, tmp_path: Path) -> None:
    """Two seconds, in a region of 180 x 250 pixels around the middle of the picture."""
    path = SHARED / name
    if not path.exists():
        pytest.skip("no ../shared/media here")
    found = probe(path)
    film = np.stack([picture for _, picture in scan(path, found, max(found.width, found.height), end_frame=50)])
    y, x = (film.shape[1] - 250) // 2, (film.shape[2] - 180) // 2
    film[:, y : y + 250, x : x + 180] = embed(film[:, y : y + 250, x : x + 180], 200, np.tile([x, y], (len(film), 1)))
    assert detect(encoded(film, tmp_path / "talker.mp4", 23)).payload == 200


def test_nothing_found_is_said_with_a_probability() -> None:
    assert Detection(None, 3.0, 1.0).payload is None
