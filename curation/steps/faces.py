"""The largest face of every frame (paper, appendix A), by a YOLO detector on scaled frames; boxes only are kept."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

import weights
from curation.clip import Clip, FaceTrack
from curation.stage import Scan, Watcher

if TYPE_CHECKING:
    from models.yolo_face import YoloFace


@dataclass(frozen=True)
class Faces(Scan):
    weights: str = "yolov8n_face"
    device: str = "cpu"
    size: int = 640  # pixels on the longer side of the detector's input
    min_score: float = 0.5  # LatentSync's
    batch: int = 1  # on a CPU a batch only costs (performance notes: 20.2 ms alone, 23.7 ms in a batch of 16)

    @cached_property
    def model(self) -> "YoloFace":
        from models.yolo_face import YoloFace

        return YoloFace(weights.require(self.weights)[self.weights], self.device, self.size, self.min_score)

    @property
    def look_px(self) -> int:
        return self.size

    def watch(self, clip: Clip) -> Watcher:
        return FaceWatcher(self, scale=max(clip.source.probe.width, clip.source.probe.height))


@dataclass
class FaceWatcher(Watcher):
    step: Faces
    scale: int  # source pixels on the longer side
    waiting: list[np.ndarray] = field(default_factory=list)
    found: list[np.ndarray] = field(default_factory=list)  # one [N, 5] per distinct picture, source pixels
    order: list[int] = field(default_factory=list)  # for each grid frame its picture in `found`

    def see(self, i: int, picture: np.ndarray, repeated: bool) -> None:
        if not repeated:
            self.waiting.append(picture)
        self.order.append(len(self.found) + len(self.waiting) - 1)
        if len(self.waiting) >= self.step.batch:
            self.detect()

    def detect(self) -> None:
        for picture, boxes in zip(self.waiting, self.step.model.detect(self.waiting), strict=True):
            scaled = boxes.copy()
            scaled[:, :4] *= self.scale / max(picture.shape[:2])
            self.found.append(scaled)
        self.waiting.clear()

    def finish(self, clip: Clip) -> Clip:
        if self.waiting:
            self.detect()
        return replace(clip, track=face_track([self.found[k] for k in self.order]))


def face_track(detections: list[np.ndarray]) -> FaceTrack:
    """A track from the detections of each frame, [N, 5] with the largest first."""
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
