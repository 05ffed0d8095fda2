import tracemalloc

import numpy as np
import pytest

from curation.filters.source_speech import BLOCK_SAMPLES, CHUNK_S, CHUNK_SAMPLES, SourceSpeech, loudness_db, spoken_s
from curation.verdicts import KEEP
from media.audio import AudioTrack
from tests.clips import clip_of
from tests.videos import tone

LOUD = tone(4, rate=16000)[0]


def voice(seconds: float) -> np.ndarray:
    """Activity over 4 s, of which so many are speech."""
    chunks = np.arange(125)
    return np.where(chunks < round(seconds / CHUNK_S), 0.9, 0.1).astype(np.float32)


def reason(audio: np.ndarray | None, spoken: np.ndarray | None) -> str:
    (clip,) = SourceSpeech()(clip_of(100, audio, voice=spoken))
    return clip.verdict.reason


def test_speech_is_kept() -> None:
    (clip,) = SourceSpeech()(clip_of(100, LOUD, voice=voice(3)))
    assert clip.verdict == KEEP
    assert clip.scores["source_speech_s"] == pytest.approx(3, abs=CHUNK_S)


def test_no_track_silence_and_no_speech_are_told_apart() -> None:
    assert reason(None, None) == "no_audio"
    assert reason(np.zeros(64000, np.float32), voice(0)) == "silent"
    assert reason(LOUD, voice(0)) == "no_speech"


@pytest.mark.parametrize(
    ("loudness_db", "speech_s", "share", "reason"),
    [
        (-55.0, 3.0, 0.01, "kept"),  # enough of it, in however long a video
        (-55.0, 1.0, 0.3, "kept"),  # or enough of a short one
        (-55.0, 2.99, 0.299, "no_speech"),
        (-55.1, 3.0, 1.0, "silent"),
    ],
)
def test_the_threshold_itself_is_kept(loudness_db: float, speech_s: float, share: float, reason: str) -> None:
    scores = {"source_loudness_db": loudness_db, "source_speech_s": speech_s, "source_speech_share": share}
    assert SourceSpeech(min_loudness_db=-55, min_speech_s=3.0, min_share=0.3).decide(scores).reason == reason


def test_loudness_of_a_sine_is_its_level() -> None:
    """A quarter of full scale is -12.04 dB, its effective value 3.01 dB less."""
    assert loudness_db(LOUD) == pytest.approx(-15.05, abs=0.1)


def test_a_click_does_not_make_silence_audible_and_a_pause_does_not_silence_speech() -> None:
    silence = np.zeros(64000, np.float32)
    silence[1000:1100] = 1.0
    assert loudness_db(silence) < -100
    mostly_pause = np.concatenate([LOUD[:8000], np.zeros(56000, np.float32)])
    assert loudness_db(mostly_pause) == pytest.approx(-15.05, abs=0.2)


def test_a_long_track_is_squared_a_block_at_a_time_and_has_the_level_of_all_of_it() -> None:
    samples = np.random.default_rng(0).integers(-9000, 9000, 5 * BLOCK_SAMPLES // 2 + 77).astype(np.int16)
    pieces = (samples[:-77] / 32768).astype(np.float32).reshape(-1, CHUNK_SAMPLES)
    levels = np.sqrt(np.square(pieces, dtype=np.float64).mean(axis=1))
    tracemalloc.start()
    measured = loudness_db(AudioTrack(samples))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert measured == float(20 * np.log10(np.percentile(levels, 95) + 1e-9))
    assert peak < 14 * BLOCK_SAMPLES  # float32 and its squares; of the whole it were 30


def test_no_sound_at_all_is_the_quietest_level() -> None:
    assert loudness_db(np.zeros(100, np.float32)) == loudness_db(np.zeros(0, np.float32)) == -120


def test_half_is_not_yet_speech() -> None:
    assert spoken_s(np.array([0.5, 0.51, 0.9])) == pytest.approx(2 * CHUNK_S)
