from pathlib import Path

import numpy as np
import pytest
import torch

import weights as weight_files
from training.evaluation.inception import SIZE, Inception, enlarge

NAME = "inception_fid"


def blocks(seed: int, height: int, width: int, count: int = 1) -> np.ndarray:
    """Pictures of squares of 8 pixels in random colours: [count, height, width, 3]; the same for ever."""
    squares = np.random.RandomState(seed).randint(0, 256, (count, height // 8, width // 8, 3))
    return squares.astype(np.uint8).repeat(8, 1).repeat(8, 2)


@pytest.fixture(scope="module")
def net() -> Inception:
    path = weight_files.find(NAME)
    if path is None:
        pytest.skip(f"{NAME} is not in the cache: python weights.py fetch {NAME}")
    return Inception(path)


@pytest.mark.parametrize(
    ("seed", "height", "width", "theirs"),
    [
        (0, 320, 320, [0.54585, 0.0342, 0.18347, 0.16536, 0.06971, 0.00485, 0.00645, 0.47231]),
        (1, 240, 360, [0.48843, 0.03627, 0.28852, 0.12486, 0.07911, 0.01383, 0.01913, 0.09807]),
    ],
)
def test_features_are_those_of_torch_fidelity(
    net: Inception, seed: int, height: int, width: int, theirs: list[float]
) -> None:
    """torch-fidelity 0.4.0's network and enlargement, given the same weights name by name."""
    features = net.measure(blocks(seed, height, width))[0]
    assert np.abs(features[:8] - theirs).max() < 5e-5


def test_picture_has_the_same_features_beside_others(net: Inception) -> None:
    pictures = blocks(3, 64, 64, 5)
    assert np.abs(net.measure(pictures)[4] - net.measure(pictures[4:])[0]).max() < 1e-4
    assert net.measure(pictures[:0]).shape == (0, 2048)


def test_ill_shaped_pictures_are_refused(net: Inception) -> None:
    with pytest.raises(ValueError, match=r"float64 \[1, 64, 64, 3\]"):
        net.measure(blocks(0, 64, 64) / 255)


def test_other_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "page.pt"
    path.write_text("<html>")
    with pytest.raises(ValueError, match=r"page.pt: not the InceptionV3"):
        Inception(path)
    torch.save({"weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"page.pt: not the InceptionV3"):
        Inception(path)


def test_enlargement_begins_at_the_first_pixel() -> None:
    """TensorFlow 1: output pixel i lies at i * size / 299 of the input; beyond the last pixel it repeats."""
    ramp = torch.arange(100.0).expand(1, 3, 100, 100)
    wanted = (torch.arange(SIZE) * 100 / SIZE).clamp(max=99)
    assert enlarge(ramp)[0, 0, 5].allclose(wanted, atol=1e-3)
