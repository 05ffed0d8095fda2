"""What a run tells: a progress bar, TensorBoard curves (W&B by switch), and lines in RUN/train.log.

Curves: loss and loss by noise level, gradient norm, learning rate, clips/s, MFU, share of the time spent waiting for
data, peak memory, steps skipped, samples replaced; from validation its loss, listening (training/listening.py) and a
picture. A warning where listening stays below its error, and where it does not rise any more (training/plateau.py).
"""

import dataclasses
import importlib
import json
import logging
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from training import curve
from training.cost import Cost, peak_flops
from training.distributed import Ranks
from training.listening import Heard, Listening
from training.plateau import Plateau, flat_warning, read_curve, rings
from training.settings import TrainingSettings

if TYPE_CHECKING:
    from training.checkpoint import State

SIGMA_EDGES = (
    0.5,
    2.0,
    8.0,
)  # of the bins that the loss is shown by: P_mean 0.7 and P_std 1.6 put about a quarter in each
log = logging.getLogger("training")


class MetricLogger:
    """Collects numbers on every rank and writes them on the first. Used as a `with` block."""

    def __init__(
        self, run: Path, settings: TrainingSettings, cost: Cost, ranks: Ranks, state: "State", resumed: bool
    ) -> None:
        self.run, self.settings, self.cost, self.ranks, self.state = run, settings, cost, ranks, state
        self.peak = peak_flops(ranks.device)
        self.plateau = Plateau.of(read_curve(run, state.step) if ranks.first and resumed else [])
        self.said = f"continued at step {state.step}" if resumed else "begun"
        self._clear()

    def __enter__(self) -> Self:
        if self.ranks.first:
            self.writer = SummaryWriter(str(self.run / "tensorboard"), purge_step=self.state.step + 1)
            self.lines = (self.run / "train.log").open("a", encoding="utf-8")
            self.wandb = start_wandb(self.run, self.settings) if self.settings.run.wandb else None
            self.bar = Progress(
                TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[told]}"),
                TimeElapsedColumn(), TimeRemainingColumn(),
            )  # fmt: skip
            self.task = self.bar.add_task("", total=self.settings.optimizer.steps, completed=self.state.step, told="")
            self.bar.start()
            self._line({"event": self.said, "step": self.state.step})
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self.ranks.first:
            self.bar.stop()
            self._line({"event": "failed" if error else "left", "step": self.state.step})
            self.writer.close()
            self.lines.close()
            self._draw()

    @contextmanager
    def time_waiting(self) -> Iterator[None]:
        """Add the time that its `with` block takes to the time spent waiting for data."""
        began = time.perf_counter()
        yield
        self._waited += time.perf_counter() - began

    def add_losses(self, sigma: Tensor, found: Tensor) -> None:
        """Add the losses of clips [B] and their noise levels; they stay on the device until they are written."""
        self._losses.append((sigma, found))

    def end_step(self, gradient_norm: float, learning_rate: float) -> None:
        self._norm = gradient_norm
        every = self.settings.run.log_every
        if self.state.step % every and self.state.step != self.settings.optimizer.steps:
            if self.ranks.first:
                self.bar.update(self.task, completed=self.state.step)
            return
        self._write(learning_rate)
        self._clear()

    def log_validation(self, loss: float, listening: Listening | None, picture: np.ndarray | None) -> None:
        """Log one validation; listening is None where the clips were too short to measure it."""
        if self.ranks.first:
            self._scalars({"validation/loss": loss, **(listening.scalars() if listening else {})})
            patience = self.settings.run.listening_patience * self.settings.run.validate_every
            if listening and not listening.overall.listening.is_above_error and self.state.step >= patience:
                self._warn(not_listening(self.state.step, listening.overall))
            if listening:
                self._watch(listening.overall)
            if picture is not None:
                self.writer.add_image("validation", picture, self.state.step, dataformats="HWC")
            self._draw()
        self._clear()  # the time it took is not training's

    def flat_steps(self) -> int:
        """How many steps ago listening last rose, on the first rank; 0 on the others."""
        return self.plateau.flat_steps(self.state.step)

    def _watch(self, heard: Heard) -> None:
        """Warn once for every `run.listening_flat_steps` in which listening did not rise."""
        before = self.plateau.flat_steps(max(self.state.step - self.settings.run.validate_every, 0))
        self.plateau.add(self.state.step, heard.listening)
        if rings(self.flat_steps(), before, self.settings.run.listening_flat_steps):
            self._warn(flat_warning(self.run, self.state.step, self.flat_steps(), heard))

    def _write(self, learning_rate: float) -> None:
        sigma, found = (torch.cat(parts).float().cpu().numpy() for parts in zip(*self._losses, strict=True))
        seconds = time.perf_counter() - self._began
        bins = np.digitize(sigma, SIGMA_EDGES)
        sums = [float(found[bins == b].sum()) for b in range(len(SIGMA_EDGES) + 1)]
        counts = [float((bins == b).sum()) for b in range(len(SIGMA_EDGES) + 1)]
        total = self.ranks.sum(*sums, *counts, self._waited, seconds, float(self.state.replaced))
        sums, counts, (waited, spent, replaced) = total[: len(sums)], total[len(sums) : -3], total[-3:]
        if not self.ranks.first:
            return
        clips_per_s = sum(counts) / (spent / self.ranks.world)
        scalars = {
            "loss": sum(sums) / sum(counts),
            **{f"loss_by_sigma/{name}": s / c for name, s, c in zip(bin_names(), sums, counts, strict=True) if c},
            "gradient_norm": self._norm,
            "learning_rate": learning_rate,
            "speed/clips_per_s": clips_per_s,
            "speed/data_wait_share": waited / spent,
            "steps_skipped": self.state.skipped,
            "samples_replaced": replaced,
        }
        if self.peak:
            flops = (self.cost.step_flops + self.cost.encode_flops) * clips_per_s / self.ranks.world
            scalars["speed/mfu"] = flops / self.peak
            scalars["memory/peak_gib"] = torch.cuda.max_memory_allocated(self.ranks.device) / 2**30
        self._scalars(scalars)
        self.bar.update(
            self.task, completed=self.state.step, told=f"loss {scalars['loss']:.4f}  {clips_per_s:.2f} clips/s"
        )

    def _scalars(self, scalars: dict[str, float]) -> None:
        for name, value in scalars.items():
            self.writer.add_scalar(name, value, self.state.step)
        if self.wandb is not None:
            self.wandb.log(scalars, step=self.state.step)
        self._line({"step": self.state.step, **scalars})

    def _draw(self) -> None:
        try:
            curve.draw(self.run)
        except Exception:  # a picture is not worth a training
            log.exception("%s: the curve could not be drawn; training goes on", self.run)

    def _warn(self, text: str) -> None:
        log.warning(text)
        self._line({"step": self.state.step, "warning": text})

    def _line(self, fields: dict[str, Any]) -> None:
        self.lines.write(json.dumps(fields) + "\n")
        self.lines.flush()

    def _clear(self) -> None:
        self._losses: list[tuple[Tensor, Tensor]] = []
        self._waited, self._norm, self._began = 0.0, 0.0, time.perf_counter()


