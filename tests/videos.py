"""Tiny videos for tests, written with PyAV: drawn frames that say their own number, tones and clicks at known times."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer
from av.stream import Disposition
from av.video.reformatter import ColorRange, Colorspace

BITS = 8
TICK = Fraction(1, 90000)  # fine enough for every rate and millisecond in use
LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}
Draw = Callable[[int], np.ndarray]


def numbered(number: int, width: int = 64, height: int = 48) -> np.ndarray:
    """[height, width, 3] uint8 RGB: eight upright bars, bright for a one, most significant bit on the left."""
    bits = [number >> (BITS - 1 - k) & 1 for k in range(BITS)]
    row = np.repeat(np.array(bits), -(-width // BITS))[:width]
    return np.broadcast_to(np.where(row, 220, 30).astype(np.uint8)[None, :, None], (height, width, 3)).copy()


def number_of(picture: np.ndarray) -> int:
    """The number that `numbered` drew, read from the middle of each bar, at any size."""
    width = picture.shape[1]
    middles = [round((k + 0.5) * width / BITS) for k in range(BITS)]
    bits = [picture[:, m - 1 : m + 1].mean() > 125 for m in middles]
    return sum(int(bit) << (BITS - 1 - k) for k, bit in enumerate(bits))


def corners(width: int = 64, height: int = 48) -> np.ndarray:
    """Quarters of one colour each: red and green above, blue and white below."""
    picture = np.empty((height, width, 3), np.uint8)
    top, left = height // 2, width // 2
    picture[:top, :left], picture[:top, left:] = (200, 30, 30), (30, 200, 30)
    picture[top:, :left], picture[top:, left:] = (30, 30, 200), (220, 220, 220)
    return picture


def tone(seconds: float, rate: int = 48000, channels: int = 1, hertz: float = 440.0) -> np.ndarray:
    """[channels, N] float32 sine at a quarter of full scale."""
    wave = 0.25 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
    return np.tile(wave.astype(np.float32), (channels, 1))


def click(seconds: float, at_s: float, rate: int = 48000, channels: int = 1) -> np.ndarray:
    """[channels, N] float32 silence with one short click, loudest at `at_s` after the track's own beginning."""
    distance_s = np.arange(round(seconds * rate)) / rate - at_s
    return np.tile((0.8 * np.exp(-((distance_s / 2e-4) ** 2))).astype(np.float32), (channels, 1))


@dataclass(frozen=True)
class Sound:
    """A sound track: [channels, N] float32; it begins at `start_s`, and each gap (after, length) in seconds delays
    what follows."""

    samples: np.ndarray
    rate: int = 48000
    codec: str = "pcm_s16le"
    start_s: float = 0.0
    gaps: tuple[tuple[float, float], ...] = ()
    default: bool = False


@dataclass(frozen=True)
class Pictures:
    """A video track: frame i shows `draw(i)` from `times_s[i]` on, or from i / fps on."""

    frames: int = 50
    fps: Fraction | int = 25
    draw: Draw = numbered
    times_s: Sequence[float] | None = None
    codec: str = "libx264"
    pixel_format: str = "yuv420p"
    start_s: float = 0.0
    last_s: float | None = None  # how long the last frame is shown, if not one frame
    aspect: Fraction | None = None
    options: dict[str, str] = field(default_factory=dict)
    colour: dict[str, int] = field(default_factory=dict)  # colorspace and color_range, written into the stream

    @property
    def exact(self) -> bool:
        """Whether the times are not multiples of a frame."""
        return self.times_s is not None or self.start_s != 0

    @property
    def starts_s(self) -> list[float]:
        times = self.times_s or [float(i / Fraction(self.fps)) for i in range(self.frames)]
        return [self.start_s + time for time in times]


X264 = {"preset": "ultrafast", "crf": "10", "threads": "1"}


