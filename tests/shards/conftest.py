"""Small real samples: an H.264 clip, a FLAC tone, arrays of the right shape."""

import io
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest

from shards.sample import Sample, encode_json, encode_npy
from shards.writer import write_tar

Make = Callable[..., Sample]


@cache
def encoded_video(frames: int) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25, options={"threads": "1"})
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for i in range(frames):
            picture = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 8 * i % 256, np.uint8), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return file.getvalue()


@cache
def encoded_audio(samples: int, rate: int = 16000) -> bytes:
    tone = (8000 * np.sin(np.arange(samples) * 0.1)).astype(np.int16)
    file = io.BytesIO()
    with av.open(file, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=rate, layout="mono", format="s16")
        for start in range(0, samples, 1024):
            block = av.AudioFrame.from_ndarray(tone[None, start : start + 1024], format="s16", layout="mono")
            block.sample_rate, block.pts, block.time_base = rate, start, Fraction(1, rate)
            container.mux(stream.encode(block))
        container.mux(stream.encode())
    return file.getvalue()


@pytest.fixture
def make_sample() -> Make:
    def make(key: str, frames: int = 5, source: str = "ab" * 32, **fields: object) -> Sample:
        boxes = np.tile(np.array([10, 12, 50, 52], np.float32), (frames, 1))
        landmarks = np.full((frames, 7, 2), np.nan, np.float16)
        whisper = np.random.default_rng(len(key)).standard_normal((2 * frames, 3, 4)).astype(np.float16)
        described = {"source_id": source, "start_frame": 10, "end_frame": 10 + frames, "frames": frames, **fields}
        return Sample(
            key,
            {
                "mp4": encoded_video(frames),
                "flac": encoded_audio(640 * frames),
                "json": encode_json(described),
                "boxes.npy": encode_npy(boxes),
                "landmarks.npy": encode_npy(landmarks),
                "whisper.npy": encode_npy(whisper),
            },
        )

    return make


@pytest.fixture
def make_part(tmp_path: Path, make_sample: Make) -> Callable[[str, int], dict[str, Path]]:
    """A part with clips of one source, notes of their own beside some of them; gives key -> part."""

    def make(source: str, count: int) -> dict[str, Path]:
        path = tmp_path / "parts" / f"{source}.tar"
        path.parent.mkdir(exist_ok=True)
        samples = [make_sample(f"{source}-{i}", frames=3 + i % 3, source=source) for i in range(count)]
        samples = [Sample(s.key, {**s.members, "collected.npz": b"not for a shard"}) for s in samples]
        write_tar(path, [*samples, Sample(f"{source}-notes", {"log.json": b"{}"})])
        return {sample.key: path for sample in samples}

    return make
