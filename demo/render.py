"""An identity and a mouth track -> frames; frames and sound -> one video file.

Per frame the four nearest mouth pictures are mixed, the eyelids likewise, and the whole picture is bent a little: head
motion, a small turn by parallax, camera sway. What that gives up: shoulders stand still and a head turns three degrees
at most. Random numbers come from the caller's generator: the same seed gives the same frames and the same bytes.
"""

import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import cv2
import numpy as np
from av.codec.context import Flags
from scipy.ndimage import gaussian_filter1d

from demo.faces import OPENINGS, WIDTHS, Identity, smoothstep
from demo.generator import IMAGE_SIZE
from demo.speech import SAMPLE_RATE

FADE_PIXELS, EDGE_COLUMNS = 70, 24
FACE_CENTRE = 0.53  # height of the face in the portrait
COARSE = 8  # the bending is computed on every 8th pixel
NOISE_SIGMA, NOISE_TILES, NOISE_MARGIN = 2.2, 3, 32
BLINK = (0.35, 0.9, 1.0, 0.75, 0.4, 0.15)  # eyelid, at 25 fps
BLINK_EVERY_S = (1.8, 5.0)
# Standard deviations: shares of the face width, degrees, share, radians (times depth in pixels), pixels.
SHIFT_X, SHIFT_Y, TILT, SCALE, YAW, PITCH, SWAY = 0.010, 0.008, 0.9, 0.006, 0.055, 0.03, 1.2
NOD, NOD_S = 0.05, 0.10
SLOWNESS_S = 0.45
MOTION_RATE = 50
VIDEO_CLOCK = Fraction(1, 90_000)
X264_PARAMS = "threads=1:lookahead-threads=1:sliced-threads=0"
if platform.machine() in ("x86_64", "AMD64"):
    # The AVX-512 code of PyAV 18.1's x264 (build 165) reads memory that it never wrote: 50 encodes of the same frames
    # gave 18 different files (preset medium), with AVX2 or SSE4.2 one. It is not slower either.
    X264_PARAMS += ":asm=SSE4.2"


@dataclass(frozen=True)
class Framing:
    """Where the portrait stands in the picture: its side in pixels (at least the height) and its centre, as shares."""

    width: int
    height: int
    side: int
    centre_x: float = 0.5
    centre_y: float = 0.5


@dataclass(frozen=True)
class Motion:
    """Head and eyelids over time, each [T]."""

    shift: np.ndarray  # [T, 2] face widths
    tilt: np.ndarray  # radians
    scale: np.ndarray
    turn: np.ndarray  # [T, 2] yaw and pitch, radians
    sway: np.ndarray  # [T, 2] pixels
    eyelid: np.ndarray  # 0 open .. 1 closed


def make_motion(times: np.ndarray, stresses_s: Sequence[float], rng: np.random.Generator) -> Motion:
    """Slow random head motion, a nod on stressed syllables and blinks, for frames shown from `times` (seconds) on."""
    ticks = int(times[-1] * MOTION_RATE) + 2

    def wander(deviation: float, count: int = 1) -> np.ndarray:
        margin = int(4 * SLOWNESS_S * MOTION_RATE)
        noise = gaussian_filter1d(rng.standard_normal((ticks + 2 * margin, count)), SLOWNESS_S * MOTION_RATE, axis=0)
        noise = (deviation * noise / noise.std(0))[margin : margin + ticks]
        return np.stack([np.interp(times * MOTION_RATE, np.arange(ticks), column) for column in noise.T], -1)

    shift = np.hstack([wander(SHIFT_X), wander(SHIFT_Y)])
    tilt, scale, sway = wander(np.radians(TILT))[:, 0], wander(SCALE)[:, 0], wander(SWAY, 2)
    turn = np.hstack([wander(YAW), wander(PITCH)])
    for stress_s in stresses_s:
        turn[:, 1] += NOD * rng.uniform(0.2, 1.0) * np.exp(-(((times - stress_s) / NOD_S) ** 2) / 2)
    return Motion(shift, tilt, scale, turn, sway, _blinks(times, rng))


