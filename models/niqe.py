"""How natural a picture's texture is, without a trained judge: NIQE (Mittal, Soundararajan and Bovik, 2013).

The statistics of 96x96 blocks at two scales are compared with those of pristine photographs; no opinion scores behind
it. In numpy, so that a worker needs no torch for it; the scores are pyiqa's (tests/models/test_niqe.py) in a sixth of
its time. Blocks do not overlap, so only the largest multiple of 96 from the top left corner is seen: 288 of a 320-pixel
crop.
"""

import math
from pathlib import Path

import cv2
import numpy as np
from scipy.special import gammaln

BLOCK_PIXELS = 96
FEATURES = 36  # 18 per scale, two scales
LUMA = np.array([0.299, 0.587, 0.114])  # of YIQ, as pyiqa reads the paper's "luminance"
WINDOW_PIXELS, WINDOW_SIGMA = 7, 7 / 6
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))  # right, below, and the two diagonals
SHAPES = np.arange(0.2, 10.001, 0.001)  # of the generalised Gaussian, from peaked to nearly uniform
RATIOS = np.exp(2 * gammaln(2 / SHAPES) - gammaln(1 / SHAPES) - gammaln(3 / SHAPES))  # E|x|^2 / E x^2, rises with them


class Niqe:
    """NIQE against the pristine photographs of `weights`, the npz of BasicSR with `mu_pris_param`, `cov_pris_param`."""

    def __init__(self, weights: Path) -> None:
        self.mean, self.covariance = read_pristine(weights)

    def score(self, images: np.ndarray) -> np.ndarray:
        """NIQE of each of [N, H, W, 3] uint8 RGB images: float32 [N], lower is better, about 3 (clean) to 20.

        Flat blocks have no statistics and are left out; a picture with nothing else scores inf. Images are judged one
        by one, so that a score does not depend on its neighbours.
        """
        if images.dtype != np.uint8 or images.shape[3:] != (3,):
            raise ValueError(f"NIQE takes uint8 [N, H, W, 3] images, not {images.dtype} {list(images.shape)}")
        if min(images.shape[1:3]) < BLOCK_PIXELS:
            raise ValueError(f"NIQE needs {BLOCK_PIXELS} pixels a side, the images have {images.shape[1:3]}")
        return np.array([self.score_one(image) for image in images], np.float32)

    def score_one(self, image: np.ndarray) -> float:
        """Equation 10: the distance of two Gaussians, of the picture's blocks and of the pristine ones."""
        blocks = block_features(luminance(image))
        textured = blocks[np.isfinite(blocks).all(axis=1)]
        if not len(textured):
            return math.inf
        with np.errstate(invalid="ignore"):
            mean = np.nanmean(blocks, axis=0)
        covariance = np.cov(textured, rowvar=False) if len(textured) > 1 else np.zeros_like(self.covariance)
        apart = self.mean - mean
        return float(np.sqrt(apart @ np.linalg.pinv((self.covariance + covariance) / 2) @ apart))


def luminance(image: np.ndarray) -> np.ndarray:
    """[H, W, 3] uint8 RGB as whole grey levels, float64, cut to whole blocks."""
    height, width = (side // BLOCK_PIXELS * BLOCK_PIXELS for side in image.shape[:2])
    return np.round(image[:height, :width] @ LUMA)


def block_features(grey: np.ndarray) -> np.ndarray:
    """[blocks, 36]: 18 statistics at full and 18 at half size; NaN where a block is flat."""
    parts, side = [], BLOCK_PIXELS
    for picture in (grey, halve(grey)):
        normalised = mean_subtracted_contrast_normalised(picture)
        rows, columns = (length // side for length in normalised.shape)
        blocks = normalised.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(-1, side, side)
        parts.append(statistics(blocks))
        side //= 2
    return np.hstack(parts)


def mean_subtracted_contrast_normalised(grey: np.ndarray) -> np.ndarray:
    """Equations 1 to 3."""

    def blur(values: np.ndarray) -> np.ndarray:
        size = (WINDOW_PIXELS, WINDOW_PIXELS)
        return cv2.GaussianBlur(values, size, WINDOW_SIGMA, borderType=cv2.BORDER_REPLICATE)

    mean = blur(grey)
    return (grey - mean) / (np.sqrt(np.abs(blur(grey**2) - mean**2)) + 1)


def halve(grey: np.ndarray) -> np.ndarray:
    """Half the size by a cubic kernel as wide as two pixels of the result, as MATLAB's imresize does."""
    distance = (np.arange(8) - 3.5) / 2
    near = np.abs(distance)
    cubic = np.where(near <= 1, 1.5 * near**3 - 2.5 * near**2 + 1, -0.5 * near**3 + 2.5 * near**2 - 4 * near + 2)
    kernel = cubic / cubic.sum()
    return cv2.sepFilter2D(grey, -1, kernel, kernel, anchor=(3, 3), borderType=cv2.BORDER_REFLECT)[::2, ::2]


def statistics(blocks: np.ndarray) -> np.ndarray:
    """[B, 18] of [B, h, w]: shape and width of the values, and of their products with four neighbours (equation 8)."""
    shape, left, right = asymmetric_gaussian(blocks)
    columns = [shape, (left + right) / 2]
    for shift in NEIGHBOURS:
        shape, left, right = asymmetric_gaussian(blocks * np.roll(blocks, shift, axis=(1, 2)))
        mean = (right - left) * np.exp(gammaln(2 / shape) - gammaln(1 / shape))
        columns += [shape, mean, left, right]
    return np.column_stack(columns)


def asymmetric_gaussian(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shape and the widths to the left and right [B] of the distribution of each block's values (equation 7).

    By moments, as Lasmar et al. (2009) do. NaN for a block that has values on one side of zero only.
    """
    values = blocks.reshape(len(blocks), -1)
    negative, positive = np.minimum(values, 0), np.maximum(values, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        left = np.sqrt((negative**2).sum(axis=1) / (values < 0).sum(axis=1))
        right = np.sqrt((positive**2).sum(axis=1) / (values > 0).sum(axis=1))
        skew = left / right
        ratio = np.abs(values).mean(axis=1) ** 2 / (values**2).mean(axis=1)
        ratio *= (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    place = np.searchsorted((RATIOS[1:] + RATIOS[:-1]) / 2, ratio)  # the nearest
    shape = np.where(np.isfinite(ratio), SHAPES[place.clip(0, len(SHAPES) - 1)], np.nan)
    scale = np.exp((gammaln(1 / shape) - gammaln(3 / shape)) / 2)
    return shape, left * scale, right * scale


def read_pristine(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Mean [36] and covariance [36, 36] of the pristine photographs' features. Raises ValueError for another file."""
    try:
        with np.load(path) as arrays:
            mean, covariance = arrays["mu_pris_param"].reshape(-1), arrays["cov_pris_param"]
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"{path}: not a file of NIQE parameters: {error}") from error
    if mean.shape != (FEATURES,) or covariance.shape != (FEATURES, FEATURES):
        raise ValueError(f"{path}: NIQE has {FEATURES} features, this file has {covariance.shape}")
    return mean, covariance
