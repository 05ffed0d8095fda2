"""The processes of a torchrun: who this one is, sums over all, and how the network is spread over them.

Without torchrun there is one process and no process group.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from training.network import SayAnything
from training.settings import RunSettings


@dataclass(frozen=True)
class Ranks:
    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0

    def sum(self, *values: float) -> list[float]:
        """Each value summed over all processes; a meeting point."""
        if self.world == 1:
            return list(values)
        found = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(found)
        return found.tolist()

    def wait(self) -> None:
        if self.world > 1:
            dist.barrier()


@contextmanager
def join_ranks(device: str, patience: timedelta | None = None) -> Iterator[Ranks]:
    """This process among those of its torchrun, which wait so long for each other (None: as torch does).

    Raises ValueError if `device` is not there.
    """
    rank, world, local = (
        int(os.environ.get(name, default))
        for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
    )
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("run.device is cuda and torch sees no CUDA device; --set run.device=cpu, or mend the driver")
    place = torch.device(device, local) if device == "cuda" else torch.device(device)
    if device == "cuda":
        torch.cuda.set_device(place)
    if world > 1:  # gloo beside nccl: checkpoints are gathered on the CPU while training goes on
        dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", timeout=patience)
    try:
        yield Ranks(rank, world, place)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def distribute(network: SayAnything, ranks: Ranks, settings: RunSettings) -> nn.Module:
    """The network to train with: itself, in DDP, or sharded by FSDP2 in place."""
    if settings.fsdp:
        _shard(network, settings)
        return network
    if ranks.world == 1:
        return network
    wrapped = DistributedDataParallel(
        network, device_ids=[ranks.device] if ranks.device.type == "cuda" else None, gradient_as_bucket_view=True
    )
    if settings.bf16_gradients:
        wrapped.register_comm_hook(None, default_hooks.bf16_compress_hook)
    return wrapped


def _shard(network: SayAnything, settings: RunSettings) -> None:
    """FSDP2 by block. Each of the three parts is a root of its own: sampling calls them one by one."""
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")  # nothing writes into it
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if settings.precision == "bf16" else None,
        reduce_dtype=torch.bfloat16 if settings.bf16_gradients else torch.float32,
    )
    for block in [*network.unet.down_blocks, network.unet.mid_block, *network.unet.up_blocks]:
        for part in [*block.resnets, *getattr(block, "attentions", [])]:
            fully_shard(part, mp_policy=policy)
    for part in (network.unet, network.id_guider, network.audio):
        fully_shard(part, mp_policy=policy)
