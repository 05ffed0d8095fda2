"""What a video file holds: streams, clock, picture geometry, sound. Reads the header and one frame; where the header
does not state how long the pictures last, also the time stamps of all packets.

Only local files are opened: one protocol (`file`) and a closed list of containers, so that no playlist or
concatenation script can make ffmpeg read anything else.
"""

import math
import re
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.sidedata.sidedata import Type
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from clock import FPS
from media.errors import MediaError
from media.joined import CLOCKED, clock_restart, header_before, packets_span_s, second_header

CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,flv,asf,ogg,mxf,wav,mp3,flac,aac,dv,nut"
CONTAINER_OPTIONS = {"protocol_whitelist": "file,subfile", "format_whitelist": CONTAINERS}

WITHOUT_PTS = "avi"
ESTIMATED = {"mpeg", "mpegts"}  # ffmpeg guesses their duration from time stamps near the end
MATROSKA = "matroska,webm"
LATE_S = 0.1  # a first frame after this is not shown from the beginning
MATROSKA_TIME = re.compile(r"(\d+):(\d+):(\d+(?:\.\d+)?)")  # the tag that ffmpeg and mkvmerge write for each track

LONG_S = 600.0  # a source that claims more than this has at least
LEAST_BYTES_PER_S = 500  # 4 kbit/s: a fifth of what a still picture and speech take

HDR_TRANSFERS = {16: "pq", 18: "hlg"}  # ITU-T H.273, transfer characteristics
VARIABLE_RATE_TOLERANCE = 0.01  # of the nominal rate; two rates in the header that differ by more mean variable rate


@dataclass(frozen=True)
class Limits:
    """What a source may be at most: a guard against decompression bombs and mislabelled files."""

    max_duration_s: float = 6 * 3600.0
    max_pixels: int = 8192 * 4320  # 8K
    max_bytes: int = 200 * 1024**3


@dataclass(frozen=True)
class Probe:
    """A source as its header and first frame describe it.

    Width and height are display pixels: after rotation and with square pixels. `first_pts_s` is the source's
    time zero: the presentation time of its first frame, in the container's clock.
    """

    duration_s: float
    first_pts_s: float
    width: int
    height: int
    fps: float
    variable_frame_rate: bool
    rotation: int
    sample_aspect: float
    video_codec: str
    pixel_format: str
    bit_depth: int
    hdr: str | None
    audio_codec: str | None
    audio_sample_rate: int | None
    audio_channels: int | None
    audio_tracks: int
    end_byte: int | None = None  # where another recording begins, which is not read, or None: the whole file is one
    rest_s: float = 0.0  # how long that and all after it last
    mirrored: bool = False  # stored pictures are to be flipped left to right, before they are turned

    @property
    def frames(self) -> int:
        """Frames of the 25 fps grid that the header promises."""
        return max(1, grid_index(self.duration_s))

    @property
    def rest_frames(self) -> int:
        """Frames of the grid behind those, for the recordings that are not read."""
        return 0 if self.end_byte is None else max(1, grid_index(self.rest_s))


def grid_index(time_s: float) -> int:
    """The grid frame nearest to a time; ties go up, as in ffmpeg's `fps` filter."""
    return math.floor(time_s * FPS + 0.5 + 1e-6)


@contextmanager
def open_media(path: Path, end_byte: int | None = None, start_byte: int = 0) -> Iterator[InputContainer]:
    """The opened container of a local file, or of the bytes of it from `start_byte` to before `end_byte`.

    Raises MediaError("error:probe") if it is not one we read.
    """
    part = f"subfile,,start,{start_byte},end,{end_byte or 0},,:" if start_byte or end_byte else ""  # end 0: the file's
    try:
        container = av.open(f"{part}file:{path.absolute()}", options=CONTAINER_OPTIONS, metadata_errors="replace")
    except (FFmpegError, OSError, ValueError) as error:
        raise MediaError("error:probe", f"{path}: cannot be opened as a video ({describe(error)})") from error
    try:
        yield container
    finally:
        container.close()


def describe(error: Exception) -> str:
    """ffmpeg's own words for an error, without the path that PyAV repeats."""
    return str(getattr(error, "strerror", None) or error).split(";")[0]


