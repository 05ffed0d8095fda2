"""The denoising UNet: Stable Video Diffusion's, with audio in the place of the picture's CLIP token (figure 2b).

Built from diffusers' blocks, so that SVD's weights load by name. What differs from
`UNetSpatioTemporalConditionModel`, and why:

- the spatial cross-attention of the down and up blocks reads the audio tokens of its own frame (section 3.4); the mid
  block has none ("both the downsample and upsample modules") unless `audio_in_mid`;
- the temporal cross-attention is gone: diffusers gives it the tokens of frame 0 for all frames, with which a whole clip
  would hear its first frame, and the tokens already hold a window of time ("we focus on computing spatial attention");
- residuals of the ID-Guider are added to the twelve skip tensors, once, after the down blocks (section 3.3);
- gradient checkpointing covers the temporal blocks, which hold the largest activations: 1.3 GiB a clip of 16 x 40 x 40
  instead of diffusers' 7.3.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention import TemporalBasicTransformerBlock
from diffusers.models.transformers.transformer_temporal import TransformerSpatioTemporalModel
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel
from torch import Tensor, nn

# fps - 1, motion bucket and noise augmentation: the middle of what SVD's `add_embedding` was trained on
ADDED_TIME_IDS = (24.0, 127.0, 0.0)


class AudioTransformer(TransformerSpatioTemporalModel):
    """One spatial block (self-attention, audio cross-attention) and one temporal block (self-attention), blended."""

    @classmethod
    def like(cls, other: TransformerSpatioTemporalModel, audio_dim: int | None) -> "AudioTransformer":
        """A new one of the same size; without cross-attention if `audio_dim` is None."""
        heads, head_dim, layers = other.num_attention_heads, other.attention_head_dim, len(other.transformer_blocks)
        new = cls(heads, head_dim, other.in_channels, num_layers=layers, cross_attention_dim=audio_dim)
        new.temporal_transformer_blocks = nn.ModuleList(
            TemporalBasicTransformerBlock(new.inner_dim, new.inner_dim, heads, head_dim, cross_attention_dim=None)
            for _ in range(layers)
        )
        return new

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        image_only_indicator: Tensor | None = None,
        return_dict: bool = False,
    ) -> tuple[Tensor]:
        """[B*F, C, h, w] features and [B*F, K, D] audio tokens -> a tuple of [B*F, C, h, w], as diffusers asks."""
        assert image_only_indicator is not None  # [B, F] zeros: its shape says how many frames there are
        batch, frames = image_only_indicator.shape
        height, width = hidden_states.shape[-2:]
        x = self.proj_in(self.norm(hidden_states).flatten(2).transpose(1, 2))
        positions = self.time_proj(torch.arange(frames, device=x.device)).to(x.dtype)
        time = self.time_pos_embed(positions).repeat(batch, 1)[:, None]
        for spatial, temporal in zip(self.transformer_blocks, self.temporal_transformer_blocks, strict=True):
            x = self._run(spatial, x, None, encoder_hidden_states)
            mixed = self._run(temporal, x + time, frames)
            x = self.time_mixer(x_spatial=x, x_temporal=mixed, image_only_indicator=image_only_indicator)
        x = self.proj_out(x).transpose(1, 2).unflatten(2, (height, width))
        return (x + hidden_states,)

    def _run(self, block: nn.Module, *inputs: Any) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return self._gradient_checkpointing_func(block, *inputs)  # pyright: ignore[reportCallIssue]
        return block(*inputs)


class SayAnythingUNet(UNetSpatioTemporalConditionModel):
    """F_theta of equation 4 without its conditions' encoders; configured as SVD's, `cross_attention_dim` = audio's."""

    @register_to_config
    def __init__(
        self,
        sample_size: int | None = None,
        in_channels: int = 8,
        out_channels: int = 4,
        down_block_types: tuple[str, ...] = (
            "CrossAttnDownBlockSpatioTemporal",
            "CrossAttnDownBlockSpatioTemporal",
            "CrossAttnDownBlockSpatioTemporal",
            "DownBlockSpatioTemporal",
        ),
        up_block_types: tuple[str, ...] = (
            "UpBlockSpatioTemporal",
            "CrossAttnUpBlockSpatioTemporal",
            "CrossAttnUpBlockSpatioTemporal",
            "CrossAttnUpBlockSpatioTemporal",
        ),
        block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280),
        addition_time_embed_dim: int = 256,
        projection_class_embeddings_input_dim: int = 768,
        layers_per_block: int | tuple[int] = 2,
        cross_attention_dim: int = 384,
        transformer_layers_per_block: int | tuple[int, tuple[tuple]] = 1,
        num_attention_heads: int | tuple[int, ...] = (5, 10, 20, 20),
        num_frames: int = 25,
        audio_in_mid: bool = False,
        norm_groups: int = 32,
    ) -> None:
        super().__init__(
            sample_size=sample_size,
            in_channels=in_channels,
            out_channels=out_channels,
            down_block_types=down_block_types,
            up_block_types=up_block_types,
            block_out_channels=block_out_channels,
            addition_time_embed_dim=addition_time_embed_dim,
            projection_class_embeddings_input_dim=projection_class_embeddings_input_dim,
            layers_per_block=layers_per_block,
            cross_attention_dim=cross_attention_dim,
            transformer_layers_per_block=transformer_layers_per_block,
            num_attention_heads=num_attention_heads,
            num_frames=num_frames,
        )
        for block in [*self.down_blocks, self.mid_block, *self.up_blocks]:
            audio_dim = None if block is self.mid_block and not audio_in_mid else cross_attention_dim
            for i, old in enumerate(getattr(block, "attentions", [])):
                block.attentions[i] = AudioTransformer.like(old, audio_dim)
        for module in self.modules():
            if isinstance(module, nn.GroupNorm):
                module.num_groups = norm_groups

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, latents: Tensor, c_noise: Tensor, audio_tokens: Tensor, residuals: Sequence[Tensor] = ()
    ) -> Tensor:
        """F_theta: [B, F, 8, h, w] noisy and condition latents -> [B, F, 4, h, w].

        `c_noise` [B]; `audio_tokens` [B, F, K, D]; `residuals`: one per skip tensor, [B, C, h', w'] for all frames of a
        clip or [B*F, C, h', w'].
        """
        batch, frames = latents.shape[:2]
        emb = self._embedding(c_noise, latents).repeat_interleave(frames, dim=0)
        x, tokens = self.conv_in(latents.flatten(0, 1)), audio_tokens.flatten(0, 1)
        common = {"temb": emb, "image_only_indicator": latents.new_zeros(batch, frames)}
        skips = [x]
        for block in self.down_blocks:
            x, added = block(x, **common, **_audio(block, tokens))
            skips += added
        if residuals:
            skips = [_add(skip, residual, batch) for skip, residual in zip(skips, residuals, strict=True)]
        x = self.mid_block(x, **common, encoder_hidden_states=tokens)
        for block in self.up_blocks:
            count = len(block.resnets)  # pyright: ignore[reportArgumentType]
            taken, skips = tuple(skips[-count:]), skips[:-count]
            size = skips[-1].shape[2:] if skips else None  # of the next block's skips, odd ones too
            x = block(x, res_hidden_states_tuple=taken, upsample_size=size, **common, **_audio(block, tokens))
        x = self.conv_out(self.conv_act(self.conv_norm_out(x)))
        return x.unflatten(0, (batch, frames))

    def _embedding(self, c_noise: Tensor, like: Tensor) -> Tensor:
        """[B, 4 * C0]: the noise level's embedding plus that of SVD's three constants."""
        ids = torch.tensor(ADDED_TIME_IDS, device=like.device)
        added = self.add_time_proj(ids).flatten()[None].to(like.dtype)
        return self.time_embedding(self.time_proj(c_noise).to(like.dtype)) + self.add_embedding(added)


