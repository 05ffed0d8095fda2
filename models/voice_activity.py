"""Speech probability of a soundtrack, from Silero VAD.

The model is the ONNX file inside the installed silero-vad package (MIT), run by ONNX Runtime on one thread. The package
itself is not imported: that would load torch and set its thread count. 16 kHz only.
"""

import importlib.util
from pathlib import Path

import numpy as np
import onnxruntime

from clock import SAMPLE_RATE
from media.audio import Samples, cut
from models.onnx_session import one_thread

CHUNK_SAMPLES = 512  # 32 ms: the only length the model takes at 16 kHz
CONTEXT_SAMPLES = 64  # of the chunk before, put in front of each chunk
STATE_SHAPE = (2, 1, 128)


class VoiceActivity:
    """Silero VAD; every call starts from silence, so that a result depends on nothing but its own audio."""

    def __init__(self) -> None:
        self._session = onnxruntime.InferenceSession(_bundled_model(), one_thread(), providers=["CPUExecutionProvider"])

    def probability(self, audio: Samples) -> np.ndarray:
        """The probability of speech per chunk of 32 ms of 16 kHz mono audio [N]: float32 [ceil(N / 512)].

        The last chunk is filled up with zeros. Of a long track no copy is made.
        """
        chunks = -(-len(audio) // CHUNK_SAMPLES)
        state = np.zeros(STATE_SHAPE, np.float32)
        rate = np.array(SAMPLE_RATE, np.int64)
        probability = np.empty(chunks, np.float32)
        for i in range(chunks):
            chunk = cut(audio, i * CHUNK_SAMPLES - CONTEXT_SAMPLES, CONTEXT_SAMPLES + CHUNK_SAMPLES)[None]
            output, state = self._session.run(None, {"input": chunk, "state": state, "sr": rate})
            probability[i] = np.asarray(output).item()
        return probability


def speech_spans(probability: np.ndarray, threshold: float = 0.5) -> list[tuple[float, float]]:
    """The runs of chunks with at least this probability: [(start_s, end_s)], not smoothed and not joined."""
    speech = np.concatenate([[False], probability >= threshold, [False]])
    edges = np.flatnonzero(np.diff(speech.astype(np.int8))) * CHUNK_SAMPLES / SAMPLE_RATE
    return [(float(start), float(end)) for start, end in edges.reshape(-1, 2)]


def _bundled_model() -> str:
    package = importlib.util.find_spec("silero_vad")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("models/voice_activity.py needs the package silero-vad (pip install silero-vad)")
    return str(Path(package.origin).with_name("data") / "silero_vad.onnx")