def video_stream(container: InputContainer, path: Path, limits: Limits = Limits()) -> VideoStream:
    """The video stream that a player would show, set to decode on one thread; cover art does not count.

    A frame of more pixels than the limit, wherever in the file, is refused by the decoder before it has room for it.
    """
    if not len(container.streams):  # a header torn before the first of them
        raise MediaError("error:probe", f"{path}: no stream at all; is the file whole?")
    streams = [s for s in container.streams.video if not int(s.disposition) & int(Disposition.attached_pic)]
    if not streams:
        raise MediaError("error:no_video", f"{path}: no video stream")
    streams = [s for s in streams if s.codec_context is not None]
    if not streams:
        raise MediaError("error:decode", f"{path}: there is no decoder for its video stream")
    stream = next((s for s in streams if int(s.disposition) & int(Disposition.default)), streams[0])
    stream.codec_context.thread_count = 1  # one worker per core: more threads cost CPU time and win nothing
    stream.codec_context.options = {"max_pixels": str(limits.max_pixels)}
    return stream


def audio_stream(container: InputContainer) -> AudioStream | None:
    """The sound that a player would choose, set to decode on one thread; None without a track that can be decoded."""
    tracks = (container.streams.best("audio"), *container.streams.audio)
    streams = [s for s in tracks if isinstance(s, AudioStream) and s.codec_context is not None]
    if not streams:
        return None
    streams[0].codec_context.thread_count = 1
    return streams[0]


def packets(container: InputContainer, stream: VideoStream | AudioStream) -> Iterator[Packet]:
    """The packets of a stream, as far as the file can be read."""
    found = container.demux(stream)
    while True:
        try:
            packet = next(found)
        except (StopIteration, FFmpegError):
            return
        yield packet


def first_frame(container: InputContainer, stream: VideoStream, path: Path) -> VideoFrame:
    """The first frame that decodes; raises MediaError("error:decode") when none does."""
    last_error = "no frame"
    try:
        for packet in container.demux(stream):
            try:
                for frame in packet.decode():
                    stamp(frame, container, None)
                    return frame
            except FFmpegError as error:
                last_error = describe(error)
    except FFmpegError as error:
        last_error = describe(error)
    text = f"{path}: no frame of the video stream can be decoded, or all are larger than the limit ({last_error})"
    raise MediaError("error:decode", text)


def stamp(frame: VideoFrame, container: InputContainer, previous: int | None) -> int | None:
    """The frame's presentation time, which is set where the container has none: AVI.

    ffmpeg's guesses break on B-frames and are late for H.264; frames leave the decoder in order, one for each packet.
    """
    if container.format.name == WITHOUT_PTS:
        if frame.dts is not None:
            frame.pts = frame.dts
        elif previous is not None:
            frame.pts = previous + 1
    return frame.pts


def probe(path: Path, limits: Limits = Limits()) -> Probe:
    """What the file holds.

    Raises MediaError: `error:io` (unreadable), `error:probe` (not a video container we read), `error:no_video`,
    `error:decode` (no frame decodes), `error:limits`.
    """
    check_size(path, limits)
    end_byte = end_of_recording(path)
    with open_media(path, end_byte) as container:
        stream = video_stream(container, path, limits)
        check_pixels(path, stream.width or 0, stream.height or 0, limits)
        frame = first_frame(container, stream, path)
        check_pixels(path, frame.width, frame.height, limits)
        first_pts_s = float(frame.pts * frame.time_base) if frame.pts is not None and frame.time_base else 0.0
        duration_s = header_duration_s(container, stream, first_pts_s)
        if duration_s is None:
            duration_s = packets_duration_s(path, first_pts_s, end_byte)
        if duration_s > limits.max_duration_s:
            found = f"{duration_s:.0f} s long, the limit is {limits.max_duration_s:.0f}"
            raise MediaError("error:limits", f"{path}: {found}")
        check_length(path, duration_s)
        audio = audio_stream(container)
        rate, base = stream.average_rate or stream.guessed_rate or Fraction(FPS), stream.base_rate
        aspect = float(stream.sample_aspect_ratio or 1) or 1.0
        rotation, mirrored = orientation(frame)
        width, height = display_size(frame.width, frame.height, aspect, rotation)
        return Probe(
            duration_s=duration_s,
            first_pts_s=first_pts_s,
            width=width,
            height=height,
            fps=float(rate),
            variable_frame_rate=is_variable(rate, base),
            rotation=rotation,
            sample_aspect=aspect,
            video_codec=stream.codec_context.name,
            pixel_format=frame.format.name,
            bit_depth=max(component.bits for component in frame.format.components),
            hdr=HDR_TRANSFERS.get(int(frame.color_trc)),
            audio_codec=audio.codec_context.name if audio else None,
            audio_sample_rate=audio.codec_context.sample_rate if audio else None,
            audio_channels=audio.codec_context.channels if audio else None,
            audio_tracks=len(container.streams.audio),
            end_byte=end_byte,
            mirrored=mirrored,
            rest_s=0.0 if end_byte is None else rest_duration_s(path, end_byte),
        )


