"""Puts a generated crop into the planes of its frame; what lies outside the region keeps its very bytes.

The region (appendix B): the union of the face boxes found in the original and in the generated picture, a little
larger, inside the square that was generated. Its edge is feathered inwards, and moves by parts of a pixel.

A network paints what is around the mask in the colours that it was shown, and the lips in those of its training. So the
colours of a generated crop are moved to the source's, by smooth fields: outside the mask by the difference that is seen
there, inside it by the difference in a band along its edge, which is skin whatever the lips do. What that gives up: the
light of the source's chin and cheeks, averaged over half a second, is copied with it.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np

from media.frames import Picture, Planes
from media.geometry import gaussian
from models.mask import draw
from training import watermark

Item = TypeVar("Item")

DILATION = 0.08  # of a box's sides
FEATHER = 0.12  # of the region's shorter side, from its edge inwards
BOX_FRAMES = 2.0  # sigma of the average over time: a nod of 1 Hz keeps 88 % of its way
COLOUR_FRAMES = 6.0  # syllables come at 4 to 8 a second: the source's must not show in the colours
GRID = 32  # cells of a colour field on a side
# Of the mask's sides: corrects 99 % of a wrong colour, .06 only 90 %; another mouth in it moves .8 grey levels
BAND = 0.2
LIGHT_STEP = 40  # grey levels; a larger difference is not light
REACHES = ((2.0, 1.0), (5.0, 0.05), (12.0, 0.002))  # cells, share: the wide fill where the narrow do not reach
MASK_EDGE = 1 / 80  # of the crop's side: how soft a mask's edge comes out of a decoder


@dataclass(frozen=True)
class PlacedCrop:
    """A generated crop, what the source shows in its place, and where that is."""

    picture: Picture
    source: np.ndarray  # [S, S, 3] uint8 RGB
    made: np.ndarray  # [S, S, 3] uint8 RGB
    mask: np.ndarray  # [4] in pixels of the crop
    square: np.ndarray  # [4] int, the crop in source pixels
    box: np.ndarray  # [4] what of it is pasted, in source pixels
    share: float = 1.0  # of it that is seen; the rest is the source


def paste(crops: Iterable[PlacedCrop], payload: int | None) -> Iterator[Planes]:
    """The planes of each frame of a run, with its generated crop in them; 24 crops are held back to look ahead.

    `payload` is the watermark's; None: no watermark.
    """
    steady = average_over_time(((crop, crop.box) for crop in crops), BOX_FRAMES)
    measured = (((crop, box), colour_fields(crop.source, crop.made, crop.mask)) for crop, box in steady)
    for (crop, box), fields in average_over_time(measured, COLOUR_FRAMES):
        made = match_colours(crop.made, fields, crop.mask)
        x0, y0, x1, y1 = crop.square.tolist()
        region = region_of(box, crop.square, *crop.picture.planes[0].shape[::-1])
        kind = cv2.INTER_CUBIC if x1 - x0 > len(made) else cv2.INTER_AREA
        face = cv2.resize(made, (x1 - x0, y1 - y0), interpolation=kind)
        left, top, right, bottom = bounds_of(region)
        face = np.ascontiguousarray(face[top - y0 : bottom - y0, left - x0 : right - x0])
        if payload is not None and face.size:
            face = watermark.embed(face[None], payload, np.array([[left, top]]))[0]
        yield compose(crop.picture, face, region, crop.share)


def average_over_time(
    items: Iterable[tuple[Item, np.ndarray]], sigma_frames: float
) -> Iterator[tuple[Item, np.ndarray]]:
    """The items, each with a Gaussian average of the values around it, 3 sigma late. At both ends values repeat."""
    kernel = gaussian(sigma_frames)
    values, waiting = deque[np.ndarray](maxlen=len(kernel)), deque[Item]()
    for item, value in items:
        values.extend([value] * (1 if values else len(kernel) // 2 + 1))
        waiting.append(item)
        if len(values) == len(kernel):
            yield waiting.popleft(), np.tensordot(kernel, np.stack(values), 1)
    while waiting:
        values.append(values[-1])
        if len(values) == len(kernel):
            yield waiting.popleft(), np.tensordot(kernel, np.stack(values), 1)


def colour_fields(source: np.ndarray, made: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """What is to be added to a generated crop, outside and inside its mask: [2, GRID, GRID, 3] float32, grey levels.

    `source` and `made` are [S, S, 3] uint8 RGB of the same place, `mask` is [4] in their pixels.
    """
    margin = BAND * (mask[2:] - mask[:2])
    masked, core = draw(np.stack([mask, np.concatenate([mask[:2] + margin, mask[2:] - margin])]), *made.shape[:2])[:, 0]
    difference = np.clip(source.astype(np.float32) - made, -LIGHT_STEP, LIGHT_STEP)
    return np.stack([membrane(difference, 1 - masked), membrane(difference, masked - core)])


def membrane(difference: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """A smooth surface through [S, S, 3] where [S, S] has weight, carried on where it has none: [GRID, GRID, 3]."""
    known = np.dstack([difference * weight[..., None], weight]).astype(np.float32)
    cells = cv2.resize(known, (GRID, GRID), interpolation=cv2.INTER_AREA)
    carried = np.sum([share * cv2.GaussianBlur(cells, (0, 0), reach) for reach, share in REACHES], axis=0)
    return carried[..., :3] / (carried[..., 3:] + 1e-6)


def match_colours(made: np.ndarray, fields: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A generated crop [S, S, 3] uint8 with its colour fields added."""
    height, width = made.shape[:2]
    outside, inside = (cv2.resize(field, (width, height), interpolation=cv2.INTER_LINEAR) for field in fields)
    soft = cv2.GaussianBlur(draw(mask[None], height, width)[0, 0], (0, 0), MASK_EDGE * width)[..., None]
    return np.clip(np.rint(made + outside + soft * (inside - outside)), 0, 255).astype(np.uint8)


