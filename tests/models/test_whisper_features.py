"""Rows that are Whisper's own, in the right place, and a function of the track alone."""

from pathlib import Path

import av
import numpy as np
import pytest
import torch
import whisper
from whisper.model import ModelDimensions, Whisper

import weights
from models.whisper_encoder import HiddenStates, TorchEncoder
from models.whisper_features import CACHED_WINDOWS, SAMPLES_PER_ROW, WhisperFeatures, log_mel, mel_filters, window_of

SAMPLE_RATE = 16_000
WINDOW_SAMPLES = 30 * SAMPLE_RATE
SPEECH = Path(__file__).parents[2] / ".." / "shared" / "media" / "real__edtalk_TedLieu_60s.mp4"
SEAM = 1250  # the first row of the second window: 25 s


@pytest.fixture(scope="module")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in OpenAI's layout with two narrow blocks and random weights."""
    dims = {"n_mels": 80, "n_audio_ctx": 1500, "n_audio_state": 32, "n_audio_head": 2, "n_audio_layer": 2}
    dims |= {"n_vocab": 16, "n_text_ctx": 8, "n_text_state": 32, "n_text_head": 2, "n_text_layer": 1}
    torch.manual_seed(0)
    model = Whisper(ModelDimensions(**dims))
    torch.nn.init.normal_(model.decoder.positional_embedding)
    path = tmp_path_factory.mktemp("whisper") / "small.pt"
    torch.save({"dims": dims, "model_state_dict": model.half().state_dict()}, path)
    return path


@pytest.fixture
def small(small_checkpoint: Path) -> WhisperFeatures:
    return WhisperFeatures(small_checkpoint)


@pytest.fixture(scope="module")
def tiny_weights() -> Path:
    path = weights.find("whisper_tiny_en")
    if path is None:
        pytest.skip("python weights.py fetch whisper_tiny_en")
    return path


@pytest.fixture(scope="module")
def tiny(tiny_weights: Path) -> WhisperFeatures:
    return WhisperFeatures(tiny_weights)


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    if not SPEECH.exists():
        pytest.skip("needs ../shared/media")
    resampler = av.AudioResampler("flt", "mono", SAMPLE_RATE)
    with av.open(str(SPEECH)) as container:
        parts = [part.to_ndarray()[0] for frame in container.decode(audio=0) for part in resampler.resample(frame)]
    return np.concatenate(parts)


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.05, round(seconds * SAMPLE_RATE)).astype(np.float32)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def test_the_last_layer_is_whispers_own_output(tiny: WhisperFeatures, tiny_weights: Path) -> None:
    audio = noise(10)
    model = whisper.load_model(str(tiny_weights), device="cpu")
    mel = whisper.log_mel_spectrogram(whisper.pad_or_trim(audio))
    with torch.inference_mode():
        expected = model.encoder(mel[None])[0, :500].numpy()
    rows = tiny.encode(audio)
    assert rows.shape == (500, 5, 384) and rows.dtype == np.float16
    np.testing.assert_allclose(rows[:, -1].astype(np.float32), expected, atol=0.01, rtol=0.002)


def test_without_torch_the_rows_are_torchs(tiny: WhisperFeatures, tiny_weights: Path) -> None:
    mel = log_mel(noise(30), mel_filters(80))
    np.testing.assert_allclose(mel, whisper.log_mel_spectrogram(noise(30)).numpy(), atol=2e-5)
    with_torch = TorchEncoder(tiny_weights, "cpu")
    assert (tiny.layers, tiny.dim) == (with_torch.layers, with_torch.dim) == (5, 384)
    ours, torchs = tiny._encode(mel), with_torch(mel)
    assert np.isclose(ours, torchs, atol=1e-3, rtol=1e-3).mean() > 0.99999  # one of 2.9 million differed by .0044
    np.testing.assert_allclose(ours, torchs, atol=1e-2, rtol=1e-3)


def test_the_first_layer_is_the_input_with_its_positions(small: WhisperFeatures, small_checkpoint: Path) -> None:
    mel = whisper.log_mel_spectrogram(np.zeros(WINDOW_SAMPLES, np.float32))[None]
    encoder = HiddenStates(small_checkpoint).encoder
    with torch.inference_mode():
        x = torch.nn.functional.gelu(encoder.conv2(torch.nn.functional.gelu(encoder.conv1(mel))))[0].T
        expected = x + encoder.get_buffer("positional_embedding")
        block = next(iter(encoder.blocks))(expected[None])[0]
    rows = small.rows(np.zeros(SAMPLE_RATE, np.float32), 0, 1250).astype(np.float32)
    np.testing.assert_allclose(rows[:, 0], expected[:1250].numpy(), atol=2e-3)
    np.testing.assert_allclose(rows[:, 1], block[:1250].numpy(), atol=4e-3)


