"""Puts a generated face into the planes of its frame; what lies outside the region keeps its very bytes.

The region (appendix B): the union of the face boxes found in the original and in the generated picture, each a little
larger, inside the square that was generated. Its edge is feathered inwards.
"""

import cv2
import numpy as np

from media.frames import Picture, Planes

DILATION = 0.08  # of a box's sides
FEATHER = 0.12  # of the region's shorter side, from its edge inwards


def region_of(boxes: list[np.ndarray], square: np.ndarray, width: int, height: int) -> tuple[int, int, int, int]:
    """(x0, y0, x1, y1) in source pixels, even, inside square and picture. Boxes are [4] in source pixels."""
    stacked = np.stack(boxes)
    margin = (stacked[:, 2:] - stacked[:, :2]) * DILATION
    low = np.maximum((stacked[:, :2] - margin).min(axis=0), np.maximum(square[:2], 0))
    high = np.minimum((stacked[:, 2:] + margin).max(axis=0), np.minimum(square[2:], [width, height]))
    x0, y0 = (int(np.ceil(edge / 2)) * 2 for edge in low)
    x1, y1 = (int(edge // 2) * 2 for edge in high)
    return x0, y0, max(x1, x0), max(y1, y0)


def feathered(width: int, height: int) -> np.ndarray:
    """[height, width] float32: 1 inside, falling to 0 at the edges of a region."""
    reach = max(FEATHER * min(width, height), 1.0)

    def ramp(size: int) -> np.ndarray:
        inside = np.minimum(np.arange(size), np.arange(size)[::-1]) / reach
        t = np.clip(inside, 0, 1)
        return (t * t * (3 - 2 * t)).astype(np.float32)

    return ramp(height)[:, None] * ramp(width)[None]


def compose(picture: Picture, face: np.ndarray, region: tuple[int, int, int, int]) -> Planes:
    """The planes with a face blended in: `face` is [h, w, 3] uint8 RGB of the region's size. A copy."""
    x0, y0, x1, y1 = region
    planes = tuple(plane.copy() for plane in picture.planes)
    if x1 - x0 < 4 or y1 - y0 < 4:
        return planes  # pyright: ignore[reportReturnType]
    alpha = feathered(x1 - x0, y1 - y0)
    yuv = to_yuv(face, picture.to_rgb)
    half = (slice(y0 // 2, y1 // 2), slice(x0 // 2, x1 // 2))
    small = (alpha.shape[1] // 2, alpha.shape[0] // 2)
    blend(planes[0][y0:y1, x0:x1], yuv[..., 0], alpha)
    for plane, channel in zip(planes[1:], (1, 2), strict=True):
        halved = cv2.resize(yuv[..., channel], small, interpolation=cv2.INTER_AREA)
        blend(plane[half], halved, cv2.resize(alpha, small, interpolation=cv2.INTER_AREA))
    return planes  # pyright: ignore[reportReturnType]


def blend(target: np.ndarray, value: np.ndarray, alpha: np.ndarray) -> None:
    """In place; where alpha is 0 nothing changes."""
    mixed = target + (value - target) * alpha
    target[:] = np.where(alpha > 0, np.clip(np.rint(mixed), 0, 255), target).astype(np.uint8)


def to_yuv(rgb: np.ndarray, to_rgb: np.ndarray) -> np.ndarray:
    """[h, w, 3] uint8 RGB -> float32 Y, U, V: the inverse of a picture's own matrix."""
    inverse = np.linalg.inv(to_rgb[:, :3].astype(np.float64))
    offset = -inverse @ to_rgb[:, 3]
    return cv2.transform(rgb.astype(np.float32), np.column_stack([inverse, offset]).astype(np.float32))
