"""Mirrored windows, an augmentation off the paper: pictures and masks of a window and its reference, all or none.

A window is mirrored after it was read, so that it is what the mirrored clip would have given: its masks come from
landmarks and boxes, and are mirrored with them. Latents cannot be: no codec gives those of the mirrored picture.
"""

import numpy as np

from training.settings import DataSettings
from training.window import Arrays


def check_flip(settings: DataSettings) -> None:
    """Raise ValueError if windows are to be mirrored of which only latents are kept."""
    if settings.flip and settings.cache == "latents":
        raise ValueError(
            f"data.flip {settings.flip:g} mirrors pictures, and data.cache: latents keeps none; "
            "--set data.cache=pictures or none, or --set data.flip=0.0"
        )


def flip_by_chance(arrays: Arrays, b: int, random: np.random.Generator, probability: float) -> None:
    """Mirror window b with this probability. With 0 no random number is drawn."""
    if probability and random.random() < probability:
        flip(arrays, b)


def flip(arrays: Arrays, b: int) -> None:
    """Mirror window b of a batch: left becomes right in its frames, its reference and the masks of both."""
    size = arrays["reference"].shape[-1]
    for name in ("video", "reference"):
        arrays[name][b] = mirror_planes(arrays[name][b])
    for name in ("mask_boxes", "reference_box"):
        arrays[name][b] = mirror_boxes(arrays[name][b], size)


def mirror_planes(planes: np.ndarray) -> np.ndarray:
    """Return planes [..., 3/2 size, size] of yuv420p with left and right exchanged."""
    *lead, _, size = planes.shape
    chroma = planes[..., size:, :].reshape(*lead, size, size // 2)[..., ::-1]  # a row of U or V is half as wide
    return np.concatenate([planes[..., :size, ::-1], chroma.reshape(*lead, size // 2, size)], axis=-2)


def mirror_boxes(boxes: np.ndarray, size: int) -> np.ndarray:
    """Return boxes [..., 4] (x0, y0, x1, y1) in a picture of this width with left and right exchanged."""
    x0, y0, x1, y1 = np.moveaxis(boxes, -1, 0)
    return np.stack([size - x1, y0, size - x0, y1], axis=-1)
