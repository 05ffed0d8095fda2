import pytest
import torch
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler

from training import denoiser
from training.denoiser import Denoiser, Scalings

SIGMA = torch.tensor([0.02, 0.5, 3.0, 200.0])


def drawn(seed: int) -> torch.Tensor:
    return torch.randn(4, 2, 4, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def answering(F: torch.Tensor) -> Denoiser:
    """A denoiser around a network that gives F whatever it sees."""
    return Denoiser(lambda scaled, c_noise: F)


def test_the_network_sees_what_equation_2_scales_and_the_conditions():
    seen = []

    def network(scaled: torch.Tensor, c_noise: torch.Tensor, *conditions: object) -> torch.Tensor:
        seen.append((scaled, c_noise, conditions))
        return torch.ones_like(scaled)

    z, sigma, n = drawn(1), SIGMA.double(), drawn(2)
    s, noisy = Scalings.of(sigma), z + sigma.view(-1, 1, 1, 1, 1) * n
    found = Denoiser(network)(noisy, sigma, "audio", 1)
    Denoiser(network).loss(z, n, sigma, "audio", 1)
    assert torch.equal(found, s.c_skip * noisy + s.c_out)
    for scaled, c_noise, conditions in seen:
        assert torch.equal(scaled, s.c_in * noisy) and torch.equal(c_noise, s.c_noise)
        assert conditions == ("audio", 1)


def test_scalings_at_sigma_2_by_hand():
    s = Scalings.of(torch.tensor([2.0]))
    assert s.c_skip.item() == pytest.approx(1 / 5)
    assert s.c_out.item() == pytest.approx(-2 / 5**0.5)
    assert s.c_in.item() == pytest.approx(1 / 5**0.5)
    assert s.c_noise.item() == pytest.approx(0.25 * 0.6931472)


def test_the_v_form_is_lambda_times_the_denoising_score_matching_loss():
    F, z0, n, sigma = drawn(0), drawn(1), drawn(2), SIGMA.double()
    z = z0 + sigma.view(-1, 1, 1, 1, 1) * n
    D = answering(F)(z, sigma)
    lambda_sigma = (1 + sigma**2) / sigma**2
    wanted = lambda_sigma * (D - z0).square().mean(dim=(1, 2, 3, 4))  # equation 5
    found = (F - denoiser.velocity(z0, n, sigma)).square().mean(dim=(1, 2, 3, 4))
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(answering(F).loss(z0, n, sigma), wanted, rtol=1e-5, atol=0)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers on numpy 2
def test_the_denoiser_is_that_of_diffusers_euler_scheduler():
    scheduler = EulerDiscreteScheduler(
        prediction_type="v_prediction",
        timestep_type="continuous",
        use_karras_sigmas=True,
        sigma_min=0.002,
        sigma_max=700.0,
    )
    scheduler.set_timesteps(15)
    for i in (0, 7, 13):
        sigma = scheduler.sigmas[i]
        z, F = drawn(3).float() * sigma, drawn(4).float()
        scheduler._step_index = i
        scaled = scheduler.scale_model_input(z, scheduler.timesteps[i])
        theirs = scheduler.step(F, scheduler.timesteps[i], z, return_dict=False)[1]
        torch.testing.assert_close(answering(F)(z, sigma.expand(4)), theirs, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(Scalings.of(sigma.expand(4)).c_in * z, scaled, rtol=1e-5, atol=1e-6)
        assert scheduler.timesteps[i] == pytest.approx(0.25 * float(sigma.log()), rel=1e-4)


def test_a_perfect_network_finds_the_clean_latents():
    z0, n, sigma = drawn(5), drawn(6), SIGMA.double()
    z = z0 + sigma.view(-1, 1, 1, 1, 1) * n
    torch.testing.assert_close(answering(denoiser.velocity(z0, n, sigma))(z, sigma), z0)


def test_sigma_is_log_normal():
    sigma = denoiser.draw_sigma(torch.randn(200_000, generator=torch.Generator().manual_seed(0)), 0.7, 1.6)
    assert sigma.median().item() == pytest.approx(2.01, rel=0.02)  # e^0.7
    assert (sigma > 80).float().mean().item() == pytest.approx(0.0107, abs=0.001)


def test_masked_audio_always_masks_the_identity_at_the_papers_rates():
    uniform = torch.rand(200_000, 2, generator=torch.Generator().manual_seed(0))
    audio, identity = denoiser.draw_masks(uniform, 0.05, 0.15)
    assert 1 - audio.mean().item() == pytest.approx(0.05, abs=0.002)
    assert 1 - identity.mean().item() == pytest.approx(0.1925, abs=0.003)  # 0.05 + 0.95 * 0.15
    assert not identity[audio == 0].any()
    assert set(audio.unique().tolist()) == {0.0, 1.0}
    assert all(keep.all() for keep in denoiser.draw_masks(uniform, 0.0, 0.0))


def test_a_clips_noise_depends_on_its_seed_alone():
    first, again, other = (denoiser.draw_noise(seed, (2, 3)) for seed in (7, 7, 8))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert not torch.equal(first[0], first[1])


def test_errors_outside_the_mask_count_by_their_weight():
    F, z0, n = torch.zeros(1, 1, 2, 1, 2), torch.zeros(1, 1, 2, 1, 2), torch.zeros(1, 1, 2, 1, 2)
    n[..., 0], n[..., 1] = 2.0, 4.0  # with sigma tiny the velocity is n: squared errors 4 inside and 16 outside
    sigma, inside = torch.tensor([1e-6]), torch.tensor([1.0, 0.0]).view(1, 1, 1, 1, 2)

    def loss(outside: float) -> float:
        return answering(F).loss(z0, n, sigma, weight=inside + outside * (1 - inside)).item()

    assert loss(0.0) == pytest.approx(4)
    assert loss(1.0) == pytest.approx(10) == answering(F).loss(z0, n, sigma).item()
    assert loss(0.1) == pytest.approx((4 + 1.6) / 1.1)
