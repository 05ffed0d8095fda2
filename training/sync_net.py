"""The towers that `training/sync.py` trains: one embeds what a mouth does, the other what is heard.

`small` gives numbers per frame, and a window is compared as a whole: each number is centred over the window and scaled
to unit length, so that the similarity of two windows is their correlation, averaged over the numbers, and the same
towers judge windows of any length (`models/sync.py` does, without torch). Its mouth tower reads the landmarks' motion
(`models/mouth.py`) or grey pictures of the mouth.

`stable` is modelled on LatentSync's StableSyncNet (arXiv 2412.09262, section 3.3): residual blocks of two
convolutions with a stride after each, self-attention at some levels, one vector of 2048 numbers for a window of 16
frames, whose lower halves of 256 pixels are stacked along the channels. It hears Whisper rows where that hears mel. Its
widths were not compared with theirs, and it was never trained.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clock import WHISPER_ROWS_PER_FRAME
from models.mouth import MOTIONS
from training.batch import rgb
from training.sync_settings import SyncModelSettings

START_TEMPERATURE = 10.0  # what similarities are multiplied by at first; learned, as in CLIP
MAX_TEMPERATURE = 100.0


class Towers(Protocol):
    """Embed B windows of W frames, and the sound from R frames before each to R frames behind it."""

    temperature: nn.Parameter

    def mouth_windows(self, seen: Tensor) -> Tensor:
        """[B, W, ...] -> [B, E], unit length."""
        ...

    def audio_windows(self, rows: Tensor) -> Tensor:
        """[B, 2 (W + 2R), dim] -> [B, 2R + 1, E], unit length: the sound that begins R frames early, then later."""
        ...


class SmallTowers(nn.Module):
    """Two convolutions over time in each tower; the embedding of a frame depends on 3 frames to either side."""

    def __init__(self, settings: SyncModelSettings, audio_dim: int) -> None:
        super().__init__()
        if settings.audio_numbers > audio_dim:
            raise ValueError(
                f"model.audio_numbers {settings.audio_numbers}: a Whisper row here has {audio_dim} numbers"
            )
        self.settings, width = settings, settings.width
        self.temperature = nn.Parameter(torch.tensor(START_TEMPERATURE).log())
        seen = MOTIONS if settings.mouth == "landmarks" else width
        self.picture = nn.Identity() if settings.mouth == "landmarks" else PictureTower(settings.size_px, width)
        self.mouth = over_time(seen, settings)
        self.audio = over_time(WHISPER_ROWS_PER_FRAME * settings.audio_numbers, settings)
        self.register_buffer("basis", torch.zeros(audio_dim, settings.audio_numbers))

    @torch.no_grad()
    def fit(self, rows: Tensor) -> None:
        """Set the basis in which Whisper rows [N, dim] have unit variance: the largest principal components."""
        centred = (rows - rows.mean(0)).double()
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(rows))
        values, vectors = (each.flip(-1)[..., : self.settings.audio_numbers] for each in (values, vectors))
        # Components that the pool does not have must not be blown up to unit variance.
        scale = torch.where(values > 1e-9 * values[0], values.clamp(min=1e-30).rsqrt(), 0.0)
        self.basis.copy_(vectors * scale)  # pyright: ignore[reportCallIssue]

    def embed_mouth(self, seen: Tensor) -> Tensor:
        """[B, T, ...] -> [B, T, dim]."""
        return self.mouth(self.picture(seen).transpose(1, 2)).transpose(1, 2)

    def embed_audio(self, rows: Tensor) -> Tensor:
        """[B, 2A, audio_dim] -> [B, A, dim]."""
        reduced = (rows @ self.basis).unflatten(1, (-1, WHISPER_ROWS_PER_FRAME)).flatten(2)  # pyright: ignore
        return self.audio(reduced.transpose(1, 2)).transpose(1, 2)

    def mouth_windows(self, seen: Tensor) -> Tensor:
        return unit_window(self.embed_mouth(seen))

    def audio_windows(self, rows: Tensor) -> Tensor:
        frames = self.embed_audio(rows)
        return unit_window(frames.unfold(1, self.settings.window_frames, 1).transpose(2, 3))


def over_time(channels: int, settings: SyncModelSettings) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv1d(channels, settings.width, 5, padding=2),
        nn.SiLU(),
        nn.Dropout(settings.dropout),
        nn.Conv1d(settings.width, settings.dim, 3, padding=1),
    )


def unit_window(frames: Tensor) -> Tensor:
    """[..., W, D] -> [..., W D]: the product of two such vectors is the mean of the D correlations over W frames."""
    centred = frames - frames.mean(-2, keepdim=True)
    return F.normalize(centred, dim=-2).flatten(-2) / frames.shape[-1] ** 0.5


class PictureTower(nn.Module):
    """Planes of pictures of the mouth, [B, T, 3/2 size, size] uint8, of which it sees the grey, to [B, T, width].

    The mean picture of the window is taken off: what stays is what moves.
    """

    def __init__(self, size_px: int, width: int) -> None:
        super().__init__()
        widths = (1, 16, 32, 48, 64)
        self.layers = nn.Sequential(
            *(
                layer
                for before, after in pairwise(widths)
                for layer in (nn.Conv2d(before, after, 3, 2, 1), nn.GroupNorm(8, after), nn.SiLU())
            ),
            nn.Flatten(),
            nn.Linear(widths[-1] * (size_px // 16) ** 2, width),
        )

    def forward(self, planes: Tensor) -> Tensor:
        grey = planes[..., : planes.shape[-1], :].float() / 64
        moving = grey - grey.mean(1, keepdim=True)
        return self.layers(moving.flatten(0, 1).unsqueeze(1)).unflatten(0, planes.shape[:2])


# Level: width, stride (vertical, horizontal), whether self-attention follows.
Level = tuple[int, tuple[int, int], bool]
PICTURE_LEVELS: tuple[Level, ...] = (  # of 128 x 256 pixels: the lower half of a face
    (64, (1, 2), False), (128, (2, 2), False), (256, (2, 2), False), (256, (2, 2), False),
    (512, (2, 2), True), (1024, (2, 2), True), (2048, (2, 2), False), (2048, (2, 2), False),
)  # fmt: skip
AUDIO_LEVELS: tuple[Level, ...] = (  # of 384 numbers x 32 rows
    (32, (2, 1), False), (64, (2, 2), False), (128, (2, 2), False), (256, (2, 2), True),
    (512, (2, 2), True), (1024, (2, 2), False), (2048, (6, 1), False),
)  # fmt: skip
STABLE_FRAMES, STABLE_SIZE_PX = 16, 256


class StableTowers(nn.Module):
    """One vector per window of 16 frames."""

    def __init__(self, settings: SyncModelSettings, audio_dim: int) -> None:
        super().__init__()
        if (settings.window_frames, settings.size_px, audio_dim) != (STABLE_FRAMES, STABLE_SIZE_PX, 384):
            raise ValueError(
                f"size: stable has windows of {STABLE_FRAMES} frames, pictures of {STABLE_SIZE_PX} pixels and Whisper "
                f"tiny's 384 numbers; found {settings.window_frames}, {settings.size_px}, {audio_dim}"
            )
        self.settings = settings
        self.temperature = nn.Parameter(torch.tensor(START_TEMPERATURE).log())
        self.mouth, self.audio = tower(3 * STABLE_FRAMES, PICTURE_LEVELS), tower(1, AUDIO_LEVELS)

    def fit(self, rows: Tensor) -> None:
        """Nothing: its norms are learned."""

    def mouth_windows(self, seen: Tensor) -> Tensor:
        """`seen` [B, 16, 384, 256] uint8, planes: the frames' colours are the channels."""
        lower = rgb(seen)[..., STABLE_SIZE_PX // 2 :, :].flatten(1, 2)
        return F.normalize(self.mouth(lower).flatten(1), dim=1)

    def audio_windows(self, rows: Tensor) -> Tensor:
        length = WHISPER_ROWS_PER_FRAME * STABLE_FRAMES
        windows = rows.unfold(1, length, WHISPER_ROWS_PER_FRAME)  # [B, lags, 384, 32]
        embedded = self.audio(windows.flatten(0, 1).unsqueeze(1)).flatten(1)
        return F.normalize(embedded, dim=1).unflatten(0, windows.shape[:2])


def tower(channels: int, levels: Sequence[Level]) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(channels, levels[0][0], 3, padding=1)]
    before = levels[0][0]
    for width, stride, attention in levels:
        layers += [ResidualBlock(before, width), *([Attention(width)] if attention else [])]
        layers.append(nn.Conv2d(width, width, 3, stride, padding=1))
        before = width
    return nn.Sequential(*layers, nn.GroupNorm(32, before), nn.SiLU())


class ResidualBlock(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.GroupNorm(min(32, before), before), nn.SiLU(), nn.Conv2d(before, after, 3, padding=1),
            nn.GroupNorm(32, after), nn.SiLU(), nn.Conv2d(after, after, 3, padding=1),
        )  # fmt: skip
        self.outer = nn.Conv2d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(x) + self.inner(x)


class Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.attend = nn.GroupNorm(32, width), nn.MultiheadAttention(width, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        return x + self.attend(tokens, tokens, tokens, need_weights=False)[0].transpose(1, 2).view_as(x)


def build_towers(settings: SyncModelSettings, audio_dim: int) -> SmallTowers | StableTowers:
    """The towers of these settings, with random weights. Raises ValueError if they cannot be built."""
    return (SmallTowers if settings.size == "small" else StableTowers)(settings, audio_dim)
