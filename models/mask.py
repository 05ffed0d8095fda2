"""The adaptive mask of section 3.2: which rectangle of each picture is generated. numpy only; training and generation
use it alike.

The mask must not tell what the mouth does. So nothing of it follows the lips from frame to frame: its size is a fixed
share of the clip's face box, and it moves with points of the head that the jaw does not move (forehead and temples).
Where the mouth lies below them is taken from the corners of the mouth, averaged over half a second: that follows a
turning or nodding head and not a syllable. Equation 6 then smooths the coordinates.

The shares hold the lips and chin of every measured frame, wide open or closed (benchmarks/README.md, "Mask").
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from media.geometry import centres, smooth
from models.face_landmarks import FACE_OVAL, LIPS

POINTS = (*LIPS, *FACE_OVAL)  # the order of the member landmarks.npy
# The face oval from ear to ear over the forehead. Correlation of their height with the opening of the mouth, frame to
# frame: -.02 to .06; the chin has .52, the upper lip -.40, the height of the face box .37
HEAD = [POINTS.index(p) for p in (454, 356, 389, 251, 284, 332, 297, 338, 10, 109, 67, 103, 54, 21, 162, 127, 234)]
CORNERS = [POINTS.index(p) for p in (61, 291)]
SMOOTH_FRAMES = 6.0  # sigma of the Gaussian over the way from head to mouth: syllables come at 4 to 8 a second
SQUARE_FRAMES = 6.0  # sigma of the Gaussian over the centre of a mouth crop


@dataclass(frozen=True)
class MaskSettings:
    """The adaptive mask of section 3.2. Sizes are shares of the face box's height (benchmarks/README.md, "Mask")."""

    kind: Literal["adaptive", "fixed"] = "adaptive"  # "fixed": Table 3, "w/o Mask", the larger lower half of the face
    alpha: float = 0.75  # equation 6
    max_gap_frames: int = 8  # appendix A
    up: float = 0.20  # from the corners of the mouth; lips reach .20
    down: float = 0.36  # chins reach .33
    side: float = 0.28  # lips reach .26
    # What the network sees: the whole picture of the shards (the paper), or, off the paper, a square around the mask
    crop: Literal["face", "mouth"] = "face"
    crop_side: float = 0.84  # of that square: the mask fills two thirds of its side


def mask_boxes(landmarks: np.ndarray, face: np.ndarray, settings: MaskSettings) -> np.ndarray:
    """Where the mask lies: [T, 4] float32 (x0, y0, x1, y1) in pixels of the crop, perhaps beyond its edge.

    `landmarks` is [T, K, 2] (K: lips, then face oval), NaN where no face was found; `face` is the clip's face box [4],
    `median_face` of its boxes. Gaps of up to `max_gap_frames` are bridged, and held at both ends; a frame in a longer
    one has NaN: it has no mask, and can neither be trained on nor be generated.
    """
    if settings.kind == "fixed":
        return np.tile(lower_half(face), (len(landmarks), 1)).astype(np.float32)
    head, mouth = (
        landmarks[:, HEAD].mean(axis=1, dtype=np.float32),
        landmarks[:, CORNERS].mean(axis=1, dtype=np.float32),
    )
    track, found = bridge_gaps(np.concatenate([head, mouth - head], axis=1), settings.max_gap_frames)
    centre = track[:, :2] + smooth_where(found, track[:, 2:], SMOOTH_FRAMES)
    reach = (face[3] - face[1]) * np.array([[settings.side, settings.up], [settings.side, settings.down]])
    return look_ahead(np.concatenate([centre - reach[0], centre + reach[1]], axis=1), settings.alpha).astype(np.float32)


