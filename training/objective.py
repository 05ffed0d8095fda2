"""One batch -> its loss: pictures to latents, noise and masks from each clip's own seed, the network, equation 5."""

from dataclasses import dataclass

import torch
from torch import Tensor

from training import denoiser
from training.batch import Batch
from training.denoiser import Scalings
from training.latents import LatentCodec, concatenated_and_identity
from training.network import Conditions, SayAnything
from training.settings import Fusion, NoiseSettings


@dataclass(frozen=True)
class Noisy:
    """A batch ready for the network: z0 and n [B, F, 4, h, w], sigma [B], conditions."""

    z0: Tensor
    n: Tensor
    sigma: Tensor
    conditions: Conditions


def prepare(
    batch: Batch, codec: LatentCodec, noise: NoiseSettings, fusion: Fusion, mask_conditions: bool = True
) -> Noisy:
    """Encode a batch and draw its noise. `mask_conditions` False keeps every condition, as validation wants."""
    frames, reference = batch.frames(), batch.reference_frame()
    shape = (frames.shape[1], codec.channels, *(size // codec.factor for size in frames.shape[-2:]))
    draws = [denoiser.draw_noise(seed, shape) for seed in batch.noise_seed.tolist()]
    n, posterior, normal = (torch.stack(parts).to(frames.device) for parts in zip(*draws, strict=True))
    concatenated, identity = concatenated_and_identity(
        codec, frames, batch.masks(), reference, batch.reference_mask(), fusion
    )
    rates = (noise.drop_audio, noise.drop_identity) if mask_conditions else (0.0, 0.0)
    keep_audio, keep_identity = denoiser.draw_masks(batch.drop_draws, *rates)
    return Noisy(
        z0=codec.clean(frames, posterior),
        n=n,
        sigma=denoiser.draw_sigma(normal, noise.P_mean, noise.P_std),
        conditions=Conditions(concatenated, identity, batch.whisper, keep_audio, keep_identity),
    )


def losses(network: SayAnything | torch.nn.Module, noisy: Noisy) -> Tensor:
    """Equation 5 of each clip, [B]. `network` may be wrapped for DDP."""
    s = Scalings.of(noisy.sigma)
    z = noisy.z0 + noisy.sigma.view(-1, 1, 1, 1, 1) * noisy.n
    F = network(s.c_in * z, s.c_noise, noisy.conditions)
    return denoiser.loss(F, noisy.z0, noisy.n, noisy.sigma)
