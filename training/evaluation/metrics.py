"""One generated video beside its reference, a few frames at a time -> the numbers of the video, and the features of its
pictures for the distances that need all videos.

As in torchmetrics a metric has `reset` (before a video), `update` (with some of its frames) and `compute`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import cv2
import numpy as np
import torch
from skimage.metrics import mean_squared_error, structural_similarity

from clock import SAMPLES_PER_FRAME, WHISPER_ROWS_PER_FRAME
from media.audio import Samples, read_audio
from media.frames import scan
from media.geometry import fill_gaps, squares
from media.probe import Probe, probe
from training.evaluation.frechet import Features

if TYPE_CHECKING:
    from models.face_landmarks import FaceLandmarks
    from models.lip_probe import LipProbe
    from models.syncnet import SyncNet
    from models.whisper_features import WhisperFeatures
    from models.yolo_face import YoloFace
    from training.evaluation.i3d import I3D
    from training.evaluation.inception import Inception
    from training.evaluation.lpips import Lpips

DETECTOR_PX = 480  # benchmarks/README.md: no face missed
CHUNK = 16  # frames of both videos: 200 MB at 1080p
CLIP_FRAMES = 16
CLIP_EVERY = 25  # frames from the start of a clip to that of the next: one a second
SYNC_WINDOWS = 64  # embedded at once

GENERATED, REFERENCE = "generated", "reference"
SIDES = (GENERATED, REFERENCE)

Row = dict[str, float | int | str | None]
Sounds = dict[str, Samples | None]


@dataclass(frozen=True)
class Chunk:
    """The same frames of both videos, [H, W, 3] uint8 RGB, and where the reference's face is in them.

    `boxes` [N, 4] are the squares around the face, `sync_boxes` [N, 4] SyncNet's; None if no metric needs them.
    """

    first: int
    frames: dict[str, list[np.ndarray]]
    boxes: np.ndarray | None
    sync_boxes: np.ndarray | None
    whole: bool  # compare frames, not faces
    size: int = 0  # pixels to which faces are scaled

    def __len__(self) -> int:
        return len(self.frames[REFERENCE])

    @cached_property
    def pictures(self) -> dict[str, np.ndarray]:
        """What is compared: [N, h, w, 3] per side."""
        return {side: np.stack(frames) for side, frames in self.frames.items()} if self.whole else self.faces

    @cached_property
    def faces(self) -> dict[str, np.ndarray]:
        """The squares around the face: [N, size, size, 3] per side."""
        assert self.boxes is not None
        return {
            side: np.stack([cut(f, b, self.size) for f, b in zip(fs, self.boxes, strict=True)])
            for side, fs in self.frames.items()
        }

    @cached_property
    def sync_crops(self) -> dict[str, list[np.ndarray]]:
        """SyncNet's [224, 224, 3] pictures per side."""
        from models.syncnet import crop

        assert self.sync_boxes is not None
        return {
            side: [crop(f, b) for f, b in zip(fs, self.sync_boxes, strict=True)] for side, fs in self.frames.items()
        }


class Metric(Protocol):
    """Numbers of one video after another."""

    def reset(self, video: int, sounds: Sounds) -> None: ...
    def update(self, chunk: Chunk) -> None: ...
    def compute(self) -> Row: ...


@dataclass(frozen=True)
class FaceCrop:
    """How curation cut faces out: the settings of `steps/crop` of the same names."""

    size: int  # pixels
    expansion: float
    smooth_frames: float


@dataclass(frozen=True)
class Settings:
    """How two videos are compared."""

    crop: FaceCrop
    whole: bool = False  # frames instead of faces
    length_tolerance: int = 2  # frames of 25 fps


