"""ID-Guider (section 3.3): a reference picture and its lip mask -> one residual for each skip tensor of the UNet.

The paper gives its parts (a convolutional downsampler of 32, 64, 128, 64 channels; 2D ResBlocks with the channels and
layers of SVD; no time step, no attention, no upsampling) and its size (98 M, "over 90 % less"), which contradict each
other: the text taken literally has 148.15 M. The default leaves out the two ResBlocks of the deepest level, which has
no cross-attention in SVD either: 98.99 M with one zero-initialised 1x1 convolution per skip, so that training starts
from the base model.
"""

from collections.abc import Mapping

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.nn import functional

STEM_CHANNELS = (32, 64, 128, 64)  # section 3.3
VARIANTS = {  # what the paper's size, and what its text, ask for; and one for small networks, whose stem costs less
    "size": {"layers": (2, 2, 2, 0), "zero_convs": True},
    "text": {"layers": (2, 2, 2, 2), "zero_convs": False},
    "small": {"layers": (2, 2, 2, 0), "zero_convs": True, "stem_channels": (8, 16, 32, 32)},
}
SKIPS_PER_LEVEL = 2  # of the UNet, plus one for each downsampling


class IDGuider(ModelMixin, ConfigMixin):
    """Once per clip, whatever the number of frames and of denoising steps."""

    @register_to_config
    def __init__(
        self,
        *,  # diffusers forgets what is given by place
        in_channels: int = 4,
        channels: tuple[int, ...] = (320, 640, 1280, 1280),
        layers: tuple[int, ...] = (2, 2, 2, 0),
        stem_strides: tuple[int, ...] = (2, 2, 2),
        stem_channels: tuple[int, ...] = STEM_CHANNELS,
        zero_convs: bool = True,
        norm_groups: int = 32,
    ) -> None:
        super().__init__()
        self.stem = Stem(in_channels, channels[0], stem_strides, stem_channels)
        before = (channels[0], *channels[:-1])
        for level in range(len(channels)):
            if not layers[level] and before[level] != channels[level]:
                raise ValueError(
                    f"the UNet has {before[level]} channels above level {level} and {channels[level]} in it, and this "
                    "ID-Guider has no block there to change them: --set model.id_guider=text"
                )
        self.levels = nn.ModuleList(
            nn.ModuleList(
                ResnetBlock2D(
                    in_channels=before[i] if j == 0 else channels[i],
                    out_channels=channels[i],
                    temb_channels=None,  # pyright: ignore[reportArgumentType]
                    groups=norm_groups,
                    eps=1e-6,
                )
                for j in range(layers[i])
            )
            for i in range(len(channels))
        )
        self.downsamplers = nn.ModuleList(nn.Conv2d(c, c, 3, stride=2, padding=1) for c in channels[:-1])
        self.out = nn.ModuleList(_zero_conv(c) if zero_convs else nn.Identity() for c in skip_channels(channels))

    def forward(self, reference: Tensor) -> list[Tensor]:
        """[B, 4, H, W] picture in [-1, 1] and lip mask in {0, 1} -> residuals [B, C, h', w'], one per skip tensor."""
        x = self.stem(reference)
        features = [x]
        for i, level in enumerate(self.levels):
            for j in range(SKIPS_PER_LEVEL):
                x = level[j](x, None) if j < len(level) else x  # pyright: ignore
                features.append(x)
            if i < len(self.downsamplers):
                x = self.downsamplers[i](x)
                features.append(x)
        return [out(feature) for out, feature in zip(self.out, features, strict=True)]

    def load_svd(self, weights: Mapping[str, Tensor]) -> int:
        """Take the spatial ResBlocks of an SVD UNet's down path where shapes agree; how many tensors were taken."""
        own = self.state_dict()
        taken = {}
        for name in own:
            if name.startswith("levels."):
                _, level, layer, rest = name.split(".", 3)
                theirs = weights.get(f"down_blocks.{level}.resnets.{layer}.spatial_res_block.{rest}")
                if theirs is not None and theirs.shape == own[name].shape:
                    taken[name] = theirs
        self.load_state_dict(taken, strict=False)
        return len(taken)


class Stem(nn.Module):
    """The convolutional downsampler: [B, C, H, W] -> [B, out, H/8, W/8] with three strides of 2."""

    def __init__(
        self, in_channels: int, out_channels: int, strides: tuple[int, ...], channels: tuple[int, ...]
    ) -> None:
        super().__init__()
        first, *rest = channels
        layers: list[nn.Module] = [nn.Conv2d(in_channels, first, 3, padding=1)]
        for stride, before, after in zip(strides, channels, rest, strict=False):
            layers += [nn.Conv2d(before, before, 3, padding=1), nn.Conv2d(before, after, 3, stride=stride, padding=1)]
        self.layers = nn.ModuleList(layers)
        self.out = nn.Conv2d(layers[-1].out_channels, out_channels, 3, padding=1)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = functional.silu(layer(x))
        return self.out(x)


def skip_channels(channels: tuple[int, ...]) -> list[int]:
    """Channels of the UNet's skip tensors, first to last: 12 for four levels."""
    found = [channels[0]]
    for i, c in enumerate(channels):
        found += [c] * (SKIPS_PER_LEVEL + (i < len(channels) - 1))
    return found


def _zero_conv(channels: int) -> nn.Conv2d:
    conv = nn.Conv2d(channels, channels, 1)
    with torch.no_grad():
        conv.weight.zero_()
        nn.init.zeros_(conv.bias)  # pyright: ignore[reportArgumentType]
    return conv
