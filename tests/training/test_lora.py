"""Adapters: what they train, that they resume, and that an export needs none of them."""

from pathlib import Path

import pytest
import torch

from tests.training.toys import make_base, make_conditions, make_latents, make_network
from training.lora import DOWN, UP, add_lora, merge, trained_parameters
from training.network import SayAnything

pytest.importorskip("peft")
RANK = 4


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base") / "svd")


def answer(network: SayAnything) -> torch.Tensor:
    with torch.no_grad():
        return network(make_latents(1), torch.tensor([0.3]), make_conditions(1))


def train_a_little(network: SayAnything, steps: int = 2) -> None:
    optimizer = torch.optim.AdamW(trained_parameters(network).values(), lr=1e-2)
    for _ in range(steps):
        network(make_latents(1), torch.tensor([0.3]), make_conditions(1)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def test_a_step_changes_adapters_and_nothing_else(base: Path) -> None:
    network = make_network(base)
    untouched = answer(network)
    add_lora(network, RANK, seed=0)
    assert torch.equal(answer(network), untouched)
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    train_a_little(network)
    moved = {name for name, value in network.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if DOWN in name or UP in name} == {*trained_parameters(network)}
    assert any(".attn2.to_k" in name for name in moved)  # where the audio comes in
    assert sum(before[name].numel() for name in moved) < 0.1 * sum(value.numel() for value in before.values())
    assert not torch.allclose(answer(network), untouched)


def test_merged_weights_answer_as_the_adapters_do(base: Path) -> None:
    network = make_network(base)
    add_lora(network, RANK, seed=0)
    train_a_little(network)
    plain = make_network(base)
    plain.load_state_dict(merge(network.state_dict()))
    wanted = answer(network)
    assert (answer(plain) - wanted).norm() <= 1e-6 * wanted.norm()
    assert (answer(make_network(base)) - wanted).norm() > 1e-3 * wanted.norm()  # what was learned is large beside it


def test_without_adapters_all_is_trained_and_nothing_merged(base: Path) -> None:
    network = make_network(base)
    assert [*trained_parameters(network)] == [name for name, _ in network.named_parameters()]
    weights = network.state_dict()
    assert merge(weights) == weights


def test_every_rank_draws_the_same_adapters_and_no_other_number_moves(base: Path) -> None:
    torch.manual_seed(5)
    following = torch.randn(3)
    drawn = []
    for _ in range(2):
        network = make_network(base)
        torch.manual_seed(5)
        add_lora(network, RANK, seed=1)
        assert torch.equal(torch.randn(3), following)
        drawn.append({name: value.detach() for name, value in trained_parameters(network).items()})
    assert all(torch.equal(drawn[0][name], drawn[1][name]) for name in drawn[0])