def measure(
    paths: dict[str, Path],
    video: int,
    metrics: Sequence[Metric],
    detector: "YoloFace | None",
    settings: Settings,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Row:
    """Return the numbers of the video of each side; `advance` is called with how many frames are done, of how many.

    Raises ValueError (MediaError among it) if the two cannot be compared: sizes, lengths, no face, no sound.
    """
    probes = {side: probe(path) for side, path in paths.items()}
    check_comparable(paths, probes, settings.length_tolerance)
    sounds: Sounds = dict.fromkeys(SIDES)
    if any(isinstance(each, SyncMetric | LipMetric) for each in metrics):
        sounds = {side: read_audio(path, probes[side]) for side, path in paths.items()}
        if sounds[GENERATED] is None:
            raise ValueError(f"{paths[GENERATED]}: no sound, which sync is about; choose other --metrics")
    faces = None if detector is None else find_faces(paths[REFERENCE], probes[REFERENCE], detector)
    crops_for_sync = any(isinstance(each, SyncMetric) for each in metrics)
    for each in metrics:
        each.reset(video, sounds)
    frames, promised = 0, min(found.frames for found in probes.values())
    for chunk in read_chunks(paths, probes, faces, crops_for_sync, settings):
        for each in metrics:
            each.update(chunk)
        frames += len(chunk)
        advance(frames, promised)
    if frames < promised - settings.length_tolerance:
        raise ValueError(f"{' or '.join(map(str, paths.values()))} ends after {frames} of {promised} frames")
    return {"frames": frames} | {name: value for each in metrics for name, value in each.compute().items()}


def check_comparable(paths: dict[str, Path], probes: dict[str, Probe], length_tolerance: int) -> None:
    """Raises ValueError unless the videos have one size and, nearly, one length."""
    ours, theirs = (probes[side] for side in SIDES)
    if (ours.width, ours.height) != (theirs.width, theirs.height):
        raise ValueError(
            f"{paths[GENERATED]} is {ours.width}x{ours.height}, its reference {theirs.width}x{theirs.height}: "
            "videos are compared pixel by pixel"
        )
    if abs(ours.frames - theirs.frames) > length_tolerance:
        raise ValueError(
            f"{paths[GENERATED]} lasts {ours.frames} frames of 25 fps, its reference {theirs.frames}: "
            "cut the longer one, or raise --length-tolerance"
        )


def find_faces(path: Path, found: Probe, detector: "YoloFace") -> np.ndarray:
    """Return the largest face of every frame, [T, 4], interpolated where there is none. ValueError if there is none."""
    from models.yolo_face import largest_faces

    boxes = largest_faces(detector, scan(path, found, DETECTOR_PX), max(found.width, found.height))
    seen = np.isfinite(boxes).all(axis=1)
    if not seen.any():
        raise ValueError(f"{path}: no face in it; --region frame needs none")
    return fill_gaps(boxes, np.asarray(seen))


def read_chunks(
    paths: dict[str, Path], probes: dict[str, Probe], faces: np.ndarray | None, crops_for_sync: bool, settings: Settings
) -> Iterator[Chunk]:
    """Yield the frames of both videos together, until one of them ends; `faces` [T, 4] are the reference's."""
    from models.syncnet import syncnet_boxes

    size, crop = (probes[REFERENCE].width, probes[REFERENCE].height), settings.crop
    boxes = None if faces is None else squares(faces, crop.expansion, crop.smooth_frames, *size)
    sync_boxes = syncnet_boxes(faces) if faces is not None and crops_for_sync else None
    reading = zip(*(scan(paths[side], probes[side], max(size)) for side in SIDES), strict=False)
    first = 0
    while part := list(islice(reading, CHUNK)):
        frames = {side: [each[k][1] for each in part] for k, side in enumerate(SIDES)}
        inside = slice(first, first + len(part))
        face, mouth = (None if track is None else track[inside] for track in (boxes, sync_boxes))
        yield Chunk(first, frames, face, mouth, settings.whole, crop.size)
        first += len(part)


def cut(frame: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    """Return a square of a frame, in whole pixels, as [size, size, 3]."""
    x0, y0, x1, y1 = np.round(box).astype(int)
    inside = frame[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)]
    how = cv2.INTER_AREA if len(inside) >= size else cv2.INTER_CUBIC
    return cv2.resize(inside, (size, size), interpolation=how)


class PixelSimilarity:
    """PSNR of the mean squared error of all frames, and the mean SSIM."""

    def reset(self, video: int, sounds: Sounds) -> None:
        self.errors: list[float] = []
        self.likenesses: list[float] = []

    def update(self, chunk: Chunk) -> None:
        for ours, theirs in zip(chunk.pictures[GENERATED], chunk.pictures[REFERENCE], strict=True):
            self.errors.append(float(mean_squared_error(theirs, ours)))
            self.likenesses.append(ssim(ours, theirs))

    def compute(self) -> Row:
        return {"psnr": psnr(float(np.mean(self.errors))), "ssim": float(np.mean(self.likenesses))}


def psnr(squared_error: float) -> float:
    """Decibels below 255 levels; infinite for equal pictures."""
    return float(10 * np.log10(255**2 / squared_error)) if squared_error else float("inf")


def ssim(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Structural similarity of [H, W, 3] pictures, channel by channel, with its authors' settings."""
    how = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return float(cast(float, structural_similarity(theirs, ours, channel_axis=2, data_range=255, **how)))


class PerceptualDistance:
    """The mean LPIPS."""

    def __init__(self, network: "Lpips") -> None:
        self.network = network

    def reset(self, video: int, sounds: Sounds) -> None:
        self.distances: list[np.ndarray] = []

    def update(self, chunk: Chunk) -> None:
        self.distances.append(self.network.measure(chunk.pictures[GENERATED], chunk.pictures[REFERENCE]))

    def compute(self) -> Row:
        return {"lpips": float(np.concatenate(self.distances).mean())}


class FrameFeatures:
    """Inception's features of every frame, put aside for FID."""

    def __init__(self, network: "Inception", features: Features) -> None:
        self.network, self.features = network, features

    def reset(self, video: int, sounds: Sounds) -> None:
        self.video = video

    def update(self, chunk: Chunk) -> None:
        for side in SIDES:
            self.features.add(self.video, side, self.network.measure(chunk.pictures[side]))

    def compute(self) -> Row:
        return {}


class ClipFeatures:
    """I3D's features of 16 frames of each second, put aside for FVD."""

    def __init__(self, network: "I3D", features: Features) -> None:
        self.network, self.features = network, features

    def reset(self, video: int, sounds: Sounds) -> None:
        self.video, self.count = video, 0
        self.waiting: dict[str, list[np.ndarray]] = {side: [] for side in SIDES}

    def update(self, chunk: Chunk) -> None:
        for k in range(len(chunk.frames[REFERENCE])):
            if (chunk.first + k) % CLIP_EVERY >= CLIP_FRAMES:
                continue
            for side in SIDES:
                self.waiting[side].append(chunk.pictures[side][k])
            if len(self.waiting[REFERENCE]) == CLIP_FRAMES:
                self.finish_clip()

    def finish_clip(self) -> None:
        self.count += 1
        for side, frames in self.waiting.items():
            self.features.add(self.video, side, self.network.measure(np.stack(frames)[None]))
            frames.clear()

    def compute(self) -> Row:
        return {"clips": self.count}


class SyncMetric:
    """SyncNet's confidence, distance and offset of both videos, each with its own sound."""

    def __init__(self, network: "SyncNet") -> None:
        self.network = network

    def reset(self, video: int, sounds: Sounds) -> None:
        self.sounds = sounds
        self.waiting: dict[str, list[np.ndarray]] = {side: [] for side in SIDES}
        self.lips: dict[str, list[torch.Tensor]] = {side: [] for side in SIDES}

    def update(self, chunk: Chunk) -> None:
        for side, crops in chunk.sync_crops.items():
            self.waiting[side] += crops
            self.embed(side, SYNC_WINDOWS)

    def embed(self, side: str, least: int) -> None:
        """Embed the lips of the frames that wait, if they begin so many windows; the last four stay for the next."""
        from models.syncnet import WINDOW_FRAMES

        windows = len(self.waiting[side]) - WINDOW_FRAMES + 1
        if windows >= least:
            self.lips[side].append(self.network.embed_lips(np.stack(self.waiting[side]), windows))
            self.waiting[side] = self.waiting[side][windows:]

    def compute(self) -> Row:
        return {f"{column_prefix(side)}{name}": value for side in SIDES for name, value in self.score(side).items()}

    def score(self, side: str) -> Row:
        from models.syncnet import compare

        self.embed(side, 1)
        sound = self.sounds[side]
        lips = torch.cat(self.lips[side]) if self.lips[side] else torch.empty(0)
        # SyncNet's authors stop one window short of the last complete one, as models/syncnet.py does.
        windows = 0 if sound is None else min(len(lips) - 1, len(sound) // SAMPLES_PER_FRAME - 5)
        if sound is None or windows < 1:
            return {"sync_c": None, "sync_d": None, "sync_offset_frames": None}
        found = compare(lips[:windows], self.network.embed_audio(sound[:], windows))
        # The house's sign: the sound comes after the lips.
        return {"sync_c": found.confidence, "sync_d": found.min_distance, "sync_offset_frames": -found.offset_frames}


class LipMetric:
    """The lip probe's confidence and offset of both videos, each with its own sound."""

    def __init__(self, network: "LipProbe", landmarks: "FaceLandmarks", whisper: "WhisperFeatures") -> None:
        self.network, self.landmarks, self.whisper = network, landmarks, whisper

    def reset(self, video: int, sounds: Sounds) -> None:
        self.sounds = sounds
        self.channels: dict[str, list[np.ndarray]] = {side: [] for side in SIDES}

    def update(self, chunk: Chunk) -> None:
        from models.mouth import mouth_channels

        for side, faces in chunk.faces.items():
            mesh = self.landmarks.measure(faces)
            self.channels[side].append(mouth_channels(mesh.points, mesh.blendshapes))

    def compute(self) -> Row:
        return {f"{column_prefix(side)}{name}": value for side in SIDES for name, value in self.score(side).items()}

    def score(self, side: str) -> Row:
        from models.lip_probe import WHISPER_LAYER

        sound, channels = self.sounds[side], np.concatenate(self.channels[side])
        if sound is None:
            return {"lip_confidence": None, "lip_offset_frames": None}
        rows = self.whisper.rows(sound, 0, WHISPER_ROWS_PER_FRAME * len(channels))[:, WHISPER_LAYER]
        found = self.network.score(channels, rows)
        if found is None:  # too few frames with a face
            return {"lip_confidence": None, "lip_offset_frames": None}
        return {"lip_confidence": found.confidence, "lip_offset_frames": found.offset_frames}


def column_prefix(side: str) -> str:
    """Return what the columns of a side begin with: those of the generated video with nothing."""
    return "" if side == GENERATED else f"{side}_"
