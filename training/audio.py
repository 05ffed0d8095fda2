"""Whisper rows -> the audio tokens of each frame (section 3.4).

The window of frame t holds the rows of frames t-k to t+k, two a frame; beyond the clip they are zero. Whisper's layers
are tokens of their own by default (k = 2, tiny: 10 rows x 5 layers = 50 tokens of 384), as LatentSync and MuseTalk have
them; a learned vector per row of the window and one per layer say which is which. Fewer tokens for larger Whispers:
`layers="last"` (10) or "weighted" (10, a learned mean over the layers).
"""

from typing import Literal

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

ROWS_PER_FRAME = 2  # 50 Hz / 25 fps


class AudioTokens(ModelMixin, ConfigMixin):
    """Keys and values of the audio cross-attention; below 0.1 M parameters."""

    @register_to_config
    def __init__(
        self,
        *,  # diffusers forgets what is given by place
        layers: int = 5,
        dim: int = 384,
        window_frames: int = 2,
        use: Literal["all", "last", "weighted"] = "all",
        standardize: bool = False,
    ) -> None:
        super().__init__()
        self.window_rows = ROWS_PER_FRAME * (2 * window_frames + 1)
        self.use = use
        self.norm = Standardize(layers, dim) if standardize else nn.LayerNorm(dim)
        self.row = nn.Parameter(torch.randn(self.window_rows, 1, dim) * 0.02)
        self.layer = nn.Parameter(torch.randn(layers if use == "all" else 1, dim) * 0.02)
        self.mix = nn.Parameter(torch.zeros(layers)) if use == "weighted" else None

    def rows_shape(self, frames: int) -> tuple[int, int, int]:
        """(rows, layers, dim) that `forward` wants for a number of frames."""
        layers, dim = self.config["layers"], self.config["dim"]
        return ROWS_PER_FRAME * frames + self.window_rows - ROWS_PER_FRAME, layers, dim

    def forward(self, rows: Tensor) -> Tensor:
        """[B, 2 (F + 2 k), layers, dim] -> [B, F, K, dim]."""
        if isinstance(self.norm, Standardize):
            rows = self.norm(rows)
        if self.use == "last":
            rows = rows[:, :, -1:]
        elif self.mix is not None:
            rows = torch.einsum("brld,l->brd", rows, self.mix.softmax(0))[:, :, None]
        if isinstance(self.norm, nn.LayerNorm):
            rows = self.norm(rows)
        rows = rows + self.layer
        windows = rows.unfold(1, self.window_rows, ROWS_PER_FRAME).movedim(-1, 2)  # [B, F, window, layers, dim]
        return (windows + self.row).flatten(2, 3)


class Standardize(nn.Module):
    """Each number of each Whisper layer by its own mean and deviation over data, cut at LARGEST deviations.

    A few of Whisper's numbers are a hundred times larger than the others, and a LayerNorm leaves the others small.
    """

    LARGEST = 5.0

    def __init__(self, layers: int, dim: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(layers, dim), requires_grad=False)
        self.std = nn.Parameter(torch.ones(layers, dim), requires_grad=False)

    @torch.no_grad()
    def fit(self, rows: Tensor) -> None:
        """Take mean and deviation from rows [N, layers, dim]."""
        self.mean.copy_(rows.mean(dim=0))
        self.std.copy_(rows.std(dim=0).clamp(min=1e-4))

    def forward(self, rows: Tensor) -> Tensor:
        return ((rows - self.mean) / self.std).clamp(-self.LARGEST, self.LARGEST)
