"""Mouths that close when they must, and tracks that stay in their bounds."""

import json
import re
import subprocess
import sys
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

import weights
from demo.speech import (
    LEAD_S,
    SAMPLE_RATE,
    SCRIPTS,
    SILENCE,
    TRACK_RATE,
    VISEMES,
    WEIGHTS,
    Phoneme,
    Speech,
    Voice,
    allot_sentences,
    join,
    mouth_track,
    read_phonemes,
    sample_track,
    sentences,
    speak,
)


def say(symbols: str, each_s: float = 0.1) -> list[Phoneme]:
    """Phonemes of equal length between two silences."""
    symbols_s = [(SILENCE, 0.3), *((s, each_s) for s in symbols), (SILENCE, 0.3)]
    ends = np.cumsum([length for _, length in symbols_s])
    return [
        Phoneme(symbol, float(end - length), float(end)) for (symbol, length), end in zip(symbols_s, ends, strict=True)
    ]


def track_of(symbols: str, each_s: float = 0.1):
    phonemes = say(symbols, each_s)
    return mouth_track(phonemes, phonemes[-1].end_s, np.random.default_rng(0)), phonemes


@pytest.mark.parametrize("closed", "pbm")
def test_lips_meet_at_p_b_m(closed):
    track, phonemes = track_of(f"ɑ{closed}ɑ")
    middle = phonemes[2]
    inside = slice(round(middle.start_s * TRACK_RATE), round(middle.end_s * TRACK_RATE))
    assert track.opening[inside].max() < 0.02
    assert track.opening.max() > 0.5


@pytest.mark.parametrize("closed", "pbm")
@pytest.mark.parametrize("length_s", [0.02, 0.03, 0.05])
def test_no_frame_grid_misses_a_short_closure(closed, length_s):
    phonemes = [Phoneme("ɑ", 0, 0.5), Phoneme(closed, 0.5, 0.5 + length_s), Phoneme("ɑ", 0.5 + length_s, 1)]
    track = mouth_track(phonemes, 1.0, np.random.default_rng(0))
    for phase_s in np.arange(0, 0.04, 0.005):
        opening, _ = sample_track(track, np.arange(phase_s, 0.9, 0.04))
        assert opening.min() == 0.0


@pytest.mark.parametrize("consonant", "fv")
def test_teeth_on_the_lip_leave_only_a_slit(consonant):
    track, phonemes = track_of(f"ɑ{consonant}ɑ")
    middle = (phonemes[2].start_s + phonemes[2].end_s) / 2
    assert track.opening[round(middle * TRACK_RATE)] <= 0.081


def test_vowels_differ_as_they_look():
    def at_middle(vowel: str) -> tuple[float, float]:
        track, phonemes = track_of(f"t{vowel}t", 0.2)
        middle = round((phonemes[2].start_s + phonemes[2].end_s) / 2 * TRACK_RATE)
        return track.opening[middle], track.width[middle]

    (open_a, width_a), (open_i, width_i), (open_u, width_u) = map(at_middle, "ɑiu")
    assert open_a > 2 * open_i
    assert open_a > 2 * open_u
    assert width_i > width_a > width_u
    assert width_u < -0.8


def test_coarticulation_stays_between_its_targets():
    rng = np.random.default_rng(3)
    symbols = "".join(rng.choice(sorted(VISEMES), 200))
    track, _ = track_of(symbols, 0.07)
    assert track.opening.min() >= 0
    assert track.opening.max() <= 1
    assert track.width.min() >= -1
    assert track.width.max() <= 1
    assert np.abs(np.diff(track.opening)).max() < 0.35  # of full opening in 10 ms


def test_rest_is_almost_closed():
    track, _ = track_of("ɑ")
    assert track.opening[:10].max() < 0.1


def test_frame_shows_the_mouth_of_the_sound_that_comes():
    track, phonemes = track_of("ɑpɑ", 0.2)
    times = np.arange(0, 1.1, 0.04)
    opening, _ = sample_track(track, times)
    closure_s = (phonemes[2].start_s + phonemes[2].end_s) / 2
    closed = times[opening < 0.02]
    closed = closed[np.abs(closed - closure_s) < 0.2]
    assert closed.mean() == pytest.approx(closure_s - LEAD_S, abs=0.03)


def test_marks_prolong_or_stress_and_pauses_are_one_silence():
    symbols = ["^", "ˈ", "h", "ə", "l", "ˈ", "o", "ː", " ", ",", "$"]
    phonemes = read_phonemes(symbols, [10] * 11, 1000.0)
    assert [p.symbol for p in phonemes] == ["", "h", "ə", "l", "o", ""]
    assert [p.stressed for p in phonemes] == [False, False, True, False, True, False]
    assert phonemes[4].end_s == pytest.approx(0.09)
    assert all(a.end_s == pytest.approx(b.start_s) for a, b in pairwise(phonemes))


