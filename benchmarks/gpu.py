"""Everything that was never run on a GPU, in one command: most important first, each part guarded by time.

    python -m benchmarks.gpu --minutes 8 --json FILE
    python -m benchmarks.gpu --device cpu --tiny --json FILE        every part, small, on a CPU

Each part is a process of its own, so one that runs out of memory, hangs or ends for a missing package takes no other
with it; FILE is written again after each. Networks have random weights of the real shape: SVD's, as its `config.json`
says. On a bare machine with the packages of BARE below, `--wheels` lists what else to carry (46 MB); a part that lacks
a package says `skipped: no module X`.

    parity        each network on the device beside the CPU, fp32 without TF32: largest difference over largest value
    precision     the loss of the same clips in bf16 beside fp32, by noise level; the VAE's pictures likewise
    step          a training step: micro-batch 2 to 16, checkpointing; ms, clips/s, MFU, peak memory
    channels-last the same with channels-last weights
    fsdp          the same in FSDP2 on one rank
    compile       the same compiled
    loader        windows a second of the loader, and how long a step would wait for it
    generation    seconds of denoising and decoding for a second of video, without faces, sound and pasting
    curation      seconds of sound and frames that each network of curation takes in a second
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from command import parser_of

ROOT = Path(__file__).resolve().parent.parent
WHEELS = (  # for Python 3.12 on x86-64 Linux, in MB: what a machine with torch and the packages above lacks
    ("diffusers==0.42.1", 6.4), ("pydantic==2.14.3", 0.5), ("pydantic-core==2.50.4", 2.3), ("annotated-types", 0.1),
    ("typing-inspection", 0.1), ("importlib_metadata", 0.1), ("av==18.1.0", 35.8), ("openai-whisper==20250625", 0.8),
    ("more-itertools", 0.1), ("webdataset==1.0.2", 0.1), ("braceexpand", 0.1),
)  # fmt: skip
# What a bare machine has already.
BARE = ("torch", "fsspec", "numpy", "pandas", "pyarrow", "scipy", "cv2", "yaml", "psutil", "rich", "safetensors")
OPTIONAL = ("timm", "pyiqa")  # of HyperIQA, whose rows are left out without them
SVD_VAE = MappingProxyType({  # img2vid-xt's vae/config.json; its UNet's are the defaults of SayAnythingUNet
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "layers_per_block": 2,
    "scaling_factor": 0.18215,
})  # fmt: skip
TINY_UNET = MappingProxyType({
    "block_out_channels": (32, 32, 64, 64), "num_attention_heads": (1, 1, 2, 2), "addition_time_embed_dim": 32,
    "projection_class_embeddings_input_dim": 96,
})  # fmt: skip
TINY_VAE = MappingProxyType({
    "block_out_channels": (32, 32), "down_block_types": ("DownEncoderBlock2D",) * 2, "layers_per_block": 1,
    "scaling_factor": 1.0,
})  # fmt: skip
TINY_SET = ("data.size=32", "data.frames=2", "data.workers=0", "sampling.steps=1")
LEAST_S = 5.0  # with less time left a part is not begun
PART_S = 150.0  # of one part at most
log = logging.getLogger("benchmarks.gpu")


@dataclass(frozen=True)
class Row:
    """One number, or why there is none."""

    part: str
    what: str
    value: float | None
    unit: str


@dataclass(frozen=True)
class Chosen:
    """What the command asks for."""

    device: str
    tiny: bool

    def settings(self, *overrides: str):
        """The paper's profile on this device, small if asked for."""
        from training.settings import load_settings

        small = TINY_SET if self.tiny else ()
        return load_settings("sayanything", [f"run.device={self.device}", *small, *overrides])

    def models(self, settings):
        """Codec and network with random weights."""
        import torch

        from benchmarks.train_step import random_models

        torch.manual_seed(0)
        codec, network = random_models(
            TINY_UNET if self.tiny else {}, TINY_VAE if self.tiny else SVD_VAE, settings
        )  # fmt: skip
        for parameter in network.id_guider.out.parameters():
            torch.nn.init.normal_(parameter, std=0.02)  # zero before training: it would hide half of the network
        return codec, network


