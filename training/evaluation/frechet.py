"""How far two sets of pictures or clips are apart: the Fréchet distance of Gaussians laid over their features, and what
chance in the choice of videos does to it.

The square of that distance is FID for Inception's features and FVD for I3D's (Dowson and Landau, 1982; Heusel et al.,
2017): |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)).

What this gives up: the bias. With few points the distance comes out too large, without bound when there are fewer
points than features, and no interval shows that: only numbers from equally many points can be compared.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

PERCENTILES = (2.5, 97.5)  # a 95 % interval


@dataclass(frozen=True)
class Moments:
    """Mean [D] and unbiased covariance [D, D] of `count` points, float64."""

    count: int
    mean: np.ndarray
    covariance: np.ndarray


def moments(groups: Sequence[np.ndarray], votes: Sequence[int] | np.ndarray | None = None) -> Moments:
    """The moments of all points of the groups [N, D] together, each group counted as often as it has votes."""
    votes = votes if votes is not None else [1] * len(groups)
    counted = [(group, vote) for group, vote in zip(groups, votes, strict=True) if vote and len(group)]
    count = sum(vote * len(group) for group, vote in counted)
    if count < 2:
        raise ValueError(f"{count} points have no covariance")
    mean = np.sum([vote * group.sum(0, dtype=np.float64) for group, vote in counted], axis=0) / count
    covariance = np.zeros((len(mean), len(mean)))
    for group, vote in counted:
        centred = group.astype(np.float64) - mean
        covariance += vote * (centred.T @ centred)
    return Moments(count, mean, covariance / (count - 1))


def frechet_distance(one: Moments, other: Moments, device: str = "cpu") -> float:
    """The squared Fréchet distance; 0 for equal moments, up to rounding (about 1e-8 of the largest variance)."""
    first, second = (torch.from_numpy(found.covariance).to(device) for found in (one, other))
    values, vectors = torch.linalg.eigh(first)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    product = torch.linalg.eigvalsh(root @ second @ root)  # the eigenvalues of C1 C2, but of a symmetric matrix
    mixed = float(product.clamp(min=0).sqrt().sum())
    shift = float(((one.mean - other.mean) ** 2).sum())
    return shift + float(first.trace() + second.trace()) - 2 * mixed


def distance(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray], votes: np.ndarray, device: str = "cpu") -> float:
    """The squared Fréchet distance of the points of two sides, one group [N, D] per video and side, with its votes."""
    return frechet_distance(moments(ours, votes), moments(theirs, votes), device)


def same_distances(groups: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The points in as few dimensions as they can span, at the same distances; as they are if that saves nothing."""
    lengths = [len(group) for group in groups]
    if sum(lengths) >= groups[0].shape[1]:
        return list(groups)
    triangle = np.asarray(np.linalg.qr(np.concatenate(groups).T.astype(np.float64), mode="r"))
    return np.split(triangle.T, np.cumsum(lengths)[:-1])


def interval(estimate: float, replicates: Sequence[float]) -> tuple[float, float] | None:
    """Return the 95 % interval of resampled estimates around the estimate; None if there are none.

    A mean's resamples lie around it anyhow. Those of a Fréchet distance are all too large, because a resample holds
    fewer different points; what counts is how far they scatter.
    """
    found = np.asarray(replicates, np.float64)
    if not len(found) or not np.isfinite(found).all() or not np.isfinite(estimate):
        return None
    low, high = np.percentile(found, PERCENTILES) + estimate - found.mean()
    return float(low), float(high)


def resample(count: int, resamples: int, seed: int, statistic: Callable[[np.ndarray], float]) -> list[float]:
    """Return a statistic of `resamples` draws of `count` videos with replacement, each given as votes [count].

    Nothing for a single video, whose resamples are all itself.
    """
    if count < 2:
        return []
    random = np.random.RandomState(seed)  # whose numbers stay the same in every version of numpy
    return [statistic(np.bincount(random.randint(0, count, count), minlength=count)) for _ in range(resamples)]


class Features:
    """Features of the pictures of many videos, kept in files: one matrix [N, D] per video and side."""

    def __init__(self, folder: Path, width: int) -> None:
        self.folder, self.width = folder, width
        folder.mkdir(parents=True)

    def add(self, video: int, side: str, features: np.ndarray) -> None:
        with (self.folder / f"{video}.{side}").open("ab") as file:
            file.write(np.ascontiguousarray(features, np.float32).tobytes())

    def read(self, video: int, side: str) -> np.ndarray:
        path = self.folder / f"{video}.{side}"
        if not path.is_file() or not path.stat().st_size:
            return np.empty((0, self.width), np.float32)
        return np.memmap(path, np.float32, mode="r").reshape(-1, self.width)