def test_join_keeps_whole_sentences_and_exact_length():
    part = Speech(np.ones(SAMPLE_RATE, np.float32), (Phoneme("ɑ", 0.0, 1.0),))
    joined = join([part] * 5, [0.5] * 5, 4.0)
    assert len(joined.samples) == 4 * SAMPLE_RATE
    assert [(p.start_s, p.end_s) for p in joined.phonemes if p.symbol] == [(0.5, 1.5), (2.0, 3.0)]
    assert joined.phonemes[-1].end_s == 4.0
    assert joined.samples[int(0.5 * SAMPLE_RATE)] == 1
    assert joined.samples[int(0.5 * SAMPLE_RATE) - 1] == 0


def test_join_leaves_out_only_the_sentence_that_does_not_fit():
    long, short = (Speech(np.ones(n * SAMPLE_RATE, np.float32), (Phoneme("ɑ", 0.0, float(n)),)) for n in (3, 1))
    joined = join([short, long, short], [0.5] * 3, 4.0)
    assert [(p.start_s, p.end_s) for p in joined.phonemes if p.symbol] == [(0.5, 1.5), (2.0, 3.0)]


def test_no_two_talkers_read_the_same_while_there_are_fresh_sentences():
    allotted = allot_sentences([12.0] * 10, np.random.default_rng(0))
    read = [text for mine in allotted for text in mine]
    assert len(read) == len(set(read))
    assert all(sum(map(len, mine)) > 12 * 20 for mine in allotted)
    assert len(set(sentences())) == len(sentences())


def test_scripts_are_long_enough_and_share_no_sentence():
    counts = {script: len(sentences(script)) for script in SCRIPTS}
    assert counts["described"] == 120
    assert counts["train"] >= 600
    assert counts["test"] == 100
    said = Counter(" ".join(re.findall(r"[a-z']+", text.lower())) for script in SCRIPTS for text in sentences(script))
    assert [text for text, count in said.items() if count > 1] == []


@pytest.mark.parametrize("script", ["train", "test"])
def test_new_sentences_are_of_six_to_sixteen_words(script):
    assert [text for text in sentences(script) if not 6 <= len(text.split()) <= 16] == []


@pytest.mark.parametrize(("script", "least"), [("train", 100), ("test", 15)])
def test_scripts_have_every_mouth_shape(script, least):
    pytest.importorskip("piper")
    child = (
        "import json, sys; from piper.phonemize_espeak import EspeakPhonemizer; phonemizer = EspeakPhonemizer();"
        "print(json.dumps([phonemizer.phonemize('en-us', text) for text in json.load(sys.stdin)]))"
    )
    request = json.dumps(sentences(script))
    done = subprocess.run([sys.executable, "-c", child], input=request, text=True, capture_output=True, check=True)
    counts = Counter(symbol for text in json.loads(done.stdout) for part in text for symbol in part)
    assert {symbol: counts[symbol] for symbol in VISEMES if counts[symbol] < least} == {}


@pytest.fixture(scope="module")
def voice_files():
    pytest.importorskip("piper")
    if any(weights.find(name) is None for name in WEIGHTS):
        pytest.skip("python weights.py fetch piper_joe_voice piper_joe_voice_json")
    return weights.require(*WEIGHTS)


def test_voice_gives_equal_samples_for_equal_seeds_and_times_that_add_up(voice_files):
    text = ["Put the map back."]
    (once,), (again,), (other,) = (speak(text, Voice(1.2, 1.0), voice_files, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(once.samples, again.samples)
    assert not np.array_equal(once.samples[:1000], other.samples[:1000])
    assert once.phonemes[0].start_s == 0
    assert once.phonemes[-1].end_s == pytest.approx(once.seconds, abs=0.001)
    assert [p.symbol for p in once.phonemes if p.symbol in ("p", "m", "b")] == ["p", "m", "p", "b"]


def test_higher_voice_keeps_its_pace(voice_files):
    text = ["The baker opens his shop long before the sun comes up."]
    (low,), (high,) = (speak(text, Voice(pitch, 1.0), voice_files, 1) for pitch in (1.0, 1.3))
    assert high.seconds == pytest.approx(low.seconds, rel=0.15)
    assert _centroid(high.samples) > 1.1 * _centroid(low.samples)


def _centroid(samples: np.ndarray) -> float:
    """The mean frequency below 4 kHz."""
    spectrum = np.abs(np.fft.rfft(samples)) ** 2
    frequencies = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE)
    speech = frequencies < 4000
    return float((spectrum * frequencies)[speech].sum() / spectrum[speech].sum())
