from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from curation.verdicts import KEEP, drop
from tests.clips import clip_of, track_of


def test_a_key_has_the_source_and_the_times_and_no_dot() -> None:
    clip = replace(clip_of(2000), start_frame=31, end_frame=1999)
    assert clip.key == "abababababababab-00001240-00079960"
    assert (clip.start_s, clip.end_s, len(clip)) == (1.24, 79.96, 1968)


def test_a_part_has_its_own_piece_of_the_track_and_the_cuts_inside() -> None:
    clip = clip_of(100, track=track_of([True] * 100, x=np.arange(100.0)), cuts=(10, 40, 70))
    part = clip.cut(10, 70)
    assert (part.start_frame, part.end_frame, part.cuts) == (10, 70, (40,))
    assert part.track is not None and part.track.boxes[:, 0].tolist() == list(range(10, 70))
    again = part.cut(30, 50)
    assert again.track is not None and again.track.boxes[0, 0] == 30
    assert (clip.start_frame, len(clip.cuts)) == (0, 3)


@pytest.mark.parametrize(("start", "end"), [(-1, 5), (5, 101), (7, 7)])
def test_a_part_lies_inside(start: int, end: int) -> None:
    with pytest.raises(AssertionError):
        clip_of(100).cut(start, end)


def test_a_clip_is_never_changed() -> None:
    clip = clip_of(10, scores={"a": 1.0})
    with pytest.raises(FrozenInstanceError):
        clip.start_frame = 3  # type: ignore[misc]
    assert clip.add_scores({"b": 2.0}).scores == {"a": 1.0, "b": 2.0}
    assert clip.scores == {"a": 1.0}
    dropped = clip.drop("short", "why")
    assert (dropped.verdict, clip.verdict) == (drop("short", "why"), KEEP)


def test_sound_is_cut_at_640_samples_a_frame_with_silence_outside() -> None:
    track = np.arange(1, 10 * 640 + 1, dtype=np.float32)
    clip = replace(clip_of(10, track), start_frame=2, end_frame=5)
    np.testing.assert_array_equal(clip.audio(), track[1280:3200])
    np.testing.assert_array_equal(clip.audio(margin_frames=1), track[640:3840])
    shifted = replace(clip, audio_shift_frames=6).audio()
    np.testing.assert_array_equal(shifted[:1280], track[5120:])
    assert len(shifted) == 1920 and not shifted[1280:].any()
    early = replace(clip, audio_shift_frames=-3).audio()
    assert not early[:640].any() and early[640] == 1
    assert clip_of(3).audio().tolist() == [0] * 1920


def test_a_face_is_as_large_as_its_shorter_side() -> None:
    track = track_of([True, False, True])
    track.boxes[2] = (0, 0, 40, 30)
    assert track.shorter_side.tolist() == [250, 30]


def test_scores_of_a_track() -> None:
    track = track_of([True] * 9 + [False])
    track.boxes[:9, 2:] = track.boxes[:9, :2] + np.arange(100, 1000, 100)[:, None]
    track.second[3] = 77
    track.count[3] = 3
    scores = track.scores()
    assert scores["face_share"] == pytest.approx(0.9)
    assert (scores["face_max_px"], scores["face_median_px"], scores["face_p10_px"]) == (900, 500, 180)
    assert scores["face_score"] == pytest.approx(0.9)
    assert (scores["faces_mean"], scores["second_face_px"]) == (pytest.approx(1.1), 77)


def test_scores_of_a_track_without_a_face_are_nan_and_of_no_frames_none() -> None:
    scores = track_of([False] * 5).scores()
    assert scores["face_share"] == 0 and np.isnan(scores["face_max_px"])
    assert track_of([]).scores() == {}
