"""Sentences -> a voice with exact phoneme times -> how open and how wide a mouth is at every moment.

The voice tells the length of each phoneme in samples, so no aligner is needed. The mouth follows a rule model: every
phoneme pulls opening and width towards its own target, dominant ones (lips that must meet) more, rounded ones longer.
It gives up what people do beyond rules: this mouth is more regular than a real one.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import resample_poly

WEIGHTS = ("piper_joe_voice", "piper_joe_voice_json")
SAMPLE_RATE = 48_000
# What the talkers read: `described` in the corpus of corpus.yaml, `train` and `test` where a speaker model is trained
# and measured. No sentence is in two of them.
SCRIPTS = {
    "described": Path(__file__).with_name("sentences.txt"),
    "train": Path(__file__).with_name("sentences_train.txt"),
    "test": Path(__file__).with_name("sentences_test.txt"),
}
NOISE = 0.667  # piper's own default for this voice
LEVEL = 0.5  # peak of a sentence
LETTERS_PER_SECOND = 20.0  # of this voice, without pauses: 17 to 21

TRACK_RATE = 100
# From the moment a frame is first shown to that of the sound its mouth makes: half a frame at 25 fps to its middle, and
# 60 ms because mouths go before the sound. Calibrated with a sync probe fitted on real people (offset 0).
LEAD_S = 0.080
SILENCE_S = 0.06  # a shorter pause does not close the mouth
STRESSED, UNSTRESSED, VARIETY = 1.15, 0.85, 0.12
OPENING_GAIN, WIDTH_GAIN = 1.5, 1.4
BILABIAL, LABIODENTAL = "pbm", "fv"
LABIODENTAL_CEILING = 0.08

# phoneme: opening, width, dominance of the opening, dominance of the width. Opening 1 = wide open, width -1 = rounded.
VISEMES = {
    "i": (0.32, 0.7, 1, 1), "ɪ": (0.34, 0.35, 0.8, 0.7), "ᵻ": (0.28, 0.2, 0.6, 0.5), "e": (0.45, 0.5, 1, 1),
    "ɛ": (0.55, 0.4, 1, 0.8), "æ": (0.85, 0.4, 1.2, 0.9), "a": (0.9, 0.2, 1.2, 0.8), "ɑ": (0.95, -0.05, 1.2, 0.8),
    "ɔ": (0.68, -0.55, 1.1, 1.1), "o": (0.5, -0.8, 1.1, 1.3), "ʊ": (0.3, -0.75, 0.9, 1.2), "u": (0.2, -1, 1, 1.5),
    "ʌ": (0.55, 0, 1, 0.6), "ə": (0.34, 0, 0.5, 0.4), "ɐ": (0.5, 0, 0.8, 0.5), "ɜ": (0.35, -0.45, 1, 1),
    "ɚ": (0.3, -0.4, 0.8, 0.9), "w": (0.1, -1, 1.4, 1.8), "ɹ": (0.22, -0.5, 0.8, 1), "j": (0.25, 0.4, 0.8, 0.8),
    "l": (0.35, 0.05, 0.5, 0.4), "p": (0, -0.05, 3, 0.3), "b": (0, -0.05, 3, 0.3), "m": (0, -0.05, 3, 0.3),
    "f": (0.07, 0.1, 2.2, 0.6), "v": (0.08, 0.1, 2, 0.6), "θ": (0.2, 0.1, 1.1, 0.5), "ð": (0.2, 0.1, 1, 0.4),
    "t": (0.17, 0.15, 1, 0.4), "d": (0.18, 0.15, 1, 0.4), "ɾ": (0.25, 0.1, 0.6, 0.3), "n": (0.2, 0.1, 0.9, 0.4),
    "s": (0.13, 0.3, 1.4, 0.8), "z": (0.14, 0.3, 1.3, 0.8), "ʃ": (0.16, -0.65, 1.4, 1.4), "ʒ": (0.16, -0.65, 1.3, 1.4),
    "k": (0.28, 0.1, 0.6, 0.3), "ɡ": (0.28, 0.1, 0.6, 0.3), "ŋ": (0.3, 0.1, 0.6, 0.3), "h": (0.4, 0, 0.2, 0.2),
}  # fmt: skip
REST = (0.02, 0.0, 1.0, 0.5)
VOWELS = frozenset("iɪᵻeɛæaɑɔoʊuʌəɐɜɚ")
SILENCE = ""
STRESS_MARKS = "ˈˌ"
PROLONGING = "ːˑ \u0303\u0329"  # length marks, the space between words, nasal and syllabic marks


@dataclass(frozen=True)
class Voice:
    """How the one registry voice is made into several people: `pitch` moves tone and formants together."""

    pitch: float = 1.0
    length_scale: float = 1.0  # above 1 speaks slower


@dataclass(frozen=True)
class Phoneme:
    symbol: str  # a key of VISEMES, or SILENCE
    start_s: float
    end_s: float
    stressed: bool = False


@dataclass(frozen=True)
class Speech:
    samples: np.ndarray  # [N] float32 at SAMPLE_RATE
    phonemes: tuple[Phoneme, ...]

    @property
    def seconds(self) -> float:
        return len(self.samples) / SAMPLE_RATE


@dataclass(frozen=True)
class MouthTrack:
    """Opening 0..1 and width -1..1 at TRACK_RATE, the times where lips must meet, and where stress falls."""

    opening: np.ndarray
    width: np.ndarray
    closures_s: tuple[float, ...]
    stresses_s: tuple[float, ...]


def sentences(script: str = "described") -> list[str]:
    """Return the sentences of one of SCRIPTS, written for this project."""
    return SCRIPTS[script].read_text(encoding="utf-8").splitlines()


def allot_sentences(seconds: Sequence[float], rng: np.random.Generator, script: str = "described") -> list[list[str]]:
    """Sentences for each of several talkers, enough for their seconds; none is used twice while there are fresh ones.

    Two talkers with the same text would be in step with each other's sound: no use as a wrong voice.
    """
    texts = sentences(script)
    fresh: list[str] = []
    allotted = []
    for wanted_s in seconds:
        mine: list[str] = []
        while sum(map(len, mine)) < (wanted_s + 1) * LETTERS_PER_SECOND:
            fresh = fresh or [texts[i] for i in rng.permutation(len(texts))]
            mine.append(fresh.pop())
        allotted.append(mine)
    return allotted


def speak(texts: Sequence[str], voice: Voice, weight_files: dict[str, Path], seed: int) -> list[Speech]:
    """Each sentence on its own, from first to last sample. Runs piper-tts as a process; same seed, same samples."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "speech.npz"
        request = {
            "voice": str(weight_files["piper_joe_voice"]),
            "config": str(weight_files["piper_joe_voice_json"]),
            "output": str(output),
            "seed": seed,
            "noise": NOISE,
            # Spoken slower by the pitch factor and then played faster: higher voice, same pace.
            "sentences": [{"text": text, "length_scale": voice.length_scale * voice.pitch} for text in texts],
        }
        child = [sys.executable, str(Path(__file__).with_name("piper_child.py"))]
        done = subprocess.run(child, input=json.dumps(request), text=True, capture_output=True, check=False)  # noqa: S603 our own file, no shell
        if done.returncode != 0:
            raise RuntimeError(
                f"piper-tts failed (pip install piper-tts onnx?): {done.stderr.strip().splitlines()[-1:]}"
            )
        with np.load(output, allow_pickle=False) as arrays:
            return [_to_speech(arrays, i, voice) for i in range(len(texts))]


