"""Listening: how much of what the network draws in the mouth comes from the sound, measured during training.

Two windows of one clip lie a second or more apart. Each is denoised with its own sound and with the sound of the other;
the window, its noise and all other conditions stay the same. *Listening* is the loss with the wrong sound minus the
loss with the right one (equation 5: lambda |D - z0|^2, mean over the latents under the mask, max-pooled to their size),
at fixed noise levels. Per-window differences are paired, so the noise of the loss itself cancels, and their standard
error says how far the mean is from chance.

*Attainable* is what a network loses that draws exactly the frames that belong to the sound it hears: with the wrong
sound it draws the other window's mouth, so its loss is lambda |z0' - z0|^2, and with the right one 0. Because both
windows show one person in one crop, z0' is known: the latents of the other window's frames, shifted so that the masks,
which follow the head and not the lips, lie upon each other.

*Share* is listening over attainable: 0 for a network that ignores the sound, 1 for the perfect one. If wrong and right
sounds are drawn alike, listening equals 2 Cov(D, z0) over the sounds and attainable 2 Var(z0): the share is the slope
of what is drawn over what is true. It is left out where attainable itself is not above its error.

Where the share is too low:
- what differs under the shifted mask besides the lips (a head that turns, light, noise) counts as attainable, although
  no sound tells it. For heads at rest that is nothing; for three real clips with lively heads windows with equally open
  lips differed by 94 to 96 % of the mean, so that a share there is good for comparing runs, not as a share;
- Whisper's rows tell about three quarters of the variance of the mouth's opening, so no network reaches 1;
- at low sigma the inputs latents themselves show the mouth, and a good network believes them against a wrong sound: the
  larger sigma, the nearer to the definition.
Where it is too high: a network that exaggerates (slope above 1) scores more than it draws rightly; the generated frames
show that, this number does not.
The standard error is over windows: it says nothing of other speakers, and is a little small where many windows come
from few clips. A random network is not exactly at 0: it answers to sound with a fixed, meaningless pattern, whose
product with the true movement may differ from 0 by more than the error. It is far below one per cent of attainable.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor
from torch.nn import functional

from media.geometry import centres
from shards.reader import ShardError
from training.batch import Batch
from training.data import Dataset, loader
from training.denoiser import Denoiser, weighted_mean
from training.distributed import Ranks
from training.latents import LatentCodec
from training.loss import DiffusionInputs, prepare_inputs
from training.network import SayAnything
from training.settings import TrainingSettings

MIN_APART_FRAMES = 25  # a second: another syllable
ERRORS = 3.0  # standard errors above which listening is no chance
log = logging.getLogger("training")


@dataclass(frozen=True)
class Estimate:
    """A mean over pairs of windows and its standard error."""

    mean: float
    error: float

    @property
    def is_above_error(self) -> bool:
        """Whether the mean is more than three standard errors above 0."""
        return self.mean > ERRORS * self.error


@dataclass(frozen=True)
class Heard:
    """How much a network listens at one noise level, or over all: loss with wrong audio minus loss with the right."""

    listening: Estimate
    attainable: Estimate

    @property
    def share(self) -> Estimate | None:
        """Listening divided by attainable; None if the windows hardly differ, as in silence."""
        most = self.attainable.mean
        return (
            Estimate(self.listening.mean / most, self.listening.error / most)
            if self.attainable.is_above_error
            else None
        )

    def scalars(self, name: str) -> dict[str, float]:
        """The curves to log."""
        found = {
            name: self.listening.mean,
            f"{name}_se": self.listening.error,
            f"{name}_attainable": self.attainable.mean,
        }
        share = self.share
        return found | ({f"{name}_share": share.mean, f"{name}_share_se": share.error} if share else {})


@dataclass(frozen=True)
class Listening:
    """How much a network listens on average over the noise levels, and at each."""

    overall: Heard
    by_sigma: dict[float, Heard]

    def scalars(self) -> dict[str, float]:
        """The curves to log: `validation/listening...`."""
        name = "validation/listening"
        found = self.overall.scalars(name)
        for sigma, heard in self.by_sigma.items():
            found |= heard.scalars(f"{name}_sigma_{sigma:g}")
        return found


@dataclass(frozen=True)
class WindowBatch:
    """B windows ready for the network, and how far the frames of another sound lie from theirs."""

    inputs: DiffusionInputs
    distance: Tensor  # [B]: mean of |z0' - z0|^2 under the mask


@dataclass(frozen=True)
class PairedWindows:
    """This rank's pairs of windows, in batches, encoded once: `pairs[i][0]` and `pairs[i][1]` are of the same clips."""

    pairs: list[tuple[WindowBatch, WindowBatch]]
    settings: TrainingSettings
    ranks: Ranks

    @classmethod
    def of(cls, data: Dataset, settings: TrainingSettings, codec: LatentCodec, ranks: Ranks) -> "PairedWindows":
        """`run.validation_windows` windows of the clips that are long enough, in the order of `data`."""
        frames = settings.data.frames
        apart = max(MIN_APART_FRAMES, frames + 2 * settings.data.window_frames)  # no sound is in both
        long = data.of_length(frames + apart)
        count = settings.run.validation_windows // (2 * ranks.world)
        size = min(settings.optimizer.micro_batch, count, len(long) // ranks.world)
        pairs = []
        if size:
            batches = islice(loader(long, size, rank=ranks.rank, world=ranks.world, workers=0), count // size)
            try:
                pairs = [pair_windows(batch.to(ranks.device), apart, settings, codec) for batch in batches]
            except ShardError as error:
                log.warning("listening: %s", error)
        if ranks.first and not pairs:
            log.warning(
                "listening is not measured: it needs clips of %d frames and run.validation_windows of 4 or more",
                frames + apart,
            )
        return cls(pairs, settings, ranks)

    @torch.no_grad()
    def measure(self, network: SayAnything) -> Listening | None:
        """Listening over the pairs of all ranks, None with fewer than two of them; a meeting point."""
        sigmas = self.settings.run.listening_sigmas
        differences, attainable = [torch.zeros(0, len(sigmas))], [torch.zeros(0, len(sigmas))]
        for first, second in self.pairs:
            found = [differences_of(network, *way, self.settings) for way in ((first, second), (second, first))]
            differences.append((found[0] + found[1]).cpu() / 2)  # the two ways of a pair are no independent samples
            distance = (first.distance + second.distance).cpu() / 2
            attainable.append(distance[:, None] * torch.tensor([(1 + sigma**2) / sigma**2 for sigma in sigmas]))
        return summarize(torch.cat(differences), torch.cat(attainable), sigmas, self.ranks)


def pair_windows(
    batch: Batch, apart: int, settings: TrainingSettings, codec: LatentCodec
) -> tuple[WindowBatch, WindowBatch]:
    """Return the first and the last frames of long windows as two sets of windows."""
    frames = settings.data.frames
    first, second = (cut(batch, start, frames, settings.data.window_frames) for start in (0, apart))
    return make_windows(first, second, settings, codec), make_windows(second, first, settings, codec)


def cut(batch: Batch, start: int, frames: int, window_frames: int) -> Batch:
    """Shorter windows out of longer ones, with their sound and other noise."""
    rows = 2 * start, 2 * (start + frames + 2 * window_frames)
    return replace(
        batch,
        video=batch.video[:, start : start + frames],
        mask_boxes=batch.mask_boxes[:, start : start + frames],
        whisper=batch.whisper[:, rows[0] : rows[1]],
        noise_seed=batch.noise_seed + start,
    )


def make_windows(own: Batch, other: Batch, settings: TrainingSettings, codec: LatentCodec) -> WindowBatch:
    inputs = prepare_inputs(own, codec, settings.noise, settings.model.fusion, mask_conditions=False)
    there, here = centres(other.mask_boxes), centres(own.mask_boxes)
    moved = shift_pictures(other.frames(), there - here)
    distance = codec.scale * (codec.condition(moved) - codec.condition(own.frames()))
    return WindowBatch(inputs, weighted_mean(distance.square(), inputs.mask))


def shift_pictures(pictures: Tensor, by: Tensor) -> Tensor:
    """Return pictures [B, F, C, H, W] moved by minus `by` [B, F, 2] pixels; edges are repeated."""
    height, width = pictures.shape[-2:]
    move = torch.eye(2, 3, device=by.device).repeat(by.shape[0] * by.shape[1], 1, 1)
    move[:, :, 2] = 2 * by.flatten(0, 1) / torch.tensor([width, height], device=by.device)
    flat = pictures.flatten(0, 1)
    grid = functional.affine_grid(move, list(flat.shape), align_corners=False)
    moved = functional.grid_sample(flat, grid, padding_mode="border", align_corners=False)
    return moved.unflatten(0, by.shape[:2])


def differences_of(network: SayAnything, own: WindowBatch, other: WindowBatch, settings: TrainingSettings) -> Tensor:
    """Loss with the sound of `other` minus loss with their own, [B, sigmas]."""
    conditions = own.inputs.conditions
    wrong = replace(conditions, audio_rows=other.inputs.conditions.audio_rows)
    heard = [network.encode(each) for each in (conditions, wrong)]
    levels = []
    for sigma in settings.run.listening_sigmas:
        right_loss, wrong_loss = (losses_inside(network, own, sigma, *each) for each in heard)
        levels.append(wrong_loss - right_loss)
    return torch.stack(levels, dim=1)


def losses_inside(
    network: SayAnything, of: WindowBatch, sigma: float, tokens: Tensor, residuals: list[Tensor]
) -> Tensor:
    """Equation 5 of each window at one noise level, mean under the mask, [B]."""
    inputs, level = of.inputs, torch.full_like(of.inputs.sigma, sigma)
    conditions = (inputs.conditions.concatenated, tokens, residuals)
    return Denoiser(network.denoise).loss(inputs.z0, inputs.n, level, *conditions, weight=inputs.mask)


def summarize(differences: Tensor, attainable: Tensor, sigmas: Sequence[float], ranks: Ranks) -> Listening | None:
    """Estimates from the [pairs, sigmas] of all ranks; None for fewer than two pairs. A meeting point."""
    both = torch.cat([differences, attainable], dim=1).double().unflatten(1, (2, -1))
    both = torch.cat([both, both.mean(dim=2, keepdim=True)], dim=2)  # [pairs, 2, sigmas + 1]
    sums = torch.stack([both.sum(dim=0), both.square().sum(dim=0)])
    *found, count = ranks.sum(*sums.flatten().tolist(), float(len(both)))
    if count < 2:
        return None
    totals, squares = torch.tensor(found, dtype=torch.float64).view_as(sums)
    means = totals / count
    errors = ((squares / count - means.square()).clamp(min=0) / (count - 1)).sqrt()
    *by_sigma, overall = (
        Heard(*(Estimate(float(means[k, i]), float(errors[k, i])) for k in range(2))) for i in range(len(sigmas) + 1)
    )
    return Listening(overall, dict(zip(sigmas, by_sigma, strict=True)))
