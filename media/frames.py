"""Pictures of a source on the 25 fps grid: scaled for a detector, or cut out around a face.

Time zero is the source's first frame; grid frame i is what a player shows at i/25 s (to the nearest grid step, as
ffmpeg's `fps` filter rounds), whatever the file's own rate, constant or not. Frames are never held as full RGB
pictures: the decoder's planes are scaled or cut first and converted then. HDR is taken to 8 bits without tone mapping.
"""

from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from clock import FPS
from media.errors import MediaError
from media.probe import WITHOUT_PTS, Limits, Probe, grid_index, open_media, packets, stamp, video_stream

cv2.setNumThreads(1)  # one worker per core

PLANAR = {"yuv420p", "yuvj420p"}
LUMA_WEIGHTS = {1: (0.2126, 0.0722), 9: (0.2627, 0.0593), 10: (0.2627, 0.0593)}  # BT.709, BT.2020: K_r, K_b (H.273)
BT601 = (0.299, 0.114)
UNSPECIFIED, FULL_RANGE = 2, 2
HD_HEIGHT = 720  # unmarked material of this height and above is BT.709, below BT.601, as players assume

# Containers without an index are sought by time stamps, which not every frame has; after this long they are all right.
PREROLL_S = {"mpeg": 5.0, "mpegts": 5.0}

NEAR_FRAMES = 50  # going on for so long costs no more than seeking; keyframes are up to 10 s apart

Planes = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Picture:
    """One decoded frame, upright: 8-bit planes of yuv420p, and how they become RGB."""

    planes: Planes
    to_rgb: np.ndarray  # [3, 4], from Y, U, V, 1
    full_range: bool
    colorspace: int  # as ffmpeg numbers them (ITU-T H.273), what the frame itself says

    @classmethod
    def of(cls, frame: VideoFrame, probe: Probe) -> "Picture":
        y, u, v = (plane.copy() for plane in upright(planes_of(frame), probe))
        full = int(frame.color_range) == FULL_RANGE or frame.format.name.startswith("yuvj")
        return cls((y, u, v), rgb_matrix_of(frame, probe), full, int(frame.colorspace))

    def crop(self, square: np.ndarray, probe: Probe, size: int) -> np.ndarray:
        """[size, size, 3] uint8 RGB, as `read_crops` cuts it."""
        cut = [cut_square(plane, square, probe, size) for plane in self.planes]
        return cv2.transform(cv2.merge(cut), self.to_rgb)


class GridReader:
    """The frames of one file on the 25 fps grid, piece by piece.

    A piece that begins where the last one ended goes on decoding there; from a keyframe before it, as any other piece
    is read, would cost up to 10 s of frames each time. It holds the file open, until `close` or its own end.
    """

    def __init__(self, path: Path, probe: Probe, limits: Limits = Limits()) -> None:
        self.path, self.probe, self._limits = path, probe, limits
        self._frames: Generator[VideoFrame] | None = None
        self._last: list[VideoFrame] = []  # the two that were decoded last: the next piece may begin in one of them

    def frames(self, start_frame: int = 0, end_frame: int | None = None) -> Iterator[tuple[int, VideoFrame]]:
        """(i, decoded frame) for the grid frames [start_frame, end_frame) that the file really holds, in order.

        A frame shown for several grid steps is yielded again as the same object. Damaged packets are passed over, and
        the iteration ends where the file does. Raises MediaError("error:limits") when time stamps run past the limit.
        """
        end = round(self._limits.max_duration_s * FPS) if end_frame is None else end_frame
        held, emit = None, start_frame
        for frame in self._from(start_frame):
            index = self._index(frame)
            if held is not None:
                for i in range(emit, min(index, end)):
                    yield i, held
                emit = max(emit, index)
            if emit >= end:
                if end_frame is None:
                    raise MediaError("error:limits", f"{self.path}: longer than {self._limits.max_duration_s:.0f} s")
                return
            held = frame
        if held is not None:
            for i in range(emit, min(end_of(held, self.probe), end)):
                yield i, held

    def close(self) -> None:
        if self._frames is not None:
            self._frames.close()
        self._frames, self._last = None, []

    def _from(self, start_frame: int) -> Iterator[VideoFrame]:
        """Decoded frames, the first at or before the grid frame unless the file begins later."""
        near = self._last and self._index(self._last[0]) <= start_frame <= self._index(self._last[-1]) + NEAR_FRAMES
        if self._frames is None or not near:
            self.close()
            self._frames = frames_from(self.path, self.probe, start_frame, self._limits)
        yield from self._last
        for frame in self._frames:
            self._last = [*self._last[-1:], frame]
            yield frame

    def _index(self, frame: VideoFrame) -> int:
        return grid_index(frame_time_s(frame) - self.probe.first_pts_s)


def end_of(last: VideoFrame, probe: Probe) -> int:
    """The grid frame at which the file's last frame is no longer shown; a long one only as long as the header says."""
    shown_s = float(last.duration * last.time_base) if last.duration and last.time_base else 1 / probe.fps
    start_s = frame_time_s(last) - probe.first_pts_s
    return max(1, min(grid_index(start_s + shown_s), max(grid_index(start_s + 1.0), probe.frames)))