def measure_parity(chosen: Chosen) -> Iterator[Row]:
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    for name, load in NETWORKS.items():
        try:
            module, call, inputs = load(chosen)
            with torch.inference_mode():
                wanted = call(module, *inputs)
                module.to(chosen.device)
                found = call(module, *(value.to(chosen.device) for value in inputs)).cpu()
            yield Row("parity", name, float((found - wanted).abs().max() / wanted.abs().max()), "of the largest value")
        except ModuleNotFoundError as error:
            yield Row("parity", name, None, skipped(error))


@cache
def network_on_cpu(chosen: Chosen):
    """UNet, ID-Guider and VAE on the CPU, each moved away once; a smaller picture, for the CPU's sake."""
    settings = replace(chosen, device="cpu").settings("run.precision=fp32")
    return replace(chosen, device="cpu").models(settings), 16 if chosen.tiny else 128


def load_unet(chosen: Chosen):
    import torch

    (codec, network), side = network_on_cpu(chosen)
    small = side // codec.factor
    random = torch.Generator().manual_seed(1)
    latents = torch.randn(1, 2, 8, small, small, generator=random)
    tokens = torch.randn(1, 2, 50, 384, generator=random)
    return network.unet.eval(), lambda unet, *x: unet(*x), (latents, torch.tensor([0.3]), tokens)


def load_guider(chosen: Chosen):
    import torch

    (_, network), side = network_on_cpu(chosen)
    reference = torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(1))
    return network.id_guider.eval(), lambda guider, x: torch.cat([y.flatten() for y in guider(x)]), (reference,)


def load_vae(chosen: Chosen):
    import torch

    (codec, _), side = network_on_cpu(chosen)
    pictures = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1

    def there_and_back(vae, x):
        latents = vae.encode(x, return_dict=False)[0].mode()
        return torch.cat([latents.flatten(), vae.decode(latents, num_frames=2, return_dict=False)[0].flatten()])

    return codec.vae, there_and_back, (pictures,)


def load_whisper(chosen: Chosen):
    import torch

    mel = torch.randn(1, 80, 3000, generator=torch.Generator().manual_seed(1))
    return whisper_encoder(chosen.tiny), lambda encoder, x: encoder(x), (mel,)


def whisper_encoder(tiny: bool):
    """The encoder of curation with random weights, of the size of Whisper tiny."""
    import torch
    from whisper.model import AudioEncoder

    from models.whisper_encoder import HiddenStates

    torch.manual_seed(0)
    layers = 1 if tiny else 4
    dims = {"n_mels": 80, "n_audio_ctx": 1500, "n_audio_state": 384, "n_audio_head": 6, "n_audio_layer": layers}
    encoder = AudioEncoder(80, 1500, 384, 6, layers)
    unheard = {"n_vocab": 1, "n_text_ctx": 1, "n_text_state": 1, "n_text_head": 1, "n_text_layer": 1}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.pt"
        state = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
        torch.save({"dims": {**dims, **unheard}, "model_state_dict": state}, path)
        found = HiddenStates(path)
        found.encoder.load_state_dict({name: value.clone() for name, value in found.encoder.state_dict().items()})
    return found


def load_syncnet(chosen: Chosen):
    import torch

    pictures = torch.rand(1, 3, 5, 224, 224, generator=torch.Generator().manual_seed(1)) * 255
    return syncnet_lips(), lambda lip, x: lip(x), (pictures,)


def syncnet_lips():
    import torch

    from models.syncnet import SyncNetModel

    torch.manual_seed(0)
    model = SyncNetModel().eval()
    return torch.nn.Sequential(model.netcnnlip, torch.nn.Flatten(), model.netfclip)


def load_hyperiqa(chosen: Chosen):
    import torch

    from models.hyperiqa import build_network

    torch.manual_seed(0)
    pictures = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    return build_network().eval(), lambda network, x: network.forward_patch(x), (pictures,)


NETWORKS: dict[str, Callable[[Chosen], tuple[Any, Any, tuple]]] = {
    "UNet": load_unet, "VAE": load_vae, "ID-Guider": load_guider, "Whisper encoder": load_whisper,
    "SyncNet": load_syncnet, "HyperIQA": load_hyperiqa,
}  # fmt: skip


