import socket
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from models.hyperiqa import HyperIQA, build_network


def no_network(*_: object, **__: object) -> None:
    raise AssertionError("the network was reached for")


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """Random weights in the layout of the official file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", no_network)
        patch.setattr(socket.socket, "connect", no_network)
        torch.manual_seed(0)
        return build_network().state_dict()


@pytest.fixture(scope="module")
def weights(state: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hyperiqa") / "HyperIQA-resnet50-koniq10k-c96c41b1.pth"
    torch.save({"params": state}, path)
    return path


@pytest.fixture(scope="module")
def iqa(weights: Path) -> HyperIQA:
    return HyperIQA(weights)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """A checkerboard, noise and black: [3, 320, 320, 3]."""
    board = np.kron(np.indices((8, 8)).sum(0) % 2, np.ones((40, 40)))[..., None].repeat(3, -1) * 255
    noise = np.random.default_rng(0).integers(0, 256, (320, 320, 3))
    return np.stack([board, noise, np.zeros((320, 320, 3))]).astype(np.uint8)


def test_building_and_loading_reach_for_no_network(weights, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr(socket.socket, "connect", no_network)
    HyperIQA(weights)


def test_backbone_has_the_weights_of_the_file(iqa, state):
    assert torch.equal(iqa.network.base_model.state_dict()["conv1.weight"], state["base_model.conv1.weight"])


def test_timm_is_left_as_it_was(iqa):
    from pyiqa.archs import hypernet_arch

    assert hypernet_arch.timm is timm


def test_scores_lie_between_0_and_1_and_tell_images_apart(iqa, images):
    scores = iqa.score(images)
    assert scores.shape == (3,)
    assert scores.dtype == np.float32
    assert ((scores > 0) & (scores < 1)).all()
    assert len(set(scores.tolist())) == len(images)


def test_score_at_224_pixels_is_the_networks_own(iqa, images):
    small = images[:, :224, :224]
    with torch.inference_mode():
        own = iqa.network.forward_patch(torch.from_numpy(small).permute(0, 3, 1, 2) / 255)
    np.testing.assert_allclose(iqa.score(small), own[:, 0].numpy(), rtol=1e-4)


def test_scores_outside_of_0_to_1_are_clipped(state, tmp_path, images):
    for bias, expected in [(5.0, 1), (-5.0, 0)]:
        shifted = state | {"fc_b_modules.4.2.bias": torch.full_like(state["fc_b_modules.4.2.bias"], bias)}
        torch.save({"params": shifted}, tmp_path / "shifted.pth")
        assert (HyperIQA(tmp_path / "shifted.pth").score(images) == expected).all()


def test_score_is_the_same_twice_and_whatever_stands_beside_it(iqa, images):
    together = iqa.score(images)
    np.testing.assert_array_equal(together, iqa.score(images))
    np.testing.assert_array_equal(together, np.concatenate([iqa.score(images[i : i + 1]) for i in range(3)]))


def test_read_only_and_mirrored_images_are_taken(iqa, images):
    mirrored = images[:, :, ::-1]
    mirrored.flags.writeable = False
    np.testing.assert_array_equal(iqa.score(mirrored), iqa.score(mirrored.copy()))


def test_no_images_have_no_scores(iqa, images):
    assert iqa.score(images[:0]).shape == (0,)


def test_float_images_are_refused(iqa, images):
    with pytest.raises(ValueError, match="uint8"):
        iqa.score(images / 255)


def test_missing_entry_is_named(state, tmp_path):
    torch.save({"params": {k: v for k, v in state.items() if k != "conv1.0.bias"}}, tmp_path / "short.pth")
    with pytest.raises(ValueError, match=r"short.pth.*HyperIQA(?s:.*)Missing(?s:.*)conv1.0.bias"):
        HyperIQA(tmp_path / "short.pth")


def test_foreign_entry_is_named(state, tmp_path):
    torch.save({"params": state | {"head.weight": torch.zeros(1)}}, tmp_path / "long.pth")
    with pytest.raises(ValueError, match=r"long.pth.*HyperIQA(?s:.*)Unexpected(?s:.*)head.weight"):
        HyperIQA(tmp_path / "long.pth")


def test_file_without_params_is_refused(state, tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other.pth.*params"):
        HyperIQA(tmp_path / "other.pth")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_agrees_with_cpu(weights, iqa, images):
    np.testing.assert_allclose(HyperIQA(weights, "cuda").score(images), iqa.score(images), atol=5e-3)
