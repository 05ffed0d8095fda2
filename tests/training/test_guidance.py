"""A scale for each condition: which passes it takes, and that nothing is heard at an audio scale of 0."""

import pytest
import torch
from torch import Tensor

from tests.training.toys import make_base, make_conditions, make_latents, make_network
from training.guidance import Term, terms
from training.network import SayAnything
from training.sampler import euler, guide, karras_sigmas

Z, SIGMA = 5 * make_latents(), 3.0


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> SayAnything:
    return make_network(make_base(tmp_path_factory.mktemp("base") / "svd"))


@torch.no_grad()
def conditions_of(network: SayAnything, seed: int = 0) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The masked video of seed 0 with the sound of another seed, and the identity of seed 0."""
    own, other = make_conditions(), make_conditions(seed=seed)
    return own.concatenated, network.encode(other)[0], network.encode(own)[1]


@torch.no_grad()
def answer(network: SayAnything, guidance: float, audio: float | None, seed: int = 0) -> Tensor:
    return guide(network, *conditions_of(network, seed), guidance, audio)(Z, SIGMA)


@torch.no_grad()
def plain(network: SayAnything, audio: bool, identity: bool) -> Tensor:
    """One pass with some conditions at zero, as training drops them."""
    shown, tokens, residuals = conditions_of(network)
    return guide(network, shown, tokens * audio, [r * identity for r in residuals], 1.0)(Z, SIGMA)


@pytest.mark.parametrize(
    ("identity", "audio"), [(3.0, 3.0), (1.0, 1.0), (1.5, 4.0), (4.0, 1.0), (2.0, 0.5), (0.0, 2.0)]
)
def test_every_pass_was_trained_and_their_shares_sum_to_one(identity: float, audio: float):
    found = terms(identity, audio)
    assert sum(term.weight for term in found) == pytest.approx(1.0)
    assert all(term.audio or not term.identity for term in found), "section 3.5: without the sound no identity"


def test_what_cancels_takes_no_pass():
    assert terms(3.0, 3.0) == [Term(False, False, -2.0), Term(True, True, 3.0)], "appendix B's two"
    assert terms(1.0, 1.0) == [Term(True, True, 1.0)]
    assert terms(4.0, 1.0) == [Term(True, False, -3.0), Term(True, True, 4.0)]
    assert len(terms(2.0, 3.0)) == 3


def test_the_answer_is_the_sum_of_the_three(network: SayAnything):
    nothing, sound, both = (plain(network, *kept) for kept in ((False, False), (True, False), (True, True)))
    expected = nothing + 4.0 * (sound - nothing) + 1.5 * (both - sound)
    torch.testing.assert_close(answer(network, 1.5, 4.0), expected, rtol=1e-4, atol=1e-4)
    assert min((nothing - sound).abs().max(), (sound - both).abs().max()) > 1e-3, "each of them does something"


def test_equal_scales_are_the_single_scale(network: SayAnything):
    single = answer(network, 3.0, None)
    assert torch.equal(answer(network, 3.0, 3.0), single)
    torch.testing.assert_close(answer(network, 3.0, 3.0 + 1e-6), single, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_at_an_audio_scale_of_0_two_sounds_give_equal_latents(network: SayAnything):
    def generated(audio: float, seed: int) -> Tensor:
        denoise = guide(network, *conditions_of(network, seed), 2.0, audio)
        return euler(denoise, make_latents(), karras_sigmas(3))

    assert torch.equal(generated(0.0, seed=1), generated(0.0, seed=2))
    assert not torch.equal(generated(0.5, seed=1), generated(0.5, seed=2))
