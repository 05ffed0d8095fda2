"""A run's state on disk: saved whole or not at all, found again, and exported for generation.

    RUN/checkpoints/step-00001000/    torch.distributed.checkpoint: parameters, AdamW, EMA, counters, random state
    RUN/export/                       the averaged weights as diffusers models (safetensors), for generate.py
    training/speaker/                 where an export that comes with the code lies (ship.py); `--checkpoint speaker`

torch.distributed.checkpoint keeps its table of contents, and numbers that are no tensors, as pickles. They are read
only if they name nothing but the classes of such a table: a folder that somebody else gave cannot run his code.
"""

import hashlib
import io
import pickle
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
import torch.distributed as dist
import yaml
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import ReadItem
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save, save
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from training.distributed import Ranks
from training.latents import LatentCodec
from training.linear_codec import LinearCodec
from training.lora import merge
from training.network import SayAnything
from training.settings import SHIPPED

TEMPORARY = ".tmp-"
SETTINGS = "settings.yaml"  # of a run and of its export: what decides the result
NetworkT = TypeVar("NetworkT", bound=nn.Module)


@dataclass
class State(Generic[NetworkT]):
    """All that a resumed run needs. `samples` is the state of the loader."""

    network: NetworkT
    optimizer: torch.optim.Optimizer
    ema: dict[str, Tensor]  # EMA of the parameters that are trained, by name
    step: int = 0
    samples: int = 0
    skipped: int = 0  # steps whose gradients were not finite
    replaced: int = 0  # samples that could not be read
    counters: tuple[str, ...] = field(default=("step", "samples", "skipped", "replaced"), repr=False)

    def as_dict(self) -> dict[str, Any]:
        return {
            "network": get_model_state_dict(self.network),
            "optimizer": get_optimizer_state_dict(self.network, self.optimizer),
            "averaged": self.ema,
            "counters": {name: torch.tensor(getattr(self, name)) for name in self.counters},
            "random": torch.get_rng_state(),
        }

    @contextmanager
    def ema_weights(self) -> Iterator[None]:
        """Exchange the network's weights for their averages inside a `with` block; afterwards all are as before."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def update_ema(self, decay: float) -> None:
        """Take the parameters into their averages; early on over fewer steps, so that these forget the start."""
        decay = min(decay, (1 + self.step) / (10 + self.step))
        parameters = dict(self.network.named_parameters())
        names = list(self.ema)
        torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage]
            [self.ema[n] for n in names], [parameters[n].data for n in names], 1 - decay
        )

    @torch.no_grad()
    def _exchange(self) -> None:
        """Content, not storage: FSDP2 and gradient buckets hold on to the tensors."""
        for module in self.network.modules():
            if isinstance(module, FSDPModule):
                module.reshard()  # after a forward pass its parameters are whole, and the averages are shards
        parameters = dict(self.network.named_parameters())
        for name, average in self.ema.items():
            current = parameters[name].detach().clone()
            parameters[name].copy_(average)
            average.copy_(current)

    def restore(self, found: dict[str, Any]) -> None:
        set_model_state_dict(self.network, found["network"])
        set_optimizer_state_dict(self.network, self.optimizer, found["optimizer"])
        for name, value in found["averaged"].items():
            self.ema[name].copy_(value)
        for name in self.counters:
            setattr(self, name, int(found["counters"][name]))
        torch.set_rng_state(found["random"])


class Checkpoints:
    """The checkpoints of one run. Writing may go on beside training; `finish` waits for it."""

    def __init__(self, run: Path, keep: int, ranks: Ranks, beside_training: bool | None = None) -> None:
        """`beside_training`: whether writing goes on while training does; None: on CUDA."""
        self.folder, self.keep, self.ranks = run / "checkpoints", keep, ranks
        beside = ranks.device.type == "cuda" if beside_training is None else beside_training
        # a group of its own: a thread writes, and must not meet the barriers of training
        self._group = dist.new_group(backend="gloo") if beside and ranks.world > 1 else None
        self._writing: tuple[Path, Any] | None = None

    def save(self, state: State) -> None:
        """Begin to save; on CUDA the copy to disk goes on beside the next steps."""
        self.finish()
        target = self.folder / f"step-{state.step:08d}"
        if target.exists():
            return
        temporary = target.with_name(TEMPORARY + target.name)
        if self.ranks.first:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.parent.mkdir(parents=True, exist_ok=True)
        self.ranks.wait()
        content = state.as_dict()
        if self._group is not None:
            found = async_save(content, checkpoint_id=temporary, process_group=self._group)  # pyright: ignore
            self._writing = (target, found)
            return
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            save(content, checkpoint_id=temporary, no_dist=self.ranks.world == 1)
        self._writing = (target, None)
        self.finish()

    def finish(self) -> None:
        """Wait for what is being written, give it its name and remove what is too old."""
        if self._writing is None:
            return
        target, future = self._writing
        self._writing = None
        if future is not None:
            future.result()
        self.ranks.wait()
        if self.ranks.first:
            target.with_name(TEMPORARY + target.name).rename(target)
            for old in self.list_whole()[: -self.keep]:
                shutil.rmtree(old)
        self.ranks.wait()

    def list_whole(self) -> list[Path]:
        """Return the checkpoints that are complete, oldest first."""
        return sorted(path for path in self.folder.glob("step-*") if re.fullmatch(r"step-\d{8,}", path.name))

    def load_newest(self, state: State) -> bool:
        """Restore the newest checkpoint into `state`; False if there is none."""
        self.ranks.wait()
        found = self.list_whole()
        if not found:
            return False
        content = state.as_dict()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            reader, alone = PlainReader(found[-1]), self.ranks.world == 1
            try:
                load(content, storage_reader=reader, planner=PlainPlanner(), no_dist=alone)
            except CheckpointException as error:  # no Exception, so nobody above would take it for one
                whys = "; ".join(str(why) for why, _ in error.failures.values())
                raise ValueError(f"{found[-1]}: cannot be resumed: {whys}") from error
        state.restore(content)
        return True


class ContentsOnly(pickle.Unpickler):
    """Refuses whatever the table of contents of a checkpoint has no need of: a pickle may otherwise call anything."""

    MODULES = {
        "torch.distributed.checkpoint.metadata": ("Metadata", "MetadataIndex", "StorageMeta", "TensorProperties",
            "TensorStorageMetadata", "BytesStorageMetadata", "ChunkStorageMetadata", "_MEM_FORMAT_ENCODING"),
        "torch.distributed.checkpoint.filesystem": ("_StorageInfo", "_StoragePrefix"),
        "torch.serialization": ("_get_layout",),
        "torch": ("Size",),
        "pathlib": ("PosixPath", "PurePosixPath", "Path"),
    }  # fmt: skip

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if global_name in self.MODULES.get(module_name, ()):
            return super().find_class(module_name, global_name)
        found = getattr(torch, global_name, None) if module_name == "torch" else None
        if isinstance(found, torch.dtype):
            return found
        raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}")


class PlainReader(FileSystemReader):
    """Reads a checkpoint whose table of contents is nothing but that. Raises ValueError if it is more."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        path = Path(self.path) / ".metadata"
        try:
            with path.open("rb") as file:
                ContentsOnly(file).load()
        except (pickle.UnpicklingError, EOFError, AttributeError, TypeError) as error:
            raise ValueError(f"{path}: not the contents of a checkpoint ({error}); nothing of it was run") from error
        return super().read_metadata(*args, **kwargs)


