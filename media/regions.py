"""What the first decode of a source keeps around its faces, so that cutting them out needs no second one.

A face that is cut from here is, bit for bit, the one that `media.frames.read_crops` cuts from a decoded frame.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from av.video.frame import VideoFrame

from media.frames import plane_square, planes_of, resize_plane, rgb_matrix_of, upright
from media.probe import Probe

SPARE = 1.15  # a square as large as the picture's shorter side can still move along the longer one


@dataclass(frozen=True, slots=True)
class PlanePart:
    """A rectangle of one plane, and where it lies in it."""

    pixels: np.ndarray
    x: int
    y: int
    shape: tuple[int, int]  # of the whole plane

    def cut(self, square: np.ndarray, probe: Probe, size: int) -> np.ndarray | None:
        """The same as `media.frames.cut_square` of the whole plane; None if the square reaches beyond this part."""
        x0, y0, x1, y1 = plane_square(square, self.shape, probe) - [self.x, self.y, self.x, self.y]
        if min(x0, y0) < 0 or y1 > self.pixels.shape[0] or x1 > self.pixels.shape[1]:
            return None
        return resize_plane(self.pixels[y0:y1, x0:x1], size)


@dataclass(frozen=True, slots=True)
class Region:
    """The neighbourhood of a face in one frame: its part of each plane, and how they become RGB."""

    parts: list[PlanePart]
    to_rgb: np.ndarray

    @classmethod
    def of(cls, frame: VideoFrame, box: np.ndarray, sides: float, probe: Probe) -> "Region":
        """A square of `sides` times the longer side of a face box (x0, y0, x1, y1 in source pixels) around it.

        As `media.geometry.squares` does, it is moved inside the picture, and limited by its shorter side.
        """
        shape = np.array([probe.width, probe.height])
        half = min(sides * float((box[2:4] - box[:2]).max()), SPARE * shape.min()) / 2
        margin = np.minimum(half, shape / 2)
        centre = np.clip((box[:2] + box[2:4]) / 2, margin, shape - margin)
        square = np.concatenate([centre - half, centre + half])
        parts = []
        for plane in upright(planes_of(frame), probe):
            height, width = plane.shape
            x0, y0, x1, y1 = plane_square(square, plane.shape, probe).clip(0, [width, height, width, height])
            parts.append(PlanePart(plane[y0:y1, x0:x1].copy(), x0, y0, plane.shape))
        return cls(parts, rgb_matrix_of(frame, probe))

    @property
    def bytes(self) -> int:
        return sum(part.pixels.nbytes for part in self.parts)

    def crop(self, square: np.ndarray, probe: Probe, size: int) -> np.ndarray | None:
        """[size, size, 3] uint8 RGB; None if the square reaches beyond this region."""
        cut = [part.cut(square, probe, size) for part in self.parts]
        planes = [plane for plane in cut if plane is not None]
        return cv2.transform(cv2.merge(planes), self.to_rgb) if len(planes) == len(cut) else None


class Regions:
    """The regions of one source by grid frame. `bytes` is the memory they take; `steps/faces` limits it."""

    def __init__(self) -> None:
        self.bytes = 0
        self._regions: dict[int, Region] = {}
        self._shown: dict[int, int] = {}  # grid frame -> the one before it that shows the same picture

    def keep(self, i: int, region: Region) -> None:
        self._regions[i] = region
        self.bytes += region.bytes

    def repeat(self, i: int) -> None:
        """Grid frame i shows the picture of the one before it."""
        self._shown[i] = self._shown.get(i - 1, i - 1)

    def crops(self, start_frame: int, squares: np.ndarray, probe: Probe, into: np.ndarray) -> int:
        """As `media.frames.read_crops`, until too little was kept: how many of the crops are now there.

        Regions before the last frame of the crops are removed.
        """
        shown = [self._shown.get(i, i) for i in range(start_frame, start_frame + len(squares))]
        regions = [self._regions.get(i) for i in shown]
        self._regions = {i: region for i, region in self._regions.items() if i >= shown[-1]}
        for t, (region, square) in enumerate(zip(regions, squares, strict=True)):
            crop = region.crop(square, probe, into.shape[1]) if region is not None else None
            if crop is None:
                return t
            into[t] = crop
        return len(squares)
