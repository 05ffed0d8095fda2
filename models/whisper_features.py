"""Speech features of a whole soundtrack, from the encoder of OpenAI's Whisper: 50 rows per second, all layers.

Row r is centred on r * 20 ms and stands for the sound of [r * 20 ms, (r + 1) * 20 ms); video frame i at 25 fps has rows
2i and 2i + 1. A row's layers are the encoder's input (convolutions + positional embedding) and then the output of each
transformer block: tiny 5 x 384, base 7 x 512, small 13 x 768, large-v3 33 x 1280. The last one has the final `ln_post`
applied, as Hugging Face's `hidden_states` have: it is what Whisper itself calls its output. Without it single rows of
tiny.en reach 655 where the other layers stay below 8. (LatentSync's copy of Whisper leaves the last layer as it is.)

The encoder sees 30 s at a time. Joined end to end, its windows leave a seam every 30 s; a clip alone, padded to 30 s,
costs 8 times as much and hears nothing before it. So windows start every 20 s of the track, at fixed places, and of
each only the rows with at least 5 s of sound on both sides are kept (of the first, also its first 5 s). Whisper scales
a log-mel window by its own loudest point, so the places must be fixed: a row is a function of the track alone,
whichever rows are asked for. What this gives up: 1.5 times the work of windows without overlap; and a smaller seam
stays, every 20 s, because Whisper's rows also carry their place in the window.
"""

import hashlib
import importlib.util
from collections import OrderedDict
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from clock import SAMPLE_RATE
from media.audio import Samples
from models.exported import session

HOP_LENGTH = 160  # samples from one mel frame to the next
FFT_LENGTH = 400
N_SAMPLES = 30 * SAMPLE_RATE
ROWS_PER_SECOND = 50
SAMPLES_PER_ROW = 2 * HOP_LENGTH  # the encoder's second convolution halves the 100 Hz mel frames
WINDOW_ROWS = N_SAMPLES // SAMPLES_PER_ROW  # 1500
HOP_ROWS = 20 * ROWS_PER_SECOND
MARGIN_ROWS = (WINDOW_ROWS - HOP_ROWS) // 2
CACHED_WINDOWS = 2  # a clip of up to 20 s needs at most two, and the next clip starts in the second of them


class Encoder(Protocol):
    """log-mel [mels, 3000] -> [1500, layers, dim], float32."""

    mels: int
    layers: int
    dim: int

    def __call__(self, mel: np.ndarray) -> np.ndarray: ...


class WhisperFeatures:
    """The encoder of one Whisper checkpoint; the decoder is never built."""

    def __init__(self, weights: Path, device: str = "cpu") -> None:
        self._encode: Encoder
        if device == "cpu":
            self._encode = OnnxEncoder(weights)
        else:
            from models.whisper_encoder import TorchEncoder

            self._encode = TorchEncoder(weights, device)
        self.layers, self.dim = self._encode.layers, self._encode.dim
        self._filters = mel_filters(self._encode.mels)
        self._cache: OrderedDict[bytes, np.ndarray] = OrderedDict()

    def rows(self, audio: Samples, start_row: int, end_row: int) -> np.ndarray:
        """Rows [start_row, end_row) of a whole track of 16 kHz mono audio: float16 [rows, layers, dim].

        Only the windows that hold these rows are computed. Rows beyond the track's end are those of silence.
        """
        assert 0 <= start_row <= end_row
        parts = [np.empty((0, self.layers, self.dim), np.float16)]
        row = start_row
        while row < end_row:
            window = window_of(row)
            first = window * HOP_ROWS
            end = min(end_row, first + HOP_ROWS + MARGIN_ROWS)
            parts.append(self._window(audio, window)[row - first : end - first])
            row = end
        return np.concatenate(parts)

    def encode(self, audio: Samples) -> np.ndarray:
        """All rows of a track: float16 [ceil(N / 320), layers, dim]."""
        return self.rows(audio, 0, -(-len(audio) // SAMPLES_PER_ROW))

    def _window(self, audio: Samples, window: int) -> np.ndarray:
        start = window * HOP_ROWS * SAMPLES_PER_ROW
        samples = np.zeros(N_SAMPLES, np.float32)
        heard = audio[start : start + N_SAMPLES]
        samples[: len(heard)] = heard
        key = hashlib.blake2b(samples.tobytes(), digest_size=16).digest()
        if key not in self._cache:
            self._cache[key] = self._hidden_states(samples)
        self._cache.move_to_end(key)
        while len(self._cache) > CACHED_WINDOWS:
            self._cache.popitem(last=False)
        return self._cache[key]

    def _hidden_states(self, samples: np.ndarray) -> np.ndarray:
        """One window of exactly 30 s: float16 [1500, layers, dim]."""
        return self._encode(log_mel(samples, self._filters)).astype(np.float16)


class OnnxEncoder:
    """The encoder on one thread of a CPU."""

    def __init__(self, weights: Path) -> None:
        self._session = session("models.whisper_encoder", weights)
        self.mels: int = self._session.get_inputs()[0].shape[1]
        _, self.layers, self.dim = self._session.get_outputs()[0].shape

    def __call__(self, mel: np.ndarray) -> np.ndarray:
        (rows,) = self._session.run(None, {"mel": mel[None]})
        return np.asarray(rows)


def mel_filters(mels: int) -> np.ndarray:
    """[mels, 201] float32, from Whisper's own file; the package is not imported: that would load torch."""
    package: Any = importlib.util.find_spec("whisper")
    with np.load(Path(package.origin).parent / "assets" / "mel_filters.npz") as file:
        return file[f"mel_{mels}"]


def log_mel(samples: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """Return Whisper's log-mel spectrogram of 16 kHz audio [N]: float32 [mels, N / 160], at most 8 decades deep."""
    half = FFT_LENGTH // 2
    window = np.hanning(FFT_LENGTH + 1)[:-1].astype(np.float32)
    pieces = np.lib.stride_tricks.sliding_window_view(np.pad(samples, half, mode="reflect"), FFT_LENGTH)[::HOP_LENGTH]
    power = np.abs(np.fft.rfft(pieces[:-1] * window)) ** 2
    mel = np.log10(np.maximum(filters @ power.T.astype(np.float32), 1e-10))
    return ((np.maximum(mel, mel.max() - 8.0) + 4.0) / 4.0).astype(np.float32)


def window_of(row: int) -> int:
    """The window, counted in hops of 20 s from the start of the track, that a row is taken from."""
    return max(0, (row - MARGIN_ROWS) // HOP_ROWS)
