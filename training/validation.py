"""Fixed windows looked at during training: their loss, how far the network listens to the sound, and a picture grid.

The caller puts the averaged weights into the network first: they are what is exported. Each rank has its own share of
the windows. A grid that cannot be drawn or written is logged and stops no training.
"""

import logging
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from media.encode import encode_mp4
from storage.atomic_write import atomic_write
from training.batch import Batch
from training.data import Dataset, loader
from training.distributed import Ranks
from training.latents import LatentCodec
from training.listening import Listening, PairedWindows
from training.loss import DiffusionInputs, diffusion_loss, prepare_inputs
from training.network import SayAnything
from training.sampler import euler, guide, karras_sigmas
from training.settings import TrainingSettings

log = logging.getLogger("training")


@dataclass(frozen=True)
class Validation:
    """This rank's windows, on its device, in batches of at least two."""

    batches: list[Batch]
    pairs: PairedWindows
    settings: TrainingSettings
    codec: LatentCodec
    ranks: Ranks

    @classmethod
    def of(cls, data: Dataset, settings: TrainingSettings, codec: LatentCodec, ranks: Ranks) -> "Validation":
        """The first windows of the held-out sources, or of the training order where none are held out."""
        size = max(2, min(settings.optimizer.micro_batch, settings.run.validation_windows // ranks.world))
        count = max(1, settings.run.validation_windows // (size * ranks.world))
        batches = loader(data, size, rank=ranks.rank, world=ranks.world, workers=0)
        found = [batch.to(ranks.device) for batch in islice(batches, count)]
        return cls(found, PairedWindows.of(data, settings, codec, ranks), settings, codec, ranks)

    @torch.no_grad()
    def loss(self, network: SayAnything) -> float:
        """Mean loss over the windows of all ranks, at noise levels drawn as in training; a meeting point."""
        total, count = 0.0, 0
        for batch in self.batches:
            inputs = self._inputs(batch)
            with autocast(self.ranks.device, self.settings.run.precision):
                total += diffusion_loss(network, inputs).sum().item()
            count += len(batch.keys)
        total, count = self.ranks.sum(total, count)
        return total / count

    def listening(self, network: SayAnything) -> Listening | None:
        """How far the network listens, None if the clips are too short to measure it; a meeting point."""
        with autocast(self.ranks.device, self.settings.run.precision):
            return self.pairs.measure(network)

    def pictures(self, network: SayAnything, folder: Path) -> np.ndarray | None:
        """Write this rank's first batch as a video grid, `<folder>/rank-0.mp4`; its middle frame [H, W, 3] uint8."""
        try:
            grid = self._grid(network, self.batches[0])
            folder.mkdir(parents=True, exist_ok=True)
            with atomic_write(folder / f"rank-{self.ranks.rank}.mp4") as file:
                file.write(encode_mp4(grid))
            return grid[len(grid) // 2]
        except Exception:  # a full disk or a codec must not end days of training
            log.exception("validation pictures failed; training goes on")
            return None

    def _inputs(self, batch: Batch) -> DiffusionInputs:
        """Return a batch with its noise, and with every condition."""
        noise, fusion = self.settings.noise, self.settings.model.fusion
        return prepare_inputs(batch, self.codec, noise, fusion, mask_conditions=False)

    @torch.no_grad()
    def _grid(self, network: SayAnything, batch: Batch) -> np.ndarray:
        """[T, 3 * H, B * W, 3] uint8: true, masked and generated, one column a clip."""
        inputs = self._inputs(batch)
        with autocast(self.ranks.device, self.settings.run.precision):
            tokens, residuals = network.encode(inputs.conditions)
            how = self.settings.sampling
            shown = inputs.conditions.concatenated
            denoise = guide(network, shown, tokens, residuals, how.guidance, how.audio_guidance)
            sigmas = karras_sigmas(self.settings.run.validation_steps, how.sigma_min, how.sigma_max)
            z0 = euler(denoise, inputs.n, sigmas)
        made = torch.stack([self.codec.decode(clip) for clip in z0])
        true = batch.frames()
        rows = [true, true * (1 - batch.masks()), made]
        return to_uint8(torch.cat([torch.cat(tuple(row), dim=-1) for row in rows], dim=-2))


def to_uint8(pictures: Tensor) -> np.ndarray:
    """[T, 3, H, W] in [-1, 1] as [T, H, W, 3] uint8."""
    return ((pictures.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def autocast(device: torch.device, precision: str) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
