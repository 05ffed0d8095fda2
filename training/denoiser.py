"""The denoiser of equation 2 around a network F_theta, and its loss (equations 3 to 5).

The paper's symbols, as in Karras et al. 2022: sigma [B], one noise level per clip, for all its frames; z0 clean and
z = z0 + sigma n noisy latents; c_skip, c_out, c_in, c_noise the scalings of equation 2 in SVD's form (sgm's
VScalingWithEDMcNoise); lambda(sigma) = (1 + sigma^2) / sigma^2 (sgm's VWeighting).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Scalings:
    """Of equation 2, each shaped to multiply [B, F, C, h, w]; c_noise [B]."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor

    @classmethod
    def of(cls, sigma: Tensor) -> "Scalings":
        s = sigma.view(-1, 1, 1, 1, 1)
        return cls(1 / (s**2 + 1), -s / (s**2 + 1).sqrt(), 1 / (s**2 + 1).sqrt(), 0.25 * sigma.log())


@dataclass(frozen=True)
class Denoiser:
    """D of equation 2: the network F with the scalings around it, as in k-diffusion's `layers.py`.

    `network` is called with c_in z [B, F, 4, h, w], c_noise [B] and the conditions; it gives F, shaped as z.
    """

    network: Callable[..., Tensor]

    def __call__(self, z: Tensor, sigma: Tensor, *conditions: object) -> Tensor:
        """Return the clean latents that the network sees in noisy ones [B, F, 4, h, w] of noise levels [B]."""
        s = Scalings.of(sigma)
        return s.c_skip * z + s.c_out * self.network(s.c_in * z, s.c_noise, *conditions).float()

    def loss(self, z0: Tensor, n: Tensor, sigma: Tensor, *conditions: object, weight: Tensor | None = None) -> Tensor:
        """Equation 5 of each clip, [B]: lambda |D - z0|^2 in the equal form |F - v|^2, averaged with `weight` if given.

        Written with v nothing is divided by sigma^2, and no two large numbers are subtracted in bf16. `weight` is
        [B, F, 1, h, w].
        """
        s = Scalings.of(sigma)
        z = z0 + sigma.view(-1, 1, 1, 1, 1) * n
        F = self.network(s.c_in * z, s.c_noise, *conditions)
        error = (F.float() - velocity(z0, n, sigma)).square()
        return error.mean(dim=(1, 2, 3, 4)) if weight is None else weighted_mean(error, weight)


def velocity(z0: Tensor, n: Tensor, sigma: Tensor) -> Tensor:
    """What F should be: v = (n - sigma z0) / sqrt(1 + sigma^2), with n of unit variance."""
    s = sigma.view(-1, 1, 1, 1, 1)
    return (n - s * z0) / (1 + s**2).sqrt()


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Mean of [B, F, C, h, w] with the weights [B, F, 1, h, w], [B]; 0 where they are all 0."""
    total = (values.mean(dim=2, keepdim=True) * weight).sum(dim=(1, 2, 3, 4))
    return total / weight.sum(dim=(1, 2, 3, 4)).clamp(min=1e-6)


def draw_sigma(normal: Tensor, P_mean: float, P_std: float) -> Tensor:
    """ln sigma ~ N(P_mean, P_std^2) from standard normal draws [B]."""
    return (P_mean + P_std * normal).exp()


def draw_masks(uniform: Tensor, audio_rate: float, identity_rate: float) -> tuple[Tensor, Tensor]:
    """(keep_audio, keep_identity) [B], 1 or 0, from two uniform draws per clip [B, 2] (section 3.5).

    The two are independent draws, and masking the audio always masks the identity: with 5 % and 15 % the identity goes
    in 19.25 % of the clips.
    """
    keep_audio = uniform[:, 0] >= audio_rate
    keep_identity = keep_audio & (uniform[:, 1] >= identity_rate)
    return keep_audio.float(), keep_identity.float()


def draw_noise(seed: int, shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the draws of one clip from its seed: n and the VAE's posterior, both `shape`, and a scalar for sigma.

    They are drawn on the CPU, so that a clip has the same noise on any device, on any rank and after a resume.
    """
    generator = torch.Generator().manual_seed(seed)
    n = torch.randn(shape, generator=generator)
    return n, torch.randn(shape, generator=generator), torch.randn((), generator=generator)
