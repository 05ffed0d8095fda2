"""From noise to clean latents: SVD's sigmas and Euler's method on the denoiser, with classifier-free guidance.

diffusers' EulerDiscreteScheduler with SVD's configuration gives the same sigmas and the same steps (tests); here the
loop is ours because segments of a long video must be averaged inside each step.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from training.guidance import ask, guide_apart
from training.network import SayAnything

SIGMA_MIN, SIGMA_MAX = 0.002, 700.0  # SVD's scheduler
RHO = 7.0  # Karras et al. 2022, equation 5

Denoise = Callable[[Tensor, float], Tensor]  # (noisy latents, sigma) -> clean latents


def karras_sigmas(steps: int, sigma_min: float = SIGMA_MIN, sigma_max: float = SIGMA_MAX) -> list[float]:
    """Return `steps` noise levels from the largest to the smallest, then 0."""
    if steps == 1:
        return [sigma_max, 0.0]
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    low, high = sigma_min ** (1 / RHO), sigma_max ** (1 / RHO)
    return [*((high + ramp * (low - high)) ** RHO).tolist(), 0.0]


def euler(denoise: Denoise, noise: Tensor, sigmas: list[float], on_step: Callable[[], object] = lambda: None) -> Tensor:
    """Return clean latents from unit noise, with one call of `denoise` per step."""
    z = noise * (1 + sigmas[0] ** 2) ** 0.5  # diffusers' init_noise_sigma: as if a unit z0 lay below
    for sigma, after in pairwise(sigmas):
        z = z + (after - sigma) * (z - denoise(z, sigma)) / sigma
        on_step()
    return z


def heun(denoise: Denoise, noise: Tensor, sigmas: list[float], on_step: Callable[[], object] = lambda: None) -> Tensor:
    """Karras et al. 2022, algorithm 1 without churn: two calls a step, one in the last; better below some 10 steps."""
    z = noise * (1 + sigmas[0] ** 2) ** 0.5
    for sigma, after in pairwise(sigmas):
        slope = (z - denoise(z, sigma)) / sigma
        euler_z = z + (after - sigma) * slope
        if after > 0:
            slope = (slope + (euler_z - denoise(euler_z, after)) / after) / 2
            euler_z = z + (after - sigma) * slope
        z = euler_z
        on_step()
    return z


SAMPLERS = {"euler": euler, "heun": heun}


def guide(
    network: SayAnything,
    concatenated: Tensor,
    tokens: Tensor,
    residuals: list[Tensor],
    guidance: float,
    audio_guidance: float | None = None,
) -> Denoise:
    """Return the denoiser of a batch of segments with guidance: D_u + g (D_c - D_u).

    Unconditional means audio and identity zero, the masked video kept (appendix B, "the corresponding conditional CFG
    strategy as in training"). With guidance 1 the second pass is left out. With another `audio_guidance` the sound has
    that scale and `guidance` is the identity's (training/guidance.py).
    """
    if audio_guidance is not None and audio_guidance != guidance:
        return guide_apart(network, concatenated, tokens, residuals, guidance, audio_guidance)
    kept = [(True, True)] if guidance == 1.0 else [(False, False), (True, True)]
    answer = ask(network, concatenated, tokens, residuals, kept)

    def denoise(z: Tensor, sigma: float) -> Tensor:
        without, *more = answer(z, sigma)
        return without + guidance * (more[0] - without) if more else without

    return denoise