def end_of_recording(path: Path, start_byte: int = 0) -> int | None:
    """The byte at which another recording begins behind the one at `start_byte`; None if there is none."""
    end_byte = second_header(path, start_byte)
    if end_byte is not None:
        return end_byte
    with open_media(path, None, start_byte) as container:
        if container.format.name not in CLOCKED or not len(container.streams):
            return None
        begins = clock_restart(container)
    return None if begins is None else header_before(path, start_byte + begins, start_byte)


def rest_duration_s(path: Path, start_byte: int | None) -> float:
    """How long the recordings from this byte on last together; what cannot be opened does not count."""
    total_s = 0.0
    while start_byte is not None:
        try:
            end_byte = end_of_recording(path, start_byte)
            with open_media(path, end_byte, start_byte) as container:
                total_s += packets_span_s(container)
        except MediaError:
            return total_s
        start_byte = end_byte
    return total_s


def check_size(path: Path, limits: Limits) -> None:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would wait for ever, a device never end
            raise MediaError("error:io", f"{path}: not a regular file")
        with path.open("rb"):
            pass
    except OSError as error:
        raise MediaError("error:io", f"{path}: cannot be read ({error.strerror})") from error
    size = status.st_size
    if size == 0:
        raise MediaError("error:probe", f"{path}: empty file")
    if size > limits.max_bytes:
        raise MediaError("error:limits", f"{path}: {size} bytes, the limit is {limits.max_bytes}")


def check_pixels(path: Path, width: int, height: int, limits: Limits) -> None:
    if width * height > limits.max_pixels:
        raise MediaError("error:limits", f"{path}: {width}x{height}, the limit is {limits.max_pixels} pixels")


def check_length(path: Path, duration_s: float) -> None:
    """Raise MediaError("error:limits") for a small file that claims hours: its few frames would be shown so long."""
    size = path.stat().st_size
    if duration_s > LONG_S and size < duration_s * LEAST_BYTES_PER_S:
        text = f"{path}: {size} bytes that claim {duration_s:.0f} s; {LEAST_BYTES_PER_S} bytes a second are the least"
        raise MediaError("error:limits", text)


def header_duration_s(container: InputContainer, stream: VideoStream, first_pts_s: float) -> float | None:
    """How long the pictures last as the container states it, or None: a guess, or a time for all streams together."""
    if container.format.name in ESTIMATED:
        return None
    if container.format.name == MATROSKA and first_pts_s > LATE_S:
        return None  # ffmpeg takes the time of all streams for it, and writers do not agree from where a tag counts
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    end = MATROSKA_TIME.fullmatch(stream.metadata.get("DURATION", ""))
    return max(0.0, int(end[1]) * 3600 + int(end[2]) * 60 + float(end[3]) - first_pts_s) if end else None


def packets_duration_s(path: Path, first_pts_s: float, end_byte: int | None) -> float:
    """How long the pictures last by the time stamps of all packets; nothing is decoded."""
    end_s = first_pts_s
    with open_media(path, end_byte) as container:
        for packet in container.demux(video_stream(container, path)):
            if packet.pts is not None:
                end_s = max(end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base))
    return end_s - first_pts_s


def is_variable(rate: Fraction, base: Fraction | None) -> bool:
    """Whether the average rate and the container's finest rate disagree; a multiple of two is field counting."""
    if not base or not rate:
        return False
    ratio = float(base / rate)
    return min(abs(ratio - 1), abs(ratio - 2)) > VARIABLE_RATE_TOLERANCE


def orientation(frame: VideoFrame) -> tuple[int, bool]:
    """How a stored picture is to be shown: counter-clockwise degrees, and whether it is flipped left to right before.

    From the display matrix (a, b, u, c, d, v, x, y, w), which shows the point x, y at ax + cy, bx + dy.
    """
    side_data = frame.side_data.get(Type.DISPLAYMATRIX)  # pyright: ignore[reportCallIssue, reportArgumentType]
    if side_data is None:
        return 0, False
    a, b, _, c, d = struct.unpack_from("=5i", bytes(side_data))
    mirrored = a * d - b * c < 0
    if mirrored:
        a, b = -a, -b
    return round(-math.degrees(math.atan2(b, a))) % 360, mirrored


def display_size(width: int, height: int, aspect: float, rotation: int) -> tuple[int, int]:
    """Width and height as shown: with square pixels, then rotated."""
    width = max(1, round(width * aspect))
    return (height, width) if rotation % 180 == 90 else (width, height)
