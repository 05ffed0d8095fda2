"""The largest face of every frame (paper, appendix A), by a YOLO detector on scaled frames.

Most frames of a talking head lie between two others that show the same face in nearly the same place. So every
`stride`-th frame is looked at; between two of them the face is interpolated where it hardly moved, and looked for in
every frame elsewhere: where it comes, goes, moves, or where another becomes the largest.

Of the decoded frames, what lies around that face is kept as far as memory goes: `steps/crop` need not decode it again.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from av.video.frame import VideoFrame
from pydantic import NonNegativeInt, PositiveInt

import weights
from curation.clip import Clip, FaceTrack, Segment, Source
from curation.stage import TRACK, Scan, Watcher
from media.geometry import movement
from media.regions import Region
from pipelines import Device, Pixels

if TYPE_CHECKING:
    from models.yolo_face import YoloFace


@dataclass(frozen=True)
class Faces(Scan):
    weights: str = "yolov8n_face"
    device: Device = "cpu"
    size: Pixels = 640  # pixels on the longer side of the detector's input
    min_score: float = 0.5  # LatentSync's
    stride: PositiveInt = 8  # frames from one look to the next, a gap that stable_spans bridges anyway; 1: all
    still: float = 0.1  # box sides: a face that moved or grew less than this between two of them is interpolated
    batch: PositiveInt = 1  # on a CPU a batch only costs (performance notes: 20.2 ms alone, 23.7 ms in a batch of 16)
    keep_mb: NonNegativeInt = 1024  # of the pictures around the face, for steps/crop not to decode again; 0: none
    keep_sides: float = 2.0  # the square that is kept, in sides of the face box; steps/crop cuts 1.7, smoothed

    GIVES = (TRACK,)

    @cached_property
    def model(self) -> "YoloFace":
        from models.yolo_face import YoloFace

        return YoloFace(weights.require(self.weights)[self.weights], self.device, self.size, self.min_score)

    @property
    def look_px(self) -> int:
        return self.size

    def watch(self, clip: Clip) -> Watcher:
        return FaceWatcher(self, clip.source)


@dataclass(slots=True)
class Look:
    """A distinct picture of the source, first shown at grid frame `frame`, until the faces in it are known."""

    frame: int
    picture: np.ndarray | None
    decoded: VideoFrame | None  # while there is room to keep a part of it
    faces: np.ndarray = field(default_factory=lambda: np.zeros((0, 5), np.float32))  # [N, 5] source pixels


@dataclass
class FaceWatcher(Watcher):
    step: Faces
    source: Source
    looks: list[Look] = field(default_factory=list)
    order: list[int] = field(default_factory=list)  # for each grid frame its picture in `looks`
    anchors: list[int] = field(default_factory=list)  # in `looks`: those always looked at, from the last closed one on
    last: np.ndarray | None = None  # the largest face that was settled last
    waiting: int = 0  # bytes of the frames that are held
    full: bool = False

    def see(self, i: int, frame: VideoFrame, picture: np.ndarray, repeated: bool) -> None:
        if repeated:
            self.source.regions.repeat(i)
        else:
            self.looks.append(Look(i, picture, self.admit(frame)))
            if not self.anchors or i - self.looks[self.anchors[-1]].frame >= self.step.stride:
                self.anchors.append(len(self.looks) - 1)
                if len(self.anchors) > self.step.batch:
                    self.close()
        self.order.append(len(self.looks) - 1)

    def finish(self, clip: Clip) -> Clip:
        last = len(self.looks) - 1
        if self.anchors[-1] != last:
            self.anchors.append(last)
        self.close()
        return replace(clip, track=face_track([self.looks[k].faces for k in self.order]))

    def close(self) -> None:
        """Find the faces in all frames up to the last anchor, and free the frames."""
        self.detect([k for k in self.anchors if self.looks[k].picture is not None])
        between = list(pairwise(self.anchors))
        held = [(a, b) for a, b in between if self.holds_still(self.looks[a], self.looks[b])]
        self.detect([k for a, b in between if (a, b) not in held for k in range(a + 1, b)])
        for a, b in held:
            for look in self.looks[a + 1 : b]:
                self.settle(look, interpolate(self.looks[a], self.looks[b], look.frame))
        self.anchors = self.anchors[-1:]

    def detect(self, which: list[int]) -> None:
        for first in range(0, len(which), self.step.batch):
            looks = [self.looks[k] for k in which[first : first + self.step.batch]]
            pictures = [look.picture for look in looks if look.picture is not None]
            for look, boxes in zip(looks, self.step.model.detect(pictures), strict=True):
                faces = boxes.copy()
                faces[:, :4] *= max(self.source.probe.width, self.source.probe.height) / max(pictures[0].shape[:2])
                self.settle(look, faces_inside(faces, self.source.segment))

    def settle(self, look: Look, faces: np.ndarray) -> None:
        """Store the faces of a look; of its frame keep what lies around the largest face, or around the last one."""
        self.last = faces[0, :4] if len(faces) else self.last
        if look.decoded is not None:
            self.waiting -= size_of(look.decoded)
            if self.last is not None:
                region = Region.of(look.decoded, self.last, self.step.keep_sides, self.source.probe)
                self.source.regions.keep(look.frame, region)
        look.faces, look.picture, look.decoded = faces, None, None

    def admit(self, frame: VideoFrame) -> VideoFrame | None:
        """Return the decoded frame to keep until its faces are known, or None once there is no memory for more."""
        self.full |= self.source.regions.bytes + self.waiting + size_of(frame) > self.step.keep_mb * 1e6
        if self.full:
            return None
        self.waiting += size_of(frame)
        return frame

    def holds_still(self, a: Look, b: Look) -> bool:
        """Whether the largest face can be interpolated between two looks: neither has one, or it hardly moved."""
        if len(a.faces) and len(b.faces):
            return bool(movement(np.stack([a.faces[0, :4], b.faces[0, :4]]))[0] <= self.step.still)
        return len(a.faces) == len(b.faces)


def faces_inside(faces: np.ndarray, segment: Segment | None) -> np.ndarray:
    """Those of the faces [N, 5] whose centre lies where a data set's list says that the person is."""
    if segment is None or segment.crop is None:
        return faces
    x0, y0, x1, y1 = segment.crop
    x, y = (faces[:, :2] + faces[:, 2:4]).T / 2
    return faces[(x0 <= x) & (x <= x1) & (y0 <= y) & (y <= y1)]


def size_of(frame: VideoFrame) -> int:
    """Return the size of a decoded frame in bytes."""
    return sum(plane.buffer_size for plane in frame.planes)


def interpolate(a: Look, b: Look, frame: int) -> np.ndarray:
    """Return the faces [N, 5] at a grid frame between two looks: the largest moves evenly, the others stay."""
    faces = a.faces.copy()
    if len(faces):
        faces[0] += (b.faces[0] - a.faces[0]) * (frame - a.frame) / (b.frame - a.frame)
    return faces


def face_track(detections: list[np.ndarray]) -> FaceTrack:
    """Return the track of the largest face, from the detections [N, 5] of each frame with the largest first."""
    frames = len(detections)
    boxes, score = np.zeros((frames, 4), np.float32), np.zeros(frames, np.float32)
    count, second = np.zeros(frames, np.uint8), np.zeros(frames, np.float32)
    for t, faces in enumerate(detections):
        count[t] = min(len(faces), 255)
        if len(faces):
            boxes[t], score[t] = faces[0, :4], faces[0, 4]
        if len(faces) > 1:
            second[t] = (faces[1, 2:4] - faces[1, :2]).min()
    return FaceTrack(boxes, score, count > 0, count, second)
