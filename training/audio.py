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
    ) -> None:
        super().__init__()
        self.window_rows = ROWS_PER_FRAME * (2 * window_frames + 1)
        self.use = use
        self.norm = nn.LayerNorm(dim)
        self.row = nn.Parameter(torch.randn(self.window_rows, 1, dim) * 0.02)
        self.layer = nn.Parameter(torch.randn(layers if use == "all" else 1, dim) * 0.02)
        self.mix = nn.Parameter(torch.zeros(layers)) if use == "weighted" else None

    def rows_shape(self, frames: int) -> tuple[int, int, int]:
        """(rows, layers, dim) that `forward` wants for a number of frames."""
        layers, dim = self.config["layers"], self.config["dim"]
        return ROWS_PER_FRAME * frames + self.window_rows - ROWS_PER_FRAME, layers, dim

    def forward(self, rows: Tensor) -> Tensor:
        """[B, 2 (F + 2 k), layers, dim] -> [B, F, K, dim]."""
        if self.use == "last":
            rows = rows[:, :, -1:]
        elif self.mix is not None:
            rows = torch.einsum("brld,l->brd", rows, self.mix.softmax(0))[:, :, None]
        rows = self.norm(rows) + self.layer
        windows = rows.unfold(1, self.window_rows, ROWS_PER_FRAME).movedim(-1, 2)  # [B, F, window, layers, dim]
        return (windows + self.row).flatten(2, 3)
