import pytest

from curation.filters.clip_face_size import ClipFaceSize
from tests.clips import clip_of, track_of


@pytest.mark.parametrize(("side", "reason"), [(228.5, "kept"), (228, "face_size"), (100, "face_size")])
def test_the_face_of_the_span_must_exceed_the_size(side: float, reason: str) -> None:
    (clip,) = ClipFaceSize(min_px=228)(clip_of(10, track=track_of([True] * 10, side=side)))
    assert clip.verdict.reason == reason
    assert clip.scores["span_face_max_px"] == side


def test_one_large_moment_is_enough_and_frames_without_a_face_do_not_count() -> None:
    track = track_of([True] * 8 + [False] * 2, side=100)
    track.boxes[4] = (0, 0, 300, 240)
    track.boxes[9] = (0, 0, 900, 900)  # interpolated, no face was found there
    assert ClipFaceSize().measure(clip_of(10, track=track)) == {"span_face_max_px": 240}
