"""The sync trainer on synthetic lips: a smooth signal moves the mouth and is in the Whisper rows, some frames off."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.lip_probe import LipRecord
from models.mouth import CHANNELS, MOTIONS
from models.sync import SyncModel
from training import sync
from training.distributed import Ranks
from training.sync import SyncTrainer, begin_run
from training.sync_data import LandmarkData, Stretches, SyncClip
from training.sync_loss import Stuck, compare, nearest_negative
from training.sync_net import StableTowers, build_towers, unit_window
from training.sync_settings import SyncSettings, load_sync_settings

FRAMES, MARGIN, AUDIO_DIM = 160, 15, 24
ALONE = Ranks(0, 1, torch.device("cpu"))
QUICK = (
    "model.width=24", "model.dim=8", "model.audio_numbers=8", "model.dropout=0", "data.gain=0", "data.noise=0",
    "optimizer.steps=60", "optimizer.global_batch=8", "run.stuck_steps=40", "data.near_share=0.1",
    "optimizer.learning_rate=0.01", "optimizer.warmup_steps=1",
)  # fmt: skip


def record(number: int, lag: int = 0) -> LipRecord:
    """Lips and rows of one smooth signal; the sound comes `lag` frames after the lips."""
    random, mix = np.random.default_rng(number), np.random.default_rng(1000)
    noise = random.normal(size=(2 * (FRAMES + 2 * MARGIN) + 6, 6))
    speech = np.stack([np.convolve(column, np.ones(7), "valid") for column in noise.T], 1)
    rows = speech @ mix.normal(size=(6, AUDIO_DIM))
    frames = speech.reshape(-1, 2, 6).mean(1)
    mouth = frames[MARGIN + lag : MARGIN + lag + FRAMES] if lag >= 0 else frames[MARGIN + lag :][:FRAMES]
    channels = mouth @ mix.normal(size=(6, CHANNELS))
    return LipRecord(f"clip{number}", f"source{number}", channels.astype(np.float32), rows.astype(np.float16), MARGIN)


def data_of(settings: SyncSettings, count: int = 12, ranks: Ranks = ALONE) -> LandmarkData:
    return LandmarkData([SyncClip.of(record(i)) for i in range(count)], settings, ranks)


def train(run: Path, shuffle: bool = False, *overrides: str) -> tuple[list[dict], SyncTrainer]:
    settings = load_sync_settings("small", [*QUICK, *overrides])
    begin_run(run, settings, shuffle)
    trainer = SyncTrainer(settings, data_of(settings), run, ALONE, shuffle)
    trainer.run()
    return [json.loads(line) for line in (run / "train.log").read_text().splitlines()], trainer


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict], SyncTrainer]:
    run = tmp_path_factory.mktemp("trained")
    return run, *train(run)


def test_from_chance_to_the_sound_of_lips_never_seen(trained):
    _, lines, _ = trained
    curve = [line for line in lines if "validation/loss" in line]
    assert curve[0]["validation/loss"] > 0.8 * curve[0]["validation/chance"]
    assert curve[-1]["validation/loss"] < 0.4 * curve[-1]["validation/chance"]
    assert curve[-1]["validation/correct"] > 0.9
    assert not [line for line in lines if "warning" in line]


def test_shuffled_sound_stays_at_chance_and_is_said_once(tmp_path):
    lines, _ = train(tmp_path, True)
    last = [line for line in lines if "loss" in line][-1]
    assert last["loss"] > 0.95 * last["chance"]
    (warning,) = [line["warning"] for line in lines if "warning" in line]
    for cause in ("shuffled", "offset", "number of clips", "learning rate"):
        assert cause in warning


@pytest.mark.parametrize("lag", [-4, 0, 7])
def test_what_is_exported_reads_the_lag_of_a_clip_and_a_foreign_voice_low(trained, lag):
    model = SyncModel.load(trained[0] / "export" / "sync.safetensors")
    lips, voice = record(100, lag), record(101)
    own, foreign = (model.score(lips.channels, each.rows, MARGIN) for each in (lips, voice))
    assert own and foreign
    assert own.offset_frames == lag
    assert own.confidence > 0.5 > 2 * foreign.confidence - 0.2


def test_numpy_and_torch_embed_alike(trained):
    run, _, trainer = trained
    model, clip = SyncModel.load(run / "export" / "sync.safetensors"), record(100)
    towers = trainer.network.towers.eval()
    with trainer.state.ema_weights(), torch.no_grad():
        seen = towers.embed_mouth(torch.from_numpy(SyncClip.of(clip).motion)[None])[0].numpy()
        heard = towers.embed_audio(torch.from_numpy(clip.rows).float()[None])[0].numpy()
    np.testing.assert_allclose(model.embed_mouth(clip.channels), seen, atol=1e-3)
    np.testing.assert_allclose(model.embed_audio(clip.rows), heard, atol=1e-3)


def test_a_run_goes_on_where_it_stopped(trained, tmp_path):
    settings = load_sync_settings("small", QUICK)
    begin_run(tmp_path, settings, False)
    first = SyncTrainer(settings, data_of(settings), tmp_path, ALONE, False)
    step = first._step
    first._step = lambda batch, near: (first.ask_to_stop() if first.state.step == 29 else None, step(batch, near))[1]
    assert not first.run()
    second = SyncTrainer(settings, data_of(settings), tmp_path, ALONE, False)
    assert second.run()
    for name, value in second.state.ema.items():
        torch.testing.assert_close(value, trained[2].state.ema[name])


def test_a_run_is_not_continued_with_other_settings(tmp_path):
    begin_run(tmp_path, load_sync_settings("small"), False)
    begin_run(tmp_path, load_sync_settings("small", ["run.log_every=7"]), False)
    with pytest.raises(ValueError, match="other settings"):
        begin_run(tmp_path, load_sync_settings("small"), True)


def test_two_ranks_see_together_what_one_sees():
    settings = load_sync_settings("small", QUICK)
    whole = next(data_of(settings).batches(16, validation=True))
    parts = [
        next(data_of(settings, ranks=Ranks(rank, 2, torch.device("cpu"))).batches(16, validation=True))
        for rank in (0, 1)
    ]
    assert torch.equal(torch.cat([part.rows for part in parts]), whole.rows)
    assert torch.equal(torch.cat([part.seen for part in parts]), whole.seen)


def test_a_batch_holds_other_words_of_the_same_voice():
    settings = load_sync_settings("small", [*QUICK, "data.same_voice=4"])
    data = data_of(settings)
    sources = [data.training[data.place(data.training, sample)[0]].source_id for sample in range(400)]
    groups = [set(sources[first : first + 4]) for first in range(0, 400, 4)]
    assert all(len(group) == 1 for group in groups)
    assert set.union(*groups) == {clip.source_id for clip in data.training}


def test_sound_and_window_are_of_the_same_moment():
    settings = load_sync_settings("small", QUICK)
    batch = next(data_of(settings).batches(0, validation=True))
    assert batch.seen.shape == (8, 16, MOTIONS)
    assert batch.rows.shape == (8, 2 * (16 + 30), AUDIO_DIM)
    data = data_of(settings)
    i, start = data.place(data.held_out, 0)
    np.testing.assert_array_equal(batch.seen[0], data.held_out[i].motion[start : start + 16])
    np.testing.assert_array_equal(batch.rows[0, 30:62], data.held_out[i].rows[2 * (MARGIN + start) :][:32])


def test_loss_of_guessing_is_chance():
    mouths = torch.ones(6, 4) / 2
    sounds = torch.ones(6, 31, 4) / 2
    share = torch.eye(6, dtype=torch.bool)
    for near in (1, 5, 15):
        found = compare(mouths, sounds, share, near, torch.tensor(10.0))
        assert float(found.loss) == pytest.approx(float(found.chance), rel=1e-5)


def test_what_shares_words_is_no_negative():
    mouths = torch.nn.functional.normalize(torch.randn(4, 5, generator=torch.Generator().manual_seed(0)), dim=1)
    sounds = mouths[:, None].repeat(1, 3, 1) * torch.tensor([-1.0, 1.0, -1.0])[:, None]
    alike = mouths.clone()
    alike[1] = mouths[0]
    sounds[1, 1] = sounds[0, 1]
    share = torch.eye(4, dtype=torch.bool)
    confused = compare(alike, sounds, share, 1, torch.tensor(20.0))
    share[0, 1] = share[1, 0] = True
    assert compare(alike, sounds, share, 1, torch.tensor(20.0)).loss < confused.loss - 0.2


def test_hard_negatives_come_nearer():
    settings = load_sync_settings("small").data
    found = [nearest_negative(step, 100, settings) for step in (0, 15, 30, 99)]
    assert found == [15, 8, 1, 1]


def test_stuck_needs_many_losses_at_chance():
    stuck = Stuck(steps=30)
    told = [stuck.add(step, 4.0, 4.0, "2 clips", 0.1) for step in range(60)]
    assert [step for step, message in enumerate(told) if message] == [30]
    learning = Stuck(steps=30)
    assert not any(learning.add(step, 3.5, 4.0, "2 clips", 0.1) for step in range(60))


def test_similarity_of_windows_is_their_mean_correlation():
    a, b = torch.randn(2, 20, 3, generator=torch.Generator().manual_seed(0)).double()
    expected = np.mean([np.corrcoef(a[:, k], b[:, k])[0, 1] for k in range(3)])
    assert float(unit_window(a) @ unit_window(b)) == pytest.approx(expected)


def test_pictures_are_compared_as_landmarks_are():
    settings = load_sync_settings(
        "small_pixels", ["model.window_frames=5", "model.size_px=32", "model.audio_numbers=16"]
    )
    towers = build_towers(settings.model, AUDIO_DIM)
    towers.fit(torch.randn(300, AUDIO_DIM))
    planes = torch.randint(0, 256, (2, 5, 48, 32), dtype=torch.uint8)
    rows = torch.randn(2, 2 * (5 + 6), AUDIO_DIM)
    found = compare(
        towers.mouth_windows(planes), towers.audio_windows(rows), torch.eye(2, dtype=torch.bool), 1, torch.tensor(10.0)
    )
    found.loss.backward()
    assert all(each.grad is not None for name, each in towers.named_parameters() if name.startswith("picture."))
    assert towers.audio_windows(rows).shape == (2, 7, 5 * settings.model.dim)


def test_stable_has_the_shape_that_latentsync_describes():
    settings = load_sync_settings("stable")
    with torch.device("meta"):
        towers = StableTowers(settings.model, 384)
        seen = towers.mouth(torch.empty(1, 48, 128, 256))
        heard = towers.audio(torch.empty(1, 1, 384, 32))
    assert seen.shape == heard.shape == (1, 2048, 1, 1)
    with pytest.raises(ValueError, match="windows of 16 frames"):
        StableTowers(replace(settings.model, window_frames=5), 384)


def test_refused_before_the_work(tmp_path, capsys):
    assert sync.main(["--size", "small", "--data", str(tmp_path), "--run", str(tmp_path / "run")]) == 2
    assert "no parts" in capsys.readouterr().err
    assert sync.main(["--size", "smal", "--data", str(tmp_path), "--run", str(tmp_path / "run")]) == 2
    assert "did you mean" in capsys.readouterr().err


def test_clips_that_cannot_be_compared_are_counted():
    settings = load_sync_settings("small", QUICK)
    short = replace(record(50), channels=record(50).channels[:10])
    clips = [SyncClip.of(each) for each in (record(0), record(1), record(2), short)]
    assert LandmarkData(clips, settings, ALONE).left_out == 1
    with pytest.raises(ValueError, match="at least two sources"):
        LandmarkData(clips[:1], settings, ALONE)


def test_shuffled_gives_each_mouth_another_sound():
    batch = Stretches(torch.zeros(4, 1), torch.arange(4.0)[:, None], torch.eye(4, dtype=torch.bool))
    other = batch.shuffled()
    assert other.rows[:, 0].tolist() == [2, 3, 0, 1]
    assert other.share_words.nonzero().tolist() == [[0, 2], [1, 3], [2, 0], [3, 1]]
