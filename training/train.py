"""Fine-tune Stable Video Diffusion into SayAnything, streaming from the shards of a curation.

    torchrun --nproc-per-node 8 training/train.py --profile sayanything --data OUT --output RUN
    python training/train.py --profile embedded --data OUT --run RUN

`--run` and `--output` are the same; torchrun takes the first for its own unless a `--` stands before the script.

The same command continues where a run stopped, to the same result. SIGTERM and Ctrl-C save a checkpoint first.
`--dry-run` says how large the model is, what a step costs and how long all of it takes.

Exit code 0: all steps done, or run.stop_after_flat_steps reached; 1: stopped before the end, run it again; 2: refused
before starting.
"""

import argparse
import dataclasses
import json
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if sys.path[0] != str(ROOT):  # run as a script, the first place is this file's own folder
    sys.path[0] = str(ROOT)
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # on a busy CPU spinning threads take 30 times as long

from training.early import refuse_early  # noqa: E402

if __name__ == "__main__":
    refuse_early()

import torch  # noqa: E402
import yaml  # noqa: E402
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: E402
from torch import nn  # noqa: E402
from torch.distributed.fsdp import FSDPModule  # noqa: E402
from torch.nn.parallel import DistributedDataParallel  # noqa: E402

from command import parser_of  # noqa: E402
from storage.store import StoreError  # noqa: E402
from training.batch import Batch  # noqa: E402
from training.cache import Cache, open_cache  # noqa: E402
from training.checkpoint import (  # noqa: E402
    SETTINGS,
    Checkpoints,
    State,
    codec_folder,
    export,
    export_of,
    full,
    sha256_of,
)
from training.cost import Cost, clip_cost, peak_flops  # noqa: E402
from training.curated import read_all_curated  # noqa: E402
from training.data import DataError, Dataset, Indexed, loader  # noqa: E402
from training.distributed import Ranks, distribute, join_ranks  # noqa: E402
from training.latents import LatentCodec  # noqa: E402
from training.lora import add_lora, trained_parameters  # noqa: E402
from training.loss import diffusion_loss, prepare_inputs  # noqa: E402
from training.metric_logger import MetricLogger  # noqa: E402
from training.mixture import Mixture, bring_indexes, open_mixture, parse_data, parts_of  # noqa: E402
from training.network import AudioShape, SayAnything, build  # noqa: E402
from training.recipe import check_recipe, decisive, write_recipe  # noqa: E402
from training.settings import TrainingSettings, learning_rate_at, load_settings  # noqa: E402
from training.validation import Validation, autocast  # noqa: E402

MAX_SKIPPED_IN_A_ROW = 100  # steps; a few happen, and mixed precision has some at the start
HEARD_ROWS = 12_000  # that a whitening is fitted to; with windows of 2 frames many are the same
log = logging.getLogger("training")


class Diverged(RuntimeError):
    """The weights, or the losses of all batches, are not numbers any more; says which checkpoint was good."""


