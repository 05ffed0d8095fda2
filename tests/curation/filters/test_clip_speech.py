from dataclasses import replace

import numpy as np
import pytest

from curation.filters.clip_speech import ClipSpeech
from curation.filters.source_speech import CHUNK_S
from curation.verdicts import KEEP
from tests.clips import clip_of
from tests.videos import tone

LOUD = tone(16, rate=16000)[0]
VOICE = np.where(np.arange(500) < 250, 0.9, 0.1).astype(np.float32)  # somebody speaks for the first 8 of 16 s


@pytest.mark.parametrize(("start", "end", "share"), [(0, 200, 1.0), (200, 400, 0.0), (100, 300, 0.5), (150, 250, 0.5)])
def test_only_the_clips_own_time_counts(start: int, end: int, share: float) -> None:
    clip = replace(clip_of(400, LOUD, voice=VOICE), start_frame=start, end_frame=end)
    (done,) = ClipSpeech()(clip)
    assert done.scores["speech_share"] == pytest.approx(share, abs=2 * CHUNK_S / 4)
    assert done.verdict.reason == ("kept" if share else "no_speech")


def test_loudness_is_that_of_the_clip() -> None:
    half = np.concatenate([LOUD[:128000], np.zeros(128000, np.float32)])
    clip = clip_of(400, half, voice=np.ones(500, np.float32))
    reasons = [
        next(iter(ClipSpeech()(replace(clip, start_frame=s, end_frame=s + 100)))).verdict.reason for s in (0, 250)
    ]
    assert reasons == ["kept", "silent"]


def test_the_threshold_itself_is_kept() -> None:
    decide = ClipSpeech(min_share=0.3, min_loudness_db=-55).decide
    assert decide({"speech_share": 0.3, "loudness_db": -55.0}) == KEEP
    assert decide({"speech_share": 0.29, "loudness_db": -55.0}).reason == "no_speech"
    assert decide({"speech_share": 1.0, "loudness_db": -55.1}).reason == "silent"


def test_a_share_is_at_most_one() -> None:
    (done,) = ClipSpeech()(clip_of(51, LOUD, voice=np.ones(500, np.float32)))
    assert done.scores["speech_share"] == 1.0


def test_without_a_track_nobody_speaks() -> None:
    (done,) = ClipSpeech()(clip_of(100))
    assert done.scores["speech_share"] == 0 and not done.verdict.keep