def _blinks(times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    eyelid = np.zeros(len(times))
    start_s = rng.uniform(0.5, BLINK_EVERY_S[1])
    while start_s < times[-1]:
        phase = (times - start_s) * 25
        eyelid = np.maximum(eyelid, np.interp(phase, np.arange(-1, len(BLINK) + 1), (0, *BLINK, 0), left=0, right=0))
        start_s += rng.uniform(*BLINK_EVERY_S)
    return eyelid


class Stage:
    """One identity set up for one framing: everything that does not change from frame to frame."""

    def __init__(self, identity: Identity, framing: Framing):
        self.framing = framing
        zoom = framing.side / IMAGE_SIZE
        left = round(framing.centre_x * framing.width - framing.side / 2)
        top = round(framing.centre_y * framing.height - FACE_CENTRE * framing.side)
        top = min(0, max(framing.height - framing.side, top))
        self._place = zoom, np.array([left, top])
        self.points = identity.points[:, :2] * zoom + [left, top]
        self._canvas = _extend(_resized(identity.portrait, zoom), framing, left, top)
        self._mouths, self._mouth_box = self._scaled_parts(identity.mouths, identity.mouth_origin)
        self._eyes, self._eye_box = self._scaled_parts(identity.eyes, identity.eye_origin)
        self._weights = self._head_weights(identity)

    def _scaled_parts(self, parts: np.ndarray, origin: np.ndarray):
        """Pictures of a part at the canvas' scale, and the canvas box they fill; cut to the canvas."""
        zoom, corner = self._place
        size = np.array([parts.shape[-2], parts.shape[-3]])
        low = np.floor(origin * zoom).astype(int)
        high = np.ceil((origin + size) * zoom).astype(int)
        # The same sampling grid as the resized portrait, so that the part's border falls on itself.
        shift = np.array([[1 / zoom, 0, 0], [0, 1 / zoom, 0]])
        shift[:, 2] = (low + 0.5) / zoom - 0.5 - origin
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        flat = parts.reshape(-1, *parts.shape[-3:])
        width, height = (high - low).tolist()
        if zoom < 1:  # without this the finer stubble would shimmer
            flat = [cv2.GaussianBlur(p, (0, 0), 0.45 / zoom) if zoom < 0.6 else p for p in flat]
        scaled = np.stack(
            [cv2.warpAffine(p, shift, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE) for p in flat]
        )
        x0, y0 = low + corner
        cut_x0, cut_y0 = max(0, x0), max(0, y0)
        cut_x1, cut_y1 = min(self.framing.width, x0 + width), min(self.framing.height, y0 + height)
        scaled = scaled[:, cut_y0 - y0 : cut_y1 - y0, cut_x0 - x0 : cut_x1 - x0]
        return scaled.reshape(*parts.shape[:-3], *scaled.shape[1:]), (cut_x0, cut_y0, cut_x1, cut_y1)

    def _head_weights(self, identity: Identity):
        """On the coarse grid: positions [h, w, 2], the share of the head's motion [h, w], depth in pixels [h, w]."""
        height, width = -(-self.framing.height // COARSE) + 1, -(-self.framing.width // COARSE) + 1
        grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32) * COARSE
        p = self.points
        self._face_width = float(np.linalg.norm(p[234] - p[454]))
        face_height = float(np.linalg.norm(p[10] - p[152]))
        centre = (p[10] + p[152]) / 2 - [0, 0.08 * face_height]
        radius = np.linalg.norm((grid - centre) / [0.66 * self._face_width, 0.72 * face_height], axis=-1)
        head = 1 - smoothstep((radius - 1) / 0.75)
        self._neck = p[152] + [0, 0.25 * face_height]
        depth = np.zeros((height, width), np.float32)
        count = np.full((height, width), 1e-3, np.float32)
        z = (identity.points[:468, 2].max() - identity.points[:468, 2]) * self._place[0]
        where = np.round(p[:468] / COARSE).astype(int)
        inside = (where >= 0).all(1) & (where < [width, height]).all(1)
        np.add.at(depth, (where[inside, 1], where[inside, 0]), z[inside])
        np.add.at(count, (where[inside, 1], where[inside, 0]), 1.0)
        blur = 0.07 * self._face_width / COARSE
        depth = cv2.GaussianBlur(depth, (0, 0), blur) / (cv2.GaussianBlur(count, (0, 0), blur) + 0.02)
        depth = cv2.GaussianBlur(depth, (0, 0), 0.8 * blur)
        return grid, head.astype(np.float32), depth * head.astype(np.float32)

    def draw(self, opening: float, width: float, motion: Motion, t: int) -> np.ndarray:
        """One frame without noise: [H, W, 3] uint8 RGB."""
        canvas = self._canvas.copy()
        x0, y0, x1, y1 = self._mouth_box
        canvas[y0:y1, x0:x1] = _mix_grid(self._mouths, opening, width)
        eyelid = float(motion.eyelid[t])
        if eyelid > 0:
            x0, y0, x1, y1 = self._eye_box
            canvas[y0:y1, x0:x1] = _mix_line(self._eyes, np.arange(len(self._eyes)) / (len(self._eyes) - 1), eyelid)
        grid, head, depth = self._weights
        cos, sin = np.cos(motion.tilt[t]), np.sin(motion.tilt[t])
        linear = (1 + motion.scale[t]) * np.array([[cos, -sin], [sin, cos]]) - np.eye(2)
        moved = (grid - self._neck.astype(np.float32)) @ linear.T.astype(np.float32)
        moved += (motion.shift[t] * self._face_width).astype(np.float32)
        moved *= head[..., None]
        moved += depth[..., None] * motion.turn[t].astype(np.float32) + motion.sway[t].astype(np.float32)
        source = grid - moved
        size = source.shape[1] * COARSE, source.shape[0] * COARSE
        # Pixel x of the enlarged map must hold the value of grid position x / COARSE, hence warpAffine and not resize.
        enlarge = np.array([[1 / COARSE, 0, 0], [0, 1 / COARSE, 0]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        full = cv2.warpAffine(source, enlarge, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
        full = full[: self.framing.height, : self.framing.width]
        x, y = cv2.split(full)
        return cv2.remap(canvas, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def _mix_line(pictures: np.ndarray, nodes: Sequence[float] | np.ndarray, value: float) -> np.ndarray:
    """The mix of the two pictures whose nodes are around the value."""
    right = int(np.clip(np.searchsorted(nodes, value), 1, len(nodes) - 1))
    share = float(np.clip((value - nodes[right - 1]) / (nodes[right] - nodes[right - 1]), 0, 1))
    if share in (0.0, 1.0):
        return pictures[right - 1 + int(share)]
    return cv2.addWeighted(pictures[right - 1], 1 - share, pictures[right], share, 0)


def _mix_grid(mouths: np.ndarray, opening: float, width: float) -> np.ndarray:
    """The mix of the four mouth pictures around an opening 0..1 and a width -1..1."""
    row = int(np.clip(np.searchsorted(OPENINGS, opening), 1, len(OPENINGS) - 1))
    upper, lower = (_mix_line(mouths[r], WIDTHS, width) for r in (row - 1, row))
    share = float(np.clip((opening - OPENINGS[row - 1]) / (OPENINGS[row] - OPENINGS[row - 1]), 0, 1))
    return cv2.addWeighted(upper, 1 - share, lower, share, 0)


def _resized(portrait: np.ndarray, zoom: float) -> np.ndarray:
    side = round(portrait.shape[0] * zoom)
    return cv2.resize(portrait, (side, side), interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR)


def _extend(portrait: np.ndarray, framing: Framing, left: int, top: int) -> np.ndarray:
    """The portrait in its frame; outside it, mirrored and fading to the mean of its outer columns."""
    side = portrait.shape[0]
    rows = portrait[-top : -top + framing.height]
    x = np.arange(framing.width) - left
    mirrored = np.where(x < 0, -x - 1, np.where(x >= side, 2 * side - 1 - x, x))
    canvas = rows[:, np.clip(mirrored, 0, side - 1)].astype(np.float32)
    for outside, columns in ((-x, rows[:, :EDGE_COLUMNS]), (x - side + 1, rows[:, -EDGE_COLUMNS:])):
        fade = smoothstep(outside / FADE_PIXELS)[None, :, None].astype(np.float32)
        canvas += fade * (_wall(columns) - canvas)
    return np.clip(canvas + 0.5, 0, 255).astype(np.uint8)


def _wall(columns: np.ndarray) -> np.ndarray:
    """The mean of some columns, blurred down the picture: [H, 1, 3] float32."""
    return gaussian_filter1d(columns.mean(1, dtype=np.float64), 25, axis=0, mode="nearest")[:, None].astype(np.float32)


class Grain:
    """Camera noise from a few prepared tiles, laid down at a random place each frame."""

    def __init__(self, width: int, height: int, rng: np.random.Generator, sigma: float = NOISE_SIGMA):
        self._rng, self._size = rng, (height, width)
        shape = NOISE_TILES, height + NOISE_MARGIN, width + NOISE_MARGIN, 3
        noise = np.round(sigma * rng.standard_normal(shape, dtype=np.float32))
        self._lighter, self._darker = np.maximum(noise, 0).astype(np.uint8), np.maximum(-noise, 0).astype(np.uint8)

    def add(self, frame: np.ndarray) -> np.ndarray:
        """The frame with noise."""
        tile, y, x = (int(self._rng.integers(n)) for n in (NOISE_TILES, NOISE_MARGIN, NOISE_MARGIN))
        height, width = self._size
        window = tile, slice(y, y + height), slice(x, x + width)
        return cv2.subtract(cv2.add(frame, self._lighter[window]), self._darker[window])


@dataclass(frozen=True)
class Encoding:
    """How a video file is written."""

    fps: Fraction = Fraction(25)
    crf: int = 20
    bit_rate: int | None = None  # bits per second; replaces crf
    audio_layout: str | None = "mono"  # None: no audio stream
    rotation: int = 0  # degrees clockwise a player must turn the stored picture: 0, 90, 180, 270


def write_video(
    path: Path, frames: Iterable[np.ndarray], times_s: Sequence[Fraction], sound: np.ndarray, encoding: Encoding
) -> None:
    """H.264 and AAC in MP4: upright RGB frames, each shown from its time on, sound [N] at SAMPLE_RATE.

    Equal input gives an equal file, and it appears at its name only when it is whole.
    """
    partial = path.with_name(f".{path.name}.part")
    stored = (np.ascontiguousarray(np.rot90(frame, encoding.rotation // 90)) for frame in frames)
    first = next(stored)
    with av.open(str(partial), "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        video = _add_video(container, encoding, width=first.shape[1], height=first.shape[0])
        audio = _add_audio(container, encoding) if encoding.audio_layout else None
        written = 0
        for frame, time_s in zip(chain((first,), stored), times_s, strict=True):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.time_base = VIDEO_CLOCK
            picture.pts = round(time_s / VIDEO_CLOCK)
            container.mux(video.encode(picture))
            if audio is not None:
                until = min(len(sound), int((time_s + 1) * SAMPLE_RATE))
                _encode_audio(container, audio, sound[written:until], written)
                written = max(written, until)
        container.mux(video.encode(None))
        if audio is not None:
            _encode_audio(container, audio, sound[written:], written)
            container.mux(audio.encode(None))
    if encoding.rotation:
        partial.write_bytes(_with_rotation(partial.read_bytes(), encoding.rotation))
    partial.replace(path)


def _add_video(container, encoding: Encoding, width: int, height: int):
    stream = container.add_stream("libx264", rate=encoding.fps)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.codec_context.time_base = VIDEO_CLOCK
    stream.codec_context.thread_count = 1  # more threads cut the picture differently
    options = {"preset": "veryfast", "x264-params": X264_PARAMS}
    if encoding.bit_rate is None:
        options["crf"] = str(encoding.crf)
    else:
        stream.codec_context.bit_rate = encoding.bit_rate
    stream.codec_context.options = options
    return stream


def _add_audio(container, encoding: Encoding):
    stream = container.add_stream("aac", rate=SAMPLE_RATE, layout=encoding.audio_layout)
    stream.codec_context.flags |= Flags.bitexact
    stream.codec_context.bit_rate = 64_000 * stream.codec_context.layout.nb_channels
    return stream


def _encode_audio(container, stream, sound: np.ndarray, start: int) -> None:
    if len(sound) == 0:
        return
    layout = stream.codec_context.layout
    names = [channel.name for channel in layout.channels]
    planes = np.zeros((len(names), len(sound)), np.float32)
    speakers = [names.index("FC")] if "FC" in names else range(len(names))  # film sound: speech is in the centre
    planes[speakers] = sound
    frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout=layout.name)
    frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, start, Fraction(1, SAMPLE_RATE)
    container.mux(stream.encode(frame))


def _with_rotation(data: bytes, rotation: int) -> bytes:
    """MP4 bytes with the display matrix of the video track turned; PyAV has no call for it.

    Of the `tkhd` boxes (ISO 14496-12, 8.3.2) the one with a picture size is the video's.
    """
    one = 0x0001_0000
    cos, sin = {90: (0, one), 180: (-one, 0), 270: (0, -one)}[rotation]
    matrix = b"".join(v.to_bytes(4, "big", signed=True) for v in (cos, sin, 0, -sin, cos, 0, 0, 0, 0x4000_0000))
    position = data.find(b"tkhd")
    while position >= 0:
        start = position + 4 + 40  # after version and flags, times, id, duration, reserved, layer, volume
        size = data[start + 36 : start + 44]
        if any(size):
            data = data[:start] + matrix + data[start + 36 :]
        position = data.find(b"tkhd", position + 4)
    return data