def frames_from(path: Path, probe: Probe, start_frame: int, limits: Limits) -> Generator[VideoFrame]:
    """Decoded frames in order, from a keyframe before `start_frame` if the container can seek that exactly, or all."""
    if start_frame:
        with open_media(path, probe.end_byte) as container:
            frames = seek_frames(container, video_stream(container, path, limits), probe, start_frame)
            if frames is not None:
                yield from frames
                return
    with open_media(path, probe.end_byte) as container:
        yield from decode(container, video_stream(container, path, limits))


def decode(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """Yield the frames that have a time stamp, in presentation order; packets that cannot be decoded are skipped."""
    previous = None
    for packet in packets(container, stream):
        try:
            for frame in packet.decode():
                previous = stamp(frame, container, previous)
                if previous is not None:
                    yield frame
        except FFmpegError:
            continue


def seek_frames(
    container: InputContainer, stream: VideoStream, probe: Probe, start_frame: int
) -> Iterator[VideoFrame] | None:
    """Return the frames from the last keyframe before `start_frame`, or None if the container cannot seek exactly."""
    assert stream.time_base is not None
    target_s = probe.first_pts_s + (start_frame - 1) / FPS - PREROLL_S.get(container.format.name, 0.0)
    if target_s < probe.first_pts_s:
        return None
    try:
        container.seek(int(target_s / stream.time_base), stream=stream, backward=True)
    except FFmpegError:
        return None
    frames = decode(container, stream)
    first = next(frames, None)
    if first is None or grid_index(frame_time_s(first) - probe.first_pts_s) > start_frame:
        return None
    return chain([first], frames)


def frame_time_s(frame: VideoFrame) -> float:
    assert frame.pts is not None and frame.time_base is not None
    return float(frame.pts * frame.time_base)


def scan(
    path: Path,
    probe: Probe,
    long_side: int = 640,
    end_frame: int | None = None,
    limits: Limits = Limits(),
    start_frame: int = 0,
) -> Iterator[tuple[int, np.ndarray]]:
    """(i, picture) for every grid frame: [h, w, 3] uint8 RGB with `long_side` pixels on the longer side.

    Pictures are never enlarged. A repeated frame is the same array object, so that a caller can skip work on it.
    """
    last_frame, picture = None, np.empty(0)
    with closing(GridReader(path, probe, limits)) as reader:
        for i, frame in reader.frames(start_frame, end_frame):
            if frame is not last_frame:
                last_frame, picture = frame, scale_frame(frame, probe, long_side)
            yield i, picture


def keyframes(
    path: Path, probe: Probe, long_side: int, apart_frames: int, part: tuple[int, int] | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """(i, picture) of the file's keyframes, as `scan` gives them; no other frame is decoded.

    From one to the next at least `apart_frames` pass. What does not decode is passed over. Of a `part`, the grid frames
    [first, end), they begin with the last one at or before its first frame, which that frame is decoded from.
    """
    first, end = part or (0, None)
    with open_media(path, probe.end_byte) as container:
        stream = video_stream(container, path)
        if first and stream.time_base:
            with suppress(FFmpegError):  # a container that cannot seek is read from its beginning
                start_s = probe.first_pts_s + first / FPS
                container.seek(int(start_s / stream.time_base), stream=stream, backward=True)
        following = 0
        for packet in packets(container, stream):
            time = packet.dts if packet.pts is None or container.format.name == WITHOUT_PTS else packet.pts
            if not packet.size or not packet.is_keyframe or time is None:
                continue
            i = grid_index(float(time * packet.time_base) - probe.first_pts_s)
            if end is not None and i >= end:
                return
            if i < following:
                continue
            try:
                found = [*packet.decode(), *stream.codec_context.decode(None)]  # it need not wait for its neighbours
            except FFmpegError:
                found = []
            stream.codec_context.flush_buffers()
            for frame in found[:1]:
                following = i + apart_frames
                yield i, scale_frame(frame, probe, long_side)


def scale_frame(frame: VideoFrame, probe: Probe, long_side: int) -> np.ndarray:
    """Return a whole frame upright, [h, w, 3] uint8 RGB, scaled to at most `long_side` pixels on the longer side."""
    scale = min(1.0, long_side / max(probe.width, probe.height))
    size = max(1, round(probe.width * scale)), max(1, round(probe.height * scale))
    planes = upright(planes_of(frame), probe)
    small = [cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR) for plane in planes]
    return to_rgb(cv2.merge(small), frame, probe)


def read_crops(
    reader: GridReader, start_frame: int, squares: np.ndarray, size: int, into: np.ndarray | None = None
) -> np.ndarray:
    """The grid frames from `start_frame`, each cut to its square and resized: [T, size, size, 3] uint8 RGB.

    `squares` is [T, 4] (x0, y0, x1, y1) in source pixels; parts outside the picture repeat its border. `into` is the
    array that is filled, if not a new one. Raises MediaError("error:decode") if the file ends before the last of them.
    """
    crops, probe = np.empty((len(squares), size, size, 3), np.uint8) if into is None else into, reader.probe
    done, last_frame, last_planes = 0, None, None
    for i, frame in reader.frames(start_frame, start_frame + len(squares)):
        if frame is not last_frame:
            last_frame, last_planes = frame, upright(planes_of(frame), probe)
        assert last_planes is not None
        cut = [cut_square(plane, squares[i - start_frame], probe, size) for plane in last_planes]
        crops[i - start_frame] = to_rgb(cv2.merge(cut), frame, probe)
        done += 1
    if done < len(squares):
        missing = len(squares) - done
        raise MediaError("error:decode", f"{reader.path}: ends at frame {start_frame + done}, {missing} too early")
    return crops


def read_pictures(reader: GridReader, start_frame: int, end_frame: int) -> list[Picture]:
    """The grid frames [start_frame, end_frame) whole, upright, as planes: one object for frames that repeat.

    Raises MediaError("error:decode") if the file ends before the last of them.
    """
    found: list[Picture] = []
    last_frame, picture = None, None
    for _, frame in reader.frames(start_frame, end_frame):
        if frame is not last_frame or picture is None:
            last_frame, picture = frame, Picture.of(frame, reader.probe)
        found.append(picture)
    if len(found) < end_frame - start_frame:
        raise MediaError("error:decode", f"{reader.path}: ends at frame {start_frame + len(found)}, before {end_frame}")
    return found


def cut_square(plane: np.ndarray, square: np.ndarray, probe: Probe, size: int) -> np.ndarray:
    """One plane inside a square given in source pixels, resized to `size`: whole plane pixels, border repeated."""
    height, width = plane.shape
    x0, y0, x1, y1 = plane_square(square, plane.shape, probe)
    inside = plane[max(y0, 0) : max(y1, 1), max(x0, 0) : max(x1, 1)]
    pads = (max(-y0, 0), max(y1 - height, 0), max(-x0, 0), max(x1 - width, 0))
    if any(pads):
        inside = cv2.copyMakeBorder(inside, *pads, cv2.BORDER_REPLICATE)
    return resize_plane(inside, size)


def plane_square(square: np.ndarray, shape: tuple[int, ...], probe: Probe) -> np.ndarray:
    """A square given in source pixels in those of a plane (of height and width `shape`), at least one wide: int [4]."""
    height, width = shape
    x0, y0, x1, y1 = np.round(square * ([width / probe.width, height / probe.height] * 2)).astype(int)
    return np.array([x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)])


