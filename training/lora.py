"""Low-rank adapters (Hu et al., 2022) on the projections of every attention, the audio's among them; by peft.

Off the paper, for one new speaker: only the adapters are trained, so AdamW and the EMA hold a few per cent of the
network. A run's checkpoints hold the adapters apart; its export has them added to the weights, so that whoever loads it
needs neither peft nor this file.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from training.network import SayAnything

PROJECTIONS = r".*\.attn[12]\.(to_q|to_k|to_v|to_out\.0)"
BASE, DOWN, UP = ".base_layer.", ".lora_A.default.", ".lora_B.default."  # peft's names


def add_lora(network: SayAnything, rank: int, seed: int) -> None:
    """Freeze the network and put adapters of this rank beside its attention's projections, in place.

    They begin at zero: nothing is changed yet. Raises ValueError if peft is not there.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ValueError("model.lora_rank is above 0 and the package is missing: pip install peft") from error
    network.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=PROJECTIONS), network.unet)


def trained_parameters(network: SayAnything) -> dict[str, nn.Parameter]:
    """Return what an optimizer is given, by name: the adapters if there are any, else all parameters."""
    named = dict(network.named_parameters())
    adapters = {name: parameter for name, parameter in named.items() if DOWN in name or UP in name}
    return adapters or named


def merge(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights under their plain names, each with its adapter added: W + B A."""
    plain = {name.replace(BASE, "."): value for name, value in weights.items() if DOWN not in name and UP not in name}
    for name, down in weights.items():
        if DOWN in name:
            plain[name.replace(DOWN, ".")] = plain[name.replace(DOWN, ".")] + weights[name.replace(DOWN, UP)] @ down
    return plain
