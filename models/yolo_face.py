"""Faces in pictures, by a YOLO face detector: YOLOv8n as ONNX on CPUs, YOLO11m as .pt on either.

Ultralytics loads and runs both, offline and silent: nothing is sent, installed or written outside the cache folder. The
input is the smallest rectangle that holds the picture (640x384 for 16:9), not a square. On CPU every picture is a batch
of its own, which is faster there and makes its boxes independent of its neighbours. ONNX always runs on the CPU, on one
thread. A .pt file is a pickle: give it only a file that `weights.py` has verified.
"""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

import weights as weight_files

MAX_NMS_IOU = 0.5  # WIDER FACE's own criterion for "the same face"
DEFAULT_MIN_SCORE = 0.25  # Ultralytics' default


class YoloFace:
    """A face detector whose pictures are scaled to at most `size` pixels on the long side."""

    def __init__(
        self, weights: Path, device: str = "cpu", size: int = 640, min_score: float = DEFAULT_MIN_SCORE
    ) -> None:
        ultralytics = _import_offline()
        self._device = "cpu" if Path(weights).suffix == ".onnx" else device
        self._yolo = ultralytics.YOLO(str(weights), task="detect")
        self._settings: dict[str, Any] = {
            "imgsz": size,
            "conf": min_score,
            "iou": MAX_NMS_IOU,
            "device": self._device,
            "rect": True,
            "verbose": False,
        }

    def detect(self, frames: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The faces of each RGB uint8 picture [H, W, 3]: float32 [N, 5] x0, y0, x1, y1, score, largest first.

        Coordinates are pixels of the given picture; N may be 0. All pictures have one size.
        """
        bgr = [np.ascontiguousarray(frame[..., ::-1]) for frame in frames]
        batches = [[picture] for picture in bgr] if self._device == "cpu" else [bgr]
        results = [result for batch in batches if batch for result in self._yolo.predict(batch, **self._settings)]
        return [_largest_first(result.boxes.data.cpu().numpy()) for result in results]


def _largest_first(detections: np.ndarray) -> np.ndarray:
    """Ultralytics' rows x0, y0, x1, y1, score, class without the class; equal areas by score."""
    boxes = detections[:, :5].astype(np.float32)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return boxes[np.lexsort((-boxes[:, 4], -area))]


def _import_offline() -> Any:
    """Ultralytics, told before its first import to keep to itself, and to give ONNX Runtime one thread."""
    folder = weight_files.cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["YOLO_CONFIG_DIR"] = str(folder)
    os.environ["YOLO_OFFLINE"] = "true"  # no analytics, no update check
    os.environ["YOLO_AUTOINSTALL"] = "false"  # it would pip install what it misses
    os.environ["YOLO_VERBOSE"] = "false"
    import ultralytics  # reads the variables above when imported
    from ultralytics.nn.autobackend import AutoBackend
    from ultralytics.nn.backends.onnx import ONNXBackend

    if ultralytics.settings["sync"]:
        ultralytics.settings.update({"sync": False})
    AutoBackend._BACKEND_MAP["onnx"] = partial(ONNXBackend, session_options=_one_thread())
    return ultralytics


def _one_thread() -> onnxruntime.SessionOptions:
    """ONNX Runtime heeds no environment variable: it takes a thread per core unless each session is told otherwise."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return options
