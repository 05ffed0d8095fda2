"""The sync network that is shipped, its file, and where it says nothing; the trainer is tested in tests/training."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import weights
from models.mouth import CHANNELS, MOTIONS
from models.sync import SyncModel, convolve


@pytest.fixture(scope="module")
def shipped() -> SyncModel:
    return SyncModel.load(weights.require("sync_small")["sync_small"])


def test_what_is_shipped_is_small_and_has_thresholds_that_fall_with_length(shipped: SyncModel) -> None:
    assert weights.require("sync_small")["sync_small"].stat().st_size < 10_000_000
    found = [shipped.threshold(frames) for frames in (50, 100, 200)]
    assert found == sorted(found, reverse=True)
    assert np.isnan(shipped.threshold(49))


def test_a_convolution_is_that_of_torch() -> None:
    random = np.random.default_rng(0)
    x, weight, bias = (random.normal(size=shape) for shape in ((20, 3), (4, 3, 5), (4,)))
    expected = torch.conv1d(torch.from_numpy(x.T)[None], torch.from_numpy(weight), torch.from_numpy(bias), padding=2)
    np.testing.assert_allclose(convolve(x, weight, bias), expected[0].numpy().T)


def test_the_same_model_gives_the_same_bytes(shipped: SyncModel, tmp_path: Path) -> None:
    shipped.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == weights.require("sync_small")["sync_small"].read_bytes()


def test_another_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="a.safetensors: not a sync model"):
        SyncModel.load(tmp_path / "a.safetensors")


def test_a_model_of_other_arrays_is_refused(shipped: SyncModel, tmp_path: Path) -> None:
    wrong = {**shipped.arrays, "mouth.0.weight": np.zeros((96, MOTIONS + 1, 5), np.float32)}
    SyncModel(wrong, shipped.null_thresholds).save(tmp_path / "b")
    with pytest.raises(ValueError, match="no sync model"):
        SyncModel.load(tmp_path / "b")


def test_less_than_two_seconds_or_too_few_faces_is_unknown(shipped: SyncModel) -> None:
    channels, rows = np.random.default_rng(0).normal(size=(60, CHANNELS)), np.zeros((120, 384), np.float16)
    assert shipped.score(channels, rows) is not None
    assert shipped.score(channels[:49], rows) is None
    channels[:40] = np.nan
    assert shipped.score(channels, rows) is None


def test_importing_it_needs_no_torch() -> None:
    code = "import sys, models.sync; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).resolve().parents[2])
