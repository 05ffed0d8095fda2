"""A warp that is known is found again, and a real voice gets the phonemes of its words in order."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

import weights
from demo import speech
from demo.recordings import (
    NAMES,
    RECORDINGS,
    ROWS_PER_SECOND,
    WHISPER,
    Name,
    carry,
    distances,
    read_recording,
    read_wav,
    warp,
)
from demo.speech import SAMPLE_RATE, SILENCE, Phoneme

ROWS = 200
SECONDS = ROWS / ROWS_PER_SECOND


def features(seed: int = 0) -> np.ndarray:
    """Something that changes as fast as speech."""
    return gaussian_filter1d(np.random.default_rng(seed).standard_normal((ROWS, 24)), 2, axis=0)


def slowed(rows: np.ndarray, when: np.ndarray) -> np.ndarray:
    """The rows at these fractional places."""
    return np.stack([np.interp(when, np.arange(len(rows)), column) for column in rows.T], axis=1)


def bent(amount: float) -> np.ndarray:
    """Where each row of the other voice comes from: slower, and now ahead, now behind."""
    at = np.linspace(0, 1, 260)
    return (at + amount * np.sin(2 * np.pi * at) / (2 * np.pi)) * (ROWS - 1)


@pytest.mark.parametrize("amount", [0.0, 0.4, -0.4])
def test_known_warp_is_found_within_a_row(amount: float):
    rows, when = features(), bent(amount)
    path = warp(distances(rows, slowed(rows, when)))
    assert np.abs(path[:, 0] - when[path[:, 1]]).max() <= 1


def test_level_and_timbre_of_the_voice_do_not_matter():
    rows, when = features(), bent(0.4)
    rng = np.random.default_rng(1)
    other = slowed(rows, when) * rng.uniform(0.3, 3, 24) + rng.standard_normal(24)
    np.testing.assert_array_equal(warp(distances(rows, other)), warp(distances(rows, slowed(rows, when))))


def test_path_leads_from_corner_to_corner_without_a_leap():
    path = warp(np.random.default_rng(0).random((30, 50)))
    assert path[0].tolist() == [0, 0]
    assert path[-1].tolist() == [29, 49]
    assert {tuple(step) for step in np.diff(path, axis=0).tolist()} <= {(1, 1), (1, 0), (0, 1)}


def test_path_is_the_cheapest():
    costs = np.array([[0.0, 9, 9, 9], [9, 0, 0, 9], [9, 9, 9, 0]])
    assert warp(costs).tolist() == [[0, 0], [1, 1], [1, 2], [2, 3]]


def test_waiting_costs_more_than_going_on():
    costs = np.array([[0.0, 0.5, 9], [9, 1.05, 0.5], [9, 9, 0]])
    assert warp(costs, penalty=0.0).tolist() == [[0, 0], [0, 1], [1, 2], [2, 2]]
    assert warp(costs, penalty=0.15).tolist() == [[0, 0], [1, 1], [2, 2]]


def test_pause_of_one_voice_only_is_a_wait_of_the_other():
    rows = features()
    path = warp(distances(rows, np.concatenate([rows[:100], np.repeat(rows[100:101], 40, axis=0), rows[101:]])))
    assert np.count_nonzero(path[:, 0] == 100) == 40


def test_phonemes_are_carried_to_where_the_path_says():
    when = bent(0.4)
    path = warp(distances(features(), slowed(features(), when)))
    phonemes = [Phoneme("ɑ", t, t + 0.5, t > 1) for t in np.arange(0, SECONDS, 0.5).tolist()]
    carried = carry(phonemes, path, SECONDS, len(when) / ROWS_PER_SECOND)
    expected_s = (
        np.interp([p.start_s * ROWS_PER_SECOND for p in phonemes], when, np.arange(len(when))) / ROWS_PER_SECOND
    )
    np.testing.assert_allclose([p.start_s for p in carried], expected_s, atol=0.03)
    assert (carried[0].start_s, carried[-1].end_s) == (0, len(when) / ROWS_PER_SECOND)
    assert [(p.symbol, p.stressed) for p in carried] == [(p.symbol, p.stressed) for p in phonemes]


@pytest.mark.parametrize("name", NAMES)
def test_recording_is_as_long_as_the_table_says_in_whole_frames(name: Name):
    path = weights.find(name)
    if path is None:
        pytest.skip(f"python weights.py fetch {name}")
    frames = len(read_wav(path)) / SAMPLE_RATE * 25
    assert RECORDINGS[name].seconds == np.ceil(frames) / 25


@pytest.fixture(scope="module")
def real() -> speech.Speech:
    pytest.importorskip("piper")
    needed = ("nist_m2", WHISPER, *speech.WEIGHTS)
    if any(weights.find(name) is None for name in needed):
        pytest.skip(f"python weights.py fetch {' '.join(needed)}")
    return read_recording("nist_m2", weights.require(*needed))


def test_real_voice_has_all_phonemes_one_after_another(real):
    assert real.phonemes[0].start_s == 0
    assert real.phonemes[-1].end_s == pytest.approx(real.seconds)
    assert all(a.end_s == pytest.approx(b.start_s, abs=0.001) for a, b in pairwise(real.phonemes))
    assert all(0 <= p.end_s - p.start_s < 1 for p in real.phonemes)
    assert [p.symbol for p in real.phonemes if p.symbol in ("p", "b", "m")] == ["b", "m", "p", "b"]


def test_real_voice_is_quiet_in_the_pause_and_loud_in_stressed_vowels(real):
    def level(phoneme: Phoneme) -> float:
        first, last = (round(t * SAMPLE_RATE) for t in (phoneme.start_s, phoneme.end_s))
        return float(np.sqrt(np.mean(real.samples[first:last] ** 2)))

    silences = [p for p in real.phonemes if p.symbol == SILENCE]
    pause = max(silences, key=lambda p: p.end_s - p.start_s)
    assert 2.3 < pause.start_s < pause.end_s < 3.2
    assert all(level(p) > 5 * level(pause) for p in real.phonemes if p.stressed)