def resize_plane(plane: np.ndarray, size: int) -> np.ndarray:
    return cv2.resize(plane, (size, size), interpolation=cv2.INTER_AREA if plane.shape[0] >= size else cv2.INTER_CUBIC)


def planes_of(frame: VideoFrame) -> Planes:
    """Y, U, V of a frame as 8-bit arrays, without a copy when the decoder made 4:2:0 (chroma at half size)."""
    if frame.format.name not in PLANAR:
        frame = frame.reformat(format="yuv420p", threads=1)
    y, u, v = (
        np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
        for plane in frame.planes[:3]
    )
    return y, u, v


def upright(planes: Planes, probe: Probe) -> Planes:
    """Planes flipped and turned the way a player shows them."""
    quarter_turns = probe.rotation // 90 % 4  # counter-clockwise, as numpy counts
    if not quarter_turns and not probe.mirrored:
        return planes
    flipped = [plane[:, ::-1] if probe.mirrored else plane for plane in planes]
    y, u, v = (np.ascontiguousarray(np.rot90(plane, quarter_turns)) for plane in flipped)
    return y, u, v


def to_rgb(yuv: np.ndarray, frame: VideoFrame, probe: Probe) -> np.ndarray:
    """[h, w, 3] YUV of equal plane size -> RGB, uint8, by the frame's own matrix and range."""
    return cv2.transform(yuv, rgb_matrix_of(frame, probe))


def rgb_matrix_of(frame: VideoFrame, probe: Probe) -> np.ndarray:
    return rgb_matrix(int(frame.colorspace), int(frame.color_range), frame.format.name, probe)


def rgb_matrix(colorspace: int, color_range: int, pixel_format: str, probe: Probe) -> np.ndarray:
    """[3, 4] float32 from 8-bit Y, U, V, 1 to R, G, B (H.273, equations 38 to 47)."""
    unmarked = LUMA_WEIGHTS[1] if min(probe.width, probe.height) >= HD_HEIGHT else BT601
    k_r, k_b = unmarked if colorspace == UNSPECIFIED else LUMA_WEIGHTS.get(colorspace, BT601)
    full = color_range == FULL_RANGE or pixel_format.startswith("yuvj")
    luma, chroma, black = (1.0, 1.0, 0.0) if full else (255 / 219, 255 / 224, 16.0)
    k_g = 1 - k_r - k_b
    red, blue = 2 * (1 - k_r) * chroma, 2 * (1 - k_b) * chroma
    rows = np.array([[luma, 0, red], [luma, -blue * k_b / k_g, -red * k_r / k_g], [luma, blue, 0]], np.float32)
    offset = -rows @ np.array([black, 128, 128], np.float32)
    return np.column_stack([rows, offset])