@pytest.mark.parametrize("row", [100, 333, 1000])
def test_a_sound_moves_the_rows_of_its_own_time(tiny: WhisperFeatures, row: int) -> None:
    quiet = noise(24)
    loud = quiet.copy()
    loud[row * SAMPLES_PER_ROW : (row + 1) * SAMPLES_PER_ROW] += noise(0.02, seed=1)
    change = np.abs(tiny.encode(loud).astype(np.float64) - tiny.encode(quiet)).sum(axis=2)
    touched = np.flatnonzero(change[:, 0])
    assert touched.min() >= row - 1 and touched.max() <= row + 2
    # A row is centred on its start, and the burst on the middle of its row.
    centre = (change[touched, 0] * touched).sum() / change[touched, 0].sum()
    assert centre == pytest.approx(row + 0.5, abs=0.25)
    assert all(row - 1 <= layer.argmax() <= row + 1 for layer in change.T)


def test_rows_do_not_depend_on_which_are_asked_for(small_checkpoint: Path) -> None:
    audio = noise(61)
    whole = WhisperFeatures(small_checkpoint).encode(audio)
    assert whole.shape == (3050, 3, 32)
    for start, end in [(0, 10), (1240, 1260), (1249, 2251), (3000, 3050), (700, 700)]:
        np.testing.assert_array_equal(WhisperFeatures(small_checkpoint).rows(audio, start, end), whole[start:end])


def test_rows_do_not_depend_on_far_sound(small: WhisperFeatures) -> None:
    audio = noise(70)
    changed = audio.copy()
    changed[50 * SAMPLE_RATE :] *= 9
    np.testing.assert_array_equal(small.rows(audio, 0, 2250), small.rows(changed, 0, 2250))


@pytest.mark.parametrize(("row", "window"), [(0, 0), (1249, 0), (1250, 1), (2249, 1), (2250, 2), (250 + 7000, 7)])
def test_windows_start_every_20_s_and_keep_their_middle(row: int, window: int) -> None:
    assert window_of(row) == window


def test_only_needed_windows_are_computed_and_few_are_kept(
    small: WhisperFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = []
    hidden_states = small._hidden_states
    monkeypatch.setattr(small, "_hidden_states", lambda samples: computed.append(1) or hidden_states(samples))
    audio = noise(100)
    small.rows(audio, 2300, 2400)
    small.rows(audio, 2500, 2600)
    assert len(computed) == 1
    small.rows(audio, 3200, 3300)
    assert len(computed) == 2  # both sides of a seam, and the first of them is known
    small.encode(audio)
    assert len(small._cache) == CACHED_WINDOWS


def test_the_cache_does_not_confuse_two_tracks(small: WhisperFeatures) -> None:
    one, other = noise(5), noise(5, seed=1)
    first = small.encode(one)
    assert not np.array_equal(small.encode(other), first)
    np.testing.assert_array_equal(small.encode(one), first)


def test_rows_beyond_the_end_are_those_of_silence(small: WhisperFeatures) -> None:
    audio = noise(4.51)
    assert len(small.encode(audio)) == 226
    padded = np.concatenate([audio, np.zeros(SAMPLE_RATE, np.float32)])
    np.testing.assert_array_equal(small.rows(audio, 200, 270), small.rows(padded, 200, 270))


def test_a_seam_is_smaller_than_between_windows_end_to_end(tiny: WhisperFeatures, speech: np.ndarray) -> None:
    """Against a window centred on the seam; measured: ours .92 .95 .93 (blocks 2, 3, 4), end to end .78 .75 .57."""

    def around(seam: int) -> np.ndarray:
        start = (seam - 750) * SAMPLES_PER_ROW
        return tiny._hidden_states(speech[start : start + WINDOW_SAMPLES])[745:755]

    ours = tiny.rows(speech, SEAM - 5, SEAM + 5)
    first = tiny._hidden_states(speech[:WINDOW_SAMPLES])
    second = tiny._hidden_states(np.resize(speech[WINDOW_SAMPLES:], WINDOW_SAMPLES))
    end_to_end = np.concatenate([first[-5:], second[:5]])
    for layer in (2, 3):
        assert cosine(ours[:, layer], around(SEAM)[:, layer]) > 0.9
        assert cosine(end_to_end[:, layer], around(1500)[:, layer]) < 0.85