def _to_speech(arrays, i: int, voice: Voice) -> Speech:
    rate = int(arrays["sample_rate"]) * voice.pitch
    ratio = Fraction(SAMPLE_RATE / rate).limit_denominator(2000)
    samples = resample_poly(arrays[f"sound_{i}"].astype(np.float64) / 32768, ratio.numerator, ratio.denominator)
    phonemes = read_phonemes(arrays[f"phonemes_{i}"].tolist(), arrays[f"samples_{i}"].tolist(), rate)
    return Speech((LEVEL * samples).astype(np.float32), tuple(phonemes))


def read_phonemes(symbols: Sequence[str], lengths: Sequence[int], rate: float) -> list[Phoneme]:
    """espeak's symbols with their lengths in samples -> phonemes that follow each other without gaps.

    A stress mark belongs to the next vowel; a length mark and a space prolong the phoneme before; all else is silence.
    """
    phonemes: list[Phoneme] = []
    position, stressed = 0, False
    for symbol, length in zip(symbols, lengths, strict=True):
        start_s, end_s = position / rate, (position + length) / rate
        position += length
        stressed = stressed or symbol in STRESS_MARKS
        if symbol in PROLONGING + STRESS_MARKS and phonemes:
            last = phonemes[-1]
            phonemes[-1] = Phoneme(last.symbol, last.start_s, end_s, last.stressed)
        elif symbol in VISEMES:
            is_vowel = symbol in VOWELS
            phonemes.append(Phoneme(symbol, start_s, end_s, stressed and is_vowel))
            stressed = stressed and not is_vowel
        elif phonemes and phonemes[-1].symbol == SILENCE:
            phonemes[-1] = Phoneme(SILENCE, phonemes[-1].start_s, end_s)
        else:
            phonemes.append(Phoneme(SILENCE, start_s, end_s))
    return phonemes


