import cv2
import numpy as np
import pytest
import torch

from tests.training.toys import toy_unet
from training.latents import LatentCodec
from training.linear_codec import LinearCodec, fit_codec, psnr


def smooth_pictures(count: int, side: int = 48, seed: int = 0) -> torch.Tensor:
    """Coloured noise without fine detail, as skin is: [N, 3, side, side] in [-1, 1]."""
    random = np.random.default_rng(seed)
    drawn = [
        cv2.GaussianBlur(random.standard_normal((side, side, 3)).astype(np.float32), (0, 0), 3) for _ in range(count)
    ]
    pictures = np.stack(drawn)
    return torch.from_numpy(pictures / np.abs(pictures).max()).permute(0, 3, 1, 2)


@pytest.fixture(scope="module")
def codec() -> LinearCodec:
    return fit_codec(smooth_pictures(64), factor=4, channels=12)


def test_it_gives_back_pictures_that_it_never_saw(codec):
    assert psnr(codec, smooth_pictures(16, seed=1)) > 40
    assert psnr(LinearCodec(factor=4, latent_channels=12), smooth_pictures(16, seed=1)) < 30, "an unfitted one does not"


def test_latents_have_about_unit_variance(codec):
    latents = codec.encode(smooth_pictures(32, seed=2))[0].mean
    assert latents.shape == (32, 12, 12, 12)
    assert 0.8 < float(latents.std()) < 1.25


def test_no_seam_shows_where_patches_meet(codec):
    """The error across a border of patches is no larger than inside a patch; with patches that do not overlap it is."""
    pictures = smooth_pictures(16, seed=3)
    jumps = (codec.decode(codec.encode(pictures)[0].mean)[0] - pictures).diff(dim=-1).abs().mean(dim=(0, 1, 2))[8:-8]
    borders = torch.arange(len(pictures[0, 0]) - 1)[8:-8] % 4 == 3
    assert jumps[borders].mean() < 1.5 * jumps[~borders].mean()


@pytest.mark.parametrize("factor", [2, 4, 6, 8])
def test_sizes_fit_for_every_factor(factor):
    found = LinearCodec(factor=factor, latent_channels=5)
    latents = found.encode(torch.zeros(2, 3, 48, 48))[0].mean
    assert latents.shape == (2, 5, 48 // factor, 48 // factor)
    assert found.decode(latents)[0].shape == (2, 3, 48, 48)


def test_a_base_folder_with_one_is_loaded_as_any_other(codec, tmp_path):
    codec.save_pretrained(tmp_path / "vae")
    toy_unet().save_pretrained(tmp_path / "unet")
    loaded = LatentCodec.load(tmp_path, torch.device("cpu"), torch.float32)
    assert (loaded.factor, loaded.channels, loaded.draws) == (4, 12, False)
    clip = smooth_pictures(20, seed=4)
    decoded = loaded.decode(loaded.clean(clip, torch.randn(20, 12, 12, 12)))
    assert float((decoded - clip).square().mean()) < 1e-3, "nothing of the posterior's draw is in it"