def write_video(
    path: Path,
    pictures: Pictures | None = Pictures(),
    sounds: Iterable[Sound] = (),
    container: str | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """A video file at `path`; the container follows from its suffix if not given."""
    with av.open(str(path), "w", format=container, options=options or {}) as output:
        video = add_video(output, pictures) if pictures else None
        tracks = [(add_sound(output, sound), sound) for sound in sounds]
        packets = encoded_video(video, pictures) if video and pictures else []
        for stream, sound in tracks:
            packets += encoded_sound(stream, sound)
        for packet in sorted(packets, key=decoded_at_s):
            output.mux(packet)
    return path


def decoded_at_s(packet: av.Packet) -> Fraction:
    assert packet.dts is not None and packet.time_base is not None
    return packet.dts * packet.time_base


def add_video(output: OutputContainer, pictures: Pictures) -> av.VideoStream:
    defaults = X264 if pictures.codec.startswith("libx264") else {}
    stream = output.add_stream(pictures.codec, rate=Fraction(pictures.fps), options={**defaults, **pictures.options})
    assert isinstance(stream, av.VideoStream)
    height, width = pictures.draw(0).shape[:2]
    stream.width, stream.height, stream.pix_fmt = width, height, pictures.pixel_format
    context = stream.codec_context
    context.thread_count = 1
    if pictures.exact:
        context.time_base = TICK
    if pictures.aspect is not None:
        context.sample_aspect_ratio = pictures.aspect
    for name, value in pictures.colour.items():
        setattr(context, name, value)
    return stream


def encoded_video(stream: av.VideoStream, pictures: Pictures) -> list[av.Packet]:
    packets = []
    base = TICK if pictures.exact else 1 / Fraction(pictures.fps)
    for i, time_s in enumerate(pictures.starts_s):
        picture = pictures.draw(i)
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24" if picture.ndim == 3 else "gray")
        frame = in_format(frame, pictures)
        frame.pts, frame.time_base = round(time_s / base), base
        packets += stream.encode(frame)
    packets += stream.encode(None)
    if pictures.last_s is not None:
        packets[-1].duration = round(pictures.last_s / base)
    return packets


def in_format(frame: av.VideoFrame, pictures: Pictures) -> av.VideoFrame:
    """A drawn frame in the stream's pixel format, by the matrix and range that the stream is marked with."""
    full = pictures.colour.get("color_range") == ColorRange.JPEG or pictures.pixel_format.startswith("yuvj")
    matrix = Colorspace.ITU709 if pictures.colour.get("colorspace") == 1 else Colorspace.ITU601
    converted = frame.reformat(
        format=pictures.pixel_format,
        dst_colorspace=matrix,
        dst_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
        threads=1,
    )
    return converted


def add_sound(output: OutputContainer, sound: Sound) -> av.AudioStream:
    stream = output.add_stream(sound.codec, rate=sound.rate, layout=LAYOUTS[len(sound.samples)])
    assert isinstance(stream, av.AudioStream)
    if sound.default:
        stream.disposition = Disposition.default
    return stream


def encoded_sound(stream: av.AudioStream, sound: Sound) -> list[av.Packet]:
    """Packets of a track; blocks whose time stamps jump where it has gaps."""
    form = stream.codec_context.format.name
    block = stream.codec_context.frame_size or 480
    packets = []
    for start in range(0, sound.samples.shape[1], block):
        piece = np.ascontiguousarray(sound.samples[:, start : start + block])
        time_s = start / sound.rate
        late_s = sound.start_s + sum(length for after, length in sound.gaps if time_s >= after)
        frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout=LAYOUTS[len(piece)])
        frame.sample_rate = sound.rate
        for out in av.AudioResampler(format=form, layout=LAYOUTS[len(piece)], rate=sound.rate).resample(frame):
            out.pts, out.time_base = start + round(late_s * sound.rate), Fraction(1, sound.rate)
            packets += stream.encode(out)
    return packets + stream.encode(None)


def turn(path: Path, clockwise: int) -> Path:
    """Marks an MP4's video track, as a phone does, to be turned clockwise when shown."""
    return show(path, {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[clockwise])


def show(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Gives an MP4's video track a display matrix (a, b, c, d): x, y is shown at ax + cy, bx + dy."""
    a, b, c, d = ((value << 16).to_bytes(4, "big", signed=True) for value in matrix)
    data, zero = bytearray(path.read_bytes()), bytes(4)
    header = data.index(b"tkhd") + 4
    written = b"".join([a, b, zero, c, d, zero])
    data[header + 40 : header + 40 + len(written)] = written  # after version, times, id, duration, layer and volume
    path.write_bytes(data)
    return path


def truncate(path: Path, share: float) -> Path:
    """Cuts a file off after this share of its bytes."""
    data = path.read_bytes()
    path.write_bytes(data[: round(len(data) * share)])
    return path