class Trainer:
    """One run on one rank. Reads top to bottom: what is built, the loop, one step, what happens beside it."""

    def __init__(
        self,
        recipe: dict[str, dict],
        settings: TrainingSettings,
        data: Dataset,
        run: Path,
        ranks: Ranks,
        init: Path | None = None,
    ) -> None:
        """`init` is an exported model to begin with, instead of the base."""
        self.recipe, self.settings, self.data, self.run_folder, self.ranks = recipe, settings, data, run, ranks
        self.micro_batch = min(settings.optimizer.micro_batch, settings.optimizer.global_batch // ranks.world)
        self.accumulation_steps, rest = divmod(settings.optimizer.global_batch, max(self.micro_batch * ranks.world, 1))
        if rest or not self.micro_batch:
            raise ValueError(
                f"optimizer.global_batch {settings.optimizer.global_batch} is no multiple of {ranks.world} ranks x "
                f"{settings.optimizer.micro_batch} clips of optimizer.micro_batch"
            )
        self.codec, self.network = models(settings, data, ranks, init)
        # without the cache, which may hold no pictures, and none mirrored
        validated = data.validation() or data.of_length(settings.data.frames)
        if settings.data.cache != "none":
            parts = parts_of(data)
            folders = [run / "cache" / str(k) if len(parts) > 1 else run / "cache" for k in range(len(parts))]
            for part, folder in zip(parts, folders, strict=True):
                part.cache = make_cache(part, settings, folder, self.codec, ranks)
        if init is None and settings.model.audio_numbers:
            self.network.audio.fit(heard_rows(data))
        if settings.model.lora_rank:
            add_lora(self.network, settings.model.lora_rank, settings.data.seed)
            if ranks.first:
                log.info(trained_line(self.network))
        if settings.run.checkpointing:
            self.network.unet.enable_gradient_checkpointing()
        self.cost = clip_cost(self.network, self.codec, settings)
        self.wrapped = distribute(self.network, ranks, settings.run)
        if settings.run.compile:
            self.network.unet.compile()
        self.state = State(self.network, optimizer_of(self.network, settings), copy_parameters(self.network))
        self.checkpoints = Checkpoints(run, settings.run.keep, ranks)
        self.validation = Validation.of(validated, settings, self.codec, ranks)
        self.stop_asked = self.ended_flat = False
        self.skipped_in_a_row = 0

    def run(self) -> bool:
        """Train to the last step, or to run.stop_after_flat_steps; False if a signal stopped it. Raises Diverged."""
        state, wanted = self.state, self.settings.optimizer.steps
        resumed = self.checkpoints.load_newest(state)
        with MetricLogger(self.run_folder, self.settings, self.cost, self.ranks, state, resumed) as logger:
            batches = self._batches()
            if state.step == 0:
                self._validate(logger)  # the base: what training starts from
            while state.step < wanted and not self._stopping() and not self._flat(logger):
                self._step(batches, logger)
                if state.step % self.settings.run.validate_every == 0 or state.step == wanted:
                    self._validate(logger)
                if self.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
                    raise Diverged(self._last_good())
                if state.step % self.settings.run.save_every == 0 and state.step < wanted and not self.skipped_in_a_row:
                    self._save()
            self._save()
            self.checkpoints.finish()
        return state.step >= wanted or self.ended_flat

    def _step(self, batches: Iterator[Batch], logger: "MetricLogger") -> None:
        """One optimizer step over a global batch: draw, noise, predict, compare, update, average."""
        state, settings = self.state, self.settings
        self.wrapped.train()
        for number in range(self.accumulation_steps):
            with logger.time_waiting():
                batch = next(batches)
            state.replaced += len(batch.quarantined)
            inputs = prepare_inputs(batch.to(self.ranks.device), self.codec, settings.noise, settings.model.fusion)
            with self._gradients_shared(last=number == self.accumulation_steps - 1):
                with autocast(self.ranks.device, settings.run.precision):
                    found = diffusion_loss(self.wrapped, inputs, settings.loss.outside)
                (found.mean() / self.accumulation_steps).backward()
            logger.add_losses(inputs.sigma, found.detach())
        norm = self._update()
        state.step += 1
        state.samples += settings.optimizer.global_batch
        logger.end_step(norm, self._learning_rate())

    def _update(self) -> float:
        """Clip, step and average unless a gradient is not finite, which skips the step on all ranks; the norm."""
        state, optimizer = self.state, self.state.optimizer
        norm: torch.Tensor = nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.optimizer.clip_norm)
        found = float(full(norm))
        if self.ranks.sum(0.0 if found < float("inf") else 1.0)[0] > 0:  # NaN is not below infinity either
            state.skipped += 1
            self.skipped_in_a_row += 1
        else:
            self.skipped_in_a_row = 0
            for group in optimizer.param_groups:
                group["lr"] = self._learning_rate()
            optimizer.step()
            state.update_ema(self.settings.optimizer.ema_decay)
        optimizer.zero_grad(set_to_none=True)
        return found

    def _last_good(self) -> str:
        self.checkpoints.finish()
        found = self.checkpoints.list_whole()
        last = f"the last checkpoint from before is {found[-1]}" if found else "no checkpoint was saved before"
        return (
            f"{self.skipped_in_a_row} steps in a row had gradients that are not finite, and nothing will change that; "
            f"{last}; try a lower optimizer.learning_rate or optimizer.clip_norm"
        )

    def _learning_rate(self) -> float:
        return learning_rate_at(self.state.step, self.settings.optimizer)

    def _gradients_shared(self, last: bool):
        """DDP sends gradients only in the last round of an accumulation; FSDP2 likewise."""
        if isinstance(self.wrapped, DistributedDataParallel) and not last:
            return self.wrapped.no_sync()
        for part in (self.network.unet, self.network.id_guider, self.network.audio):
            if isinstance(part, FSDPModule):
                part.set_requires_gradient_sync(last)
        return nullcontext()

    def _batches(self) -> Iterator[Batch]:
        return loader(
            self.data,
            self.micro_batch,
            rank=self.ranks.rank,
            world=self.ranks.world,
            global_batch=self.settings.optimizer.global_batch,
            start_sample=self.state.samples,
            workers=self.settings.data.workers,
        )

    def _validate(self, logger: "MetricLogger") -> None:
        self.network.eval()
        folder = self.run_folder / "validation" / f"step-{self.state.step:08d}"
        with self.state.ema_weights():  # what is exported
            loss, listening = self.validation.loss(self.network), self.validation.listening(self.network)
            picture = self.validation.pictures(self.network, folder)
        logger.log_validation(loss, listening, picture)

    def _save(self) -> None:
        self.checkpoints.save(self.state)
        folder = self.run_folder / "export"
        export(self.network, self.state.ema, self.codec, folder, self.ranks, self.recipe)

    def _stopping(self) -> bool:
        """Whether any rank was asked to stop."""
        return self.ranks.sum(float(self.stop_asked))[0] > 0

    def _flat(self, logger: "MetricLogger") -> bool:
        """Whether listening has not risen for `run.stop_after_flat_steps`; a meeting point if that is on."""
        limit = self.settings.run.stop_after_flat_steps
        if limit:
            [flat] = self.ranks.sum(float(logger.flat_steps()))
            self.ended_flat = flat >= limit
            if self.ended_flat and self.ranks.first:
                log.warning("ended at step %d: listening did not rise in %d steps", self.state.step, flat)
        return self.ended_flat

    def ask_to_stop(self, *_: object) -> None:
        self.stop_asked = True


