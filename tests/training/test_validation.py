"""Validation: a loss that depends on the windows alone, and pictures whose failure stops no training."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from media.frames import scan
from media.probe import probe
from tests.training.toys import make_base
from training import validation
from training.data import open_data
from training.distributed import Ranks
from training.latents import LatentCodec
from training.network import AudioShape, SayAnything, build
from training.settings import TrainingSettings, load_settings
from training.validation import Validation, to_uint8

ALONE = Ranks(0, 1, torch.device("cpu"))
SMALL = ["data.size=32", "data.frames=4", "data.workers=0", "data.cache=none", "data.validation_share=0.0",
         "optimizer.global_batch=4", "optimizer.micro_batch=2", "run.validation_windows=4", "run.validation_steps=2",
         "model.audio_numbers=0", "mask.crop=face"]  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base") / "svd")


@pytest.fixture
def settings(base: Path) -> TrainingSettings:
    return load_settings("embedded", [f"model.base={base}", *SMALL])


@pytest.fixture
def network(base: Path, settings: TrainingSettings) -> SayAnything:
    torch.manual_seed(0)
    return build(base, settings.model, AudioShape(2, 3, settings.data.window_frames), 4).eval()


def made(shards: Path, base: Path, settings: TrainingSettings, ranks: Ranks = ALONE) -> Validation:
    data = open_data(shards, settings.data, settings.mask)
    return Validation.of(data, settings, LatentCodec.load(base, ranks.device, torch.float32), ranks)


def test_the_loss_is_that_of_the_windows_however_they_are_batched(
    shards: Path, base: Path, settings: TrainingSettings, network: SayAnything
) -> None:
    first = made(shards, base, settings)
    assert [len(batch.keys) for batch in first.batches] == [2, 2]
    found = first.loss(network)
    assert found == first.loss(network) == made(shards, base, settings).loss(network)
    four = replace(settings, optimizer=replace(settings.optimizer, micro_batch=4))
    assert made(shards, base, four).loss(network) == pytest.approx(found, rel=1e-4)
    with torch.no_grad():
        for parameter in network.unet.conv_out.parameters():
            parameter.zero_()
    assert made(shards, base, settings).loss(network) != pytest.approx(found, rel=1e-4)


def test_pictures_are_truth_mask_and_what_is_generated(
    shards: Path, base: Path, settings: TrainingSettings, network: SayAnything, tmp_path: Path
) -> None:
    made_validation = made(shards, base, settings)
    shown = made_validation.pictures(network, tmp_path / "step-1")
    assert shown is not None and shown.shape == (3 * 32, 2 * 32, 3)
    batch = made_validation.batches[0]
    true = to_uint8(batch.frames()[0])[2]
    assert np.array_equal(shown[:32, :32], true), "the first window's third frame"
    hidden = batch.masks()[0, 2, 0].bool().numpy()
    assert (shown[32:64, :32][hidden] == 128).all() and np.array_equal(shown[32:64, :32][~hidden], true[~hidden])
    video = tmp_path / "step-1" / "rank-0.mp4"
    assert len(list(scan(video, probe(video)))) == 4


def test_pictures_that_cannot_be_written_are_logged_and_stop_nothing(
    shards: Path, base: Path, settings: TrainingSettings, network: SayAnything, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    def full(*given: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(validation, "encode_mp4", full)
    with caplog.at_level(logging.ERROR):
        assert made(shards, base, settings).pictures(network, tmp_path) is None
    assert "validation pictures failed; training goes on" in caplog.text and "No space left" in caplog.text
