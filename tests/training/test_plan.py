import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.latents import window_starts
from training.plan import Run, Segments, chunks, runs, source_frames

STILL = np.tile(np.array([10.0, 10, 50, 50]), (100, 1))
ONE_SHOT = np.zeros(100, int)


@given(st.integers(1, 60), st.integers(1, 400))
def test_the_video_is_as_long_as_the_sound_and_moves_as_it_did(video, sound):
    shown = source_frames(video, sound)
    assert len(shown) == sound
    assert shown.min() >= 0 and shown.max() < video
    assert np.abs(np.diff(shown)).max(initial=0) <= 1


def test_a_shorter_sound_cuts_the_video_and_a_longer_one_plays_it_back():
    assert source_frames(10, 7).tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert source_frames(10, 10).tolist() == list(range(10))
    shown = source_frames(50, 150)
    assert shown[:40].tolist() == list(range(40))
    assert shown[60:90].tolist() == list(range(38, 8, -1))
    turn = shown[40:60]
    assert (turn == turn.max()).sum() <= 5  # it slows down there and does not stop
    assert turn.max() >= 47


@given(st.integers(1, 400), st.integers(1, 100), st.sampled_from([2, 3, 4, 8, 16, 25]))
def test_chunks_cover_a_run_once_but_for_their_overlap(frames, at_most, length):
    segments = Segments.of(length)
    pieces = chunks(Run(7, 7 + frames), segments, at_most)
    assert max(p.end - p.start for p in pieces) <= max(at_most, length)
    assert pieces[0].start == 7 and pieces[-1].end == 7 + frames
    for before, after in zip(pieces, pieces[1:], strict=False):
        assert before.end - after.start == segments.overlap
        assert after.end > before.end
    fresh = [(p.start if i == 0 else pieces[i - 1].end, p.end) for i, p in enumerate(pieces)]
    assert [t for a, b in fresh for t in range(a, b)] == list(range(7, 7 + frames))


@pytest.mark.parametrize("frames", range(1, 101))
def test_segments_cover_every_count_of_frames(frames):
    starts = window_starts(frames, 16, 4)
    covered = {t for start in starts for t in range(start, min(start + 16, frames))}
    assert covered == set(range(frames))
    assert starts[-1] + 16 == max(frames, 16)


def test_a_run_ends_where_the_face_is_gone_or_jumps():
    has_face = np.ones(100, bool)
    has_face[30:40] = False
    boxes = STILL.copy()
    boxes[70:] += 25  # more than half of the face's 40 pixels
    assert runs(has_face, boxes, ONE_SHOT, np.arange(100)) == [Run(0, 30), Run(40, 70), Run(70, 100)]
    assert runs(np.zeros(100, bool), boxes, ONE_SHOT, np.arange(100)) == []


def test_runs_are_told_in_output_frames_when_the_video_runs_back():
    has_face = np.ones(4, bool)
    has_face[0] = False
    assert runs(has_face, STILL[:4], ONE_SHOT[:4], np.array([0, 1, 2, 3, 2, 1, 0, 1])) == [Run(1, 6), Run(7, 8)]


def test_no_run_goes_over_a_cut_forward_or_back():
    shot = np.repeat([0, 1], [2, 2])
    shown = np.array([0, 1, 2, 3, 2, 1, 0])
    assert runs(np.ones(4, bool), STILL[:4], shot, shown) == [Run(0, 2), Run(2, 5), Run(5, 7)]
