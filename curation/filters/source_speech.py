"""Drops a source without sound, with inaudible sound, or without speech, before a frame of it is decoded."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from clock import SAMPLE_RATE
from curation.clip import Clip
from curation.stage import VOICE, WHOLE_SOURCE, Filter
from curation.verdicts import KEEP, Limit, Verdict, drop
from media.audio import Samples

CHUNK_SAMPLES = 512  # silero VAD's: 32 ms
CHUNK_S = CHUNK_SAMPLES / SAMPLE_RATE
BLOCK_SAMPLES = 4096 * CHUNK_SAMPLES  # two minutes, so that the squares of hours of sound are never held together
SPEAKING = 0.5  # silero's own threshold
QUIETEST_DB = -120.0


@dataclass(frozen=True)
class SourceSpeech(Filter):
    min_loudness_db: float = -55.0  # room tone lies near -63 dB, the quietest real speaker we have at -42 dB
    min_speech_s: float = 3.0  # a video of people who say two words in 20 s is none of people talking
    min_share: float = 0.3  # enough of a shorter one: a GRID sentence of 3 s has .39 and more

    NEEDS = (WHOLE_SOURCE, VOICE)
    LIMITS = (
        Limit("source_loudness_db", ">=", "min_loudness_db", "silent"),
        Limit("source_speech_s", ">=", "min_speech_s", "no_speech"),
        Limit("source_speech_share", ">=", "min_share", "no_speech"),
    )
    SCORES = {
        "source_loudness_db": "95th percentile of the source's 32 ms sound levels, dB below full scale; NaN: no track",
        "source_speech_s": "seconds of the source in which somebody speaks",
        "source_speech_share": "the same as a share of the source",
    }

    def measure(self, clip: Clip) -> dict[str, float]:
        audio = clip.source.audio
        if audio is None or clip.voice is None:
            return {"source_loudness_db": float("nan"), "source_speech_s": 0.0, "source_speech_share": 0.0}
        speech_s = spoken_s(clip.voice)
        share = min(1.0, speech_s / (clip.end_s - clip.start_s))
        sound = audio if clip.source.segment is None else clip.audio()
        return {"source_loudness_db": loudness_db(sound), "source_speech_s": speech_s, "source_speech_share": share}

    def decide(self, scores: Mapping[str, float]) -> Verdict:
        if np.isnan(scores["source_loudness_db"]):
            return drop("no_audio")
        broken = [limit.reason for limit in self.broken_limits(scores)]
        if "silent" in broken:
            return drop("silent")
        return drop("no_speech") if broken.count("no_speech") == 2 else KEEP  # enough seconds or enough share will do


def loudness_db(audio: Samples) -> float:
    """The level that 5 % of the 32 ms pieces exceed, in dB below full scale: robust against clicks and pauses."""
    end = len(audio) // CHUNK_SAMPLES * CHUNK_SAMPLES
    if not end:
        return QUIETEST_DB
    blocks = (audio[start : min(start + BLOCK_SAMPLES, end)] for start in range(0, end, BLOCK_SAMPLES))
    levels = np.concatenate([levels_of(block.reshape(-1, CHUNK_SAMPLES)) for block in blocks])
    return float(max(QUIETEST_DB, 20 * np.log10(np.percentile(levels, 95) + 1e-9)))


def levels_of(pieces: np.ndarray) -> np.ndarray:
    """[P] effective value of each piece of [P, CHUNK_SAMPLES] samples."""
    return np.sqrt(np.square(pieces, dtype=np.float64).mean(axis=1))


def voice_of(clip: Clip) -> np.ndarray:
    """[P] speech probability of the clip's own part of its track, one per 512 samples."""
    assert clip.voice is not None
    return clip.voice[round(clip.start_s / CHUNK_S) : round(clip.end_s / CHUNK_S)]


def spoken_s(voice: np.ndarray) -> float:
    """Return the seconds in which the voice activity exceeds silero's threshold."""
    return float((voice > SPEAKING).sum() * CHUNK_S)