def region_of(box: np.ndarray, square: np.ndarray, width: int, height: int) -> np.ndarray:
    """[4] where a crop is pasted: a box, dilated, inside square and picture; source pixels and parts of them."""
    margin = (box[2:] - box[:2]) * DILATION
    low = np.maximum(box[:2] - margin, np.maximum(square[:2], 0))
    high = np.minimum(box[2:] + margin, np.minimum(square[2:], [width, height]))
    return np.concatenate([low, np.maximum(high, low)])


def union(box: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The smallest box [4] that holds both."""
    return np.concatenate([np.minimum(box[:2], other[:2]), np.maximum(box[2:], other[2:])])


def bounds_of(region: np.ndarray) -> tuple[int, int, int, int]:
    """The whole pixels inside a region, (x0, y0, x1, y1), even: chroma has half of them."""
    x0, y0 = (int(np.ceil(edge / 2)) * 2 for edge in region[:2])
    x1, y1 = (int(edge // 2) * 2 for edge in region[2:])
    return x0, y0, max(x1, x0), max(y1, y0)


def feather(region: np.ndarray) -> np.ndarray:
    """Return weights [h, w] float32 for the pixels of `bounds_of`: 1 inside, falling to 0 at the region's edges."""
    reach = max(FEATHER * float((region[2:] - region[:2]).min()), 1.0)

    def ramp(first: int, last: int, low: float, high: float) -> np.ndarray:
        middle = np.arange(first, last) + 0.5
        t = np.clip((np.minimum(middle - low, high - middle) - 0.5) / reach, 0, 1)
        return (t * t * (3 - 2 * t)).astype(np.float32)

    x0, y0, x1, y1 = bounds_of(region)
    return ramp(y0, y1, region[1], region[3])[:, None] * ramp(x0, x1, region[0], region[2])[None]


def compose(picture: Picture, face: np.ndarray, region: np.ndarray, share: float = 1.0) -> Planes:
    """The planes with a share of a face blended in: `face` is [h, w, 3] uint8 RGB of the region's pixels. A copy."""
    x0, y0, x1, y1 = bounds_of(region)
    planes = tuple(plane.copy() for plane in picture.planes)
    if x1 - x0 < 4 or y1 - y0 < 4:
        return planes  # pyright: ignore[reportReturnType]
    alpha = feather(region) * np.float32(share)
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
