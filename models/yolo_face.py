"""Faces in pictures, by a YOLO face detector: YOLOv8n as ONNX on CPUs, YOLO11m as .pt on either.

The input is the smallest rectangle that holds the picture (640x384 for 16:9), not a square. A file ending in .onnx is
run by ONNX Runtime on one thread of the CPU, picture by picture, which is faster there than in batches and makes boxes
independent of their neighbours; neither torch nor ultralytics is imported for it. A .pt file is loaded and run by
ultralytics, offline and silent: nothing is sent, installed or written outside the cache folder. It is a pickle: give it
only a file that `weights.py` has verified.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import onnxruntime

import weights as weight_files
from models.onnx_session import one_thread

MAX_NMS_IOU = 0.5  # WIDER FACE's own criterion for "the same face"
DEFAULT_MIN_SCORE = 0.25  # Ultralytics' default
STRIDE = 32  # a YOLO's input has a multiple of this on each side
GREY = 114  # what Ultralytics fills up with


class Detector(Protocol):
    def __call__(self, frames: Sequence[np.ndarray]) -> list[np.ndarray]: ...


class YoloFace:
    """A face detector whose pictures are scaled to `size` pixels on the long side."""

    def __init__(
        self, weights: Path, device: str = "cpu", size: int = 640, min_score: float = DEFAULT_MIN_SCORE
    ) -> None:
        self._detect: Detector
        if Path(weights).suffix == ".onnx":
            self._detect = OnnxYolo(weights, size, min_score)
        else:
            self._detect = UltralyticsYolo(weights, device, size, min_score)

    def detect(self, frames: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The faces of each RGB uint8 picture [H, W, 3]: float32 [N, 5] x0, y0, x1, y1, score, largest first.

        Coordinates are pixels of the given picture; N may be 0. All pictures have one size.
        """
        return [_largest_first(found) for found in self._detect(frames)] if len(frames) else []


class FaceDetector(Protocol):
    """What `YoloFace` does, and a test's stand-in."""

    def detect(self, frames: Sequence[np.ndarray], /) -> list[np.ndarray]: ...


def largest_face(detector: FaceDetector, picture: np.ndarray) -> np.ndarray | None:
    """Return the box [4] of the largest face in a picture, in its pixels, or None."""
    faces = detector.detect([picture])[0]
    return faces[0, :4] if len(faces) else None


def all_faces(
    detector: FaceDetector,
    pictures: Iterable[tuple[int, np.ndarray]],
    longer_side: int,
    on_frame: Callable[[], object] = lambda: None,
) -> list[np.ndarray]:
    """Return the boxes of the faces in each picture of `media.frames.scan`, [N, 4] float32, largest first.

    Boxes are in pixels of the source, whose longer side is given; a picture that is shown again is looked at once.
    """
    found: list[np.ndarray] = []
    last = None
    for _, picture in pictures:
        if picture is last:
            found.append(found[-1])
        else:
            found.append(detector.detect([picture])[0][:, :4] * (longer_side / max(picture.shape[:2])))
        last = picture
        on_frame()
    return found


def largest_faces(detector: FaceDetector, pictures: Iterable[tuple[int, np.ndarray]], longer_side: int) -> np.ndarray:
    """Return the box of the largest face in each picture, as `all_faces` does: [n, 4] float32, NaN without a face."""
    found = all_faces(detector, pictures, longer_side)
    boxes = np.full((len(found), 4), np.nan, np.float32)
    for box, faces in zip(boxes, found, strict=True):
        box[:] = faces[0] if len(faces) else np.nan
    return boxes


class OnnxYolo:
    """A YOLO of versions 8 to 12 with one class, exported by Ultralytics with free sizes and without its NMS."""

    def __init__(self, weights: Path, size: int, min_score: float) -> None:
        self._session = onnxruntime.InferenceSession(weights, one_thread(), providers=["CPUExecutionProvider"])
        self._size, self._min_score = size, min_score

    def __call__(self, frames: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [self._one(frame) for frame in frames]

    def _one(self, frame: np.ndarray) -> np.ndarray:
        height, width = frame.shape[:2]
        scale = self._size / max(height, width)
        scaled = round(width * scale), round(height * scale)
        if scaled != (width, height):
            frame = cv2.resize(frame, scaled, interpolation=cv2.INTER_LINEAR)
        canvas = np.full((_round_up(scaled[1]), _round_up(scaled[0]), 3), GREY, np.uint8)
        left, top = (canvas.shape[1] - scaled[0]) // 2, (canvas.shape[0] - scaled[1]) // 2
        canvas[top : top + scaled[1], left : left + scaled[0]] = frame
        (output,) = self._session.run(None, {"images": cv2.dnn.blobFromImage(canvas, 1 / 255)})
        found = np.asarray(output)[0].T  # [anchors, 5]: centre x, y, width, height, score
        found = found[found[:, 4] > self._min_score]
        corner = found[:, :2] - found[:, 2:4] / 2
        kept = cv2.dnn.NMSBoxes(
            np.hstack([corner, found[:, 2:4]]).tolist(), found[:, 4].tolist(), self._min_score, MAX_NMS_IOU
        )
        boxes = np.hstack([corner, corner + found[:, 2:4]])[np.asarray(kept, int)]
        boxes = (boxes - [left, top, left, top]) / scale
        return np.column_stack([boxes.clip(0, [width, height] * 2), found[np.asarray(kept, int), 4]])


def _round_up(pixels: int) -> int:
    return -(-pixels // STRIDE) * STRIDE


class UltralyticsYolo:
    """A .pt file, run by ultralytics: in half precision and in batches on a GPU, one by one on a CPU."""

    def __init__(self, weights: Path, device: str, size: int, min_score: float) -> None:
        self._yolo = _import_offline().YOLO(str(weights), task="detect")
        self._alone = device == "cpu"
        self._settings: dict[str, Any] = {
            "imgsz": size,
            "conf": min_score,
            "iou": MAX_NMS_IOU,
            "device": device,
            "half": device != "cpu",
            "rect": True,
            "verbose": False,
        }

    def __call__(self, frames: Sequence[np.ndarray]) -> list[np.ndarray]:
        bgr = [np.ascontiguousarray(frame[..., ::-1]) for frame in frames]
        batches = [[picture] for picture in bgr] if self._alone else [bgr]
        results = [result for batch in batches for result in self._yolo.predict(batch, **self._settings)]
        return [result.boxes.data.cpu().numpy()[:, :5] for result in results]


def _largest_first(detections: np.ndarray) -> np.ndarray:
    """Rows x0, y0, x1, y1, score by area; equal areas by score."""
    boxes = detections.astype(np.float32)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return boxes[np.lexsort((-boxes[:, 4], -area))]


def _import_offline() -> Any:
    """Import ultralytics with its telemetry, updates and settings file switched off."""
    folder = weight_files.cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["YOLO_CONFIG_DIR"] = str(folder)
    os.environ["YOLO_OFFLINE"] = "true"  # no analytics, no update check
    os.environ["YOLO_AUTOINSTALL"] = "false"  # it would pip install what it misses
    os.environ["YOLO_VERBOSE"] = "false"
    import ultralytics  # reads the variables above when imported

    if ultralytics.settings["sync"]:
        ultralytics.settings.update({"sync": False})
    return ultralytics
