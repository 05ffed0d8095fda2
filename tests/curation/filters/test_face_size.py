import pytest

from curation.filters.face_size import FaceSize
from curation.verdicts import KEEP
from tests.clips import clip_of, track_of


@pytest.mark.parametrize(("side", "reason"), [(228.5, "kept"), (228, "face_size"), (100, "face_size")])
def test_a_face_must_exceed_the_size(side: float, reason: str) -> None:
    (clip,) = FaceSize()(clip_of(10, track=track_of([True] * 10, side=side)))
    assert clip.verdict.reason == reason
    assert clip.scores["source_face_max_px"] == side


def test_one_large_moment_is_enough() -> None:
    track = track_of([True] * 10, side=100)
    track.boxes[4] = (0, 0, 300, 240)
    assert FaceSize().measure(clip_of(10, track=track)) == {"source_face_max_px": 240}
    assert next(iter(FaceSize()(clip_of(10, track=track)))).verdict == KEEP


def test_both_sides_count() -> None:
    track = track_of([True] * 10)
    track.boxes[:] = (0, 0, 400, 200)
    assert next(iter(FaceSize()(clip_of(10, track=track)))).verdict.reason == "face_size"


def test_no_face_is_its_own_reason() -> None:
    (clip,) = FaceSize()(clip_of(10, track=track_of([False] * 10)))
    assert (clip.verdict.reason, clip.scores["source_face_max_px"]) == ("no_face", 0)
