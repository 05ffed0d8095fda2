import io
from fractions import Fraction

import av
import numpy as np
import pytest

from media.encode import encode_mp4
from models.mask import MaskSettings
from shards.reader import ShardError
from shards.sample import VIDEO, Sample
from tests.training.numbered import DIM, LAYERS, SIDE, numbered_sample, numbers_in
from training.settings import DataSettings
from training.stream import Loaded
from training.window import StoredClip, decode, empty, fill, open_video, windows_of

SETTINGS = DataSettings(size=SIDE)


def clip_of(sample: Sample, frames: int) -> StoredClip:
    return StoredClip(sample.key, frames, lambda: Loaded(sample))


def with_video(video: bytes) -> Sample:
    sample = numbered_sample(0, "a", 20)
    return Sample(sample.key, {**sample.members, VIDEO: video})


def planes_of(sample: Sample, start: int, into: np.ndarray, square: tuple[int, ...] = (0, 0, SIDE, SIDE)) -> None:
    with open_video(Loaded(sample)) as video:
        decode(video, start, into, np.tile(np.array(square, np.float32), (len(into), 1)))


def foreign_video(width: int = SIDE, height: int = SIDE, rate: int = 25, matrix: int = 1, late: int = 0) -> bytes:
    """20 frames in x264's defaults (B-frames, one group of pictures), the first `late` frames after time zero."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(rate))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, 1
        for i in range(20):
            bits = (i >> np.arange(16) & 1).reshape(4, 4) * 160 + 40
            luma = np.repeat(np.repeat(bits, height // 4, 0), width // 4, 1).astype(np.uint8)
            chroma = np.full((height // 2, width), 128, np.uint8)
            frame = av.VideoFrame.from_ndarray(np.concatenate([luma, chroma]), format="yuv420p")
            frame.colorspace, frame.color_range = matrix, 1
            frame.pts, frame.time_base = i + late, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


def test_a_clip_that_is_its_own_reference_is_opened_once():
    sample, opened = numbered_sample(0, "a", 30), []
    clip = StoredClip(sample.key, 30, lambda: opened.append(1) or Loaded(sample))
    arrays, other = (empty(1, SETTINGS, LAYERS, DIM) for _ in range(2))
    assert fill(arrays, 0, clip, clip, np.random.default_rng(5), MaskSettings()) is None
    assert len(opened) == 1
    twin = StoredClip("twin", 30, lambda: Loaded(sample))
    assert fill(other, 0, clip, twin, np.random.default_rng(5), MaskSettings()) is None
    assert all(np.array_equal(arrays[name], other[name]) for name in arrays if name != "sample")


def test_nothing_is_left_of_a_window_that_could_not_be_finished():
    sample = numbered_sample(0, "a", 16)  # all of it, so that zeros stand at both ends
    arrays = empty(1, SETTINGS, LAYERS, DIM)
    for array in arrays.values():
        array.view(np.uint8)[:] = 77
    clip = clip_of(sample, 16)
    assert fill(arrays, 0, clip, clip, np.random.default_rng(0), MaskSettings()) is None
    rows = arrays["whisper"][0]
    assert not rows[:4].any()
    assert not rows[-4:].any()
    assert rows[4:-4, 0, 1].tolist() == list(range(32))
    assert [frame for _, frame in numbers_in(arrays["video"][0])] == list(range(16))


def test_the_one_to_blame_is_named():
    good, bad = numbered_sample(1, "a", 20), with_video(b"no video at all" * 100)
    arrays, random = empty(1, SETTINGS, LAYERS, DIM), np.random.default_rng(0)
    for clip, reference in ((good, bad), (bad, good)):
        fault = fill(arrays, 0, clip_of(clip, 20), clip_of(reference, 20), random, MaskSettings())
        assert fault is not None
        assert fault[0] == bad.key == "clip-000"


@pytest.mark.parametrize("start", [0, 3, 4])
@pytest.mark.parametrize("late", [0, 7])
def test_frames_are_found_by_time_in_files_with_b_frames(start: int, late: int):
    sample, into = with_video(foreign_video(late=late)), np.zeros((16, SIDE * 3 // 2, SIDE), np.uint8)
    planes_of(sample, start, into)
    assert [frame for _, frame in numbers_in(into)] == list(range(start, start + 16))


@pytest.mark.parametrize(
    ("video", "says"),
    [
        (foreign_video(rate=30), "64x64 at 30 fps, expected a square at 25 fps"),
        (foreign_video(width=128), "128x64 at 25 fps"),
        (foreign_video(matrix=6), "expected yuv420p, BT.709, limited range"),
    ],
)
def test_videos_of_another_kind_are_refused(video: bytes, says: str):
    sample, into = with_video(video), np.zeros((16, SIDE * 3 // 2, SIDE), np.uint8)
    with pytest.raises(ShardError, match=says):
        planes_of(sample, 0, into)


def test_frames_that_a_file_lacks_are_counted():
    sample, into = with_video(foreign_video()), np.zeros((16, SIDE * 3 // 2, SIDE), np.uint8)
    with pytest.raises(ShardError, match="3 of the frames 7 to 22 are missing"):
        planes_of(sample, 7, into)


def planes_or_none(video: bytes) -> bytes | None:
    sample, into = with_video(video), np.zeros((16, SIDE * 3 // 2, SIDE), np.uint8)
    try:
        planes_of(sample, 0, into)
    except ShardError:
        return None
    return into.tobytes()


def test_damaged_pictures_are_refused_not_concealed():
    picture = np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    video = encode_mp4(np.stack([np.roll(picture, (i, 2 * i), (0, 1)) for i in range(20)]))
    first = video.index(b"mdat") + 700
    found = []
    for place in range(first, first + 9000, 150):
        damaged = bytearray(video)
        damaged[place : place + 8] = bytes(byte ^ 0xA5 for byte in damaged[place : place + 8])
        found.append(planes_or_none(bytes(damaged)))
    changed = [planes for planes in found if planes != planes_or_none(video)]
    assert len(changed) > 50
    assert sum(planes is None for planes in changed) > 0.9 * len(changed), "as it is, ffmpeg smears nearly all of them"


def test_how_often_a_clip_comes_by_its_length():
    lengths = np.array([15, 16, 31, 32, 500])
    assert windows_of(lengths, DataSettings()).tolist() == [0, 1, 1, 2, 31]
    assert windows_of(lengths, DataSettings(weight="clip")).tolist() == [0, 1, 1, 1, 1]
