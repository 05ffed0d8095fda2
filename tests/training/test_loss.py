"""A batch to its loss: noise from each clip's own seed, conditions dropped by its own draws, equation 5."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.mask import MaskSettings
from tests.training.numbered import SIDE
from training.batch import Batch
from training.data import loader, open_data
from training.denoiser import Scalings, velocity
from training.latents import LatentCodec
from training.linear_codec import LinearCodec
from training.loss import DiffusionInputs, diffusion_loss, prepare_inputs
from training.network import Conditions
from training.settings import DataSettings, NoiseSettings


@pytest.fixture
def batch(shards: Path) -> Batch:
    return next(iter(loader(open_data(shards, DataSettings(frames=4, size=SIDE, workers=0), MaskSettings()), 3)))


@pytest.fixture
def codec() -> LatentCodec:
    torch.manual_seed(0)
    return LatentCodec(LinearCodec(factor=4))


def inputs_of(batch: Batch, codec: LatentCodec, keep: bool = False, **noise: float) -> DiffusionInputs:
    return prepare_inputs(batch, codec, NoiseSettings(**noise), "paper", mask_conditions=not keep)  # pyright: ignore


class Perfect(torch.nn.Module):
    """Gives the velocity that equation 5 compares with, and checks what it is given."""

    def __init__(self, inputs: DiffusionInputs) -> None:
        super().__init__()
        self.inputs = inputs

    def forward(self, scaled: torch.Tensor, c_noise: torch.Tensor, conditions: Conditions) -> torch.Tensor:
        inputs, s = self.inputs, Scalings.of(self.inputs.sigma)
        assert conditions is inputs.conditions and torch.equal(c_noise, s.c_noise)
        assert torch.equal(scaled, s.c_in * (inputs.z0 + inputs.sigma.view(-1, 1, 1, 1, 1) * inputs.n))
        return velocity(inputs.z0, inputs.n, inputs.sigma)


def test_a_perfect_network_has_no_loss_and_any_other_has(batch: Batch, codec: LatentCodec) -> None:
    inputs = inputs_of(batch, codec)
    perfect = Perfect(inputs)
    assert diffusion_loss(perfect, inputs).tolist() == [0, 0, 0]
    silent = torch.nn.Module()
    silent.forward = lambda scaled, c_noise, conditions: torch.zeros_like(scaled)  # pyright: ignore
    found = diffusion_loss(silent, inputs)
    torch.testing.assert_close(found, velocity(inputs.z0, inputs.n, inputs.sigma).square().mean(dim=(1, 2, 3, 4)))
    assert (found > 0.1).all()


def test_errors_outside_the_mask_weigh_what_the_setting_says(batch: Batch, codec: LatentCodec) -> None:
    inputs = inputs_of(batch, codec)
    assert 0 < inputs.mask.mean() < 1 and set(inputs.mask.unique().tolist()) == {0.0, 1.0}

    def off(where: torch.Tensor) -> torch.nn.Module:
        """A network that is perfect but for an error of 1 in these latents."""
        perfect = Perfect(inputs)
        wrong = torch.nn.Module()
        wrong.forward = lambda *given: perfect(*given) + where  # pyright: ignore
        return wrong

    outside = diffusion_loss(off(1 - inputs.mask), inputs, 0.0)
    inside = diffusion_loss(off(inputs.mask), inputs, 0.0)
    assert outside.tolist() == [0, 0, 0]
    torch.testing.assert_close(inside, torch.ones(3))
    assert (diffusion_loss(off(1 - inputs.mask), inputs, 0.1) > 0).all()


def test_a_clip_has_its_noise_whatever_it_shares_a_batch_with(batch: Batch, codec: LatentCodec) -> None:
    whole = inputs_of(batch, codec)
    order = torch.tensor([2, 0])
    tensors = {name: value[order] for name, value in vars(batch).items() if isinstance(value, torch.Tensor)}
    part = inputs_of(replace(batch, **tensors, keys=tuple(batch.keys[i] for i in order.tolist())), codec)
    for name in ("n", "sigma", "z0"):
        assert torch.equal(getattr(part, name), getattr(whole, name)[order]), name
    assert not torch.equal(whole.n[0], whole.n[1])


def test_conditions_are_dropped_at_the_rates_and_never_in_validation(batch: Batch, codec: LatentCodec) -> None:
    def kept(**given: float | bool) -> list[list[float]]:
        conditions = inputs_of(batch, codec, **given).conditions  # pyright: ignore[reportArgumentType]
        return [conditions.keep_audio.tolist(), conditions.keep_identity.tolist()]

    assert kept(drop_audio=1.0, drop_identity=0.0) == [[0, 0, 0], [0, 0, 0]], "no audio, no identity"
    assert kept(drop_audio=0.0, drop_identity=1.0) == [[1, 1, 1], [0, 0, 0]]
    assert kept(drop_audio=1.0, drop_identity=1.0, keep=True) == [[1, 1, 1], [1, 1, 1]]
