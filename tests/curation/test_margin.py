"""What is done to a sample on its way from a part to a shard."""

import numpy as np
import pytest

from curation.margin import cut_to_clip
from media.encode import decode_flac, encode_flac
from shards.sample import AUDIO, BOXES, JSON, WHISPER, Sample, decode_npy, encode_json, encode_npy

FRAMES, MARGIN = 50, 3


@pytest.fixture
def sample() -> Sample:
    """A clip whose sound and rows tell their place in the track, with 3 frames of margin on both sides."""
    frames = FRAMES + 2 * MARGIN
    audio = np.arange(frames * 640, dtype=np.float32) / 32767
    rows = np.arange(frames * 2, dtype=np.float16)[:, None, None]
    fields = {"source_id": "a", "start_frame": 100, "end_frame": 150, "frames": FRAMES, "audio_shift_frames": 0}
    members = {
        AUDIO: encode_flac(audio),
        WHISPER: encode_npy(rows),
        BOXES: encode_npy(np.zeros((FRAMES, 4), np.float32)),
        JSON: encode_json({**fields, "margin_frames": MARGIN, "scores": {}}),
    }
    return Sample("a-0-1", members)


@pytest.mark.parametrize("shift", [-3, 0, 2])
def test_a_late_sound_is_taken_from_later_in_the_track_with_its_rows(sample: Sample, shift: int) -> None:
    done = cut_to_clip(sample, shift, {})
    audio, rows = decode_flac(done.members[AUDIO]), decode_npy(done.members[WHISPER])
    assert len(audio) == FRAMES * 640
    assert len(rows) == FRAMES * 2
    assert round(audio[0] * 32767) == (MARGIN + shift) * 640
    assert rows[0, 0, 0] == (MARGIN + shift) * 2
    assert done.json["audio_shift_frames"] == shift


def test_a_shift_beyond_the_margin_is_our_own_mistake(sample: Sample) -> None:
    with pytest.raises(AssertionError, match="the margin is 3"):
        cut_to_clip(sample, 4, {})


def test_late_scores_reach_the_json_and_the_margin_leaves_it(sample: Sample) -> None:
    done = cut_to_clip(sample, 0, {"lip_confidence": 0.5, "niqe": None})
    assert done.json["scores"] == {"lip_confidence": 0.5, "niqe": None}
    assert "margin_frames" not in done.json


def test_without_others_a_sample_keeps_its_scores_under_todays_names(sample: Sample) -> None:
    fields = {**sample.json, "scores": {"niqe": 4.5, "glance_gap_s": None}}
    done = cut_to_clip(Sample(sample.key, {**sample.members, JSON: encode_json(fields)}), 0)
    assert done.json["scores"] == {"niqe": 4.5, "keyframe_gap_s": None}


def test_a_sample_without_margin_keeps_its_sound(sample: Sample) -> None:
    once = cut_to_clip(sample, 1, {})
    assert cut_to_clip(once, 1, {}).members[AUDIO] == once.members[AUDIO]
