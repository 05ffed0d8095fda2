"""The verdicts of the lip probe; the probe itself is tested in tests/models."""

import pytest

from curation.filters.lip_audio import LipAudio

NOTHING = float("nan")


def scores(confidence: float, offset: float = 0.0, threshold: float = 0.3, **more: float) -> dict[str, float]:
    """Of a clip of 6 s, unless said."""
    windows = {"lip_window_confidence": NOTHING, "lip_window_threshold": 0.36, "lip_window_agreement": NOTHING}
    measured = {"lip_confidence": confidence, "lip_offset_frames": offset, "lip_threshold": threshold}
    return {**measured, **windows, "duration_s": 6.0, **more}


@pytest.mark.parametrize(
    ("measured", "reason"),
    [
        (scores(0.5), "kept"),
        (scores(0.35, threshold=0.1), "kept"),
        (scores(0.349, threshold=0.1), "lip_audio:confidence"),
        (scores(0.2, duration_s=4.0), "lip_audio:confidence"),
        (scores(0.2, duration_s=3.96), "lip_audio:unknown"),
        (scores(0.5, lip_window_confidence=0.35, lip_window_agreement=1.0), "lip_audio:confidence"),
        (scores(0.5, lip_window_confidence=0.36, lip_window_agreement=0.7), "kept"),
        (scores(0.5, lip_window_confidence=0.36, lip_window_agreement=0.69), "lip_audio:confidence"),
        (scores(0.5, threshold=0.51), "lip_audio:confidence"),
        (scores(0.5, offset=6), "kept"),
        (scores(0.5, offset=-6), "kept"),
        (scores(0.5, offset=7), "lip_audio:offset"),
        (scores(0.5, offset=-7), "lip_audio:offset"),
        (scores(NOTHING, NOTHING, NOTHING), "lip_audio:unknown"),
    ],
)
def test_a_clip_needs_more_than_a_foreign_voice_reaches_and_an_offset_that_can_be_repaired(measured, reason):
    assert LipAudio(min_confidence=0.35, max_offset_frames=6).decide(measured).reason == reason


def test_unknown_is_kept_only_if_asked():
    assert LipAudio(keep_unknown=True).decide(scores(NOTHING, NOTHING, NOTHING)).keep
    assert not LipAudio(keep_unknown=False).decide(scores(NOTHING, NOTHING, NOTHING)).keep


def test_late_sound_is_taken_from_later_in_the_track():
    assert LipAudio().shift_frames(scores(0.5, offset=4)) == 4
    assert LipAudio().shift_frames(scores(0.5, offset=-2)) == -2
    assert LipAudio().shift_frames(scores(0.5, offset=1)) == 0  # within the probe's own error
    assert LipAudio().shift_frames(scores(NOTHING, NOTHING)) == 0


def test_only_clips_without_a_fitted_probe_may_be_judged_again():
    assert LipAudio().undecided(scores(NOTHING, NOTHING, NOTHING))
    assert not LipAudio().undecided(scores(0.1))
