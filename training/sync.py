"""Train a network that tells whether lips and a sound belong together (SyncNet's task), on the shards of a curation.

    python training/sync.py --size small --data OUT --run RUN
    python training/sync.py --size small --data OUT --run CONTROL --shuffle-sound
    torchrun --nproc-per-node 8 training/sync.py --size stable --data OUT --output RUN

`--run` and `--output` are the same. The same command continues where a run stopped. RUN/train.log has the curve,
RUN/export/sync.safetensors the averaged weights; those of `small` on landmarks are what models/sync.py loads. A loss
that stays at chance is said, with what to look at. docs/sync.md answers the usual questions.

Exit code 0: all steps done; 1: stopped before the end, run it again; 2: refused before starting.
"""

import argparse
import dataclasses
import json
import logging
import os
import signal
import sys
import tarfile
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).resolve().parent.parent
if sys.path[0] != str(ROOT):  # run as a script, the first place is this file's own folder
    sys.path[0] = str(ROOT)
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # on a busy CPU spinning threads take 30 times as long

import torch  # noqa: E402
import yaml  # noqa: E402
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: E402
from safetensors.torch import save  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn.parallel import DistributedDataParallel  # noqa: E402

from command import parser_of  # noqa: E402
from models.sync import FORMAT  # noqa: E402
from storage.atomic_write import atomic_write  # noqa: E402
from training.checkpoint import SETTINGS, Checkpoints, State  # noqa: E402
from training.distributed import Ranks, join_ranks  # noqa: E402
from training.mixture import parse_data  # noqa: E402
from training.settings import learning_rate_at  # noqa: E402
from training.sync_data import SyncData, open_sync_data  # noqa: E402
from training.sync_loss import Comparison, Stuck, SyncLoss, nearest_negative  # noqa: E402
from training.sync_net import SmallTowers, build_towers  # noqa: E402
from training.sync_settings import SyncSettings, load_sync_settings  # noqa: E402

VALIDATION_BATCHES = 4
EXPORT = Path("export", "sync.safetensors")
log = logging.getLogger("training.sync")


class SyncTrainer:
    """One run on one rank."""

    def __init__(self, settings: SyncSettings, data: SyncData, run: Path, ranks: Ranks, shuffle: bool) -> None:
        self.settings, self.data, self.run_folder, self.ranks, self.shuffle = settings, data, run, ranks, shuffle
        torch.manual_seed(settings.data.seed)
        towers = build_towers(settings.model, data.audio_dim)
        if isinstance(towers, SmallTowers):
            towers.fit(data.audio_rows())
        self.network = Comparison(towers.to(ranks.device))
        self.wrapped: nn.Module = self.network if ranks.world == 1 else DistributedDataParallel(self.network)
        chosen = settings.optimizer
        optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=chosen.learning_rate, weight_decay=chosen.weight_decay
        )
        averages = {name: each.detach().clone() for name, each in self.network.named_parameters()}
        self.state = State(self.network, optimizer, averages)
        self.checkpoints = Checkpoints(run, settings.run.keep, ranks)
        self.stuck, self.stop_asked = Stuck(settings.run.stuck_steps), False

    def run(self) -> bool:
        """Train to the last step; False if a signal stopped it."""
        state, wanted, chosen = self.state, self.settings.optimizer.steps, self.settings.run
        resumed = self.checkpoints.load_newest(state)
        torch.manual_seed(self.settings.data.seed + 1 + state.step)  # of the dropout
        batches = self.data.batches(state.samples)
        with ExitStack() as held:
            lines = held.enter_context((self.run_folder / "train.log").open("a", encoding="utf-8"))
            bar = held.enter_context(progress_bar(self.ranks.first))
            task = bar.add_task("", total=wanted, completed=state.step, told="")
            if not resumed:
                self._validate(lines)
            while state.step < wanted and not self._stopping():
                near = nearest_negative(state.step, wanted, self.settings.data)
                found = self._step(next(batches), near)
                self._tell(lines, found, near)
                bar.update(
                    task, completed=state.step, told=f"loss {float(found.loss):.3f}, at chance {found.chance:.3f}"
                )
                if state.step % chosen.validate_every == 0 or state.step == wanted:
                    self._validate(lines)
                if state.step % chosen.save_every == 0 and state.step < wanted:
                    self._save()
            self._save()
            self.checkpoints.finish()
        return state.step >= wanted

    def _step(self, batch, near: int) -> SyncLoss:
        """One optimizer step over a global batch."""
        state, chosen = self.state, self.settings.optimizer
        self.wrapped.train()
        batch = (batch.shuffled() if self.shuffle else batch).to(self.ranks.device)
        found: SyncLoss = self.wrapped(batch, near)
        found.loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), chosen.clip_norm)
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate_at(state.step, chosen)
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
        state.update_ema(chosen.ema_decay)
        state.step += 1
        state.samples += chosen.global_batch
        return SyncLoss(*(value.detach() for value in vars(found).values()))

    def _tell(self, lines: TextIO, found: SyncLoss, near: int) -> None:
        """Write a line of the log every so many steps, and say it if nothing is learned; a meeting point."""
        step, world = self.state.step, self.ranks.world
        loss, correct = (value / world for value in self.ranks.sum(float(found.loss), float(found.correct)))
        rate = learning_rate_at(step, self.settings.optimizer)
        told = self.stuck.add(step, loss, float(found.chance), self.data.describe(), rate)
        if not self.ranks.first:
            return
        if told is not None:
            log.warning(told)
            self._line(lines, {"step": step, "warning": told})
        if step % self.settings.run.log_every == 0 or step == self.settings.optimizer.steps:
            numbers = {"loss": loss, "chance": float(found.chance), "correct": correct}
            self._line(lines, {"step": step, **numbers, "nearest_negative": near, "learning_rate": rate})

    @torch.no_grad()
    def _validate(self, lines: TextIO) -> None:
        """Loss on the sources held out, with all negatives; the averaged weights, in the same stretches every time."""
        self.network.eval()
        with self.state.ema_weights():
            batches = islice(self.data.batches(0, validation=True), VALIDATION_BATCHES)
            batches = (batch.shuffled() if self.shuffle else batch for batch in batches)
            found = [self.network(batch.to(self.ranks.device), 1) for batch in batches]
        if found and self.ranks.first:
            means = {
                f"validation/{name}": sum(float(getattr(each, name)) for each in found) / len(found)
                for name in ("loss", "chance", "correct")
            }
            self._line(lines, {"step": self.state.step, **means})

    def _line(self, lines: TextIO, content: dict) -> None:
        lines.write(json.dumps(content) + "\n")
        lines.flush()

    def _save(self) -> None:
        self.checkpoints.save(self.state)
        if self.ranks.first:
            with self.state.ema_weights():
                export_towers(self.network.towers, self.run_folder / EXPORT)

    def _stopping(self) -> bool:
        return self.ranks.sum(float(self.stop_asked))[0] > 0

    def ask_to_stop(self, *_: object) -> None:
        self.stop_asked = True


