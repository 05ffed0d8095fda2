from dataclasses import replace

import numpy as np
import pytest

from curation.steps.align_audio import AlignAudio
from tests.clips import clip_of


@pytest.mark.parametrize("offset", [-6, 0, 4])
def test_sound_that_comes_after_the_lips_is_taken_from_later_in_the_track(offset: int) -> None:
    track = np.zeros(100 * 640, np.float32)
    lips = 50  # the frame in which the lips close
    track[(lips + offset) * 640] = 1.0
    clip = replace(clip_of(100, track, scores={"sync_offset_frames": float(offset)}), start_frame=20, end_frame=80)
    (aligned,) = AlignAudio()(clip)
    assert aligned.audio().argmax() == (lips - 20) * 640
    assert len(aligned.audio()) == len(clip.audio()) == 60 * 640
    assert aligned.audio_shift_frames == offset
