"""One chunk of frames -> its clean latents: segments as long as in training, averaged in every step where they overlap.

Segments and their overlap are appendix B's (`training/plan.py`). The first frames of a chunk may be known from the one
before.
"""

import numpy as np
import torch
from torch import Tensor

from training.latents import window_starts
from training.network import SayAnything
from training.plan import Segments
from training.sampler import Denoise, guide

FRAMES_AT_ONCE = 16  # in one forward pass, however short the segments are


def average_segments(
    network: SayAnything,
    concatenated: Tensor,
    tokens: Tensor,
    residuals: list[Tensor],
    segments: Segments,
    guidance: float,
    batch_segments: int = 1,
    audio_guidance: float | None = None,
) -> Denoise:
    """Return the denoiser of a chunk [m, 4, h, w], which averages its segments in every step where they overlap.

    `concatenated` is [m, 4, h, w], `tokens` [m, K, D]; `residuals` are one for all frames or one per frame. A forward
    pass holds `batch_segments`, or as many as have 16 frames.
    """
    frames, length = len(concatenated), segments.frames
    starts = window_starts(frames, length, segments.overlap)
    places = [torch.arange(start, start + length).clamp(max=frames - 1) for start in starts]  # short: the last repeats
    at_once = max(batch_segments, FRAMES_AT_ONCE // length)
    batches = [places[i : i + at_once] for i in range(0, len(places), at_once)]
    counts = torch.zeros(frames, device=concatenated.device)
    for place in places:
        counts[place.unique()] += 1

    def part(x: Tensor, batch: list[Tensor]) -> Tensor:
        return torch.stack([x[place] for place in batch])

    def residuals_of(batch: list[Tensor]) -> list[Tensor]:
        if residuals and len(residuals[0]) == frames > 1:  # one per frame: Table 3, "video fusion"
            return [part(residual, batch).flatten(0, 1) for residual in residuals]
        return [residual.expand(len(batch), -1, -1, -1) for residual in residuals]

    denoisers = [
        guide(network, part(concatenated, batch), part(tokens, batch), residuals_of(batch), guidance, audio_guidance)
        for batch in batches
    ]

    def denoise(z: Tensor, sigma: float) -> Tensor:
        total = torch.zeros_like(z)
        for batch, denoise_batch in zip(batches, denoisers, strict=True):
            for place, answer in zip(batch, denoise_batch(part(z, batch), sigma), strict=True):
                once = place.unique()
                total[once] += answer[: len(once)]
        return total / counts.view(-1, 1, 1, 1)

    return denoise


def keep_known(denoise: Denoise, known: Tensor | None) -> Denoise:
    """Return a denoiser that gives `known` [k, 4, h, w] for its first frames, so that every path ends there."""
    if known is None:
        return denoise

    def denoise_others(z: Tensor, sigma: float) -> Tensor:
        return torch.cat([known, denoise(z, sigma)[len(known) :]])

    return denoise_others


def frame_noise(seed: int, t: int, shape: tuple[int, ...]) -> Tensor:
    """Return the noise of frame t of the output: the same whatever segment or chunk it is in."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed * 1_000_003 + t))


def crossfade(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return [k, H, W, 3] uint8 that goes from the frames of the chunk before to those of this one, linearly."""
    weight = (np.arange(1, len(before) + 1) / (len(before) + 1)).reshape(-1, 1, 1, 1)
    return np.rint(before * (1 - weight) + after * weight).astype(np.uint8)
