"""Reads one window of a clip: the frames, sound rows and mask that the model sees, and a reference frame.

Only the groups of pictures that hold the frames are decoded, by PyAV on one thread; the pictures stay planes.
"""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, Self

import av
import cv2
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace

from clock import FPS, WHISPER_ROWS_PER_FRAME
from media.frames import planes_of
from media.geometry import within
from models.mask import MaskSettings, context_frames, mask_boxes, median_face, shown_squares
from shards.member import read_rows
from shards.reader import ShardError
from shards.sample import BOXES, LANDMARKS, VIDEO, WHISPER
from training.settings import DataSettings

TRIES = 8  # places tried in a clip for one where the landmarker found a face
READ_AHEAD_BYTES = 8192  # a window needs some 70 kB of a clip; with ffmpeg's default of 32768 it reads 150, so 100
STRICT = {"err_detect": "aggressive+explode"}  # damage is an error, not a smear; free, and finds nearly all of it

Arrays = dict[str, np.ndarray]  # the tensors of a Batch, by name


class OpenClip(Protocol):
    """The members of one sample as files."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def member(self, name: str) -> io.RawIOBase | io.BytesIO: ...


@dataclass(frozen=True)
class StoredClip:
    """A sample to read from; `open` and what it opens may raise ShardError."""

    key: str
    frames: int
    open: Callable[[], OpenClip]


def windows_of(frames: Any, settings: DataSettings) -> Any:
    """How often a clip of so many frames comes in an epoch; also for an array of lengths."""
    fitting = frames // settings.frames
    return fitting if settings.weight == "length" else np.minimum(fitting, 1)


def empty(count: int, settings: DataSettings, layers: int, dim: int, latents: tuple[int, ...] = ()) -> Arrays:
    """Arrays for a batch of `count` windows; of pictures, or of cached latents of this shape [parts, C, h, w]."""
    frames, size = settings.frames, settings.size
    rows = WHISPER_ROWS_PER_FRAME * (frames + 2 * settings.window_frames)
    return {
        **({"latents": np.empty((count, frames, *latents), np.float16)} if latents else {}),
        "video": np.empty((count, 0 if latents else frames, size * 3 // 2, size), np.uint8),
        "reference": np.empty((count, size * 3 // 2, size), np.uint8),
        "mask_boxes": np.empty((count, frames, 4), np.float32),
        "reference_box": np.empty((count, 4), np.float32),
        "whisper": np.empty((count, rows, layers, dim), np.float16),
        "noise_seed": np.empty(count, np.int64),
        "drop_draws": np.empty((count, 2), np.float64),
        "sample": np.empty(count, np.int64),
    }


def fill(
    arrays: Arrays, b: int, clip: StoredClip, reference: StoredClip, random: np.random.Generator, mask: MaskSettings
) -> tuple[str, str] | None:
    """Put a random window of `clip` and a random frame of `reference` at place b; gives (key, reason) if it cannot."""
    into = {name: array[b] for name, array in arrays.items()}
    of_one = [(clip, (read_window, read_reference))]
    of_two = [(clip, (read_window,)), (reference, (read_reference,))]
    for each, reads in of_one if reference.key == clip.key else of_two:
        try:
            with each.open() as sample, open_video(sample) as video:
                for read in reads:
                    read(each, sample, video, random, mask, into)
        except ShardError as error:
            return each.key, str(error)
    draw_rest(arrays, b, random)
    return None


def draw_rest(arrays: Arrays, b: int, random: np.random.Generator) -> None:
    """Draw what is random in a window beside its place: the seed of its noise, and which conditions are dropped."""
    arrays["noise_seed"][b] = random.integers(2**63 - 1)
    arrays["drop_draws"][b] = random.random(2)


def read_window(
    clip: StoredClip,
    sample: OpenClip,
    video: InputContainer,
    random: np.random.Generator,
    mask: MaskSettings,
    into: Arrays,
) -> None:
    """Fill video, mask and sound with a random window. Raises ShardError, or what PyAV raises."""
    frames = len(into["video"])
    start, boxes, squares = place_with_face(clip, sample, width_of(video), frames, random, mask)
    read_sound(clip, sample, start, frames, into["whisper"])
    decode(video, start, into["video"], squares)
    into["mask_boxes"][:] = within(boxes, squares, into["video"].shape[-1])


def read_reference(
    clip: StoredClip,
    sample: OpenClip,
    video: InputContainer,
    random: np.random.Generator,
    mask: MaskSettings,
    into: Arrays,
) -> None:
    """Fill the reference and its mask with a random frame. Raises ShardError, or what PyAV raises."""
    start, boxes, squares = place_with_face(clip, sample, width_of(video), 1, random, mask)
    decode(video, start, into["reference"][None], squares)
    into["reference_box"][:] = within(boxes, squares, into["reference"].shape[-1])[0]


def place_with_face(
    clip: StoredClip, sample: OpenClip, size: int, frames: int, random: np.random.Generator, mask: MaskSettings
) -> tuple[int, np.ndarray, np.ndarray]:
    """(first frame, masks, squares) of a random stretch, uniform over those in which every frame has a mask.

    Both are [frames, 4] in pixels of the clip's pictures of `size`: what is generated, and what of them is shown.
    """
    for _ in range(TRIES):
        start = int(random.integers(clip.frames - frames + 1))
        boxes, squares = read_mask(clip, sample, start, frames, size, mask)
        if np.isfinite(boxes).all():
            return start, boxes, squares
    raise ShardError(f"{clip.key}: no face in {TRIES} random stretches of {frames} frames")


def read_mask(
    clip: StoredClip, sample: OpenClip, start: int, frames: int, size: int, mask: MaskSettings
) -> tuple[np.ndarray, np.ndarray]:
    """Masks and squares, [frames, 4] each, from frame `start` on: the same as of the whole clip, from few landmarks."""
    first = max(start - context_frames(mask), 0)
    landmarks, length = read_rows(sample.member(LANDMARKS), first, start + frames + context_frames(mask))
    boxes, count = read_rows(sample.member(BOXES), 0, clip.frames)
    if not length == count == clip.frames:
        raise ShardError(f"{clip.key}: {length} landmarks and {count} boxes for {clip.frames} frames")
    face = median_face(boxes)
    masks = mask_boxes(landmarks, face, mask)
    part = slice(start - first, start - first + frames)
    return masks[part], shown_squares(masks, face, size, mask)[part]


def read_sound(clip: StoredClip, sample: OpenClip, start: int, frames: int, into: np.ndarray) -> None:
    """Fill [2 (T + 2k), layers, dim] with the Whisper rows of frames [start - k, start + T + k), 0 outside the clip."""
    around = (len(into) - WHISPER_ROWS_PER_FRAME * frames) // 2
    first = WHISPER_ROWS_PER_FRAME * start - around
    rows, length = read_rows(sample.member(WHISPER), first, first + len(into))
    found, expected = [length, *rows.shape[1:]], [WHISPER_ROWS_PER_FRAME * clip.frames, *into.shape[1:]]
    if found != expected or rows.dtype != into.dtype:
        raise ShardError(f"{clip.key}.{WHISPER}: {rows.dtype} {found}, expected {into.dtype} {expected}")
    before = max(-first, 0)
    into[:before], into[before + len(rows) :] = 0, 0
    into[before : before + len(rows)] = rows


@contextmanager
def open_video(sample: OpenClip) -> Iterator[InputContainer]:
    """Open the video of a sample for `decode`; in the `with` block errors of PyAV and of media become ShardError."""
    with sample.member(VIDEO) as file:
        try:
            with av.open(file, "r", format="mp4", buffer_size=READ_AHEAD_BYTES) as container:
                codec = container.streams.video[0].codec_context
                codec.thread_count, codec.options = 1, STRICT
                yield container
        except (FFmpegError, VideoError, IndexError) as error:
            raise ShardError(f"{getattr(file, 'name', VIDEO)}: {getattr(error, 'strerror', None) or error}") from error


def width_of(video: InputContainer) -> int:
    """Pixels of a side of a clip's pictures."""
    return video.streams.video[0].width


