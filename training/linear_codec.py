"""A codec without a network: overlapping patches to a few numbers each and back, both linear.

It stands where SVD's VAE stands, for training on a CPU: encoding is two hundredths of a step of a small network instead
of a third. Patches overlap by half, so that no seam shows between them (a lapped transform); the two filter banks start
as principal components and are fitted together to the least squared error.
"""

from types import SimpleNamespace
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional

FIT_STEPS, FIT_BATCH, FIT_RATE = 600, 32, 2e-3
WHITENING = 0.5  # 0: latents as large as they are in pictures; 1: all channels equally large


class LinearCodec(ModelMixin, ConfigMixin):
    """Pictures [N, 3, H, W] in [-1, 1] <-> latents [N, C, H/factor, W/factor] of about unit variance."""

    @register_to_config
    def __init__(self, *, factor: int = 4, latent_channels: int = 12, scaling_factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor
        self.mean = nn.Parameter(torch.zeros(3))
        self.analysis = nn.Parameter(torch.zeros(latent_channels, 3, 2 * factor, 2 * factor))
        self.synthesis = nn.Parameter(torch.zeros(latent_channels, 3, 2 * factor, 2 * factor))

    def encode(self, pictures: Tensor, return_dict: bool = False) -> tuple[Any]:
        """A posterior without spread, as diffusers' VAEs give one: `mean` and `std`."""
        half = self.factor // 2
        rest = self.factor - half
        padded = functional.pad(pictures - self.mean[:, None, None], (half, rest, half, rest), mode="replicate")
        mean = functional.conv2d(padded, self.analysis, stride=self.factor)
        return (SimpleNamespace(mean=mean, std=torch.zeros_like(mean)),)

    def decode(self, latents: Tensor, num_frames: int = 1, return_dict: bool = False) -> tuple[Tensor]:
        """Pictures; at their edges the outermost latents are repeated."""
        half = self.factor // 2
        padded = functional.pad(latents, (1, 1, 1, 1), mode="replicate")
        wide = functional.conv_transpose2d(padded, self.synthesis, stride=self.factor)
        first = self.factor + half
        height, width = (size * self.factor for size in latents.shape[-2:])
        return (wide[..., first : first + height, first : first + width] + self.mean[:, None, None],)


def fit_codec(pictures: Tensor, factor: int, channels: int) -> LinearCodec:
    """The codec of least squared error on some pictures [N, 3, H, W] in [-1, 1]; the same every time."""
    codec = LinearCodec(factor=factor, latent_channels=channels)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        codec.mean.copy_(pictures.mean(dim=(0, 2, 3)))
        start_from_components(codec, pictures)
    optimizer = torch.optim.Adam([codec.analysis, codec.synthesis], FIT_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, FIT_STEPS)
    for _ in range(FIT_STEPS):
        chosen = pictures[torch.randint(len(pictures), (min(FIT_BATCH, len(pictures)),), generator=random)]
        loss = (codec.decode(codec.encode(chosen)[0].mean)[0] - chosen).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        normalize(codec, pictures)
    return codec.requires_grad_(False).eval()


def start_from_components(codec: LinearCodec, pictures: Tensor) -> None:
    """Put the principal components of patches without overlap into the middle of both filter banks."""
    patches = functional.unfold(pictures - codec.mean[:, None, None], codec.factor, stride=codec.factor)
    rows = patches.transpose(1, 2).flatten(0, 1).double()
    _, vectors = torch.linalg.eigh(rows.T @ rows)
    channels = codec.analysis.shape[0]
    filters = vectors.flip(1)[:, :channels].T.reshape(channels, 3, codec.factor, codec.factor).float()
    half = codec.factor // 2
    for bank in (codec.analysis, codec.synthesis):
        bank[:, :, half : half + codec.factor, half : half + codec.factor] = filters


def normalize(codec: LinearCodec, pictures: Tensor) -> None:
    """Scale the channels: between their own sizes and equal ones by WHITENING, in all of unit variance, mean 0."""
    latents = codec.encode(pictures)[0].mean
    std = latents.std(dim=(0, 2, 3))
    scale = std**-WHITENING
    scale = scale / ((std * scale).square().mean()).sqrt()
    codec.analysis.mul_(scale[:, None, None, None])
    codec.synthesis.div_(scale[:, None, None, None])


@torch.no_grad()
def psnr(codec: LinearCodec, pictures: Tensor) -> float:
    """Of pictures in [-1, 1] through the codec, dB."""
    mse = (codec.decode(codec.encode(pictures)[0].mean)[0].clamp(-1, 1) - pictures).square().mean()
    return float(10 * torch.log10(4.0 / mse))
