import json
from dataclasses import replace

import pytest
import torch
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel
from safetensors.torch import load_file, save_file

from tests.training.toys import FRAMES, make_base, make_conditions, make_latents, make_network, toy_unet
from training.network import SayAnything, svd_unet
from training.unet import ADDED_TIME_IDS, SayAnythingUNet, from_svd


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("base") / "svd")


def millions(model: torch.nn.Module) -> float:
    return round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 2)


def test_at_svds_size_it_has_1454_million_parameters():
    with torch.device("meta"):
        assert millions(SayAnythingUNet()) == 1454.01
        assert millions(SayAnythingUNet(cross_attention_dim=1024)) == 1468.34
        assert millions(UNetSpatioTemporalConditionModel(num_attention_heads=(5, 10, 20, 20))) == 1524.62


def test_without_its_changes_it_is_diffusers_unet():
    """The same tokens in all frames, and nothing from the attentions that are gone here: equal outputs."""
    torch.manual_seed(0)
    theirs = toy_unet().eval()
    config = {name: value for name, value in theirs.config.items() if not name.startswith("_")}
    ours = SayAnythingUNet(**config).eval()
    for name, parameter in theirs.named_parameters():
        gone = "temporal_transformer_blocks" in name or "mid_block" in name
        if gone and ".attn2.to_out." in name:
            torch.nn.init.zeros_(parameter)
    state = theirs.state_dict()
    ours.load_state_dict({name: state[name] for name in ours.state_dict()})
    latents = torch.randn(2, FRAMES, 8, 16, 16)
    noise, token = torch.tensor([0.3, -0.2]), torch.randn(2, 1, 64)
    with torch.no_grad():
        times = torch.tensor([ADDED_TIME_IDS] * 2)
        wanted = theirs(latents, noise, token, times).sample
        found = ours(latents, noise, token[:, None].expand(-1, FRAMES, -1, -1))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_changing_one_frames_sound_moves_that_frame_most(base):
    network = make_network(base)
    frames = 12
    latents, conditions = make_latents(1, frames), make_conditions(1, frames)
    tokens, residuals = network.encode(conditions)
    other = tokens.clone()
    other[:, 7] = torch.randn(tokens.shape[2:], generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        before, after = (
            network.denoise(latents, torch.zeros(1), conditions.concatenated, t, residuals) for t in (tokens, other)
        )
    moved = (after - before).abs().mean(dim=(0, 2, 3, 4))
    others = torch.cat([moved[:7], moved[8:]])
    assert moved.argmax() == 7
    assert moved[7] > 5 * others.median()


def test_a_residual_for_the_clip_is_added_to_every_frame(base):
    network = make_network(base)
    latents, conditions = make_latents(), make_conditions()
    tokens, residuals = network.encode(conditions)
    per_frame = [residual.repeat_interleave(FRAMES, dim=0) for residual in residuals]
    with torch.no_grad():
        for_clip, for_frames, without = (
            network.denoise(latents, torch.zeros(2), conditions.concatenated, tokens, r)
            for r in (residuals, per_frame, [])
        )
    torch.testing.assert_close(for_clip, for_frames)
    assert (for_clip - without).abs().max() > 1e-3


def test_sizes_that_do_not_halve_evenly_come_out_as_they_went_in(base):
    network = make_network(base)
    out = network.unet(torch.randn(1, 2, 8, 20, 12), torch.zeros(1), torch.randn(1, 2, 6, 16))
    assert out.shape == (1, 2, 4, 20, 12)


def test_checkpointing_changes_memory_and_no_number(base):
    def run(checkpointing: bool) -> tuple[torch.Tensor, list[torch.Tensor], int]:
        network = make_network(base).train()
        if checkpointing:
            network.unet.enable_gradient_checkpointing()
        held = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: held.append(t.nbytes) or t, lambda t: t):
            loss = network(make_latents(), torch.zeros(2), make_conditions()).square().mean()
        loss.backward()
        return loss, [p.grad for p in network.parameters() if p.grad is not None], sum(held)

    (loss, gradients, held), (loss_less, gradients_less, held_less) = run(False), run(True)
    torch.testing.assert_close(loss, loss_less, rtol=0, atol=0)
    torch.testing.assert_close(gradients, gradients_less, rtol=1e-5, atol=1e-7)
    assert held_less < 0.25 * held  # the temporal blocks included; diffusers' own leaves more than half


