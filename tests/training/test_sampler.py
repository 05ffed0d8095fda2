import pytest
import torch
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler

from tests.training.toys import make_base, make_conditions, make_latents, make_network
from training.denoiser import Denoiser
from training.sampler import SAMPLERS, euler, guide, karras_sigmas

# diffusers' schedulers on numpy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
SVD_SCHEDULER = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "prediction_type": "v_prediction",
    "timestep_type": "continuous", "timestep_spacing": "leading", "steps_offset": 1, "use_karras_sigmas": True,
    "sigma_min": 0.002, "sigma_max": 700.0,
}  # fmt: skip


def scheduler(steps: int) -> EulerDiscreteScheduler:
    made = EulerDiscreteScheduler(**SVD_SCHEDULER)
    made.set_timesteps(steps)
    return made


@pytest.mark.parametrize("steps", [2, 4, 15, 25])
def test_the_sigmas_are_those_of_svds_scheduler(steps):
    assert karras_sigmas(steps) == pytest.approx(scheduler(steps).sigmas.tolist(), rel=1e-4, abs=1e-6)


def test_euler_walks_as_diffusers_scheduler_does():
    theirs, noise = scheduler(10), make_latents()

    def network(z_scaled: torch.Tensor, c_noise: float) -> torch.Tensor:
        return torch.tanh(z_scaled * 0.7 + c_noise)

    z = noise * theirs.init_noise_sigma
    for t in theirs.timesteps:
        z = theirs.step(network(theirs.scale_model_input(z, t), float(t)), t, z, return_dict=False)[0]

    def denoise(z: torch.Tensor, sigma: float) -> torch.Tensor:
        return Denoiser(lambda scaled, c_noise: network(scaled, float(c_noise[0])))(z, torch.full((len(z),), sigma))

    torch.testing.assert_close(euler(denoise, noise, karras_sigmas(10)), z, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_perfect_denoiser_is_followed_to_its_answer(name):
    answer, steps = make_latents(seed=3), []
    found = SAMPLERS[name](lambda z, sigma: answer, make_latents(), karras_sigmas(7), lambda: steps.append(1))
    torch.testing.assert_close(found, answer, rtol=1e-4, atol=1e-4)
    assert len(steps) == 7


def test_heun_is_nearer_than_euler_to_the_true_path():
    """Data of unit variance have the denoiser z / (1 + sigma^2), whose path is known: z grows as sqrt(1 + sigma^2)."""
    noise, sigmas = make_latents(), karras_sigmas(20, sigma_max=80.0)
    errors = {
        name: (sample(lambda z, sigma: z / (1 + sigma**2), noise, sigmas) - noise).abs().mean()
        for name, sample in SAMPLERS.items()
    }
    assert errors["heun"] < 0.5 * errors["euler"]


def test_guidance_goes_beyond_the_conditional_answer_and_keeps_the_masked_video(tmp_path):
    network = make_network(make_base(tmp_path / "svd"))
    conditions, z = make_conditions(), 5 * make_latents()
    with torch.no_grad():
        tokens, residuals = network.encode(conditions)
        shown = conditions.concatenated
        all_of_it = guide(network, shown, tokens, residuals, 1.0)(z, 3.0)
        nothing = guide(network, shown, torch.zeros_like(tokens), [torch.zeros_like(r) for r in residuals], 1.0)(z, 3.0)
        found = guide(network, shown, tokens, residuals, 3.0)(z, 3.0)
    torch.testing.assert_close(found, nothing + 3.0 * (all_of_it - nothing), rtol=1e-4, atol=1e-4)
    assert (all_of_it - nothing).abs().max() > 1e-3
