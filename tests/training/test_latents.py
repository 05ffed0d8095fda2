import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.training.toys import make_base, toy_vae
from training.latents import LatentCodec, concatenated_and_identity, window_starts


@pytest.fixture(scope="module")
def codec():
    vae = toy_vae()
    vae.register_to_config(scaling_factor=0.18215)
    return LatentCodec(vae)


def pictures(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_what_is_denoised_is_scaled_and_what_is_concatenated_is_not(codec):
    frames = pictures(2, 3, 3, 32, 32)
    mean, std = codec.moments(frames)
    draw = torch.randn(mean.shape)
    assert torch.equal(codec.condition(frames), mean)
    torch.testing.assert_close(codec.clean(frames, draw), 0.18215 * (mean + std * draw))
    assert mean.shape == (2, 3, 4, 8, 8)


def test_many_pictures_are_encoded_as_each_alone(codec):
    frames = pictures(40, 3, 32, 32)
    torch.testing.assert_close(codec.condition(frames)[33], codec.condition(frames[33:34])[0], rtol=1e-4, atol=1e-5)


@given(st.integers(1, 200), st.integers(2, 20), st.integers(0, 19))
def test_windows_cover_every_frame_and_overlap(frames, window, overlap):
    overlap = min(overlap, window - 1)
    starts = window_starts(frames, window, overlap)
    covered = [i for start in starts for i in range(start, min(start + window, frames))]
    assert set(covered) == set(range(frames))
    assert all(a + window - b >= overlap for a, b in zip(starts, starts[1:], strict=False))
    assert starts == sorted(set(starts))


def test_a_short_video_is_decoded_in_one_piece_and_a_long_one_without_jumps(codec):
    z = torch.randn(14, 4, 4, 4, generator=torch.Generator().manual_seed(1)) * 0.18215
    whole = codec.decode(z, window=14, overlap=4)
    with torch.no_grad():
        assert torch.equal(whole, codec.vae.decode(z / codec.scale, num_frames=14).sample)
        first = codec.vae.decode(z[:8] / codec.scale, num_frames=8).sample
    cut = codec.decode(z, window=8, overlap=4)
    assert cut.shape == whole.shape
    assert torch.equal(cut[:4], first[:4])
    torch.testing.assert_close(cut[4], 0.8 * first[4] + 0.2 * codec.decode(z[4:12], window=8)[0], rtol=1e-4, atol=1e-5)


def test_the_mask_hides_the_lips_from_the_video_and_marks_them_on_the_reference(codec):
    frames, reference = pictures(1, 2, 3, 32, 32), pictures(1, 3, 32, 32)
    mask, reference_mask = torch.zeros(1, 2, 1, 32, 32), torch.zeros(1, 1, 32, 32)
    mask[..., 16:24, 8:24] = 1
    reference_mask[..., 20:28, 8:24] = 1
    other = frames.clone()
    other[..., 16:24, 8:24] = 0.9
    seen, identity = concatenated_and_identity(codec, frames, mask, reference, reference_mask, "paper")
    assert torch.equal(seen, concatenated_and_identity(codec, other, mask, reference, reference_mask, "paper")[0])
    assert torch.equal(identity, torch.cat([reference, reference_mask], dim=1))


def test_the_ablations_exchange_what_goes_where(codec):
    frames, reference = pictures(2, 3, 3, 32, 32), pictures(2, 3, 32, 32)
    mask, reference_mask = torch.zeros(2, 3, 1, 32, 32), torch.ones(2, 1, 32, 32)
    seen, identity = concatenated_and_identity(codec, frames, mask, reference, reference_mask, "video_fusion")
    assert torch.equal(seen[:, 0], seen[:, 2]) and torch.equal(seen[:, 0], codec.condition(reference))
    assert identity.shape == (6, 4, 32, 32)
    seen, identity = concatenated_and_identity(codec, frames, mask, reference, reference_mask, "vae_feature")
    assert torch.equal(seen, codec.condition(frames))
    assert identity.shape == (2, 5, 8, 8)


def test_a_folder_without_a_vae_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(ValueError, match=r"no VAE.*README"):
        LatentCodec.load(tmp_path, torch.device("cpu"), torch.float32)
    loaded = LatentCodec.load(make_base(tmp_path / "svd"), torch.device("cpu"), torch.float32)
    assert loaded.factor == 4
    assert not any(parameter.requires_grad for parameter in loaded.vae.parameters())
