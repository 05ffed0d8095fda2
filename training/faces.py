"""The face of a video as generation needs it: where it is, what is cut out, where the mask lies.

The same detector, shots, cut-outs, landmarks and mask as in curation and training, with the numbers of the curation.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

import weights
from media.frames import GridReader, read_crops, scan
from media.geometry import fill_gaps, squares, within
from media.probe import Probe
from media.shots import CutDetector, shots_of, split_shots
from models.face_landmarks import FaceLandmarks
from models.mask import POINTS, MaskSettings, bridge_gaps, mask_boxes, median_face, shown_squares
from models.yolo_face import YoloFace, all_faces, largest_face
from training.curated import Curated
from training.person import FaceChoice, follow_person
from training.plan import runs

AT_ONCE = 64  # crops in memory


@dataclass(frozen=True)
class FollowedFace:
    """Of n source frames on the 25 fps grid; rows without a face are NaN."""

    has_face: np.ndarray  # [n] bool: a face, landmarks and so a mask, or a short gap between them
    boxes: np.ndarray  # [n, 4] face boxes, source pixels
    squares: np.ndarray  # [n, 4] what is cut out and generated, source pixels
    mask: np.ndarray  # [n, 4] in pixels of the crop
    shot: np.ndarray  # [n] int, the number of the shot that each frame belongs to


class FaceFinder:
    """Detector and landmarker of a curation, and how it cut faces out."""

    def __init__(self, curated: Curated, device: str) -> None:
        faces, crop, points = (curated[f"steps/{name}"] for name in ("faces", "crop", "landmarks"))
        self.detector = YoloFace(
            weights.require(faces["weights"])[faces["weights"]], device, faces["size"], faces["min_score"]
        )
        self.look_px: int = faces["size"]
        self.landmarker = FaceLandmarks(weights.require(points["weights"])[points["weights"]])
        self.size: int = crop["size"]
        self.expansion: float = crop["expansion"]
        self.smooth_frames: float = crop["smooth_frames"]
        self._last: tuple[object, FollowedFace] | None = None

    def follow(
        self,
        path: Path,
        probe: Probe,
        frames: int,
        mask: MaskSettings,
        on_frame: Callable[[], object] = lambda: None,
        choice: FaceChoice = "largest",
    ) -> FollowedFace:
        """Return the chosen face in the first `frames` frames, fewer if the video ends; the last result is kept."""
        stat = path.stat()
        asked = (path, stat.st_mtime_ns, stat.st_size, frames, mask, choice)
        if self._last is None or self._last[0] != asked:
            self._last = asked, self._follow(path, probe, frames, mask, on_frame, choice)
        return self._last[1]

    def _follow(
        self,
        path: Path,
        probe: Probe,
        frames: int,
        mask: MaskSettings,
        on_frame: Callable[[], object],
        choice: FaceChoice,
    ) -> FollowedFace:
        boxes, shot = self.look(path, probe, frames, on_frame, choice)
        boxes, has_face = bridge_in_shots(boxes, shot, mask.max_gap_frames)
        cutouts, masks = np.full_like(boxes, np.nan), np.full_like(boxes, np.nan)
        reader = GridReader(path, probe)
        for run in runs(has_face, boxes, shot, np.arange(len(boxes))):
            part = slice(run.start, run.end)
            cutouts[part] = squares(boxes[part], self.expansion, self.smooth_frames, probe.width, probe.height)
            landmarks = []
            for start in range(run.start, run.end, AT_ONCE):
                stop = min(start + AT_ONCE, run.end)
                landmarks.append(self.points(read_crops(reader, start, cutouts[start:stop], self.size), on_frame))
            face = median_face(within(boxes[part], cutouts[part], self.size))
            masks[part] = mask_boxes(np.concatenate(landmarks), face, mask)
            cutouts[part], masks[part] = self.narrow(cutouts[part], masks[part], face, mask)
        reader.close()
        return FollowedFace(has_face & np.isfinite(masks).all(axis=1), boxes, cutouts, masks, shot)

    def look(
        self, path: Path, probe: Probe, frames: int, on_frame: Callable[[], object], choice: FaceChoice
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the boxes [n, 4] of the chosen face as it was found, NaN elsewhere, and each frame's shot [n] int."""
        cuts = CutDetector()
        pictures = cuts.watch(scan(path, probe, self.look_px, frames))
        faces = all_faces(self.detector, pictures, max(probe.width, probe.height), on_frame)
        shot = shots_of(cuts.cuts, len(faces))
        return np.concatenate([follow_person(faces[part], choice) for part in split_shots(shot)]), shot

    def narrow(
        self, cutouts: np.ndarray, masks: np.ndarray, face: np.ndarray, mask: MaskSettings
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the squares that the network sees [T, 4], in source pixels, and the masks [T, 4] in their pixels.

        `masks` and `face` are given in pixels of the face squares scaled to `size`; so are the masks that come back.
        """
        if mask.crop == "face":
            return cutouts, masks
        squares_in = shown_squares(masks, face, self.size, mask)
        scale = (cutouts[:, 2:3] - cutouts[:, :1]) / self.size
        return np.tile(cutouts[:, :2], 2) + squares_in * scale, within(masks, squares_in, self.size)

    def points(self, crops: np.ndarray, on_frame: Callable[[], object] = lambda: None) -> np.ndarray:
        """Return lips and face oval [T, K, 2] of crops [T, S, S, 3], in crop pixels; NaN without a face."""
        found = []
        for crop in crops:
            found.append(self.landmarker.measure(crop[None]).points[0][list(POINTS), :2])
            on_frame()
        return np.stack(found)

    def face_in(self, crop: np.ndarray) -> np.ndarray | None:
        """Return the box [4] of the largest face in a generated crop, in its pixels, or None."""
        return largest_face(self.detector, crop)

    def picture(self, path: Path, mask: MaskSettings) -> tuple[np.ndarray, np.ndarray]:
        """Return the face crop of a still, [S, S, 3] uint8 RGB, and its mask [4]. Raises ValueError without a face."""
        data = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
        if data is None:
            raise ValueError(f"{path}: not a picture")
        rgb = np.ascontiguousarray(data[..., ::-1])
        box = self.face_in(rgb)
        if box is None:
            raise ValueError(f"{path}: no face in it; give another picture with --reference")
        height, width = rgb.shape[:2]
        square = squares(fill_gaps(box[None], np.array([True])), self.expansion, self.smooth_frames, width, height)[0]
        face = within(box[None], square[None], self.size)[0]
        found = mask_boxes(self.points(self.cut(rgb, square)[None]), face, mask)
        if not np.isfinite(found).all():
            raise ValueError(f"{path}: no face landmarks in it; give another picture with --reference")
        shown, found = self.narrow(square[None], found, face, mask)
        return self.cut(rgb, shown[0]), found[0]

    def cut(self, rgb: np.ndarray, square: np.ndarray) -> np.ndarray:
        """Return the part of a picture in a square [4], [S, S, 3] uint8."""
        x0, y0, x1, y1 = np.round(square).astype(int)
        return cv2.resize(rgb[max(y0, 0) : y1, max(x0, 0) : x1], (self.size, self.size), interpolation=cv2.INTER_AREA)


def bridge_in_shots(boxes: np.ndarray, shot: np.ndarray, max_gap: int) -> tuple[np.ndarray, np.ndarray]:
    """`bridge_gaps` of boxes [n, 4], shot by shot: none is carried over a cut."""
    parts = [bridge_gaps(boxes[part], max_gap) for part in split_shots(shot)]
    return np.concatenate([part for part, _ in parts]), np.concatenate([found for _, found in parts])