class PlainPlanner(DefaultLoadPlanner):
    """Takes numbers, texts and lists for what is no tensor, and no object of any other class."""

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        torch.load(value, weights_only=True)  # raises UnpicklingError for anything else
        value.seek(0)
        super().load_bytes(read_item, value)


def export(
    network: SayAnything, weights: dict[str, Tensor], codec: LatentCodec, folder: Path, ranks: Ranks, settings: dict
) -> None:
    """Write the three parts with other weights than their own (the EMA) to `folder`, atomically; a meeting point.

    Adapters are added to what they adapt. `settings.yaml` beside them says what `generate` must do as training did. A
    linear codec is written too (`vae/`): it was fitted to the data. SVD's VAE stays where it is.
    """
    averaged = {**dict(network.named_parameters()), **weights}
    whole = merge({name: full(value.detach()).cpu() for name, value in averaged.items()})
    if ranks.first:
        temporary, old = folder.with_name(TEMPORARY + folder.name), folder.with_name(".old-" + folder.name)
        for path in (temporary, old):
            shutil.rmtree(path, ignore_errors=True)
        with torch.device("meta"):
            other = SayAnything.from_configs(
                *(part.config for part in (network.unet, network.id_guider, network.audio))
            )
        other.load_state_dict(whole, assign=True)
        other.save(temporary)
        if isinstance(codec.vae, LinearCodec):
            codec.vae.save_pretrained(temporary / "vae")
        (temporary / SETTINGS).write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
        if folder.exists():
            folder.rename(old)
        temporary.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    ranks.wait()


def export_of(checkpoint: Path) -> Path:
    """Return the exported model of a run, the folder itself, or what comes with the code under this name ("speaker").

    Raises ValueError if it is none of these.
    """
    if not checkpoint.exists():
        checkpoint = SHIPPED.get(str(checkpoint), checkpoint)
    folder = checkpoint / "export" if (checkpoint / "export").is_dir() else checkpoint
    if not (folder / SETTINGS).is_file():
        raise ValueError(f"{checkpoint}: neither a training run nor an exported model ({SETTINGS} is missing)")
    return folder


def codec_folder(export: Path, base: str | Path) -> Path:
    """Return where the codec of an exported model lies: `vae/` in the export if it has one, else in the base."""
    return export if (export / "vae" / "config.json").is_file() else Path(base)


def sha256_of(checkpoint: Path) -> str:
    """Of the exported weights, all parts together."""
    digest = hashlib.sha256()
    for file in sorted(export_of(checkpoint).rglob("*.safetensors")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def full(value: Tensor) -> Tensor:
    """A tensor whole on this process, where FSDP2 has cut it over all."""
    return value.full_tensor() if isinstance(value, DTensor) else value
