"""What the trainer gets: windows as tensors, pictures still as the decoder's planes.

A planar picture has half the bytes of an RGB one on its way from worker to GPU, and the conversion is nothing there
(measured: benchmarks/README.md, "Loader").
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch

from models.mask import inside


@dataclass(frozen=True)
class Batch:
    """B windows of T frames; pictures are size x size, times are in frames of 25 a second."""

    video: torch.Tensor  # uint8 [B, T, 3/2 size, size]: planes of yuv420p, BT.709, limited range
    reference: torch.Tensor  # uint8 [B, 3/2 size, size]: a frame of the same source, not masked
    mask_boxes: torch.Tensor  # float32 [B, T, 4]: x0, y0, x1, y1 of the mask in pixels
    reference_box: torch.Tensor  # float32 [B, 4]: the mask of the reference frame
    whisper: torch.Tensor  # float16 [B, 2 (T + 2k), layers, dim]: frame t hears rows 2t to 2t + 2 (2k + 1); 0 outside
    noise_seed: torch.Tensor  # int64 [B]
    drop_draws: torch.Tensor  # float64 [B, 2]: uniform in 0..1, for dropping audio and reference (section 3.5)
    sample: torch.Tensor  # int64 [B]: place in the order of training
    keys: tuple[str, ...]  # the clips
    quarantined: tuple[tuple[str, str], ...]  # (key, reason) of clips that could not be read and were replaced
    # What training/cache.py made of the video, which then has no frames: mean, masked mode, perhaps std
    latents: torch.Tensor | None = None  # float16 [B, T, parts, C, h, w]

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray], keys: Sequence[str], quarantined: Sequence[tuple[str, str]]) -> Self:
        """A batch of numpy arrays, which it shares."""
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        return cls(**tensors, keys=tuple(keys), quarantined=tuple(quarantined))

    def frames(self) -> torch.Tensor:
        """The video as float32 RGB [B, T, 3, size, size] in -1..1."""
        return rgb(self.video)

    def reference_frame(self) -> torch.Tensor:
        """The reference as float32 RGB [B, 3, size, size] in -1..1."""
        return rgb(self.reference)

    def masks(self) -> torch.Tensor:
        """1 inside the mask: float32 [B, T, 1, size, size]."""
        return fill_boxes(self.mask_boxes, self.reference.shape[-1])

    def reference_mask(self) -> torch.Tensor:
        """1 inside the mask of the reference: float32 [B, 1, size, size]."""
        return fill_boxes(self.reference_box, self.reference.shape[-1])

    def to(self, device: torch.device | str) -> Self:
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Self:
        return self._map(torch.Tensor.pin_memory)

    def _map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Self:
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        tensors = {name: change(value) for name, value in values.items() if isinstance(value, torch.Tensor)}
        return dataclasses.replace(self, **tensors)


def rgb(planes: torch.Tensor) -> torch.Tensor:
    """uint8 [..., 3/2 h, w] yuv420p, BT.709, limited range -> float32 [..., 3, h, w] in -1..1; chroma is repeated."""
    lead, w = planes.shape[:-2], planes.shape[-1]
    h = planes.shape[-2] * 2 // 3
    y = planes[..., :h, :].float().sub(16).mul(255 / 219)
    u, v = planes[..., h:, :].reshape(*lead, 2, h // 2, w // 2).float().sub(128).mul(255 / 224).unbind(-3)
    # H.273, equations 38 to 47, with K_r = 0.2126 and K_b = 0.0722
    red, green, blue = 1.5748 * v, -0.187324 * u - 0.468124 * v, 1.8556 * u
    chroma = torch.stack([red, green, blue], dim=-3)
    picture = chroma.repeat_interleave(2, -1).repeat_interleave(2, -2).add_(y.unsqueeze(-3))
    return picture.div_(127.5).sub_(1).clamp_(-1, 1)


def fill_boxes(boxes: torch.Tensor, size: int) -> torch.Tensor:
    """Return masks [..., 1, size, size] float32 that are 1 inside rectangles [..., 4]."""
    pixels = torch.arange(size, device=boxes.device)
    return inside(boxes, pixels, pixels).float().unsqueeze(-3)
