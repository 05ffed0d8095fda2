import pytest
import torch

from tests.training.toys import UNET_CHANNELS, make_base, make_conditions, make_latents, make_network, toy_unet
from training.id_guider import VARIANTS, IDGuider, skip_channels
from training.unet import SayAnythingUNet


@pytest.mark.parametrize(("variant", "millions"), [("size", 98.99), ("text", 148.15)])
def test_at_svds_size_it_has_what_the_paper_says_one_way_or_the_other(variant, millions):
    with torch.device("meta"):
        found = sum(p.numel() for p in IDGuider(**VARIANTS[variant]).parameters()) / 1e6
        whole = sum(p.numel() for p in SayAnythingUNet().parameters()) / 1e6
    assert round(found, 2) == millions
    assert found < 0.105 * whole  # "over 90 % less" than the denoising UNet, or a hair short of it


def test_step_zero_is_the_base_model_whatever_the_reference(tmp_path):
    network = make_network(make_base(tmp_path / "svd"), listening=False)
    latents, conditions = make_latents(), make_conditions()
    with torch.no_grad():
        tokens, residuals = network.encode(conditions)
        with_reference = network.denoise(latents, torch.zeros(2), conditions.concatenated, tokens, residuals)
        without = network.denoise(latents, torch.zeros(2), conditions.concatenated, tokens, [])
    assert torch.equal(with_reference, without)


@pytest.mark.parametrize("variant", VARIANTS)
def test_residuals_have_the_shapes_of_the_unets_skips(variant):
    guider = IDGuider(channels=UNET_CHANNELS, stem_strides=(1, 2, 2), **VARIANTS[variant])
    residuals = guider(torch.randn(2, 4, 64, 64))
    skips = []
    unet = toy_unet()
    for block in unet.down_blocks:
        block.register_forward_hook(lambda _module, _inputs, output: skips.extend(output[1]))
    unet.conv_in.register_forward_hook(lambda _module, _inputs, output: skips.append(output))
    unet(torch.randn(1, 2, 8, 16, 16), 0.5, torch.randn(1, 1, 64), torch.tensor([[24.0, 127.0, 0.0]]))
    assert [r.shape for r in residuals] == [s.shape for s in skips]
    assert [r.shape[1] for r in residuals] == skip_channels(UNET_CHANNELS)


def test_it_starts_from_svds_spatial_res_blocks():
    weights = toy_unet().state_dict()
    guider = IDGuider(channels=UNET_CHANNELS, stem_strides=(1, 2, 2))
    assert guider.load_svd(weights) == len([n for n in guider.state_dict() if n.startswith("levels.")])
    theirs = weights["down_blocks.2.resnets.1.spatial_res_block.conv2.weight"]
    assert torch.equal(guider.state_dict()["levels.2.1.conv2.weight"], theirs)


def test_the_lip_mask_is_seen():
    guider = IDGuider(channels=UNET_CHANNELS, stem_strides=(1, 2, 2), layers=(2, 2, 2, 2), zero_convs=False)
    picture = torch.randn(1, 4, 64, 64)
    other = picture.clone()
    other[:, 3] = 1 - other[:, 3]
    assert not torch.equal(guider(picture)[0], guider(other)[0])


def test_widths_that_a_variant_cannot_follow_are_refused_when_it_is_built_and_not_in_its_first_step():
    with pytest.raises(ValueError, match="64 channels above level 3 and 96 in it.*model.id_guider=text"):
        IDGuider(channels=(32, 32, 64, 96), stem_strides=(1, 2, 2))
    guider = IDGuider(channels=(32, 32, 64, 96), stem_strides=(1, 2, 2), **VARIANTS["text"])
    assert guider(torch.randn(1, 4, 32, 32))[-1].shape[1] == 96
