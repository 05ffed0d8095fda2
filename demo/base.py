"""A toy Stable Video Diffusion for the embedded profile: the same diffusers classes and folders, fit for a CPU.

    python -m demo.base --data demo/output/curated --output demo/output/base

No registry carries SVD's weights. So the UNet is random, at a tenth of SVD's width, and the VAE is trained for a minute
on the crops of the demo's own talkers (64 x 64 pixels to 16 x 16 x 4 latents). It stands where a user's
`stable-video-diffusion-img2vid-xt` stands, and is good for nothing but the demo and the tests.
"""

import argparse
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import AutoencoderKLTemporalDecoder
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel
from rich.progress import track
from torch import Tensor
from torch.nn import functional

from training.data import loader, open_data
from training.settings import load_settings

STEPS = 300
FRAMES = 2  # of a window
KL_WEIGHT = 1e-4
VAE_CHANNELS = (32, 32, 64)  # two halvings
UNET_CHANNELS = (32, 32, 64, 64)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.base", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--data", required=True, type=Path, help="output folder of a curation")
    parser.add_argument("--output", required=True, type=Path, help="diffusers folder to make: unet/ and vae/")
    parser.add_argument("--steps", type=int, default=STEPS, help="of training the VAE (default: %(default)s)")
    options = parser.parse_args(arguments)
    if (options.output / "vae" / "config.json").is_file():
        print(f"{options.output}: there already")
        return 0
    try:
        vae, error = train_vae(options.data, options.steps)
    except ValueError as error:
        print(f"refused: {error}", file=sys.stderr)
        return 2
    toy_unet().save_pretrained(options.output / "unet")
    vae.save_pretrained(options.output / "vae")
    print(f"{options.output}: VAE reconstructs crops with {psnr(error):.1f} dB")
    return 0


def toy_unet() -> UNetSpatioTemporalConditionModel:
    """SVD's UNet at a toy width, random but the same every time."""
    torch.manual_seed(0)
    return UNetSpatioTemporalConditionModel(
        sample_size=16,
        block_out_channels=UNET_CHANNELS,
        addition_time_embed_dim=32,
        projection_class_embeddings_input_dim=96,
        cross_attention_dim=64,
        num_attention_heads=(1, 1, 2, 2),
        num_frames=25,
    )


def toy_vae() -> AutoencoderKLTemporalDecoder:
    torch.manual_seed(0)
    return AutoencoderKLTemporalDecoder(
        block_out_channels=VAE_CHANNELS,  # pyright: ignore[reportArgumentType]
        down_block_types=("DownEncoderBlock2D",) * len(VAE_CHANNELS),  # pyright: ignore[reportArgumentType]
        layers_per_block=1,
        scaling_factor=1.0,
    )


def train_vae(data: Path, steps: int) -> tuple[AutoencoderKLTemporalDecoder, float]:
    """The VAE after `steps` on windows of the shards, scaled to latents of unit variance, and its last error."""
    settings = load_settings("embedded", [f"data.frames={FRAMES}", "data.workers=1"])
    vae = toy_vae().train()
    optimizer = torch.optim.AdamW(vae.parameters(), lr=2e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    batches = loader(open_data(data, settings.data, settings.mask), 4)
    error, spread = torch.zeros(()), torch.ones(())
    for batch in track(islice(batches, steps), "training the toy VAE", total=steps):
        pictures = batch.frames().flatten(0, 1)
        found, latents, spread = reconstructed(vae, pictures)
        error = functional.mse_loss(found, pictures)
        kl = 0.5 * (latents.mean**2 + latents.var - 1 - latents.logvar).mean()
        optimizer.zero_grad()
        (functional.l1_loss(found, pictures) + KL_WEIGHT * kl).backward()
        optimizer.step()
        schedule.step()
    vae.register_to_config(scaling_factor=round(1 / float(spread), 5))
    return vae.eval(), error.item()


def reconstructed(
    vae: AutoencoderKLTemporalDecoder, pictures: Tensor
) -> tuple[Tensor, DiagonalGaussianDistribution, Tensor]:
    """Pictures through the VAE, the posterior, and the standard deviation of its samples."""
    posterior = vae.encode(pictures).latent_dist  # pyright: ignore[reportAttributeAccessIssue]
    sample = posterior.sample()
    return vae.decode(sample, num_frames=FRAMES).sample, posterior, sample.detach().std()  # pyright: ignore


def psnr(mse: float) -> float:
    """Of pictures in [-1, 1]."""
    return float(10 * torch.log10(torch.tensor(4.0 / mse)))


if __name__ == "__main__":
    raise SystemExit(main())
