"""The measure on networks of which the answer is known, and a short training that must be heard."""

import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel

from models.mask import MaskSettings
from tests.training.squares import DIM, SIDE, write_squares
from tests.training.toys import toy_vae
from training import train
from training.data import Dataset, loader, open_data
from training.denoiser import weighted_mean
from training.distributed import Ranks
from training.latents import LatentCodec
from training.listening import (
    Estimate,
    Heard,
    Listening,
    PairedWindows,
    shift_pictures,
    summarize,
)
from training.network import AudioShape, SayAnything, build
from training.settings import DataSettings, TrainingSettings, load_settings

ALONE = Ranks(0, 1, torch.device("cpu"))
SETTINGS = ["data.frames=2", "data.size=32", "data.workers=0", "data.validation_share=0.25", "run.threads=1",
            "optimizer.global_batch=16", "optimizer.micro_batch=16", "optimizer.learning_rate=4.0e-3",
            "optimizer.warmup_steps=5", "optimizer.ema_decay=0.9", "run.validation_windows=96",
            "run.validation_steps=2", "run.save_every=1000", "mask.crop=face", "data.cache=none", "loss.outside=1.0",
            "optimizer.decay_share=0.0", "noise.P_mean=2.0", "model.audio_numbers=0"]  # fmt: skip


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_squares(tmp_path_factory.mktemp("squares"), clips=24, frames=80)