def models(
    settings: TrainingSettings, data: Dataset, ranks: Ranks, init: Path | None = None
) -> tuple[LatentCodec, SayAnything]:
    """Return the frozen VAE and the network on this rank's device. Equal on all ranks, for any number of them.

    With `init`, an exported model, both come from it, and the base is only read for a VAE that it does not hold.
    """
    base = Path(settings.model.base)
    dtype = torch.bfloat16 if settings.run.precision == "bf16" else torch.float32
    audio = AudioShape(data.layers, data.dim, settings.data.window_frames)
    if init is not None:
        check_fits(init, settings, audio)
        codec = LatentCodec.load(codec_folder(init, base), ranks.device, dtype)
        return codec, SayAnything.load(init).to(ranks.device)
    codec = LatentCodec.load(base, ranks.device, dtype)
    torch.manual_seed(settings.data.seed)
    return codec, build(base, settings.model, audio, codec.factor).to(ranks.device)


def check_fits(init: Path, settings: TrainingSettings, audio: AudioShape) -> None:
    """Raise ValueError, with both values, if an exported model is not what these settings would build."""
    trained = yaml.safe_load((init / SETTINGS).read_text(encoding="utf-8"))
    heard = json.loads((init / "audio" / "config.json").read_text(encoding="utf-8"))
    there = {**trained["model"], **{name: heard[name] for name in dataclasses.asdict(audio)}}
    here = {**dataclasses.asdict(settings.model), **dataclasses.asdict(audio)}
    other = [f"{name}: {there.get(name)} -> {here[name]}" for name in here if here[name] != there.get(name)]
    if other := [line for line in other if not line.startswith(("base: ", "lora_rank: "))]:
        raise ValueError(f"--init {init}: a model with other settings ({'; '.join(other)}); use the same")