class VideoError(ValueError):
    """A video is not what a shard should hold."""


def decode(video: InputContainer, start: int, into: np.ndarray, squares: np.ndarray) -> None:
    """Decode frames from `start` into [T, 3/2 size, size]: the part of each inside its square [T, 4], scaled."""
    stream = video.streams.video[0]
    if stream.average_rate != FPS or stream.width != stream.height or stream.time_base is None:
        raise VideoError(f"{stream.width}x{stream.height} at {stream.average_rate} fps, expected a square at {FPS} fps")
    ticks, zero = float(1 / (stream.time_base * FPS)), stream.start_time or 0  # fractions are slow
    video.seek(zero + round(start * ticks), stream=stream)
    missing = len(into)
    for frame in video.decode(stream):
        i = round((frame.pts - zero) / ticks) - start if frame.pts is not None else -1
        if 0 <= i < len(into):
            put_planes(frame, into[i], squares[i])
            missing -= 1
        if i >= len(into) - 1:
            break
    if missing:
        raise VideoError(f"{missing} of the frames {start} to {start + len(into) - 1} are missing")


def put_planes(frame: VideoFrame, into: np.ndarray, square: np.ndarray) -> None:
    """Copy a square [4] of a frame's planes, scaled if need be, into [3/2 size, size]: Y, then U, then V."""
    found = frame.format.name, frame.colorspace, frame.color_range
    if found != ("yuv420p", Colorspace.ITU709, ColorRange.MPEG):
        raise VideoError(f"pictures are {', '.join(map(str, found))}; expected yuv420p, BT.709, limited range")
    size = into.shape[-1]
    chroma = into[size:].reshape(2, size // 2, size // 2)
    for plane, target, halving in zip(planes_of(frame), (into[:size], *chroma), (1, 2, 2), strict=True):
        x0, y0, x1, y1 = square.astype(int) // halving
        shown = plane[y0:y1, x0:x1]
        if shown.shape == target.shape:
            target[:] = shown
        else:
            kind = cv2.INTER_AREA if len(shown) > len(target) else cv2.INTER_CUBIC
            cv2.resize(shown, target.shape, dst=target, interpolation=kind)