def _audio(block: nn.Module, tokens: Tensor) -> dict[str, Tensor]:
    return {"encoder_hidden_states": tokens} if getattr(block, "has_cross_attention", False) else {}


def _add(skip: Tensor, residual: Tensor, batch: int) -> Tensor:
    """A skip tensor [B*F, C, h, w] plus a residual of the same frames, or one for all frames of a clip."""
    if residual.shape[0] == skip.shape[0]:
        return skip + residual
    return (skip.unflatten(0, (batch, -1)) + residual[:, None]).flatten(0, 1)


def from_svd(
    svd: Mapping[str, Any], weights: Mapping[str, Tensor], audio_dim: int, audio_in_mid: bool, norm_groups: int = 32
) -> SayAnythingUNet:
    """The UNet with an SVD UNet's configuration and weights; only keys and values of the audio attention are new.

    SVD's single CLIP token made its softmax a constant, so the queries there never learned anything and little is lost.
    Raises ValueError if the weights are not those of such a UNet.
    """
    config = {name: value for name, value in svd.items() if not name.startswith("_") and name != "cross_attention_dim"}
    unet = SayAnythingUNet(**config, cross_attention_dim=audio_dim, audio_in_mid=audio_in_mid, norm_groups=norm_groups)
    wanted = unet.state_dict()
    new = {name for name in wanted if ".attn2.to_k." in name or ".attn2.to_v." in name}
    kept = {name: value for name, value in weights.items() if name in wanted and name not in new}
    missing = sorted(wanted.keys() - new - kept.keys())
    dropped = [name for name in weights.keys() - kept.keys() if "attn2" not in name and "norm2" not in name]
    if missing or dropped:
        raise ValueError(
            f"not the weights of an SVD UNet of this configuration: {len(missing)} are missing (first: "
            f"{missing[:1]}), {len(dropped)} have no place (first: {sorted(dropped)[:1]})"
        )
    unet.load_state_dict(kept, strict=False)
    return unet