def export_towers(towers: nn.Module, path: Path) -> None:
    """Write the towers as `SyncModel.load` reads them, in case they are small and on landmarks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Tensor] = {name: value.cpu().contiguous() for name, value in towers.state_dict().items()}
    del arrays["temperature"]
    with atomic_write(path) as file:
        file.write(save(arrays, {FORMAT: "{}"}))


def progress_bar(shown: bool) -> Progress:
    return Progress(
        TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[told]}"),
        TimeElapsedColumn(), disable=not shown,
    )  # fmt: skip


def begin_run(run: Path, settings: SyncSettings, shuffle: bool) -> None:
    """Make the run's folder with what decides its result; ValueError if it was begun with something else."""
    decisive = {**dataclasses.asdict(settings), "shuffle_sound": shuffle}
    del decisive["run"]
    file = run / SETTINGS
    if file.is_file():
        if yaml.safe_load(file.read_text(encoding="utf-8")) != decisive:
            raise ValueError(f"{run} was begun with other settings ({file}); use those, or another --run")
        return
    run.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as written:
        written.write(yaml.safe_dump(decisive, sort_keys=False).encode())


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with ExitStack() as held:
        try:
            settings = load_sync_settings(options.size, options.set)
            ranks = held.enter_context(join_ranks(settings.run.device))
            if settings.run.threads:
                torch.set_num_threads(settings.run.threads)
            if ranks.first:
                begin_run(options.run, settings, options.shuffle_sound)
            ranks.wait()
            data = open_sync_data(options.data, options.run, settings, ranks)
            trainer = SyncTrainer(settings, data, options.run, ranks, options.shuffle_sound)
        except (ValueError, OSError, tarfile.TarError) as error:
            print(f"refused: {error}", file=sys.stderr)
            return 2
        if ranks.first:
            print(data.describe())
            for name in ("mouth", "audio"):
                count = sum(each.numel() for each in getattr(trainer.network.towers, name).parameters())
                print(f"{name:<6} {count / 1e6:8.2f} M parameters")
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, trainer.ask_to_stop)
        done = trainer.run()
        if ranks.first and not done:
            print(f"stopped at step {trainer.state.step}; the same command goes on from there")
        return 0 if done else 1


def parser() -> argparse.ArgumentParser:
    found = parser_of("python training/sync.py", __doc__)
    found.add_argument("--size", required=True, help="small, small_pixels or stable: training/sync.yaml")
    found.add_argument(
        "--data", required=True, nargs="+", type=parse_data, metavar="FOLDER[=WEIGHT]", help="curated outputs"
    )
    found.add_argument("--run", "--output", required=True, type=Path, help="folder of the run; continued if it exists")
    found.add_argument(
        "--set", action="append", default=[], metavar="GROUP.SETTING=VALUE", help="such as model.window_frames=9"
    )
    found.add_argument("--shuffle-sound", action="store_true", help="the control: another's sound to each mouth")
    return found


if __name__ == "__main__":
    raise SystemExit(main())
