"""F_theta of equation 4: UNet, ID-Guider and audio tokens as one network, and where each condition enters.

Condition masking (section 3.5) happens here, on the fused features: a dropped audio is all-zero tokens, a dropped
identity all-zero residuals. The masked video is never dropped. Two of Table 3's ablations exchange what goes where:

| | concatenated with the noisy latents | ID-Guider |
|---|---|---|
| default | masked video, per frame | reference picture, per clip |
| `vae_feature` | masked video, per frame | the reference's latents |
| `video_fusion` | the reference's latents, repeated | masked video, per frame |
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from training.audio import AudioTokens, token_width
from training.id_guider import VARIANTS, IDGuider
from training.settings import ModelSettings
from training.unet import SayAnythingUNet, from_svd

PARTS = ("unet", "id_guider", "audio")


@dataclass(frozen=True)
class Conditions:
    """The conditions of the network, as tensors.

    `concatenated` [B, F, 4, h, w] latents; `identity` [B or B*F, C, H, W] for the ID-Guider; `audio_rows`
    [B, 2 (F + 2 k), layers, dim]; `keep_audio`, `keep_identity` [B], 1 or 0.
    """

    concatenated: Tensor
    identity: Tensor
    audio_rows: Tensor
    keep_audio: Tensor
    keep_identity: Tensor


@dataclass(frozen=True)
class AudioShape:
    """Of the Whisper rows in the shards: layers with the embedding, their width; and k of section 3.4."""

    layers: int
    dim: int
    window_frames: int


class SayAnything(nn.Module):
    """The whole trained network. VAE and Whisper stay outside: they are frozen."""

    def __init__(self, unet: SayAnythingUNet, id_guider: IDGuider, audio: AudioTokens) -> None:
        super().__init__()
        self.unet, self.id_guider, self.audio = unet, id_guider, audio

    def forward(self, latents: Tensor, c_noise: Tensor, conditions: Conditions) -> Tensor:
        """[B, F, 4, h, w] scaled noisy latents, [B] noise levels -> F_theta, [B, F, 4, h, w]."""
        tokens, residuals = self.encode(conditions)
        return self.denoise(latents, c_noise, conditions.concatenated, tokens, residuals)

    def encode(self, conditions: Conditions) -> tuple[Tensor, list[Tensor]]:
        """Audio tokens [B, F, K, D] and identity residuals, masked. Neither depends on the noise level."""
        tokens = self.audio(conditions.audio_rows.to(self.audio.row.dtype)) * _per_sample(conditions.keep_audio, 4)
        repeats = conditions.identity.shape[0] // conditions.keep_identity.shape[0]
        keep = _per_sample(conditions.keep_identity.repeat_interleave(repeats), 4)
        return tokens, [residual * keep for residual in self.id_guider(conditions.identity)]

    def denoise(
        self, latents: Tensor, c_noise: Tensor, concatenated: Tensor, tokens: Tensor, residuals: list[Tensor]
    ) -> Tensor:
        return self.unet(torch.cat([latents, concatenated], dim=2), c_noise, tokens, residuals)

    @classmethod
    def from_configs(
        cls, unet: Mapping[str, Any], id_guider: Mapping[str, Any], audio: Mapping[str, Any]
    ) -> "SayAnything":
        """One of the same shape as another, from the `config` of its parts."""
        return cls(
            SayAnythingUNet(**constructor_arguments(unet)),
            IDGuider(**constructor_arguments(id_guider)),
            AudioTokens(**constructor_arguments(audio)),
        )

    def save(self, folder: Path) -> None:
        """Write the three parts as diffusers models: `unet/`, `id_guider/`, `audio/`."""
        for part in PARTS:
            getattr(self, part).save_pretrained(folder / part)

    @classmethod
    def load(cls, folder: Path) -> "SayAnything":
        """What `save` wrote, in single precision. Raises ValueError if a part is not there."""
        missing = [part for part in PARTS if not (folder / part / "config.json").is_file()]
        if missing:
            raise ValueError(f"{folder}: not an exported model, {missing[0]}/config.json is missing")
        return cls(
            SayAnythingUNet.from_pretrained(folder / "unet", torch_dtype=torch.float32),
            IDGuider.from_pretrained(folder / "id_guider", torch_dtype=torch.float32),
            AudioTokens.from_pretrained(folder / "audio", torch_dtype=torch.float32),
        )


def build(base: Path, settings: ModelSettings, audio: AudioShape, vae_factor: int) -> SayAnything:
    """The network before training, from a diffusers folder of Stable Video Diffusion (`<base>/unet`).

    Raises ValueError if the folder has no UNet or one that does not fit.
    """
    config, weights = svd_unet(base)
    if settings.audio_numbers > audio.layers * audio.dim:
        raise ValueError(f"model.audio_numbers {settings.audio_numbers}: a Whisper row has {audio.layers * audio.dim}")
    used = audio.layers if settings.audio_layers == "all" else 1
    width = token_width(used, audio.dim, audio.window_frames, settings.audio_numbers, settings.audio_joined)
    unet = from_svd(config, weights, width, settings.audio_in_mid, settings.norm_groups)
    latents = settings.fusion == "vae_feature"
    guider = IDGuider(
        in_channels=config["out_channels"] + 1 if latents else 4,
        channels=tuple(config["block_out_channels"]),
        stem_strides=(1, 1, 1) if latents else stem_strides(vae_factor),
        norm_groups=settings.norm_groups,
        **VARIANTS[settings.id_guider],
    )
    guider.load_svd(weights)
    tokens = AudioTokens(
        layers=audio.layers,
        dim=audio.dim,
        window_frames=audio.window_frames,
        use=settings.audio_layers,
        numbers=settings.audio_numbers,
        joined=settings.audio_joined,
    )
    return SayAnything(unet, guider, tokens)


def stem_strides(factor: int) -> tuple[int, ...]:
    """Three strides whose product is the codec's factor, small ones first: (2, 2, 2) for SVD's 8, (1, 2, 3) for 6."""
    strides, rest = [], factor
    for prime in (2, 3, 5, 7):
        while rest % prime == 0:
            strides.append(prime)
            rest //= prime
    if rest != 1 or len(strides) > 3:
        raise ValueError("the codec's factor needs at most three prime factors below 11")
    return (1,) * (3 - len(strides)) + tuple(strides)


def svd_unet(base: Path) -> tuple[dict, dict[str, Tensor]]:
    """Configuration and weights of `<base>/unet`, fp32 or the fp16 variant."""
    folder = base / "unet"
    names = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors")
    file = next((folder / name for name in names if (folder / name).is_file()), None)
    if file is None or not (folder / "config.json").is_file():
        raise ValueError(
            f'{folder}: no SVD UNet (config.json and {names[0]}); README, "Train", says where to get img2vid-xt'
        )
    weights = {name: value.float() for name, value in load_file(file).items()}
    return json.loads((folder / "config.json").read_text(encoding="utf-8")), weights


def constructor_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that a diffusers model was made with, from its `config`."""
    return {name: value for name, value in config.items() if not name.startswith("_")}


def _per_sample(keep: Tensor, ndim: int) -> Tensor:
    return keep.view(-1, *[1] * (ndim - 1))
