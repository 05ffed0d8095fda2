"""Boxes through time, numpy only. A box is (x0, y0, x1, y1) in pixels; a track is [T, 4] float32."""

from typing import Any

import numpy as np


def centres(boxes: Any) -> Any:
    """[..., 2] centre (x, y) of each box [..., 4]; numpy or torch."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def sides(boxes: np.ndarray) -> np.ndarray:
    """[..., 2] width and height of each box [..., 4]."""
    return boxes[..., 2:] - boxes[..., :2]


def distance(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """[...] how far boxes [..., 4] lie from others, or differ from them in size, in box sides.

    The larger of the distance of the centres and the change of the mean side, over the smaller of the two sides.
    """
    side, other = sides(boxes).mean(axis=-1), sides(others).mean(axis=-1)
    apart = np.linalg.norm(centres(others) - centres(boxes), axis=-1)
    return np.maximum(apart, np.abs(other - side)) / np.maximum(np.minimum(side, other), 1e-6)


def movement(boxes: np.ndarray) -> np.ndarray:
    """[T-1] the `distance` of each box [4] to the next."""
    return distance(boxes[:-1], boxes[1:])


def fill_gaps(boxes: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return the track with missing boxes interpolated between found ones, and held at both ends."""
    frames = np.arange(len(boxes))
    return np.column_stack([np.interp(frames, frames[found], boxes[found, k]) for k in range(4)]).astype(np.float32)


def smooth(values: np.ndarray, sigma_frames: float) -> np.ndarray:
    """Return a Gaussian moving average over time, [T, ...]; beyond the ends the last value is repeated."""
    kernel = gaussian(sigma_frames)
    radius = len(kernel) // 2
    padded = np.pad(values, [(radius, radius)] + [(0, 0)] * (values.ndim - 1), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, len(kernel), axis=0)
    return (windows @ kernel).astype(np.float32)


def gaussian(sigma_frames: float) -> np.ndarray:
    """Return the weights of a moving average that reaches 3 sigma to both sides; their sum is 1."""
    if not sigma_frames:
        return np.ones(1)
    radius = max(1, round(3 * sigma_frames))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma_frames) ** 2)
    return kernel / kernel.sum()


def squares(boxes: np.ndarray, expansion: float, sigma_frames: float, width: int, height: int) -> np.ndarray:
    """[T, 4] square cut-outs around a face track: `expansion` times the longer side, smoothed over time.

    They stay inside a picture of `width` x `height`: moved inwards where they would look over its edge, and no larger
    than its shorter side.
    """
    half = smooth(sides(boxes).max(axis=1), 2 * sigma_frames)[:, None] * expansion / 2
    half = np.minimum(half, min(width, height) / 2)
    centre = np.clip(smooth(centres(boxes), sigma_frames), half, np.array([width, height]) - half)
    return np.concatenate([centre - half, centre + half], axis=1).astype(np.float32)


def within(boxes: np.ndarray, frames: np.ndarray, size: int) -> np.ndarray:
    """Return boxes [T, 4] in the pixels of square cut-outs of `size`."""
    scale = size / (frames[:, 2] - frames[:, 0])[:, None]
    return ((boxes - np.tile(frames[:, :2], 2)) * scale).astype(np.float32)