def heard_rows(data: Dataset) -> torch.Tensor:
    """Whisper rows of the first windows of the training order, [N, layers, dim]: the same on every rank."""
    found, count = [], 0
    for batch in loader(data, 16, workers=0):
        found.append(batch.whisper.float().flatten(0, 1))
        count += len(found[-1])
        if count >= HEARD_ROWS:
            break
    return torch.cat(found)


def make_cache(data: Indexed, settings: TrainingSettings, folder: Path, codec: LatentCodec, ranks: Ranks) -> Cache:
    """Make what the network sees of every clip, once, or open what an earlier start made in the run."""
    if settings.data.cache == "latents" and settings.model.fusion == "video_fusion":
        raise ValueError("model.fusion video_fusion needs the pictures of every frame: --set data.cache=pictures")
    clips = data.clips()
    with Progress(
        TextColumn("caching"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), disable=not ranks.first
    ) as bar:
        task = bar.add_task("", total=-(-len(clips) // ranks.world))
        return open_cache(
            folder,
            clips,
            data.content,
            settings.data,
            settings.mask,
            codec,
            ranks,
            lambda count: bar.advance(task, count),
        )


def optimizer_of(network: SayAnything, settings: TrainingSettings) -> torch.optim.AdamW:
    chosen = settings.optimizer
    return torch.optim.AdamW(
        trained_parameters(network).values(),
        lr=chosen.learning_rate,
        betas=(chosen.beta1, chosen.beta2),
        weight_decay=chosen.weight_decay,
        fused=True,
    )


def copy_parameters(network: SayAnything) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in trained_parameters(network).items()}


def trained_line(network: SayAnything) -> str:
    """Return how many of the weights are trained."""
    trained = sum(parameter.numel() for parameter in trained_parameters(network).values())
    count = sum(parameter.numel() for parameter in network.parameters())
    return f"trained     {trained / 1e6:10.2f} M of {count / 1e6:.2f} M parameters ({trained / count:.1%})"


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with ExitStack() as held:
        try:
            settings = load_settings(options.profile, options.set)
            ranks = held.enter_context(join_ranks(settings.run.device))
            if settings.run.threads:
                torch.set_num_threads(settings.run.threads)
            given = bring_indexes(options.data, options.run, options.store_cache, options.store_cache_gb)
            folders, weights = zip(*given, strict=True)
            data = open_mixture(given, settings.data, settings.mask)
            recipe = decisive(options.profile, settings, read_all_curated(folders, options.profile), weights)
            if ranks.first and isinstance(data, Mixture):
                print(data.describe())
            init = None if options.init is None else export_of(options.init)
            recipe["init"] = {"sha256": None if init is None else sha256_of(init)}
            check_recipe(options.run, recipe)
            if options.dry_run:
                if ranks.first:
                    print(forecast(settings, data, ranks))
                return 0
            trainer = Trainer(recipe, settings, data, options.run, ranks, init)
            write_recipe(options.run, recipe, ranks)
        except (ValueError, OSError) as error:  # ProfileError, DataError, a base that is not there, a full disk
            print(f"refused: {error}", file=sys.stderr)
            return 2
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, trainer.ask_to_stop)
        try:
            done = trainer.run()
        except (DataError, Diverged, StoreError) as error:
            print(f"stopped at step {trainer.state.step}: {error}", file=sys.stderr)
            return 1
        if ranks.first and not done:
            print(f"stopped at step {trainer.state.step}; the same command goes on from there")
        return 0 if done else 1