def join(parts: Sequence[Speech], pauses_s: Sequence[float], seconds: float) -> Speech:
    """Sentences on a track of exactly `seconds`, a pause before each; those that would not fit whole are left out."""
    samples = np.zeros(round(seconds * SAMPLE_RATE), np.float32)
    phonemes: list[Phoneme] = []
    position = 0.0
    for part, pause_s in zip(parts, pauses_s, strict=True):
        start_s = position + pause_s
        if start_s + part.seconds > seconds - 0.1:
            continue
        phonemes.append(Phoneme(SILENCE, position, start_s))
        first = round(start_s * SAMPLE_RATE)
        samples[first : first + len(part.samples)] = part.samples
        phonemes += [Phoneme(p.symbol, p.start_s + start_s, p.end_s + start_s, p.stressed) for p in part.phonemes]
        position = start_s + part.seconds
    phonemes.append(Phoneme(SILENCE, position, seconds))
    return Speech(samples, tuple(phonemes))


def mouth_track(phonemes: Sequence[Phoneme], seconds: float, rng: np.random.Generator, gain: float = 1.0) -> MouthTrack:
    """Opening and width over time by coarticulation (after Cohen and Massaro 1993); lips really meet at p b m."""
    times = np.arange(int(np.ceil(seconds * TRACK_RATE)) + 1) / TRACK_RATE
    variety = 1 + VARIETY * rng.standard_normal(len(phonemes))
    pulls = np.zeros((4, len(times)))  # weighted opening, its weights, weighted width, its weights
    for phoneme, factor in zip(phonemes, variety, strict=True):
        duration = phoneme.end_s - phoneme.start_s
        if phoneme.symbol == SILENCE and duration <= SILENCE_S:
            continue
        opening, width, opening_weight, width_weight = VISEMES.get(phoneme.symbol, REST)
        if opening > 0.25:
            opening *= factor * (STRESSED if phoneme.stressed else UNSTRESSED)
        centre = (phoneme.start_s + phoneme.end_s) / 2
        outside = np.maximum(0, np.abs(times - centre) - (0.25 if phoneme.symbol else 0.45) * duration)
        opening_pull = opening_weight * np.exp(-((outside / (0.35 * min(duration, 0.4) + 0.018)) ** 1.3))
        width_pull = width_weight * np.exp(-((outside / (0.45 * min(duration, 0.4) + 0.040)) ** 1.3))
        pulls += opening_pull * opening, opening_pull, width_pull * width, width_pull
    opening = OPENING_GAIN * gain * pulls[0] / np.maximum(pulls[1], 1e-6)
    width = np.clip(WIDTH_GAIN * pulls[2] / np.maximum(pulls[3], 1e-6), -1, 1)
    opening = np.clip(gaussian_filter1d(opening, 0.022 * TRACK_RATE), 0, 1)
    width = gaussian_filter1d(width, 0.035 * TRACK_RATE)
    for phoneme in phonemes:
        if phoneme.symbol and phoneme.symbol in BILABIAL + LABIODENTAL:
            floor = 0.0 if phoneme.symbol in BILABIAL else LABIODENTAL_CEILING
            opening = np.minimum(opening, _ceiling(times, phoneme, floor))
    closures = tuple((p.start_s + p.end_s) / 2 for p in phonemes if p.symbol and p.symbol in BILABIAL)
    stresses = tuple((p.start_s + p.end_s) / 2 for p in phonemes if p.stressed)
    return MouthTrack(opening.astype(np.float32), width.astype(np.float32), closures, stresses)


def _ceiling(times: np.ndarray, phoneme: Phoneme, floor: float) -> np.ndarray:
    """An upper bound that falls to `floor` in the 70 ms before the phoneme and is lifted in the 60 ms after it."""
    before = (phoneme.start_s - 0.01 - times) / 0.07
    after = (times - (phoneme.end_s - 0.008)) / 0.06
    lifted = np.clip(np.maximum(before, after), 0, 1)
    return floor + (1 - floor) * lifted * lifted * (3 - 2 * lifted)


def sample_track(track: MouthTrack, frame_times_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Opening and width [T] of the frames shown from these times on; each p b m closes at least its nearest frame."""
    times = frame_times_s + LEAD_S
    grid = np.arange(len(track.opening)) / TRACK_RATE
    opening, width = np.interp(times, grid, track.opening), np.interp(times, grid, track.width)
    for closure_s in track.closures_s:
        nearest = int(np.abs(times - closure_s).argmin())
        opening[nearest] = 0.0
    return opening, width