def bin_names() -> list[str]:
    inner = [f"{low:g}_to_{high:g}" for low, high in pairwise(SIGMA_EDGES)]
    return [f"below_{SIGMA_EDGES[0]:g}", *inner, f"above_{SIGMA_EDGES[-1]:g}"]


def not_listening(step: int, heard: Heard) -> str:
    """The warning that the network does not follow the sound, with what to look at."""
    found, share = heard.listening, heard.share
    of_attainable = f", {share.mean:.1%} of what is attainable" if share else ""
    return (
        f"listening: not above its error at step {step}: {found.mean:.5f}, standard error {found.error:.5f}"
        f"{of_attainable}. While the loss falls, wait, or raise run.validation_windows; else look at whether sound and "
        "lips belong together (offset and sync_confidence in the manifest), the gradients of the audio attention "
        "(attn2), noise.P_mean (lips are decided at sigma 2 and above) and the learning rate"
    )


def start_wandb(run: Path, settings: TrainingSettings) -> Any:
    """A Weights & Biases run. Raises ValueError if its package is not there: it is no dependency."""
    try:
        wandb = importlib.import_module("wandb")
    except ImportError as error:
        raise ValueError("run.wandb is on and the package is missing: pip install wandb") from error
    given = run / "wandb.id"  # of this run alone: another folder may bear the same name
    if not given.is_file():
        given.write_text(secrets.token_hex(8), encoding="utf-8")
    identity = given.read_text(encoding="utf-8")
    return wandb.init(dir=str(run), name=run.name, resume="allow", id=identity, config=dataclasses.asdict(settings))