@pytest.mark.parametrize(
    "settings", [{}, {"audio_in_mid": True}, {"audio_layers": "last"}, {"audio_layers": "weighted"}]
)
def test_every_parameter_gets_a_gradient(base, settings):
    network = make_network(base, **settings).train()
    network(make_latents(), torch.zeros(2), make_conditions()).square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum()] == []


def test_svds_weights_are_taken_but_for_keys_and_values_of_the_audio_attention(base):
    config, weights = svd_unet(base)
    unet = from_svd(config, weights, audio_dim=16, audio_in_mid=False)
    own = unet.state_dict()
    same = {name for name, value in own.items() if name in weights and torch.equal(value, weights[name])}
    assert {name.split(".")[-2] for name in own.keys() - same} == {"to_k", "to_v"}
    assert all(".attn2." in name for name in own.keys() - same)
    assert not any("temporal" in name and "attn2" in name for name in own)
    assert not any("mid_block" in name and "attn2" in name for name in own)


def test_weights_of_another_model_are_refused(base, tmp_path):
    config, weights = svd_unet(base)
    with pytest.raises(ValueError, match="2 are missing"):
        from_svd(config, {n: v for n, v in weights.items() if not n.startswith("conv_in")}, 16, False)
    with pytest.raises(ValueError, match="1 have no place"):
        from_svd(config, {**weights, "controlnet.weight": torch.zeros(1)}, 16, False)
    with pytest.raises(ValueError, match="no SVD UNet"):
        svd_unet(tmp_path)


def test_the_fp16_variant_of_the_folder_is_read_too(base, tmp_path):
    folder = tmp_path / "unet"
    folder.mkdir()
    (folder / "config.json").write_text((base / "unet" / "config.json").read_text())
    full = load_file(base / "unet" / "diffusion_pytorch_model.safetensors")
    save_file({n: v.half() for n, v in full.items()}, folder / "diffusion_pytorch_model.fp16.safetensors")
    _, weights = svd_unet(tmp_path)
    assert {value.dtype for value in weights.values()} == {torch.float32}


def test_saved_and_loaded_it_says_the_same(base, tmp_path):
    network = make_network(base)
    network.save(tmp_path)
    loaded = SayAnything.load(tmp_path).eval()
    with torch.no_grad():
        both = [n(make_latents(), torch.zeros(2), make_conditions()) for n in (network, loaded)]
    assert torch.equal(*both)
    assert json.loads((tmp_path / "unet" / "config.json").read_text())["_class_name"] == "SayAnythingUNet"
    with pytest.raises(ValueError, match=r"unet/config.json is missing"):
        SayAnything.load(tmp_path / "elsewhere")


def test_dropped_conditions_are_zeros_in_the_fused_features(base):
    network = make_network(base)
    kept = make_conditions()
    tokens, residuals = network.encode(
        replace(kept, keep_audio=torch.tensor([0.0, 1.0]), keep_identity=torch.tensor([1.0, 0.0]))
    )
    full_tokens, full_residuals = network.encode(kept)
    assert not tokens[0].any() and torch.equal(tokens[1], full_tokens[1])
    assert all(torch.equal(a[0], b[0]) and not a[1].any() for a, b in zip(residuals, full_residuals, strict=True))


def test_norm_groups_are_kept_by_an_export_and_change_what_is_computed(tmp_path):
    base = make_base(tmp_path / "svd")
    eight, svd = make_network(base, norm_groups=8).unet, make_network(base).unet
    groups = {module.num_groups for module in eight.modules() if isinstance(module, torch.nn.GroupNorm)}
    assert groups == {8}
    eight.save_pretrained(tmp_path / "unet")
    loaded = SayAnythingUNet.from_pretrained(tmp_path / "unet").eval()
    conditions, latents = make_conditions(), make_latents()
    noisy = torch.cat([latents, conditions.concatenated], dim=2)
    tokens = torch.randn(2, FRAMES, 5, 16)
    with torch.no_grad():
        found = [unet(noisy, torch.zeros(2), tokens) for unet in (eight, loaded, svd)]
    assert torch.equal(found[0], found[1])
    assert not torch.allclose(found[0], found[2], atol=1e-3)