def parser() -> argparse.ArgumentParser:
    found = parser_of("python training/train.py", __doc__)
    found.add_argument("--profile", required=True, help="a profile of pipelines.yaml, such as embedded or sayanything")
    found.add_argument(
        "--data",
        required=True,
        nargs="+",
        type=parse_data,
        metavar="FOLDER[=WEIGHT]",
        help="output folder of a curation, or its shards/, or its mirror (s3://, gs://, az://); of several, windows "
        "are drawn in proportion to the weights",
    )
    found.add_argument(
        "--store-cache",
        type=Path,
        metavar="FOLDER",
        help="keep samples of a mirror in this folder once they were read; without it each is read every time",
    )
    found.add_argument(
        "--store-cache-gb",
        type=float,
        default=100.0,
        metavar="GB",
        help="of each mirror, at most; default: %(default)g",
    )
    found.add_argument(
        "--run",
        "--output",
        required=True,
        type=Path,
        help="folder of checkpoints and curves; continued if it exists",
    )
    found.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="GROUP.SETTING=VALUE",
        help="change one setting, such as optimizer.learning_rate=1.0e-5",
    )
    found.add_argument(
        "--init",
        type=Path,
        metavar="CHECKPOINT",
        help="begin with this run, export or speaker (the one that comes with the code) instead of the base",
    )
    found.add_argument("--dry-run", action="store_true", help="say what would be trained, how large and how long; stop")
    return found


def forecast(settings: TrainingSettings, data: Dataset, ranks: Ranks) -> str:
    """What `--dry-run` prints."""
    codec, network = models(settings, data, ranks)
    cost = clip_cost(network, codec, settings)
    chosen, windows = settings.optimizer, len(data)
    if settings.model.lora_rank:
        add_lora(network, settings.model.lora_rank, settings.data.seed)
    count = sum(parameter.numel() for parameter in network.parameters())
    trained = sum(parameter.numel() for parameter in trained_parameters(network).values())
    steps_per_epoch = windows // chosen.global_batch
    sharers = ranks.world if settings.run.fsdp else 1
    states = (4 * count + 12 * trained) / sharers  # parameters; gradients and two moments: fp32 each
    averaged = 4 * trained / sharers
    activations = cost.activation_bytes * chosen.micro_batch
    lines = [
        *(f"{name:<12}{size / 1e6:10.2f} M parameters" for name, size in sizes(network, codec).items()),
        *([trained_line(network)] if settings.model.lora_rank else []),
        f"data        {windows} windows an epoch; {steps_per_epoch} steps an epoch, "
        f"{chosen.steps / max(steps_per_epoch, 1):.2f} epochs in {chosen.steps} steps of {chosen.global_batch}",
        f"a clip      {cost.step_flops / 1e12:.3f} TFLOP forward and back, {cost.encode_flops / 1e12:.3f} in the VAE",
        f"memory      {(states + averaged) / 2**30:.1f} GiB parameters, gradients, AdamW, EMA + "
        f"{activations / 2**30:.1f} GiB activations of {chosen.micro_batch} clips, per rank"
        + (" (checkpointing holds about a tenth of it)" if settings.run.checkpointing else ""),
        time_line(settings, cost, ranks),
    ]
    return "\n".join(lines)


def sizes(network: SayAnything, codec: LatentCodec) -> dict[str, int]:
    parts: dict[str, nn.Module] = {
        "UNet": network.unet, "ID-Guider": network.id_guider, "audio": network.audio, "VAE, frozen": codec.vae,
    }  # fmt: skip
    return {name: sum(parameter.numel() for parameter in part.parameters()) for name, part in parts.items()}


def time_line(settings: TrainingSettings, cost: Cost, ranks: Ranks) -> str:
    peak = peak_flops(ranks.device)
    flops = (cost.step_flops + cost.encode_flops) * settings.optimizer.global_batch / ranks.world
    if peak is None:
        return f"time        {flops / 1e12:.3f} TFLOP a step and rank; this device's peak is not known, so no estimate"
    hours = flops / (0.4 * peak) * settings.optimizer.steps / 3600
    each = f"{flops / 1e12:.1f} TFLOP a step and rank"
    return f"time        {hours:.1f} h for all steps at 40 % of {peak / 1e12:.0f} TFLOP/s; {each}"


if __name__ == "__main__":
    raise SystemExit(main())
