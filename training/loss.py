"""One batch -> its loss: pictures to latents, noise and masks from each clip's own seed, the network, equation 5."""

from dataclasses import dataclass

import torch
from torch import Tensor

from training import denoiser
from training.batch import Batch
from training.denoiser import Denoiser
from training.latents import LatentCodec, concatenated_and_identity, identity_of, latent_mask
from training.network import Conditions, SayAnything
from training.settings import Fusion, NoiseSettings


@dataclass(frozen=True)
class DiffusionInputs:
    """A batch ready for the network: z0 and n [B, F, 4, h, w], sigma [B], conditions, mask [B, F, 1, h, w]."""

    z0: Tensor
    n: Tensor
    sigma: Tensor
    conditions: Conditions
    mask: Tensor


def prepare_inputs(
    batch: Batch, codec: LatentCodec, noise: NoiseSettings, fusion: Fusion, mask_conditions: bool = True
) -> DiffusionInputs:
    """Encode a batch and draw its noise. With `mask_conditions` False every condition is kept, as in validation."""
    mean, std, concatenated, identity = encode(batch, codec, fusion)
    shape = tuple(concatenated.shape[1:])
    draws = [denoiser.draw_noise(seed, shape) for seed in batch.noise_seed.tolist()]
    n, posterior, normal = (torch.stack(parts).to(concatenated.device) for parts in zip(*draws, strict=True))
    rates = (noise.drop_audio, noise.drop_identity) if mask_conditions else (0.0, 0.0)
    keep_audio, keep_identity = denoiser.draw_masks(batch.drop_draws, *rates)
    return DiffusionInputs(
        z0=codec.sample(mean, std, posterior),
        n=n,
        sigma=denoiser.draw_sigma(normal, noise.P_mean, noise.P_std),
        conditions=Conditions(concatenated, identity, batch.whisper, keep_audio, keep_identity),
        mask=latent_mask(batch.masks(), codec.factor),
    )


def encode(batch: Batch, codec: LatentCodec, fusion: Fusion) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What the codec makes of a batch: mean and deviation of its posterior, and the two picture conditions."""
    reference, reference_mask = batch.reference_frame(), batch.reference_mask()
    if batch.latents is None:
        frames = batch.frames()
        conditions = concatenated_and_identity(codec, frames, batch.masks(), reference, reference_mask, fusion)
        return *codec.moments(frames), *conditions
    mean, masked, *deviation = batch.latents.float().unbind(2)
    std = deviation[0] if deviation else torch.zeros_like(mean)
    return mean, std, masked, identity_of(codec, reference, reference_mask, fusion)


def diffusion_loss(network: SayAnything | torch.nn.Module, inputs: DiffusionInputs, outside: float = 1.0) -> Tensor:
    """Return equation 5 of each clip, [B], its errors outside the mask weighted. `network` may be wrapped for DDP."""
    weight = None if outside == 1.0 else inputs.mask + outside * (1 - inputs.mask)
    return Denoiser(network).loss(inputs.z0, inputs.n, inputs.sigma, inputs.conditions, weight=weight)