def measure_precision(chosen: Chosen) -> Iterator[Row]:
    import torch

    from benchmarks.train_step import drawn_batches
    from training.loss import diffusion_loss, prepare_inputs
    from training.validation import autocast

    settings = chosen.settings("run.precision=fp32")
    codec, network = chosen.models(settings)
    inputs = prepare_inputs(next(drawn_batches(1, settings)), codec, settings.noise, "paper", mask_conditions=False)
    device = torch.device(chosen.device)
    with torch.no_grad():
        for sigma in (0.5, 2.0, 20.0, 100.0):
            at = replace(inputs, sigma=torch.full_like(inputs.sigma, sigma))
            exact = float(diffusion_loss(network, at).mean())
            with autocast(device, "bf16"):
                rough = float(diffusion_loss(network, at).mean())
            yield Row("precision", f"loss at sigma {sigma:g}, bf16 beside fp32", rough / exact - 1, "of the loss")
        exact = codec.decode(inputs.z0[0])
        torch.nn.Module.to(codec.vae, torch.bfloat16)
        rough = codec.decode(inputs.z0[0])
    yield Row(
        "precision", "VAE's pictures, bf16 beside fp32", float((rough - exact).abs().mean() * 127.5), "grey levels"
    )


def step_rows(part: str, chosen: Chosen, cases: Sequence[tuple[int, bool, bool]], prepare=lambda network: None):
    """Rows of training steps with (clips, checkpointing, compiled) each; one that needs too much memory says so."""
    import torch

    from benchmarks.train_step import Case, drawn_batches, measure_step
    from training.cost import clip_cost

    settings = chosen.settings("run.precision=bf16")
    codec, network = chosen.models(settings)
    cost = clip_cost(network, codec, settings)
    prepare(network)
    for clips, checkpointing, compiled in cases:
        name = f"{clips} clips, {'checkpointing' if checkpointing else 'none checkpointed'}"
        batches = drawn_batches(clips, settings)
        case = Case(clips, checkpointing, compiled)
        try:
            found = measure_step(case, network, codec, settings, batches, 1 if chosen.tiny else 5, cost)
        except torch.OutOfMemoryError:
            yield Row(part, name, None, "out of memory")
            continue
        finally:
            network.zero_grad(set_to_none=True)
            empty_cache()
        yield Row(part, f"{name}: step", found.step_ms, "ms")
        yield Row(part, f"{name}: speed", found.clips_per_s, "clips/s")
        yield Row(part, f"{name}: model FLOPs utilization", found.mfu, "of the peak")
        yield Row(part, f"{name}: peak memory", found.peak_gib, "GiB")


def empty_cache() -> None:
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def measure_steps(chosen: Chosen) -> Iterator[Row]:
    cases = [(2, True, False), (2, False, False), (4, True, False), (4, False, False), (8, True, False),
             (16, True, False), (8, False, False), (16, False, False)]  # fmt: skip
    return step_rows("step", chosen, cases[:1] if chosen.tiny else cases)


def measure_channels_last(chosen: Chosen) -> Iterator[Row]:
    import torch

    def prepare(network) -> None:
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d):  # 3D convolutions have a format of their own
                module.to(memory_format=torch.channels_last)

    return step_rows("channels-last", chosen, [(2, True, False), (2, False, False)][int(chosen.tiny) :], prepare)


def measure_compiled(chosen: Chosen) -> Iterator[Row]:
    return step_rows("compile", chosen, [(2, False, not chosen.tiny)])  # on a CPU compiling alone takes minutes


def measure_fsdp(chosen: Chosen) -> Iterator[Row]:
    import torch
    import torch.distributed as dist

    from training.distributed import Ranks, distribute

    settings = chosen.settings("run.fsdp=true")
    with tempfile.TemporaryDirectory() as folder:
        backend = "nccl" if chosen.device == "cuda" else "gloo"
        dist.init_process_group(backend, init_method=f"file://{folder}/store", rank=0, world_size=1)
        try:
            ranks = Ranks(0, 1, torch.device(chosen.device))
            yield from step_rows("fsdp", chosen, [(2, True, False)], lambda net: distribute(net, ranks, settings.run))
        finally:
            dist.destroy_process_group()


