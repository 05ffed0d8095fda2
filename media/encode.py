"""The two streams of a sample: pictures to H.264 in MP4 and sound to FLAC, in memory, and back.

The same input gives the same bytes: one encoder thread, no time stamps, no version strings.
"""

import io
import platform
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import islice

import av
import numpy as np
from av.codec.context import Flags
from av.container import OutputContainer
from av.video.reformatter import ColorRange, Colorspace

from clock import FPS, SAMPLE_RATE
from media.audio import FULL_SCALE

# GOP 16 and no B-frames: a random 16-frame window decodes at most 32 frames. `fastdecode` trades 4 % of size for a
# third of the decoding time (measured: 10.4 -> 6.7 ms per random window). With its AVX-512 code PyAV 18.1's x264 gives
# other bytes now and then, most of all below subme 4 (18 different files of 50 with the preset medium); without, never.
X264_PARAMS = "threads=1:lookahead-threads=1:sliced-threads=0:subme=4"
if platform.machine() in ("x86_64", "AMD64"):
    X264_PARAMS += ":asm=SSE4.2"
X264_OPTIONS = {"preset": "veryfast", "tune": "fastdecode", "bf": "0", "x264-params": X264_PARAMS}
GOP_FRAMES = 16
BITEXACT = {"fflags": "+bitexact"}
AAC_BITS_PER_S = 32_000


def encode_mp4(
    frames: np.ndarray | Iterable[np.ndarray],
    fps: int | Fraction = FPS,
    crf: int = 18,
    audio: np.ndarray | None = None,
) -> bytes:
    """[T, H, W, 3] uint8 RGB as an MP4 file: H.264 High, yuv420p, BT.709, constant rate.

    Without sound, or with `audio`, [N] float32 in -1..1 at 16 kHz, as AAC: for looking and listening, not for shards.
    """
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options=BITEXACT) as container:
        stream = None
        sound = None if audio is None else add_aac(container)
        for i, picture in enumerate(frames):
            if stream is None:
                stream = container.add_stream("libx264", rate=Fraction(fps), options={**X264_OPTIONS, "crf": str(crf)})
                height, width = picture.shape[:2]
                stream.width, stream.height, stream.pix_fmt, stream.gop_size = width, height, "yuv420p", GOP_FRAMES
                stream.codec_context.flags |= Flags.bitexact
                stream.codec_context.colorspace = Colorspace.ITU709
                stream.codec_context.color_range = ColorRange.MPEG
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame = frame.reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG, threads=1
            )
            frame.pts, frame.time_base = i, 1 / Fraction(fps)
            container.mux(stream.encode(frame))
        if stream is None:
            raise ValueError("encode_mp4 needs at least one frame")
        container.mux(stream.encode(None))
        if audio is not None and sound is not None:
            container.mux([*encode_audio(sound, np.asarray(audio, np.float32), "fltp")])
    return buffer.getvalue()


def add_aac(container: OutputContainer) -> av.AudioStream:
    sound = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono", format="fltp")
    sound.bit_rate = AAC_BITS_PER_S
    sound.codec_context.flags |= Flags.bitexact
    return sound


def encode_audio(stream: av.AudioStream, samples: np.ndarray, sample_format: str) -> Iterator[av.Packet]:
    """Encode mono samples at 16 kHz in blocks of the encoder's size, to the end; yield the packets."""
    frame = av.AudioFrame.from_ndarray(samples[None], format=sample_format, layout="mono")
    frame.sample_rate, frame.time_base, frame.pts = SAMPLE_RATE, Fraction(1, SAMPLE_RATE), 0
    fifo = av.AudioFifo()
    fifo.write(frame)
    for block in fifo.read_many(stream.codec_context.frame_size or 4096, partial=True):
        yield from stream.encode(block)
    yield from stream.encode(None)


def decode_mp4(data: bytes, frames: int | None = None) -> np.ndarray:
    """Every frame of an MP4 file in memory, or the first so many: [T, H, W, 3] uint8 RGB."""
    with av.open(io.BytesIO(data), "r") as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        return np.stack([frame.to_ndarray(format="rgb24") for frame in islice(container.decode(stream), frames)])


def encode_flac(audio: np.ndarray) -> bytes:
    """[N] float32 in -1..1 at 16 kHz as a 16-bit mono FLAC file."""
    samples = np.clip(np.round(audio * FULL_SCALE), -32768, 32767).astype(np.int16)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="flac", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("flac", rate=SAMPLE_RATE, layout="mono", format="s16")
        stream.codec_context.flags |= Flags.bitexact
        stream.codec_context.thread_count = 1
        container.mux([*encode_audio(stream, samples, "s16")])
    return buffer.getvalue()


def decode_flac(data: bytes) -> np.ndarray:
    """A 16-bit FLAC file in memory as [N] float32 in -1..1."""
    with av.open(io.BytesIO(data), "r") as container:
        blocks = [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
    return np.concatenate(blocks).astype(np.float32) / FULL_SCALE
