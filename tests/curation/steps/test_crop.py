from dataclasses import replace
from pathlib import Path

import numpy as np

from curation.clip import Clip, Source
from curation.steps.crop import Crop
from media.probe import probe
from tests.clips import track_of
from tests.videos import Pictures, number_of, write_video


def square(i: int) -> np.ndarray:
    """320 x 240, dark, with a bright square of 60 pixels that moves 2 pixels to the right with every frame."""
    picture = np.full((240, 320, 3), 30, np.uint8)
    picture[80:140, 40 + 2 * i : 100 + 2 * i] = 220
    return picture


def filmed(path: Path, frames: int) -> Clip:
    source = Source("ab" * 32, path, probe(path))
    track = track_of([True] * frames, side=60.0, x=40.0 + 2 * np.arange(frames))
    track.boxes[:, 1::2] = (80, 140)
    return Clip(source, 0, frames, track=track)


def test_the_face_fills_the_crop_as_far_as_the_expansion_says(tmp_path: Path) -> None:
    clip = filmed(write_video(tmp_path / "a.mp4", Pictures(60, draw=square)), 60)
    (done,) = Crop(size=128, expansion=1.6)(clip)
    assert done.frames is not None and done.crop_boxes is not None and done.track is not None
    assert done.frames.shape == (60, 128, 128, 3) and done.frames.dtype == np.uint8
    assert done.scores["crop_px"] == np.float32(96)
    for t in (5, 30, 54):
        x0, y0, x1, y1 = done.crop_boxes[t].round().astype(int)
        assert abs((x1 - x0) - 128 / 1.6) <= 1 and abs((y1 - y0) - 128 / 1.6) <= 1
        bright = done.frames[t, ..., 1] > 125
        inside = bright[y0 + 3 : y1 - 3, x0 + 3 : x1 - 3]
        assert inside.all()
        assert not bright[: y0 - 3].any() and not bright[:, : x0 - 3].any() and not bright[:, x1 + 3 :].any()


def test_only_the_frames_of_the_clip_are_cut_out(tmp_path: Path) -> None:
    clip = filmed(write_video(tmp_path / "a.mp4", Pictures(60)), 60)
    assert clip.track is not None
    clip.track.boxes[:] = (0, 0, 48, 48)
    (done,) = Crop(size=32, expansion=1.0)(clip.cut(20, 50))
    assert done.frames is not None and len(done.frames) == 30
    wide = np.concatenate([done.frames, done.frames[:, :, -1:].repeat(11, axis=2)], axis=2)  # 48 of 64 pixels were seen
    assert [number_of(frame) >> 2 for frame in wide] == [i >> 2 for i in range(20, 50)]


def test_a_clip_that_cannot_be_read_to_its_end_is_dropped(tmp_path: Path) -> None:
    clip = filmed(write_video(tmp_path / "a.mp4", Pictures(40)), 60)
    (done,) = Crop(size=32)(replace(clip))
    assert (done.verdict.reason, done.frames) == ("error:decode", None)
    assert "20 too early" in done.verdict.detail
