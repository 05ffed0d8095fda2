"""A generated video on disk: H.264 of given planes at 25 fps beside a sound that is copied as it is.

Sound that MP4 holds (AAC, MP3, ALAC, AC-3, Opus, FLAC) is not decoded at all; other sound, such as PCM, becomes FLAC,
which loses nothing and which browsers play in MP4. The file appears under its name when it is whole.
"""

from collections.abc import Generator, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import numpy as np
from av.audio.stream import AudioStream
from av.packet import Packet
from av.video.reformatter import ColorRange

from clock import FPS
from media.audio import decode
from media.encode import X264_OPTIONS, X264_PARAMS
from media.errors import MediaError
from media.frames import Picture, Planes
from media.probe import audio_stream, open_media, packets

COPIED = {"aac", "mp3", "alac", "ac3", "eac3", "opus", "flac"}
TEMPORARY = ".tmp-"


class VideoWriter:
    """Used as a `with` block: `write` one frame after the other; sound goes along at the same pace."""

    def __init__(
        self, path: Path, like: Picture, sound: Path, crf: float = 18.0, metadata: Mapping[str, str] | None = None
    ) -> None:
        self.path, self.temporary = path, path.with_name(f"{TEMPORARY}{path.name}")
        height, width = (size // 2 * 2 for size in like.planes[0].shape)  # H.264 halves chroma: sizes are even
        path.parent.mkdir(parents=True, exist_ok=True)
        self.container = av.open(
            f"file:{self.temporary.absolute()}", "w", format="mp4", options={"movflags": "+faststart+use_metadata_tags"}
        )
        self.container.metadata.update(metadata or {})
        options = {"preset": "medium", "crf": f"{crf:g}", "x264-params": X264_PARAMS}
        self.stream: Any = self.container.add_stream("libx264", rate=Fraction(FPS), options={**X264_OPTIONS, **options})
        self.stream.width, self.stream.height, self.stream.pix_fmt = width, height, "yuv420p"
        self.stream.codec_context.colorspace = like.colorspace
        self.stream.codec_context.color_range = ColorRange.JPEG if like.full_range else ColorRange.MPEG
        self.like, self.frames = like, 0
        self.sound = sound_packets(sound, self.container)
        self.waiting = next(self.sound, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            if error is None:
                self._sound_until(float("inf"))
                self.container.mux(self.stream.encode(None))
        finally:
            self.sound.close()
            self.container.close()
            if error is not None:
                self.temporary.unlink(missing_ok=True)
        if error is None:
            self.temporary.replace(self.path)

    def write(self, planes: Planes) -> None:
        """Append a frame of 8-bit Y, U, V."""
        height, width = self.stream.height, self.stream.width
        cut = (planes[0][:height, :width], *(plane[: height // 2, : width // 2] for plane in planes[1:]))
        flat = np.concatenate([np.ascontiguousarray(plane).reshape(-1) for plane in cut]).reshape(
            height * 3 // 2, width
        )
        frame = av.VideoFrame.from_ndarray(flat, format="yuv420p")
        frame.pts, frame.time_base = self.frames, Fraction(1, FPS)
        frame.colorspace = self.like.colorspace
        frame.color_range = ColorRange.JPEG if self.like.full_range else ColorRange.MPEG
        self._sound_until(self.frames / FPS)
        self.container.mux(self.stream.encode(frame))
        self.frames += 1

    def _sound_until(self, time_s: float) -> None:
        while self.waiting is not None and self.waiting[0] <= time_s:
            self.container.mux(self.waiting[1])
            self.waiting = next(self.sound, None)


def sound_packets(path: Path, out: Any) -> Generator[tuple[float, Packet]]:
    """(time, packet) of a file's sound for a stream that is added to `out` at once.

    Time 0 is the first sample that a decoder gives, as it is for `read_sound`: what an encoder put before it (AAC's
    priming, Opus' pre-skip) keeps its negative time, and players leave it out again.
    """
    source = open_media(path)
    container = source.__enter__()
    stream = audio_stream(container) if len(container.streams) else None
    if stream is None:
        source.__exit__(None, None, None)
        raise MediaError("error:no_audio", f"{path}: no audio stream")
    copied = stream.codec_context.name in COPIED
    target = out.add_stream_from_template(stream) if copied else out.add_stream("flac", rate=stream.rate)
    if not copied:
        target.layout = stream.layout
        target.format = "s32" if (stream.codec_context.format and stream.codec_context.format.bytes > 2) else "s16"
    found = copies(container, stream, target, first_sample_s(path)) if copied else encodings(container, stream, target)

    def closing() -> Generator[tuple[float, Packet]]:
        try:
            yield from found
        finally:
            source.__exit__(None, None, None)

    return closing()


def first_sample_s(path: Path) -> Fraction:
    """Return the time of the first sample that a decoder gives of a file's audio, in the file's own clock."""
    with open_media(path) as container:
        stream = audio_stream(container)
        assert stream is not None, "its caller found one"
        for frame in decode(container, stream):
            if frame.pts is not None and frame.time_base is not None:
                return frame.pts * frame.time_base
    raise MediaError("error:decode", f"{path}: the audio track cannot be decoded")


def copies(container: Any, stream: AudioStream, target: Any, zero_s: Fraction) -> Iterator[tuple[float, Packet]]:
    for packet in packets(container, stream):
        if packet.dts is None or packet.pts is None or not packet.size:
            continue
        origin = round(zero_s / packet.time_base)
        packet.pts, packet.dts, packet.stream = packet.pts - origin, packet.dts - origin, target
        yield float(packet.pts * packet.time_base), packet


def encodings(container: Any, stream: AudioStream, target: Any) -> Iterator[tuple[float, Packet]]:
    resampler = av.AudioResampler(format=target.format.name, layout=target.layout.name, rate=target.rate)
    fifo, written = av.AudioFifo(), 0
    for packet in [*packets(container, stream), None]:
        decoded = [] if packet is None else packet.decode()
        for frame in decoded if packet is not None else [None]:
            for even in resampler.resample(frame):
                even.pts = None
                fifo.write(even)
        while (block := fifo.read(target.codec_context.frame_size or 4096, partial=packet is None)) is not None:
            block.pts, block.time_base = written, Fraction(1, target.rate)
            written += block.samples
            for made in target.encode(block):
                yield block.pts / target.rate, made
    for made in target.encode(None):
        yield written / target.rate, made
