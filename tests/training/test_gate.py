"""The rows that the network hears: those of the sound where somebody speaks, those of silence elsewhere."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from media.audio import AudioTrack, read_sound
from models.voice_activity import VoiceActivity
from pipelines import ROOT
from training.gate import Gate, find_quiet, mute, ramp
from training.generator import Generator
from training.plan import Run

SENTENCE = ROOT.parent / "shared" / "media" / "real__grid_bbaf2n.mpg"  # a voice from 0.95 s to 2.12 s, by its corpus
ROW, CHUNK = 320, 512  # samples


class Loudness:
    """Stands in for Whisper: two layers of one number, the sum of a row's samples and of all within 10 rows.

    Like it, it has rows beyond the end of a sound.
    """

    def rows(self, audio: AudioTrack, start_row: int, end_row: int) -> np.ndarray:
        samples = np.zeros(ROW * max(end_row, -(-len(audio) // ROW)), np.float32)
        samples[: len(audio)] = audio[0 : len(audio)]
        sums = np.abs(samples.reshape(-1, ROW)).sum(axis=1)
        wide = np.convolve(sums, np.ones(21), "same")
        return np.stack([sums, wide], axis=1)[start_row:end_row, :, None].astype(np.float16)


class Spoken:
    """Stands in for voice activity: speech in one stretch of chunks of 32 ms."""

    def __init__(self, start: int, end: int) -> None:
        self.start, self.end = start, end

    def probability(self, audio: AudioTrack) -> np.ndarray:
        chunks = np.arange(-(-len(audio) // CHUNK))
        return ((self.start <= chunks) & (chunks < self.end)).astype(np.float32)


def noise(seconds: float) -> AudioTrack:
    return AudioTrack(np.random.default_rng(0).integers(-9000, 9000, round(16000 * seconds)).astype(np.int16))


def heard(sound: AudioTrack, gate: Gate | None, start: int = 0, end: int = 50) -> np.ndarray:
    """What the generator gives to the network for output frames [start, end): [rows, 2, 1]."""
    generator: Any = SimpleNamespace(whisper=Loudness(), window_frames=2, device=torch.device("cpu"))
    return Generator.whisper_rows(generator, sound, Run(start, end), gate)[0].numpy()


def gate_of(sound: AudioTrack, start: int, end: int) -> Gate | None:
    voice: Any = Spoken(start, end)
    return Gate.of(sound, voice)


def test_rows_change_exactly_where_nobody_speaks() -> None:
    sound = noise(2.0)
    gate = gate_of(sound, 25, 38)  # 0.8 to 1.216 s: with 0.1 s on both sides rows 35 to 65
    assert gate is not None
    before, after = heard(sound, None), heard(sound, gate)
    beyond = 4  # rows of zeros on both sides, as without a gate
    changed = (before != after).any(axis=(1, 2))
    assert changed[beyond : beyond + 35].all() and changed[beyond + 66 : -beyond].all()
    assert not changed[beyond + 35 : beyond + 66].any()
    assert not changed[:beyond].any() and not changed[-beyond:].any()
    np.testing.assert_array_equal(after[beyond : beyond + 32, 0], 0)  # silence, 3 rows before it is open


def test_silence_is_that_of_this_sound_and_reached_by_a_ramp() -> None:
    sound = noise(2.0)
    gate = gate_of(sound, 25, 38)
    assert gate is not None
    silent, loud = Loudness().rows(gate.muted, 0, 100).astype(np.float32), Loudness().rows(sound, 0, 100)
    found = gate.rows(Loudness(), sound, 0, 100)  # pyright: ignore[reportArgumentType]
    np.testing.assert_array_equal(found[:32], silent[:32])
    assert silent[30, 1] > 0  # a row near the voice hears it
    np.testing.assert_allclose(found[32:35, 0], [[0.25], [0.5], [0.75]] * loud[32:35, 0], rtol=1e-3)


@pytest.mark.parametrize(("start", "end"), [(0, 63), (8, 63), (0, 52)])
def test_a_sound_that_is_all_speech_has_no_gate(start: int, end: int) -> None:
    """0.3 s without a voice, and 0.1 s at its edge, are a pause between words."""
    assert gate_of(noise(2.0), start, end) is None


def test_chunks_hear_the_same_however_they_are_cut() -> None:
    sound = noise(2.0)
    gate = gate_of(sound, 25, 38)
    whole, part = heard(sound, gate), heard(sound, gate, 13, 29)
    np.testing.assert_array_equal(part, whole[26 : 26 + len(part)])


@pytest.mark.parametrize("samples", [32000 - 320, 32000 - 319, 32000 - 1])
def test_a_frame_that_the_sound_does_not_fill_is_gated_to_its_end(samples: int) -> None:
    sound = AudioTrack(noise(2.0).samples[:samples])
    gate = gate_of(sound, 25, 38)
    assert gate is not None
    found = heard(sound, gate)
    assert len(found) == 108
    np.testing.assert_array_equal(found[-12:, 0], 0)


def test_a_pause_in_a_sentence_stays() -> None:
    speech = np.ones(60, np.float32)
    speech[20:35] = 0  # 0.48 s: without the margins 0.28 s
    assert not find_quiet(speech, 60 * CHUNK).any()
    speech[20:38] = 0
    assert find_quiet(speech, 60 * CHUNK).sum() == 18 * CHUNK // ROW - 10


def test_a_ramp_lies_inside_what_is_closed() -> None:
    closed = np.array([0, 0, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1], bool)
    expected = [1, 1, 0.75, 0.5, 0.25, 0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25]
    assert ramp(closed).tolist() == expected
    assert ramp(np.ones(5, bool)).tolist() == [0] * 5
    assert ramp(np.zeros(5, bool)).tolist() == [1] * 5


def test_a_last_row_that_is_not_full_is_muted_too() -> None:
    assert mute(AudioTrack(np.ones(330, np.int16)), np.array([False, True])).samples.sum() == 320


def test_a_spoken_sentence_is_heard_and_the_room_around_it_is_not() -> None:
    if not Path(SENTENCE).exists():
        pytest.skip("needs ../shared/media")
    sound = read_sound(SENTENCE)
    gate = Gate.of(sound, VoiceActivity())
    assert gate is not None
    assert (gate.heard[48:106] == 1).all()
    assert (gate.heard[:38] == 0).all() and (gate.heard[125:] == 0).all()
    assert Gate.of(AudioTrack(sound.samples[16000:33920]), VoiceActivity()) is None
