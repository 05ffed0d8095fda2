"""How natural a picture's texture is, without a trained judge: NIQE (Mittal, Soundararajan and Bovik, 2013).

The statistics of 96x96 blocks at two scales are compared with those of pristine photographs; no opinion scores behind
it. pyiqa computes them, in float64 on the CPU; importing its NIQE takes about 3 s and 200 MB more than torch alone.
Blocks do not overlap, so only the largest multiple of 96 from the top left corner is seen: 288 of a 320-pixel crop.
"""

import math
import warnings
from pathlib import Path

import numpy as np
import torch
from pyiqa.archs.niqe_arch import calculate_niqe

BLOCK_PIXELS = 96
FEATURES = 36  # 18 per scale, two scales


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
        pixels = torch.from_numpy(image.transpose(2, 0, 1).copy())[None].float() / 255
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of torch.cov, where less than two blocks have any texture
            try:
                score = float(calculate_niqe(pixels, mu_pris_param=self.mean, cov_pris_param=self.covariance))
            except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage]
                return math.inf
        return math.inf if math.isnan(score) else score


def read_pristine(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean [36] and covariance [36, 36] of the pristine photographs' features. Raises ValueError for another file."""
    try:
        with np.load(path) as arrays:
            mean, covariance = arrays["mu_pris_param"].reshape(-1), arrays["cov_pris_param"]
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"{path}: not a file of NIQE parameters: {error}") from error
    if mean.shape != (FEATURES,) or covariance.shape != (FEATURES, FEATURES):
        raise ValueError(f"{path}: NIQE has {FEATURES} features, this file has {covariance.shape}")
    return torch.from_numpy(mean), torch.from_numpy(covariance)
