"""Does the gate of generation (`training/gate.py`) close where it should, and what should the network hear there?

    python -m benchmarks.gate [SOUND ...]

First: a drawn voice with exact phoneme times, clean and in white noise; which share of the phonemes' and of the
pauses' time is closed. Second, of the pauses in that voice and in the given sound files (videos too): how far rows that
could be put there lie from the nearest row of the other sounds, in standard deviations of all rows. No two real pauses
are equal: the distance of the rows as they are is what one can hope for.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.signal import resample_poly

import weights
from clock import SAMPLE_RATE
from command import parser_of
from demo.speech import SILENCE, WEIGHTS, Phoneme, Voice, join, sentences, speak
from media.audio import AudioTrack, read_sound
from models.voice_activity import VoiceActivity
from models.whisper_features import SAMPLES_PER_ROW, WhisperFeatures
from training.gate import find_quiet, mute

WHISPER = "whisper_tiny_en"
SENTENCES = 14
HEARD_S = 30  # of each sound in the second table
FEWEST_ROWS = 15  # of pauses in a sound that is measured


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("python -m benchmarks.gate", __doc__)
    parser.add_argument("sounds", nargs="*", type=Path, metavar="SOUND")
    options = parser.parse_args(arguments)
    voice, console = VoiceActivity(), Console()
    samples, phonemes = draw_voice()
    times = Table("noise below the voice, dB", "phonemes closed", "pauses closed")
    noisy = {level: add_noise(samples, phonemes, level) for level in (None, 30, 20, 10)}
    for level, sound in noisy.items():
        closed = find_quiet(voice.probability(sound), len(sound))
        spoken = spoken_rows(phonemes, len(closed))
        times.add_row(str(level or "none"), f"{closed[spoken].mean():.4f}", f"{closed[~spoken].mean():.3f}")
    console.print(times)
    sounds = {f"drawn, noise {level or 'none'}": sound for level, sound in noisy.items() if level != 30}
    sounds |= {path.name: read_sound(path) for path in options.sounds}
    console.print(compare_rows({name: AudioTrack(s.samples[: HEARD_S * SAMPLE_RATE]) for name, s in sounds.items()}))
    return 0


def draw_voice() -> tuple[np.ndarray, tuple[Phoneme, ...]]:
    """About a minute of sentences with pauses of 0.2 to 2 s: [N] float32 at 16 kHz, and its phonemes."""
    parts = speak(sentences("test")[:SENTENCES], Voice(), weights.require(*WEIGHTS), seed=3)
    pauses = np.random.default_rng(0).uniform(0.2, 2.0, len(parts))
    speech = join(parts, pauses.tolist(), sum(part.seconds for part in parts) + float(pauses.sum()) + 1)
    return resample_poly(speech.samples, 1, 3).astype(np.float32), speech.phonemes


def add_noise(samples: np.ndarray, phonemes: Sequence[Phoneme], below_db: int | None) -> AudioTrack:
    spoken = spoken_rows(phonemes, len(samples) // SAMPLES_PER_ROW).repeat(SAMPLES_PER_ROW)
    level = float(np.sqrt(np.square(samples[: len(spoken)][spoken]).mean()))
    scale = 0.0 if below_db is None else level * 10 ** (-below_db / 20)
    noise = np.random.default_rng(1).normal(0, 1, len(samples))
    return AudioTrack(np.clip(np.rint((samples + scale * noise) * 32767), -32768, 32767).astype(np.int16))


def spoken_rows(phonemes: Sequence[Phoneme], rows: int) -> np.ndarray:
    """Return in which rows of 20 ms a phoneme sounds: [rows] bool."""
    spoken = np.zeros(rows, bool)
    for phoneme in phonemes:
        if phoneme.symbol != SILENCE:
            spoken[round(phoneme.start_s * 50) : round(phoneme.end_s * 50)] = True
    return spoken


def compare_rows(sounds: dict[str, AudioTrack]) -> Table:
    """Return the distances of what could be heard in the pauses of each sound to real rows of the others."""
    whisper, voice = WhisperFeatures(weights.require(WHISPER)[WHISPER]), VoiceActivity()
    closed = {name: find_quiet(voice.probability(sound), len(sound)) for name, sound in sounds.items()}
    rows = {name: whisper.encode(sound).astype(np.float32) for name, sound in sounds.items()}
    everything = np.concatenate(list(rows.values()))
    mean, std = everything.mean(axis=0), everything.std(axis=0) + 1e-6
    alone = whisper.encode(AudioTrack(np.zeros(HEARD_S * SAMPLE_RATE, np.int16))).astype(np.float32)
    table = Table("sound", "rows", "as it is", "muted", "silence alone", "zeros")
    for name, quiet in closed.items():
        if quiet.sum() < FEWEST_ROWS:
            continue
        drawn = name.startswith("drawn")
        others = [other for other in sounds if other != name and not (drawn and other.startswith("drawn"))]
        if not others:
            continue
        real = (np.concatenate([rows[other] for other in others]) - mean) / std
        muted = whisper.encode(mute(sounds[name], quiet)).astype(np.float32)
        put = (rows[name][quiet], muted[quiet], alone[: len(quiet)][quiet], np.zeros_like(rows[name][quiet]))
        table.add_row(name, str(quiet.sum()), *(f"{nearest((each - mean) / std, real):.2f}" for each in put))
    return table


def nearest(rows: np.ndarray, real: np.ndarray) -> float:
    """Return the mean distance of rows to the nearest real one: the root of the mean square over all their numbers."""
    a, b = rows.reshape(len(rows), -1), real.reshape(len(real), -1)
    squares = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1)[None] - 2 * a @ b.T
    return float(np.sqrt(np.maximum(squares.min(axis=1), 0) / a.shape[1]).mean())


if __name__ == "__main__":
    sys.exit(main())