def median_face(boxes: np.ndarray) -> np.ndarray:
    """Return one face box [4] for a clip from those of its frames [T, 4]: an open jaw makes single boxes longer."""
    return np.sort(boxes, axis=0)[len(boxes) // 2]


def lower_half(face: np.ndarray) -> np.ndarray:
    """The larger fixed mask of Table 3 ("w/o Mask"), [4]: the lower half of the face box, a tenth wider and longer."""
    x0, y0, x1, y1 = face
    margin_x, margin_y = (x1 - x0) / 10, (y1 - y0) / 10
    return np.array([x0 - margin_x, (y0 + y1) / 2, x1 + margin_x, y1 + margin_y])


def bridge_gaps(track: np.ndarray, max_gap: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a track [T, C] with short gaps of NaN rows interpolated, and which rows have numbers then, [T] bool.

    Gaps at the ends are filled with the nearest row.
    """
    found = np.isfinite(track.sum(axis=1))
    frames = np.arange(len(track))
    if found.all() or not found.any():
        return track, found
    filled = np.column_stack([np.interp(frames, frames[found], column[found]) for column in track.T])
    before = np.maximum.accumulate(np.where(found, frames, -1))  # the last found frame up to here
    after = np.minimum.accumulate(np.where(found, frames, len(track))[::-1])[::-1]
    return filled, found | (after - before - 1 <= max_gap)


def smooth_where(found: np.ndarray, track: np.ndarray, sigma_frames: float) -> np.ndarray:
    """A Gaussian moving average of a track [T, C] over the rows that were found [T]; the others are NaN."""
    known = np.where(found[:, None], np.column_stack([track, np.ones(len(track))]), 0)
    sums = smooth(known, sigma_frames)
    return np.where(found[:, None], sums[:, :-1] / np.maximum(sums[:, -1:], 1e-6), np.nan)


def look_ahead(track: np.ndarray, alpha: float) -> np.ndarray:
    """Equation 6: x'_t = alpha x_t + (1 - alpha) x_(t+1); the last frame, and one before a gap, stays as it is."""
    following = np.concatenate([track[1:], track[-1:]])
    return alpha * track + (1 - alpha) * np.where(np.isnan(following), track, following)


def shown_squares(boxes: np.ndarray, face: np.ndarray, size: int, settings: MaskSettings) -> np.ndarray:
    """Return the squares that the network sees of a clip's frames of `size`: [T, 4] float32, whole even pixels.

    `boxes` is [T, 4] of `mask_boxes`, `face` the clip's face box [4]. A face crop is the whole picture. A mouth crop
    follows the centre of the mask, smoothed over time; a frame without a mask has NaN. Even pixels, so that the
    half-sized chroma planes are cut in the same place.
    """
    if settings.crop == "face":
        return np.tile(np.array([0, 0, size, size], np.float32), (len(boxes), 1))
    found = np.isfinite(boxes.sum(axis=1))
    side = min(2 * round(settings.crop_side * float(face[3] - face[1]) / 2), size - size % 2)
    centre = smooth_where(found, centres(boxes), SQUARE_FRAMES)
    corner = np.clip(2 * np.round((centre - side / 2) / 2), 0, size - side)
    return np.concatenate([corner, corner + side], axis=1).astype(np.float32)


def context_frames(settings: MaskSettings) -> int:
    """Return how many frames away landmarks may be and still change a frame's rectangle or square.

    Smoothing of both, the frame ahead, and a gap beyond all of them.
    """
    square = round(3 * SQUARE_FRAMES) if settings.crop == "mouth" else 0
    return round(3 * SMOOTH_FRAMES) + square + 1 + settings.max_gap_frames + 1


def inside(boxes: Any, x: Any, y: Any) -> Any:
    """Return which pixels lie in rectangles, bool [..., H, W]; boxes [..., 4], columns x [W], rows y [H]."""
    x0, y0, x1, y1 = (boxes[..., k, None, None] for k in range(4))
    centre_x, centre_y = x + 0.5, y[:, None] + 0.5
    return (x0 <= centre_x) & (centre_x < x1) & (y0 <= centre_y) & (centre_y < y1)


def draw(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """[T, 4] rectangles -> [T, 1, height, width] float32, 1 inside."""
    return inside(boxes, np.arange(width), np.arange(height))[:, None].astype(np.float32)
