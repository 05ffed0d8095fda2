"""The base of the embedded training: a small UNet of Stable Video Diffusion's classes and a codec fitted to the data.

    python -m demo.base --data demo/output/curated --output demo/output/base

No registry carries SVD's weights. So the UNet is random, at a tenth of SVD's width, and in the place of the VAE stands
a linear codec with overlapping patches (training/linear_codec.py), fitted in seconds to the crops of the shards. It
stands where a user's `stable-video-diffusion-img2vid-xt` stands: same folders, same code from there on.
"""

import argparse
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import torch
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel
from rich.progress import track
from torch import Tensor

from training.data import loader, open_data
from training.linear_codec import fit_codec, psnr
from training.settings import load_settings

UNET_CHANNELS = (32, 32, 64, 64)
FACTOR, LATENT_CHANNELS = 4, 12
PICTURES, UNSEEN = 480, 96  # crops that the codec is fitted to, and others on which its error is said


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.base", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--data", required=True, type=Path, help="output folder of a curation")
    parser.add_argument("--output", required=True, type=Path, help="diffusers folder to make: unet/ and vae/")
    parser.add_argument("--profile", default="embedded", help="whose crops (default: %(default)s)")
    options = parser.parse_args(arguments)
    if (options.output / "vae" / "config.json").is_file():
        print(f"{options.output}: there already")
        return 0
    try:
        crops = read_crops(options.data, options.profile)
    except ValueError as error:
        print(f"refused: {error}", file=sys.stderr)
        return 2
    codec = fit_codec(crops[UNSEEN:], FACTOR, LATENT_CHANNELS)
    make_unet(crops.shape[-1] // FACTOR).save_pretrained(options.output / "unet")
    codec.save_pretrained(options.output / "vae")
    print(
        f"{options.output}: the codec gives back crops it was not fitted to with {psnr(codec, crops[:UNSEEN]):.1f} dB"
    )
    return 0


def make_unet(side: int) -> UNetSpatioTemporalConditionModel:
    """SVD's UNet at a tenth of its width, for latents of `side`; random but the same every time."""
    torch.manual_seed(0)
    return UNetSpatioTemporalConditionModel(
        sample_size=side,
        in_channels=2 * LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=UNET_CHANNELS,
        addition_time_embed_dim=32,
        projection_class_embeddings_input_dim=96,
        cross_attention_dim=64,
        num_attention_heads=(1, 1, 1, 1),
        num_frames=25,
    )


def read_crops(data: Path, profile: str) -> Tensor:
    """One picture of each of many windows of the shards, as the network sees them: [N, 3, size, size] in [-1, 1]."""
    settings = load_settings(profile, ["data.frames=1", "data.workers=1", "data.cache=none"])
    batches = loader(open_data(data, settings.data, settings.mask), 8)
    count = (PICTURES + UNSEEN) // 8
    return torch.cat([b.frames()[:, 0] for b in track(islice(batches, count), "reading crops", total=count)])


if __name__ == "__main__":
    raise SystemExit(main())
