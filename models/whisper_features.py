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
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from whisper.audio import HOP_LENGTH, N_SAMPLES, log_mel_spectrogram
from whisper.model import AudioEncoder, ModelDimensions

from media.audio import Samples

ROWS_PER_SECOND = 50
SAMPLES_PER_ROW = 2 * HOP_LENGTH  # the encoder's second convolution halves the 100 Hz mel frames
WINDOW_ROWS = N_SAMPLES // SAMPLES_PER_ROW  # 1500
HOP_ROWS = 20 * ROWS_PER_SECOND
MARGIN_ROWS = (WINDOW_ROWS - HOP_ROWS) // 2
CACHED_WINDOWS = 2  # a clip of up to 20 s needs at most two, and the next clip starts in the second of them


class WhisperFeatures:
    """The encoder of one Whisper checkpoint; the decoder is never built."""

    def __init__(self, weights: Path, device: str = "cpu") -> None:
        checkpoint = torch.load(weights, map_location="cpu", weights_only=True, mmap=True)
        dims = ModelDimensions(**checkpoint["dims"])
        encoder = AudioEncoder(dims.n_mels, dims.n_audio_ctx, dims.n_audio_state, dims.n_audio_head, dims.n_audio_layer)
        state = checkpoint["model_state_dict"]
        encoder.load_state_dict(
            {name.removeprefix("encoder."): value for name, value in state.items() if name.startswith("encoder.")}
        )
        self.layers: int = dims.n_audio_layer + 1
        self.dim: int = dims.n_audio_state
        self._mels = dims.n_mels
        self._device = device
        self._encoder = encoder.float().eval().to(device)
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

    @torch.inference_mode()
    def _hidden_states(self, samples: np.ndarray) -> np.ndarray:
        """One window of exactly 30 s: float16 [1500, layers, dim]."""
        encoder = self._encoder
        mel = log_mel_spectrogram(torch.from_numpy(samples).to(self._device), self._mels)[None]
        x = functional.gelu(encoder.conv1(mel))
        x = functional.gelu(encoder.conv2(x)).permute(0, 2, 1) + encoder.get_buffer("positional_embedding")
        states = [x]
        for block in encoder.blocks:
            states.append(block(states[-1]))
        states[-1] = encoder.ln_post(states[-1])
        return torch.cat(states).permute(1, 0, 2).half().cpu().numpy()


def window_of(row: int) -> int:
    """The window, counted in hops of 20 s from the start of the track, that a row is taken from."""
    return max(0, (row - MARGIN_ROWS) // HOP_ROWS)
