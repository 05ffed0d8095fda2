"""Silero VAD through ONNX Runtime, against the package's own wrapper and on sounds with a known answer."""

import tracemalloc
from pathlib import Path

import av
import numpy as np
import pytest

from media.audio import AudioTrack
from models.voice_activity import CHUNK_SAMPLES, SAMPLE_RATE, VoiceActivity, speech_spans

SPEECH = Path(__file__).parents[2] / ".." / "shared" / "media" / "real__grid_bbaf2n.mpg"


@pytest.fixture(scope="module")
def voice() -> VoiceActivity:
    return VoiceActivity()


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """Three seconds: silence, one spoken sentence, silence."""
    if not SPEECH.exists():
        pytest.skip("needs ../shared/media")
    resampler = av.AudioResampler("flt", "mono", SAMPLE_RATE)
    with av.open(str(SPEECH)) as container:
        parts = [part.to_ndarray()[0] for frame in container.decode(audio=0) for part in resampler.resample(frame)]
    return np.concatenate(parts)


def test_silence_and_tone_are_no_speech(voice: VoiceActivity) -> None:
    time_s = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    tone = (0.3 * np.sin(2 * np.pi * 440 * time_s)).astype(np.float32)
    assert voice.probability(np.zeros_like(tone)).max() < 0.2
    assert voice.probability(tone).mean() < 0.2


def test_a_spoken_sentence_is_one_stretch_of_speech(voice: VoiceActivity, speech: np.ndarray) -> None:
    probability = voice.probability(speech)
    assert probability[:5].max() < 0.5, "starts with silence"
    spans = speech_spans(probability)
    assert 1.0 < sum(end_s - start_s for start_s, end_s in spans) < 2.9


@pytest.mark.parametrize(("samples", "chunks"), [(0, 0), (1, 1), (512, 1), (513, 2)])
def test_every_started_chunk_has_a_probability(voice: VoiceActivity, samples: int, chunks: int) -> None:
    probability = voice.probability(np.zeros(samples, np.float32))
    assert probability.shape == (chunks,)
    assert probability.dtype == np.float32


def test_a_call_remembers_nothing_of_the_one_before(voice: VoiceActivity) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE).astype(np.float32)
    first = voice.probability(noise)
    voice.probability(noise[::-1].copy())
    np.testing.assert_array_equal(voice.probability(noise), first)
    np.testing.assert_array_equal(voice.probability(noise[: 10 * CHUNK_SAMPLES]), first[:10])


def test_a_track_of_integers_gives_the_same_and_is_not_copied(voice: VoiceActivity) -> None:
    samples = np.random.default_rng(2).integers(-3000, 3000, 60 * SAMPLE_RATE).astype(np.int16)
    tracemalloc.start()
    probability = voice.probability(AudioTrack(samples))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < samples.nbytes / 4
    np.testing.assert_array_equal(probability, voice.probability((samples / 32768).astype(np.float32)))


def test_the_packages_own_wrapper_gives_the_same(voice: VoiceActivity) -> None:
    silero_vad = pytest.importorskip("silero_vad")
    import torch

    noise = np.random.default_rng(1).normal(0, 0.1, SAMPLE_RATE + 100).astype(np.float32)
    expected = silero_vad.load_silero_vad(onnx=True).audio_forward(torch.from_numpy(noise), SAMPLE_RATE)
    np.testing.assert_array_equal(voice.probability(noise), expected.numpy()[0])


def test_spans_are_the_runs_above_the_threshold() -> None:
    probability = np.array([0.9, 0.1, 0.5, 0.6, 0.4, 0.7])
    assert speech_spans(probability, 0.5) == [(0.0, 0.032), (0.064, 0.128), (0.16, 0.192)]
    assert speech_spans(np.zeros(3)) == []
