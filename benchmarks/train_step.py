"""Time of a training step: clips/s, MFU, peak memory and wait for data, with and without compile and checkpointing.

    python benchmarks/train_step.py --svd-config FOLDER --data OUT --compile                 a GPU, SVD's size
    python benchmarks/train_step.py --profile embedded --base demo/output/base --data OUT --quick    a CPU, the toy

With --svd-config the network has SVD's size and random weights, made from the `config.json` files of a diffusers folder
(`unet/`, `vae/`): speed does not depend on the values. Without --data one made-up batch lies on the device and nothing
is waited for. A line is the median of the steps after three that warm up.
"""

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import AutoencoderKLTemporalDecoder
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks.result import write_json
from command import parser_of
from training.audio import AudioTokens
from training.batch import Batch
from training.cost import Cost, clip_cost, peak_flops
from training.data import loader, open_data
from training.id_guider import VARIANTS, IDGuider
from training.latents import LatentCodec
from training.loss import diffusion_loss, prepare_inputs
from training.network import AudioShape, SayAnything, build, stem_strides
from training.settings import TrainingSettings, load_settings
from training.unet import SayAnythingUNet
from training.validation import autocast
from training.window import empty

WHISPER_TINY = (5, 384)  # layers, width
WARM_UP = 3
COLUMNS = (
    "clips",
    "checkpointing",
    "compiled",
    "ms/step",
    "spread",
    "clips/s",
    "TFLOP/s",
    "MFU",
    "peak GiB",
    "data wait",
)


@dataclass(frozen=True)
class Case:
    micro_batch: int
    checkpointing: bool
    compiled: bool


@dataclass(frozen=True)
class Result:
    case: Case
    step_ms: float
    spread_ms: float
    clips_per_s: float
    tflops: float  # a second
    mfu: float | None  # of the device's dense bf16 peak; the VAE's work counts
    peak_gib: float | None
    data_wait_share: float


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    if options.quick:
        options.micro_batch, options.steps = [2], 5
    settings = load_settings(options.profile, options.set)
    device = torch.device(settings.run.device)
    codec, network = models(options, settings, device)
    cost = clip_cost(network, codec, settings)
    data = open_data(options.data, settings.data, settings.mask) if options.data else None
    results = []
    for case in cases(options.micro_batch, options.compile):
        batches = loader(data, case.micro_batch) if data else drawn_batches(case.micro_batch, settings)
        try:
            results.append(measure_step(case, network, codec, settings, batches, options.steps, cost))
        except torch.cuda.OutOfMemoryError:
            print(f"{case}: out of memory", file=sys.stderr)
        network.zero_grad(set_to_none=True)
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    show(results, settings, cost)
    write_json(options.json, {"device": device_name(device), "cases": [asdict(result) for result in results]})
    return 0


def cases(micro_batches: Sequence[int], compiled_too: bool) -> list[Case]:
    compiled = (False, True) if compiled_too else (False,)
    return [Case(*choice) for choice in product(micro_batches, (False, True), compiled)]


def measure_step(
    case: Case,
    network: SayAnything,
    codec: LatentCodec,
    settings: TrainingSettings,
    batches: Iterator[Batch],
    steps: int,
    cost: Cost,
) -> Result:
    """The median of `steps` whole steps (encode, forward, backward, clip, AdamW) after three that warm up."""
    device = torch.device(settings.run.device)
    (
        network.unet.enable_gradient_checkpointing
        if case.checkpointing
        else network.unet.disable_gradient_checkpointing
    )()
    forward: nn.Module = torch.compile(network) if case.compiled else network  # pyright: ignore[reportAssignmentType]
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-6, fused=device.type == "cuda")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    times, waits = [], []
    for number in range(steps + WARM_UP):
        began = time.perf_counter()
        batch = next(batches).to(device)
        waited = time.perf_counter() - began
        inputs = prepare_inputs(batch, codec, settings.noise, settings.model.fusion)
        with autocast(device, settings.run.precision):
            loss = diffusion_loss(forward, inputs).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize()
        if number >= WARM_UP:
            times.append(time.perf_counter() - began)
            waits.append(waited)
    step_s, peak = statistics.median(times), peak_flops(device)
    flops = (cost.step_flops + cost.encode_flops) * case.micro_batch
    return Result(
        case=case,
        step_ms=1000 * step_s,
        spread_ms=1000 * (max(times) - min(times)),
        clips_per_s=case.micro_batch / step_s,
        tflops=flops / step_s / 1e12,
        mfu=flops / step_s / peak if peak else None,
        peak_gib=torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None,
        data_wait_share=sum(waits) / sum(times),
    )