@pytest.fixture(scope="module")
def base(squares: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A UNet of two levels, and a VAE with random filters whose latents of the squares have mean 0 and variance 1."""
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    UNetSpatioTemporalConditionModel(
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        block_out_channels=(32, 32),
        addition_time_embed_dim=32,
        projection_class_embeddings_input_dim=96,
        cross_attention_dim=DIM,
        num_attention_heads=(1, 1),
        num_frames=25,
    ).save_pretrained(folder / "unet")
    vae = toy_vae()
    frames = next(loader(open_squares(squares, frames=4), 8)).frames().flatten(0, 1)
    convolution = vae.quant_conv
    assert convolution is not None and convolution.bias is not None
    with torch.no_grad():
        mean, log_variance = convolution.weight[:4], convolution.weight[4:]
        found = vae.encode(frames).latent_dist.mean  # pyright: ignore[reportAttributeAccessIssue]
        spread, middle = found.std(dim=(0, 2, 3)), found.mean(dim=(0, 2, 3))
        mean /= spread[:, None, None, None]
        convolution.bias[:4] = (convolution.bias[:4] - middle) / spread
        log_variance.zero_()
        convolution.bias[4:] = -12  # a posterior without noise
    vae.save_pretrained(folder / "vae")
    return folder


def open_squares(folder: Path, **settings: object) -> Dataset:
    chosen = replace(DataSettings(size=SIDE, workers=0), **settings)  # pyright: ignore[reportArgumentType]
    return open_data(folder, chosen, MaskSettings())


def settings_of(base: Path, *more: str) -> TrainingSettings:
    return load_settings("embedded", [f"model.base={base}", *SETTINGS, *more])


def untrained(base: Path, settings: TrainingSettings) -> SayAnything:
    torch.manual_seed(0)
    return build(base, settings.model, AudioShape(2, DIM, settings.data.window_frames), 4).eval()


def pairs_of(squares: Path, base: Path, windows: int, *settings: str, ranks: Ranks = ALONE) -> PairedWindows:
    chosen = settings_of(base, f"run.validation_windows={windows}", *settings)
    data = open_data(squares, chosen.data, chosen.mask)
    codec = LatentCodec.load(base, ALONE.device, torch.float32)
    return PairedWindows.of(data.validation() or data, chosen, codec, ranks)


@pytest.mark.slow
def test_a_short_training_listens_and_an_untrained_network_does_not(
    squares: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole trainer on clips whose square follows the sound; measured on sources that it never saw."""
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    settings = [f"model.base={base}", *SETTINGS, "optimizer.steps=30", "run.validate_every=30"]
    sets = [word for setting in settings for word in ("--set", setting)]
    run = tmp_path / "run"
    assert train.main(["--profile", "embedded", "--data", str(squares), "--run", str(run), *sets]) == 0
    lines = [json.loads(line) for line in (run / "train.log").read_text().splitlines()]
    before, after = [line for line in lines if "validation/loss" in line]
    assert after["validation/loss"] < 0.6 * before["validation/loss"]  # the same windows, with the same noise
    assert abs(before["validation/listening"]) < 3 * before["validation/listening_se"]
    assert abs(before["validation/listening_share"]) < 0.01
    assert after["validation/listening"] > 3 * after["validation/listening_se"]
    assert 0.03 < after["validation/listening_share"] < 1
    for sigma in (2, 5, 20):
        assert after[f"validation/listening_sigma_{sigma}_share"] > 0.03
    assert (run / "curve.png").stat().st_size > 10_000
    assert list((run / "validation").rglob("*.mp4"))


def test_a_network_whose_audio_tokens_are_zero_listens_exactly_nothing(squares: Path, base: Path) -> None:
    pairs = pairs_of(squares, base, windows=8)
    network = untrained(base, pairs.settings)
    with_tokens = pairs.measure(network)
    for parameter in network.audio.parameters():
        torch.nn.init.zeros_(parameter)
    without = pairs.measure(network)
    assert with_tokens and without
    assert with_tokens.overall.listening.mean != 0
    assert without.overall.listening == Estimate(0.0, 0.0)
    assert not without.overall.listening.is_above_error
    assert without.overall.attainable == with_tokens.overall.attainable


class Oracle(SayAnything):
    """Draws the frames that belong to the sound it hears: its parts are tables instead of networks."""

    def __init__(self, pairs: PairedWindows) -> None:
        torch.nn.Module.__init__(self)
        both = [window for pair in pairs.pairs for window in pair]
        self.sounds = torch.cat([window.inputs.conditions.audio_rows.flatten(1) for window in both])
        self.pictures = torch.cat([window.inputs.z0 for window in both])

    def encode(self, conditions):  # type: ignore[override]
        heard = conditions.audio_rows.flatten(1)
        found = [int((self.sounds == row).all(dim=1).nonzero()[0, 0]) for row in heard]
        return self.pictures[found], []

    def denoise(self, latents, c_noise, concatenated, tokens, residuals):  # type: ignore[override]
        s = (4 * c_noise).exp().view(-1, 1, 1, 1, 1)  # F for D = tokens, equation 2 solved
        z = latents * (1 + s**2).sqrt()
        return (z / (s**2 + 1) - tokens) * (s**2 + 1).sqrt() / s


def test_a_network_that_draws_what_belongs_to_the_sound_listens_all_that_is_attainable(
    squares: Path, base: Path
) -> None:
    """Heads at rest: nothing but the square moves, so the share is 1 at every noise level."""
    pairs = pairs_of(squares, base, windows=16)
    found = pairs.measure(Oracle(pairs))
    assert found
    for heard in (found.overall, *found.by_sigma.values()):
        assert heard.share
        assert heard.share.mean == pytest.approx(1, abs=0.02)
        assert heard.listening.is_above_error


def test_the_wrong_sound_is_of_the_same_clip_a_second_away(squares: Path, base: Path) -> None:
    for first, second in pairs_of(squares, base, windows=8).pairs:
        mine, other = (window.inputs.conditions.audio_rows for window in (first, second))
        assert mine.shape == other.shape
        assert not (mine == other).all(dim=(1, 2, 3)).any()
        # both windows show the same head: beside the mask nothing differs
        beside = 1 - first.inputs.mask.amax(dim=1, keepdim=True)
        shown = [window.inputs.conditions.concatenated for window in (first, second)]
        assert ((shown[0] - shown[1]).abs() * beside).amax() < 0.5


def test_two_ranks_measure_what_one_measures(squares: Path, base: Path) -> None:
    whole = pairs_of(squares, base, 16, "optimizer.micro_batch=4")
    parts = [pairs_of(squares, base, 16, "optimizer.micro_batch=4", ranks=Ranks(r, 2, ALONE.device)) for r in range(2)]
    distances = [torch.cat([w.distance for pair in each.pairs for w in pair[:1]]) for each in (whole, *parts)]
    assert len(distances[0]) == 8
    torch.testing.assert_close(distances[0].sort().values, torch.cat(distances[1:]).sort().values)


def test_clips_that_are_too_short_are_not_measured(squares: Path, base: Path, caplog: pytest.LogCaptureFixture) -> None:
    pairs = pairs_of(squares, base, 8, "data.frames=60")
    assert pairs.measure(untrained(base, pairs.settings)) is None
    assert "needs clips of 124 frames" in caplog.text


def test_estimates_at_values_worked_by_hand() -> None:
    found = summarize(
        torch.tensor([[1.0, 3.0], [3.0, 5.0]]), torch.tensor([[9.0, 5.0], [11.0, 5.0]]), [2.0, 5.0], ALONE
    )
    assert found
    assert found.by_sigma[2.0].listening == Estimate(2.0, 1.0)  # deviations of 1 from the mean, two pairs
    assert found.by_sigma[2.0].share == Estimate(0.2, 0.1)
    assert found.by_sigma[5.0].share == Estimate(0.8, 0.2)
    assert found.overall.listening == Estimate(3.0, 1.0)
    assert found.overall.attainable == Estimate(7.5, 0.5)
    assert summarize(torch.ones(1, 2), torch.ones(1, 2), [2.0, 5.0], ALONE) is None


def test_curves_have_names_for_all_levels_together_and_for_each() -> None:
    heard = Heard(Estimate(0.02, 0.004), Estimate(0.1, 0.01))
    silent = Heard(Estimate(0.0, 0.0), Estimate(0.0, 0.0))
    name = "validation/listening"
    assert Listening(heard, {20.0: silent}).scalars() == {
        name: 0.02,
        f"{name}_se": 0.004,
        f"{name}_attainable": 0.1,
        f"{name}_share": pytest.approx(0.2),
        f"{name}_share_se": pytest.approx(0.04),
        f"{name}_sigma_20": 0.0,
        f"{name}_sigma_20_se": 0.0,
        f"{name}_sigma_20_attainable": 0.0,  # and no share of nothing
    }


def test_the_mean_is_taken_under_the_mask() -> None:
    values, mask = torch.zeros(2, 1, 2, 2, 2), torch.zeros(2, 1, 1, 2, 2)
    values[0, 0, :, 0, 0], mask[0, 0, 0, 0] = 4.0, 1.0  # one of two places, in both channels
    values[1] = 7.0
    assert weighted_mean(values, mask).tolist() == [2.0, 0.0]


def test_frames_are_shifted_so_that_what_lay_further_right_and_down_comes_here() -> None:
    frames = torch.zeros(1, 2, 3, 8, 8)
    frames[0, 0, :, 5, 6] = 1
    moved = shift_pictures(frames, torch.tensor([[[2.0, 1.0], [0.0, 0.0]]]))
    assert moved[0, 0, 0].nonzero().tolist() == [[4, 4]]
    assert moved[0, 0, 0, 4, 4] == pytest.approx(1)
