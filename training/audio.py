"""Whisper rows -> the audio tokens of each frame (section 3.4).

The window of frame t holds the rows of frames t-k to t+k, two a frame; beyond the clip they are zero. Whisper's layers
are tokens of their own by default (k = 2, tiny: 10 rows x 5 layers = 50 tokens of 384), as LatentSync and MuseTalk have
them; a learned vector per row of the window and one per layer say which is which. Fewer tokens for larger Whispers:
`layers="last"` (10) or "weighted" (10, a learned mean over the layers).

Off the paper, for networks that have minutes to learn: `numbers` turns the layers of a row into one token of so many
numbers, whitened over the data, and `joined` all rows of a window into one.
"""

from typing import Literal

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from clock import WHISPER_ROWS_PER_FRAME


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
        numbers: int = 0,
        joined: bool = False,
    ) -> None:
        super().__init__()
        self.window_rows = window_rows(window_frames)
        self.use = use
        self.joined = joined
        used, width = (layers if use == "all" else 1), dim
        self.whitening = None
        if numbers:
            self.whitening = Whitening(used * dim, numbers)
            used, width = 1, numbers
        self.norm = nn.Identity() if numbers else nn.LayerNorm(dim)
        self.row = nn.Parameter(torch.randn(self.window_rows, 1, width) * 0.02)
        self.layer = nn.Parameter(torch.randn(used, width) * 0.02)
        self.mix = nn.Parameter(torch.zeros(layers)) if use == "weighted" else None

    def rows_shape(self, frames: int) -> tuple[int, int, int]:
        """Return (rows, layers, dim) of the input of `forward` for a number of frames."""
        layers, dim = self.config["layers"], self.config["dim"]
        return WHISPER_ROWS_PER_FRAME * frames + self.window_rows - WHISPER_ROWS_PER_FRAME, layers, dim

    def forward(self, rows: Tensor) -> Tensor:
        """[B, 2 (F + 2 k), layers, dim] -> [B, F, K, token_width]."""
        rows = self._select_layers(rows)
        if self.whitening is not None:
            rows = self.whitening(rows)
        rows = self.norm(rows) + self.layer
        windows = rows.unfold(1, self.window_rows, WHISPER_ROWS_PER_FRAME).movedim(-1, 2)  # [B, F, window, layers, dim]
        tokens = windows + self.row
        return tokens.flatten(2)[:, :, None] if self.joined else tokens.flatten(2, 3)

    def _select_layers(self, rows: Tensor) -> Tensor:
        """Return the layers that are used: [B, R, layers, dim] -> [B, R, layers or 1, dim]."""
        if self.use == "last":
            return rows[:, :, -1:]
        if self.mix is not None:
            return torch.einsum("brld,l->brd", rows, self.mix.softmax(0))[:, :, None]
        return rows

    def fit(self, rows: Tensor) -> None:
        """Fit the whitening, if there is one, to Whisper rows [N, layers, dim]."""
        if self.whitening is not None:
            self.whitening.fit(self._select_layers(rows[None])[0])


def window_rows(window_frames: int) -> int:
    """The number of Whisper rows in the window of a frame."""
    return WHISPER_ROWS_PER_FRAME * (2 * window_frames + 1)


def token_width(layers: int, dim: int, window_frames: int, numbers: int = 0, joined: bool = False) -> int:
    """Numbers of a token of `AudioTokens` with these arguments; `layers` are those that it uses."""
    if not joined:
        return numbers or dim
    return (numbers or layers * dim) * window_rows(window_frames)


class Whitening(nn.Module):
    """What was measured at one time -> its first principal components, each of variance 1; fitted to data, then fixed.

    A few of Whisper's numbers are a hundred times larger than the others and hardly change: a LayerNorm leaves the
    others small. So each number is first divided by its own deviation.
    """

    LARGEST = 5.0  # deviations; what lies beyond is cut
    FLOOR = 1e-3  # of the largest variance, added to each: what hardly varies is not blown up

    def __init__(self, size: int, numbers: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(size), requires_grad=False)
        self.std = nn.Parameter(torch.ones(size), requires_grad=False)
        self.directions = nn.Parameter(torch.zeros(size, numbers), requires_grad=False)

    @torch.no_grad()
    def fit(self, rows: Tensor) -> None:
        """Take everything from rows [N, layers, dim]; N should be several times the numbers of a row."""
        flat = rows.flatten(1)
        self.mean.copy_(flat.mean(dim=0))
        self.std.copy_(flat.std(dim=0).clamp(min=1e-4))
        scaled = self._scale(rows).flatten(1).double()
        variances, vectors = torch.linalg.eigh(scaled.T @ scaled / len(scaled))
        count = self.directions.shape[1]
        variances, vectors = variances.flip(0)[:count], vectors.flip(1)[:, :count]
        self.directions.copy_(vectors / (variances + self.FLOOR * variances[0]).sqrt())

    def forward(self, rows: Tensor) -> Tensor:
        """[..., layers, dim] -> [..., 1, numbers]."""
        return (self._scale(rows).flatten(-2) @ self.directions)[..., None, :].clamp(-self.LARGEST, self.LARGEST)

    def _scale(self, rows: Tensor) -> Tensor:
        shape = rows.shape[-2:]
        return ((rows - self.mean.view(shape)) / self.std.view(shape)).clamp(-self.LARGEST, self.LARGEST)
