"""Guidance with a scale for each condition: how far generation goes towards the sound, and how far towards the person.

    D = D(nothing) + audio (D(sound) - D(nothing)) + identity (D(sound, identity) - D(sound))

The masked video is in all of them. The order is that of training (section 3.5): there the identity goes with the sound
and alone, the sound never alone, so that these three were trained and D(identity) never was. With equal scales D(sound)
cancels, and the rest is appendix B's guidance. At `audio` 0 the network hears nothing at all: of what was trained only
D(nothing) does without the sound, so that the identity goes, too. (Small scales do not come near that: the identity's
term is taken with the sound.) Off the paper, which has one scale.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.denoiser import Denoiser
from training.network import SayAnything


@dataclass(frozen=True)
class Term:
    """One forward pass: its conditions beside the masked video, and its share of the answer."""

    audio: bool
    identity: bool
    weight: float


def terms(identity: float, audio: float) -> list[Term]:
    """Return the passes that guidance with these scales takes, one to three; their weights sum to 1."""
    if audio == 0:
        return [Term(False, False, 1.0)]
    found = [Term(False, False, 1 - audio), Term(True, False, audio - identity), Term(True, True, identity)]
    return [term for term in found if term.weight]


def ask(
    network: SayAnything,
    concatenated: Tensor,
    tokens: Tensor,
    residuals: list[Tensor],
    kept: Sequence[tuple[bool, bool]],
) -> Callable[[Tensor, float], tuple[Tensor, ...]]:
    """Return what denoises a batch of segments [B, F, 4, h, w] once for each of `kept`, all as one batch.

    Each says whether the sound and the identity are kept; what is not is zero, as training drops it.
    """

    def stack(x: Tensor, keeps: Sequence[bool]) -> Tensor:
        return torch.cat([x if keep else torch.zeros_like(x) for keep in keeps])

    sound, identity = zip(*kept, strict=True)
    tokens, residuals = stack(tokens, sound), [stack(residual, identity) for residual in residuals]
    shown = torch.cat([concatenated] * len(kept))

    def network_at(scaled: Tensor, c_noise: Tensor) -> Tensor:
        return network.denoise(scaled.to(shown.dtype), c_noise, shown, tokens, residuals)

    denoiser = Denoiser(network_at)

    def answer(z: Tensor, sigma: float) -> tuple[Tensor, ...]:
        noisy = torch.cat([z] * len(kept))
        level = torch.full((len(noisy),), sigma, device=z.device, dtype=torch.float32)
        return denoiser(noisy, level).chunk(len(kept))

    return answer


def guide_apart(
    network: SayAnything, concatenated: Tensor, tokens: Tensor, residuals: list[Tensor], identity: float, audio: float
) -> Callable[[Tensor, float], Tensor]:
    """Return the denoiser of a batch of segments [B, F, 4, h, w] with two scales."""
    chosen = terms(identity, audio)
    answer = ask(network, concatenated, tokens, residuals, [(term.audio, term.identity) for term in chosen])

    def denoise(z: Tensor, sigma: float) -> Tensor:
        answers = answer(z, sigma)
        return sum((term.weight * D for term, D in zip(chosen, answers, strict=True)), torch.zeros_like(answers[0]))

    return denoise
