"""Where nobody speaks the network hears silence, so that noise, music and breath do not move the mouth.

Voice activity says where. There the sound is muted before Whisper hears it, and the rows of the muted sound replace
those of the real one: they are the rows of a pause in this very speech, as the clips of the training have them. Rows of
nothing but zeros mean "beyond the clip" there, and zeros in place of the tokens "no sound is known", which any mouth
fits. Everywhere else the rows are those of the sound as it is, bit for bit. What it gives up: singing that voice
activity does not take for speech, and sounds of a mouth without a voice.

Measured by `benchmarks/gate.py` ("The gate" in its README): of the phonemes of a drawn voice none is closed, of its
pauses three quarters. From the nearest row of other real sounds, rows of real pauses are .5 to .9 standard deviations
away, muted ones .6 to 1.0, those of silence encoded alone 1.0 to 1.2, zeros 3.4.
"""

from dataclasses import dataclass

import numpy as np

from clock import SAMPLE_RATE
from media.audio import AudioTrack, Samples
from models.voice_activity import CHUNK_SAMPLES, VoiceActivity
from models.whisper_features import ROWS_PER_SECOND, SAMPLES_PER_ROW, WhisperFeatures

SPEAKING = 0.35  # silero's own threshold for the end of speech
AROUND_S = 0.1  # kept open on both sides: the mouth moves before the voice; of spoken phonemes none is lost then
SHORTEST_S = 0.3  # of a stretch that is closed, without its margins; shorter ones lie between the words of a sentence
RAMP_ROWS = 3  # 60 ms


@dataclass(frozen=True)
class Gate:
    """How much of the sound is heard, row by row of Whisper's, and the sound that is heard where it is closed."""

    heard: np.ndarray  # [rows] float32, 0 to 1; 1: the sound as it is
    muted: AudioTrack

    @classmethod
    def of(cls, sound: AudioTrack, voice: VoiceActivity) -> "Gate | None":
        """Return the gate of a sound, or None if it is open throughout."""
        closed = find_quiet(voice.probability(sound), len(sound))
        if not closed.any():
            return None
        return cls(ramp(closed), mute(sound, closed))

    def rows(self, whisper: WhisperFeatures, sound: Samples, start_row: int, end_row: int) -> np.ndarray:
        """Return what `whisper.rows` does, with silence where nobody speaks: [rows, layers, dim] float16 or float32."""
        rows, places = whisper.rows(sound, start_row, end_row), np.arange(start_row, end_row)
        heard = self.heard[np.minimum(places, len(self.heard) - 1), None, None]  # beyond the end as at the end
        if (heard == 1).all():
            return rows
        silent = whisper.rows(self.muted, start_row, end_row).astype(np.float32)
        return np.where(heard == 1, rows, silent + heard * (rows - silent))


def find_quiet(probability: np.ndarray, samples: int) -> np.ndarray:
    """Return in which of Whisper's rows of a sound nobody speaks, for so long that the gate closes: [rows] bool.

    `probability` is that of speech in each 32 ms of the sound.
    """
    rows = -(-samples // SAMPLES_PER_ROW)
    spoken = np.zeros(rows, bool)
    for chunk in np.flatnonzero(probability >= SPEAKING):
        start_s, end_s = np.array([chunk, chunk + 1]) * CHUNK_SAMPLES / SAMPLE_RATE
        first, last = np.array([start_s - AROUND_S, end_s + AROUND_S]) * ROWS_PER_SECOND
        spoken[max(0, int(first)) : int(np.ceil(last))] = True
    closed = np.zeros(rows, bool)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], ~spoken, [False]]).astype(np.int8)))
    for start, end in edges.reshape(-1, 2):
        closed[start:end] = end - start >= SHORTEST_S * ROWS_PER_SECOND
    return closed


def ramp(closed: np.ndarray) -> np.ndarray:
    """Return how much is heard in each row: 1 where it is open; in a closed stretch it falls to 0 within RAMP_ROWS."""
    places = np.arange(len(closed))
    before = places - np.maximum.accumulate(np.where(closed, -1 - len(closed), places))
    after = np.minimum.accumulate(np.where(closed, 2 * len(closed) + 1, places)[::-1])[::-1] - places
    return np.clip(1 - np.minimum(before, after) / (RAMP_ROWS + 1), 0, 1).astype(np.float32)


def mute(sound: AudioTrack, closed: np.ndarray) -> AudioTrack:
    """Return the sound with zeros in the closed rows."""
    samples = sound.samples.copy()
    samples[closed.repeat(SAMPLES_PER_ROW)[: len(samples)]] = 0
    return AudioTrack(samples)
