"""Real voices with phoneme times: four speakers of NIST read two Harvard sentences each (F1, F2, M1, M2).

Nobody has marked the phonemes in these recordings. piper says the same sentences and knows its own times; dynamic time
warping between the two voices, on what Whisper's encoder hears, carries those times over. What this gives up: times are
no finer than Whisper's rows of 20 ms, and a phoneme that this speaker leaves out or says otherwise keeps piper's form.
"""

import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from scipy.signal import resample_poly

from demo import speech
from demo.speech import LEVEL, SAMPLE_RATE, Phoneme, Speech, Voice

Name = Literal["nist_f1", "nist_f2", "nist_m1", "nist_m2"]  # also that of the weight
NAMES: tuple[Name, ...] = get_args(Name)
WHISPER = "whisper_tiny_en"
LAYER = 3  # of the five hidden states of tiny.en: sounds rather than words
ROWS_PER_SECOND = 50
WHISPER_RATE = 16_000
STEP_PENALTY = 0.15  # of the distance, where one voice waits for the other
PAUSE_S = 0.3  # around piper's sentences; the warp fits it to the speaker's own pauses
SEED = 0  # of piper's voice, the same in every corpus: the recording does not change either


@dataclass(frozen=True)
class Recording:
    seconds: float  # of sound, rounded up to whole frames of 25 fps
    texts: tuple[str, ...]


# What is said: published Harvard sentences. Whisper tiny.en hears other words for "hoist", "size" and "mend the coat".
RECORDINGS: dict[Name, Recording] = {
    "nist_f1": Recording(5.96, ("Hoist the load to your left shoulder.", "Take the winding path to reach the lake.")),
    "nist_f2": Recording(5.6, ("Note closely the size of the gas tank.", "Wipe the grease off his dirty face.")),
    "nist_m1": Recording(4.6, ("Mend the coat before you go out.", "What joy there is in living.")),
    "nist_m2": Recording(5.16, ("The wrist was badly strained and hung limp.", "The stray cat gave birth to kittens.")),
}


def read_recording(name: Name, weight_files: dict[str, Path]) -> Speech:
    """The speaker's own sound, as loud as piper's, with the times of the phonemes in it. Same files, same result."""
    recording = RECORDINGS[name]
    samples = np.zeros(round(recording.seconds * SAMPLE_RATE), np.float32)
    sound = read_wav(weight_files[name])
    samples[: len(sound)] = LEVEL * sound / np.abs(sound).max()
    # The voice as it is also for women: raised to their pitch it is farther from all four of them.
    parts = speech.speak(recording.texts, Voice(), weight_files, SEED)
    pauses_s = [PAUSE_S] * len(parts)
    spoken = speech.join(parts, pauses_s, sum(part.seconds for part in parts) + sum(pauses_s) + PAUSE_S)
    from_rows, to_rows = _hear([spoken.samples, samples], weight_files[WHISPER])
    path = warp(distances(from_rows, to_rows))
    return Speech(samples, tuple(carry(spoken.phonemes, path, spoken.seconds, recording.seconds)))


def read_wav(path: Path) -> np.ndarray:
    """A mono 16 bit file of SAMPLE_RATE: [N] float32."""
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, SAMPLE_RATE), path
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768


def _hear(sounds: Sequence[np.ndarray], whisper_file: Path) -> list[np.ndarray]:
    """Rows [R, 384] of each sound at ROWS_PER_SECOND."""
    from models.whisper_features import WhisperFeatures  # loads torch, which no other talker needs

    whisper = WhisperFeatures(whisper_file)
    down = SAMPLE_RATE // WHISPER_RATE
    return [whisper.encode(resample_poly(sound, 1, down).astype(np.float32))[:, LAYER] for sound in sounds]


def distances(from_rows: np.ndarray, to_rows: np.ndarray) -> np.ndarray:
    """[F, T] Euclidean between rows that are standardised within their sound and have length 1."""
    a, b = (_unit(rows.astype(np.float64)) for rows in (from_rows, to_rows))
    return np.sqrt(np.maximum(2 - 2 * a @ b.T, 0))


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = (rows - rows.mean(0)) / (rows.std(0) + 1e-6)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)


def warp(costs: np.ndarray, penalty: float = STEP_PENALTY) -> np.ndarray:
    """The cheapest monotone path through costs [F, T], from corner to corner: pairs of row and column [P, 2]."""
    rows, columns = costs.shape
    total = np.full((rows + 1, columns + 1), np.inf)
    total[0, 0] = 0
    steps = ((1, 1, 1.0), (1, 0, 1 + penalty), (0, 1, 1 + penalty))
    for i in range(rows):
        for j in range(columns):
            total[i + 1, j + 1] = min(total[i + 1 - di, j + 1 - dj] + w * costs[i, j] for di, dj, w in steps)
    i, j = rows, columns
    path = []
    while i and j:
        path.append((i - 1, j - 1))
        di, dj, _ = min(steps, key=lambda step: total[i - step[0], j - step[1]] + step[2] * costs[i - 1, j - 1])
        i, j = i - di, j - dj
    return np.array(path[::-1])


def carry(phonemes: Sequence[Phoneme], path: np.ndarray, from_s: float, to_s: float) -> list[Phoneme]:
    """Phonemes of a sound of `from_s` seconds at the times the path gives them in one of `to_s` seconds."""
    rows = np.unique(path[:, 0])
    partners = np.array([path[path[:, 0] == row, 1].mean() for row in rows])
    known_s = np.concatenate([[0], (rows + 0.5) / ROWS_PER_SECOND, [from_s]])
    carried_s = np.concatenate([[0], (partners + 0.5) / ROWS_PER_SECOND, [to_s]])
    # The last row may reach beyond the end of its sound.
    known_s, carried_s = np.minimum(known_s, from_s), np.minimum(carried_s, to_s)

    def at(time_s: float) -> float:
        return float(np.interp(time_s, known_s, carried_s))

    return [Phoneme(p.symbol, at(p.start_s), at(p.end_s), p.stressed) for p in phonemes]
