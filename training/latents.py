"""Pictures to SVD's latents and back, and the two forms in which the network reads them.

What is denoised is a sample of the VAE's posterior times 0.18215 (`scaling_factor`). What is concatenated is the mode,
unscaled: so SVD was trained, and mixing the two up is a known bug of its re-implementations.
"""

import json
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import AutoencoderKLTemporalDecoder
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor

from training.linear_codec import LinearCodec
from training.settings import Fusion

ENCODE_FRAMES = 16  # pictures of one VAE call: 320 x 320 in bf16 takes 0.2 GB each


class LatentCodec:
    """A frozen temporal VAE, or a linear codec; it encodes picture by picture and decodes runs of frames together."""

    def __init__(self, vae: AutoencoderKLTemporalDecoder | LinearCodec) -> None:
        self.vae = vae.requires_grad_(False).eval()
        self.draws = not isinstance(vae, LinearCodec)  # whether the posterior has a spread
        self.parts = 3 if self.draws else 2  # of a cached frame: training/cache.py
        self.scale: float = vae.config["scaling_factor"]
        self.factor: int = (
            vae.factor if isinstance(vae, LinearCodec) else 2 ** (len(vae.config["block_out_channels"]) - 1)
        )
        self.channels: int = vae.config["latent_channels"]

    @classmethod
    def load(cls, base: Path, device: torch.device, dtype: torch.dtype) -> "LatentCodec":
        """The VAE of a diffusers folder (`<base>/vae`). Raises ValueError if there is none."""
        if not (base / "vae" / "config.json").is_file():
            raise ValueError(f'{base / "vae"}: no VAE (config.json is missing); README, "Train", says where to get it')
        config = json.loads((base / "vae" / "config.json").read_text(encoding="utf-8"))
        if config.get("_class_name") == LinearCodec.__name__:
            return cls(LinearCodec.from_pretrained(base / "vae", torch_dtype=dtype).to(device))  # pyright: ignore
        fp16 = not (base / "vae" / "diffusion_pytorch_model.safetensors").is_file()
        vae = AutoencoderKLTemporalDecoder.from_pretrained(
            base / "vae", torch_dtype=dtype, variant="fp16" if fp16 else None, use_safetensors=True
        )
        return cls(vae.to(device))  # pyright: ignore[reportArgumentType]

    @torch.no_grad()
    def moments(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """[..., 3, H, W] in [-1, 1] -> mean and standard deviation of the posterior, fp32 [..., 4, h, w]."""
        flat = pictures.flatten(0, -4).to(self.vae.dtype)
        found = [self._posterior(part) for part in flat.split(ENCODE_FRAMES)]
        mean = torch.cat([d.mean for d in found]).float().unflatten(0, pictures.shape[:-3])
        return mean, torch.cat([d.std for d in found]).float().unflatten(0, pictures.shape[:-3])

    def _posterior(self, pictures: Tensor) -> DiagonalGaussianDistribution:
        return self.vae.encode(pictures, return_dict=False)[0]  # pyright: ignore[reportReturnType]

    def clean(self, pictures: Tensor, draw: Tensor) -> Tensor:
        """z0: a scaled posterior sample with the standard normal `draw` [..., 4, h, w]."""
        return self.sample(*self.moments(pictures), draw)

    def sample(self, mean: Tensor, std: Tensor, draw: Tensor) -> Tensor:
        """z0 from the posterior's moments and a standard normal `draw`, all [..., 4, h, w]."""
        return self.scale * (mean + std * draw)

    def condition(self, pictures: Tensor) -> Tensor:
        """The unscaled mode, for concatenation."""
        return self.moments(pictures)[0]

    @torch.no_grad()
    def decode(self, z0: Tensor, window: int = 16, overlap: int = 4) -> Tensor:
        """Clean scaled latents of one video [F, 4, h, w] -> pictures [F, 3, H, W] fp32 in about [-1, 1].

        The decoder mixes neighbouring frames, so windows overlap and are blended linearly: no flicker at their borders.
        """
        z = (z0 / self.scale).to(self.vae.dtype)
        done: Tensor | None = None
        for start in window_starts(len(z), window, overlap):
            part = z[start : start + window]
            pictures = self.vae.decode(part, num_frames=len(part), return_dict=False)[0].float()
            if done is None:
                done = pictures
                continue
            shared = len(done) - start
            ramp = torch.arange(1, shared + 1, device=z.device).view(-1, 1, 1, 1) / (shared + 1)
            blend = done[start:] * (1 - ramp) + pictures[:shared] * ramp
            done = torch.cat([done[:start], blend, pictures[shared:]])
        assert done is not None
        return done


def latent_mask(mask: Tensor, factor: int) -> Tensor:
    """[B, F, 1, H, W] of pictures -> [B, F, 1, h, w] of latents: 1 where any pixel of a latent lies in the mask."""
    return torch.nn.functional.max_pool2d(mask.flatten(0, 1), factor).unflatten(0, mask.shape[:2])


def window_starts(frames: int, window: int, overlap: int) -> list[int]:
    """First frames of windows that cover `frames`, each sharing at least `overlap` with the one before."""
    if frames <= window:
        return [0]
    starts = list(range(0, frames - window, window - overlap))
    return [*starts, frames - window]


def concatenated_and_identity(
    codec: LatentCodec, frames: Tensor, mask: Tensor, reference: Tensor, reference_mask: Tensor, fusion: Fusion
) -> tuple[Tensor, Tensor]:
    """The two picture conditions of `network.Conditions`: concatenated [B, F, 4, h, w], identity [B or B*F, C, H, W].

    frames [B, F, 3, H, W] and reference [B, 3, H, W] in [-1, 1]; mask [B, F, 1, H, W] and reference_mask [B, 1, H, W],
    1 where the lips are. A masked pixel is 0, mid-grey (LatentSync); the reference picture itself is not masked.
    """
    masked = frames * (1 - mask)
    if fusion == "video_fusion":
        repeated = codec.condition(reference)[:, None].expand(-1, frames.shape[1], -1, -1, -1)
        return repeated, torch.cat([masked, mask], dim=2).flatten(0, 1)
    return codec.condition(masked), identity_of(codec, reference, reference_mask, fusion)


def identity_of(codec: LatentCodec, reference: Tensor, reference_mask: Tensor, fusion: Fusion) -> Tensor:
    """Return the ID-Guider's input: [B, 4, H, W] picture and mask, or with "vae_feature" [B, C + 1, h, w]."""
    if fusion == "vae_feature":
        small = torch.nn.functional.adaptive_max_pool2d(
            reference_mask, [s // codec.factor for s in reference.shape[-2:]]
        )
        return torch.cat([codec.condition(reference), small], dim=1)
    return torch.cat([reference, reference_mask], dim=1)
