"""A toy of SVD with random weights, in its folder layout, and conditions for it: what the training tests run on."""

from pathlib import Path

import torch
import yaml
from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import AutoencoderKLTemporalDecoder
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel

import pipelines
from training.checkpoint import SETTINGS
from training.curated import deciding
from training.network import AudioShape, Conditions, SayAnything, build
from training.recipe import decisive
from training.settings import ModelSettings, load_settings

AUDIO = AudioShape(layers=3, dim=16, window_frames=2)
FRAMES, SIDE, FACTOR = 4, 64, 4
UNET_CHANNELS = (32, 32, 64, 64)


def toy_unet() -> UNetSpatioTemporalConditionModel:
    """SVD's UNet at a tenth of its width, random but the same every time."""
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
    """SVD's VAE at a small width, random: 4 channels, two halvings."""
    torch.manual_seed(0)
    return AutoencoderKLTemporalDecoder(
        block_out_channels=(32, 32, 64),  # pyright: ignore[reportArgumentType]
        down_block_types=("DownEncoderBlock2D",) * 3,  # pyright: ignore[reportArgumentType]
        layers_per_block=1,
        scaling_factor=1.0,
    )


def make_base(folder: Path) -> Path:
    """`unet/` and `vae/` in SVD's layout."""
    if not folder.exists():
        toy_unet().save_pretrained(folder / "unet")
        toy_vae().save_pretrained(folder / "vae")
    return folder


def make_network(base: Path, listening: bool = True, **settings: object) -> SayAnything:
    """The network on a toy base; with `listening` zero-initialised convolutions have weights, as after training."""
    torch.manual_seed(1)
    network = build(base, ModelSettings(base=str(base), **settings), AUDIO, FACTOR)  # pyright: ignore[reportArgumentType]
    if listening:
        for parameter in network.id_guider.out.parameters():
            torch.nn.init.normal_(parameter, std=0.05)
    return network.eval()


def make_checkpoint(folder: Path) -> Path:
    """An exported network of the embedded profile, untrained, as `training/train.py` leaves it in its run."""
    base = make_base(folder / "base")
    settings = load_settings("embedded", [f"model.base={base}"])
    network = build(base, settings.model, AudioShape(5, 384, settings.data.window_frames), FACTOR)
    network.save(folder / "export")
    recipe = decisive("embedded", settings, deciding(pipelines.load("embedded").stages))
    (folder / "export" / SETTINGS).write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return folder


def make_conditions(batch: int = 2, frames: int = FRAMES, seed: int = 0) -> Conditions:
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=random)

    small = SIDE // FACTOR
    rows = normal(batch, 2 * (frames + 2 * AUDIO.window_frames), AUDIO.layers, AUDIO.dim)
    ones = torch.ones(batch)
    return Conditions(normal(batch, frames, 4, small, small), normal(batch, 4, SIDE, SIDE), rows, ones, ones)


def make_latents(batch: int = 2, frames: int = FRAMES, seed: int = 9) -> torch.Tensor:
    small = SIDE // FACTOR
    return torch.randn(batch, frames, 4, small, small, generator=torch.Generator().manual_seed(seed))
