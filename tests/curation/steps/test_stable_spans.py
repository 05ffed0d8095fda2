from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.clip import FaceTrack
from curation.steps.stable_spans import StableSpans
from tests.clips import clip_of, track_of

STEP = StableSpans()


def spans(found: list[bool] | np.ndarray, cuts: tuple[int, ...] = (), **track: object) -> list[tuple[int, int, str]]:
    return list(STEP.spans(track_of(found, **track), cuts))  # type: ignore[arg-type]


def gap(length: int) -> list[bool]:
    return [True] * 60 + [False] * length + [True] * 60


@given(st.lists(st.booleans(), min_size=1, max_size=200), st.lists(st.integers(0, 199), max_size=5), st.integers(0, 9))
def test_spans_partition_any_track(found: list[bool], cuts: list[int], seed: int) -> None:
    left = np.random.default_rng(seed).uniform(0, 100, len(found)).cumsum()
    clip = clip_of(len(found), track=track_of(found, x=left), cuts=tuple(sorted(set(cuts))))
    parts = list(STEP(clip))
    borders = [(part.start_frame, part.end_frame) for part in parts]
    assert borders[0][0] == 0 and borders[-1][1] == len(found)
    assert all(one[1] == two[0] for one, two in pairwise(borders))
    for part in parts:
        track = part.track
        assert track is not None and len(track) == len(part)
        if part.verdict.reason == "no_face":
            assert not track.found.any()
        else:
            assert track.found[0] and track.found[-1]
        if part.verdict.keep:
            assert len(part) >= 50 and not set(cuts) & set(range(part.start_frame + 1, part.end_frame)) & found_set(
                part
            )
            assert (track.boxes[:, 2] - track.boxes[:, 0] > 0).all()


def found_set(part) -> set[int]:
    return {part.start_frame + int(k) for k in np.flatnonzero(part.track.found)}


def test_a_gap_of_8_frames_is_bridged_and_one_of_9_splits() -> None:
    assert spans(gap(8)) == [(0, 128, "")]
    assert spans(gap(9)) == [(0, 60, ""), (60, 69, "no_face"), (69, 129, "")]


def test_frames_without_a_face_at_the_ends_are_never_bridged() -> None:
    assert spans([False] * 3 + [True] * 60 + [False] * 3) == [(0, 3, "no_face"), (3, 63, ""), (63, 66, "no_face")]


def test_two_seconds_are_kept_and_a_frame_less_is_short() -> None:
    assert spans([True] * 50) == [(0, 50, "")]
    assert spans([True] * 49) == [(0, 49, "short")]


def test_no_face_at_all_is_one_remainder() -> None:
    assert spans([False] * 70) == [(0, 70, "no_face")]


def test_a_cut_begins_a_new_span() -> None:
    assert spans([True] * 120, (55,)) == [(0, 55, ""), (55, 120, "")]


def test_a_cut_inside_a_gap_splits_a_gap_that_would_be_bridged() -> None:
    assert spans(gap(4), (62,)) == [(0, 60, ""), (60, 64, "no_face"), (64, 124, "")]


@pytest.mark.parametrize(("moved", "splits"), [(0.24, False), (0.26, True)])
def test_a_jump_of_more_than_a_quarter_of_the_box_splits(moved: float, splits: bool) -> None:
    left = np.where(np.arange(120) < 60, 100.0, 100.0 + moved * 250)
    assert len(spans([True] * 120, x=left)) == 1 + splits


def test_a_slow_walk_across_the_picture_does_not_split() -> None:
    assert spans([True] * 120, x=np.arange(120) * 25.0) == [(0, 120, "")]


def test_a_sudden_change_of_size_splits() -> None:
    small, large = track_of([True] * 60, side=200.0), track_of([True] * 60, side=260.0)
    joined = FaceTrack(*(np.concatenate(parts) for parts in zip(small.parts, large.parts, strict=True)))
    assert list(STEP.spans(joined, ())) == [(0, 60, ""), (60, 120, "")]


def test_bridged_frames_get_boxes_between_their_neighbours() -> None:
    left = np.concatenate([np.full(60, 100.0), np.zeros(4), np.full(60, 150.0)])
    (part,) = STEP(clip_of(124, track=track_of(gap(4), x=left)))
    assert part.track is not None
    assert part.track.boxes[59:65, 0].tolist() == [100, 110, 120, 130, 140, 150]
    assert part.track.found.sum() == 120


def test_times_count_from_the_source_not_from_the_clip() -> None:
    clip = clip_of(300, track=track_of([True] * 300), cuts=(150,)).cut(100, 300)
    assert [(part.start_frame, part.end_frame) for part in STEP(clip)] == [(100, 150), (150, 300)]


def test_neighbouring_short_runs_are_one_row() -> None:
    """Two faces of about one size take turns at being the largest."""
    x = np.zeros(200)
    x[100:130:2] = 400
    found = list(StableSpans().spans(track_of(np.ones(200, bool), x=x), []))
    assert found == [(0, 100, ""), (100, 129, "short"), (129, 200, "")]


def test_a_face_that_is_a_whole_side_away_after_a_gap_is_another() -> None:
    found = np.ones(120, bool)
    found[60:66] = False
    for x, spans in ((240.0, [(0, 120, "")]), (260.0, [(0, 60, ""), (60, 66, "no_face"), (66, 120, "")])):
        track = track_of(found, side=250.0, x=np.where(np.arange(120) < 60, 0.0, x))
        assert list(StableSpans().spans(track, [])) == spans