def models(
    options: argparse.Namespace, settings: TrainingSettings, device: torch.device
) -> tuple[LatentCodec, SayAnything]:
    """VAE and network: those of a base folder, or random ones of the sizes in a diffusers folder's configurations."""
    dtype = torch.bfloat16 if settings.run.precision == "bf16" else torch.float32
    k = settings.data.window_frames
    if options.svd_config is None:
        base = options.base or Path(settings.model.base)
        codec = LatentCodec.load(base, device, dtype)
        return codec, build(base, settings.model, AudioShape(*WHISPER_TINY, k), codec.factor).to(device)
    return random_models(
        configuration(options.svd_config / "unet"), configuration(options.svd_config / "vae"), settings
    )


def random_models(
    unet_config: Mapping[str, Any], vae_config: Mapping[str, Any], settings: TrainingSettings
) -> tuple[LatentCodec, SayAnything]:
    """VAE and network with random weights, on the device and in the precision of the settings."""
    device = torch.device(settings.run.device)
    dtype = torch.bfloat16 if settings.run.precision == "bf16" else torch.float32
    layers, dim = WHISPER_TINY
    chosen = settings.model
    with torch.device(device):
        vae = AutoencoderKLTemporalDecoder(**vae_config)
        unet = SayAnythingUNet(**{**unet_config, "cross_attention_dim": dim})
        guider = IDGuider(
            channels=tuple(unet.config["block_out_channels"]),
            stem_strides=stem_strides(2 ** (len(vae.config["block_out_channels"]) - 1)),
            **VARIANTS[chosen.id_guider],
        )
        audio = AudioTokens(layers=layers, dim=dim, window_frames=settings.data.window_frames, use=chosen.audio_layers)
    nn.Module.to(vae, device, dtype)
    return LatentCodec(vae), SayAnything(unet, guider, audio).to(device)


def configuration(folder: Path) -> dict:
    found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return {name: value for name, value in found.items() if not name.startswith("_")}


def drawn_batches(micro_batch: int, settings: TrainingSettings) -> Iterator[Batch]:
    """One made-up batch, again and again, already on the device."""
    arrays = empty(micro_batch, settings.data, *WHISPER_TINY)
    for name in ("video", "reference"):
        arrays[name][:] = np.random.default_rng(0).integers(16, 236, arrays[name].shape)
    arrays["whisper"][:] = np.random.default_rng(1).normal(size=arrays["whisper"].shape)
    side = settings.data.size
    arrays["mask_boxes"][:] = arrays["reference_box"][:] = (side * 0.3, side * 0.5, side * 0.7, side * 0.9)
    for name in ("noise_seed", "drop_draws", "sample"):
        arrays[name][:] = 1
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    batch = Batch(**tensors, keys=("",) * micro_batch, quarantined=())
    batch = batch.to(settings.run.device)
    while True:
        yield batch


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"


def show(results: list[Result], settings: TrainingSettings, cost: Cost) -> None:
    name = device_name(torch.device(settings.run.device))
    per_clip = (cost.step_flops + cost.encode_flops) / 1e12
    table = Table(
        title=f"{name}, {settings.data.frames} frames of {settings.data.size} px, {per_clip:.2f} TFLOP a clip"
    )
    for column in COLUMNS:
        table.add_column(column, justify="right")
    for r in results:
        table.add_row(
            str(r.case.micro_batch), *("yes" if on else "no" for on in (r.case.checkpointing, r.case.compiled)),
            f"{r.step_ms:.0f}", f"{r.spread_ms:.0f}", f"{r.clips_per_s:.2f}", f"{r.tflops:.3f}",
            "" if r.mfu is None else f"{r.mfu:.1%}", "" if r.peak_gib is None else f"{r.peak_gib:.1f}",
            f"{r.data_wait_share:.2%}",
        )  # fmt: skip
    Console(width=140).print(table)


def parser() -> argparse.ArgumentParser:
    found = parser_of("python benchmarks/train_step.py", __doc__)
    found.add_argument("--profile", default="sayanything")
    found.add_argument("--set", action="append", default=[], metavar="GROUP.SETTING=VALUE")
    found.add_argument("--base", type=Path, help="diffusers folder with weights (default: the profile's)")
    found.add_argument("--svd-config", type=Path, help="diffusers folder of which only the config.json files are read")
    found.add_argument("--data", type=Path, help="curated output to stream from; without it one made-up batch")
    found.add_argument("--micro-batch", type=int, nargs="+", default=[2, 4, 8])
    found.add_argument("--compile", action="store_true", help="measure with torch.compile too")
    found.add_argument("--steps", type=int, default=20)
    found.add_argument("--quick", action="store_true", help="micro-batch 2, five steps")
    found.add_argument("--json", type=Path)
    return found


if __name__ == "__main__":
    raise SystemExit(main())