def measure_loader(chosen: Chosen) -> Iterator[Row]:
    from itertools import islice

    from tests.training.numbered import write_shards
    from training.data import loader, open_data

    settings = chosen.settings()
    micro_batch, batches = (2, 2) if chosen.tiny else (4, 60)
    with tempfile.TemporaryDirectory() as folder:
        clips = [(f"source {i // 2}", 40 if chosen.tiny else 200) for i in range(4 if chosen.tiny else 64)]
        data = open_data(write_shards(Path(folder), clips), settings.data, settings.mask)
        counts = (0,) if chosen.tiny else (1, 4, min(os.cpu_count() or 1, 12))
        for workers in counts:
            found = loader(data, micro_batch, workers=workers)
            next(found)
            began = time.perf_counter()
            for batch in islice(found, batches):
                batch.to(chosen.device)
            seconds = time.perf_counter() - began
            yield Row(
                "loader",
                f"{workers} workers, pictures drawn up from 64 pixels",
                micro_batch * batches / seconds,
                "windows/s",
            )
            del found


def measure_generation(chosen: Chosen) -> Iterator[Row]:
    import torch

    from clock import FPS
    from training.chunk import average_segments
    from training.plan import CHUNK_FRAMES, Segments
    from training.sampler import euler, karras_sigmas
    from training.validation import autocast

    settings = chosen.settings()
    codec, network = chosen.models(settings)
    frames = 4 if chosen.tiny else CHUNK_FRAMES
    segments, how = Segments.of(settings.data.frames), settings.sampling
    small, device = settings.data.size // codec.factor, torch.device(chosen.device)
    shown = torch.randn(frames, 4, small, small, device=device)
    tokens = torch.randn(frames, 50, 384, device=device)
    reference = torch.randn(1, 4, settings.data.size, settings.data.size, device=device)
    sigmas = karras_sigmas(how.steps, how.sigma_min, how.sigma_max)
    for batch in (1,) if chosen.tiny else (1, 3, 6):
        seconds = []
        for _ in range(2):  # the first warms up
            synchronize()
            began = time.perf_counter()
            with torch.inference_mode(), autocast(device, settings.run.precision):
                residuals = network.id_guider(reference)
                denoise = average_segments(network, shown, tokens, residuals, segments, how.guidance, batch)
                codec.decode(euler(denoise, torch.randn_like(shown), sigmas))
            synchronize()
            seconds.append(time.perf_counter() - began)
        name = f"{how.steps} steps, guidance {how.guidance:g}, {batch} segments at once"
        yield Row("generation", name, seconds[-1] / (frames / FPS), "s for a second of video")


def synchronize() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def measure_curation(chosen: Chosen) -> Iterator[Row]:
    """What each network alone takes; decoding, landmarks and packing stay on the CPU and are not in it."""
    import torch

    sound_s, crops_per_s = 20.0, 5 / 8  # of a window of Whisper; pictures of HyperIQA for a second, clips of 8 s
    speeds = {
        "Whisper encoder": ("hours of sound an hour", sound_s, lambda: whisper_encoder(chosen.tiny), (1, 80, 3000)),
        "SyncNet, lips": ("hours of video an hour", 16 / 25, syncnet_lips, (16, 3, 5, 224, 224)),
        "HyperIQA": ("hours of clips an hour", 16 / crops_per_s, hyperiqa, (16, 3, 224, 224)),
    }
    for name, (unit, worth_s, build, shape) in speeds.items():
        try:
            network = build().to(chosen.device)
        except ModuleNotFoundError as error:
            yield Row("curation", name, None, skipped(error))
            continue
        count = 1 if chosen.tiny else shape[0]
        given = torch.rand(count, *shape[1:], device=chosen.device)
        runs = 1 if chosen.tiny else 20
        call = getattr(network, "forward_patch", network)
        with torch.inference_mode():
            call(given)
            synchronize()
            began = time.perf_counter()
            for _ in range(runs):
                call(given)
            synchronize()
        seconds = (time.perf_counter() - began) / runs
        yield Row("curation", name, worth_s * count / shape[0] / seconds, unit)


def hyperiqa():
    from models.hyperiqa import build_network

    return build_network().eval()


PARTS: dict[str, Callable[[Chosen], Iterator[Row]]] = {  # most important first
    "parity": measure_parity,
    "precision": measure_precision,
    "step": measure_steps,
    "generation": measure_generation,
    "loader": measure_loader,
    "channels-last": measure_channels_last,
    "fsdp": measure_fsdp,
    "compile": measure_compiled,
    "curation": measure_curation,
}


def skipped(error: ModuleNotFoundError) -> str:
    return f"skipped: no module {error.name}"


def run_part(name: str, chosen: Chosen, keep: Callable[[list[Row]], object], until: float) -> list[Row]:
    """Rows of one part in this process, given to `keep` after each; what goes wrong is a row, too."""
    rows: list[Row] = []
    try:
        for row in PARTS[name](chosen):
            rows.append(row)
            keep(rows)
            if time.monotonic() > until:
                rows.append(Row(name, "what is left", None, "skipped: no time left"))
                break
    except ModuleNotFoundError as error:
        rows.append(Row(name, "", None, skipped(error)))
    except Exception as error:  # a part that fails must not end the others
        log.exception("%s failed", name)
        rows.append(Row(name, "", None, f"failed: {type(error).__name__}: {str(error).splitlines()[:1]}"))
    keep(rows)
    return rows


def run_apart(name: str, options: argparse.Namespace, seconds: float) -> list[Row]:
    """Rows of one part in a process of its own, which has so many seconds; those it wrote before it ended count."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.json"
        command = [sys.executable, "-m", "benchmarks.gpu", "--device", options.device, "--part", name]
        command += ["--json", str(file), "--minutes", str(seconds / 60), *(["--tiny"] if options.tiny else [])]
        try:
            code = subprocess.run(command, cwd=ROOT, timeout=seconds, check=False).returncode  # noqa: S603
            ended = [] if code == 0 else [Row(name, "what is left", None, f"failed: the process ended with {code}")]
        except subprocess.TimeoutExpired:
            ended = [Row(name, "what is left", None, f"stopped after {seconds:.0f} s")]
        return [*(read_rows(file) if file.is_file() else []), *ended]


def read_rows(file: Path) -> list[Row]:
    return [Row(**row) for row in json.loads(file.read_text(encoding="utf-8"))["rows"]]


def write_rows(file: Path, options: argparse.Namespace, rows: Sequence[Row]) -> None:
    """Write all rows so far, whole or not at all."""
    from storage.atomic_write import atomic_write

    found = {"device": options.device, "tiny": options.tiny, "about": about(), "rows": [asdict(row) for row in rows]}
    with atomic_write(file) as written:
        written.write(json.dumps(found, indent=1).encode())


def about() -> dict[str, str]:
    """Versions and the card's name; torch is not imported for it."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in ("torch", "diffusers", "numpy", "av"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def show(rows: Sequence[Row]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("part", "what", "value", "unit")
    for row in rows:
        table.add_row(row.part, row.what, "" if row.value is None else f"{row.value:.4g}", row.unit)
    Console(width=140).print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    if options.wheels:
        print(*(f"{name:<28}{size:6.1f} MB" for name, size in WHEELS), sep="\n")
        return 0
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    until = time.monotonic() + 60 * options.minutes
    chosen = Chosen(options.device, options.tiny)
    if options.part:
        run_part(options.part, chosen, lambda rows: write_rows(options.json, options, rows), until)
        return 0
    rows: list[Row] = []
    for name in PARTS:
        left = until - time.monotonic()
        print(f"{name}, {left:.0f} s left", file=sys.stderr)
        if left < LEAST_S:
            rows.append(Row(name, "", None, "skipped: no time left"))
        elif options.tiny:
            rows += run_part(name, chosen, lambda found: None, until)
        else:
            rows += run_apart(name, options, min(left, PART_S))
        write_rows(options.json, options, rows)
    show(rows)
    return 1 if any(row.unit.startswith("failed") for row in rows) else 0


def parser() -> argparse.ArgumentParser:
    found = parser_of("python -m benchmarks.gpu", __doc__)
    found.add_argument("--minutes", type=float, default=8.0, help="for all parts together (default: %(default)s)")
    found.add_argument("--json", type=Path, default=Path("gpu.json"), help="what is written (default: %(default)s)")
    found.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    found.add_argument("--tiny", action="store_true", help="small networks, all parts in this process: a trial run")
    found.add_argument("--wheels", action="store_true", help="list the wheels to carry to a machine with torch; stop")
    found.add_argument("--part", choices=tuple(PARTS), help="only this one, in this process")
    return found


if __name__ == "__main__":
    raise SystemExit(main())
