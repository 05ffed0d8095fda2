import logging
import os
import pickle
import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from models.mask import MaskSettings, mask_boxes, median_face
from shards.index import read_index, write_index
from shards.sample import decode_npy
from tests.training.conftest import CLIPS
from tests.training.numbered import DIM, LAYERS, SIDE, damage, face, number_of, numbers_in, write_shards
from training.batch import Batch
from training.data import ClipsOfSource, DataError, Dataset, held_out_sources, loader, open_data
from training.settings import DataSettings

T = 16
SETTINGS = DataSettings(size=SIDE, workers=0, max_bad_share=1.0)
LENGTHS = [frames for _, frames in CLIPS]
SOURCES = [source for source, _ in CLIPS]


def opened(shards: Path, **settings: object) -> Dataset:
    return open_data(shards, replace(SETTINGS, **settings), MaskSettings())  # pyright: ignore[reportArgumentType]


def read(data: Dataset, batches: int, micro_batch: int = 4, **how: int) -> list[Batch]:
    return list(islice(loader(data, micro_batch, **how), batches))


def content(batch: Batch) -> list[tuple]:
    """Everything in a batch, one tuple a window, to compare."""
    tensors = [value for value in vars(batch).values() if isinstance(value, torch.Tensor)]
    windows = [tuple(tensor[b].numpy().tobytes() for tensor in tensors) for b in range(len(batch.keys))]
    return [(key, *window) for key, window in zip(batch.keys, windows, strict=True)]


def all_content(batches: list[Batch]) -> list[tuple]:
    return [window for batch in batches for window in content(batch)]


def start_of(planes: torch.Tensor) -> int:
    return numbers_in(planes.numpy())[0][1]


@pytest.fixture
def copy(shards: Path, tmp_path: Path) -> Path:
    return shutil.copytree(shards, tmp_path / "copy")


# What a window is


def test_a_window_is_16_frames_in_a_row_of_its_clip(shards: Path):
    starts = set()
    for batch in read(opened(shards), 10):
        for key, video in zip(batch.keys, batch.video, strict=True):
            clips, frames = zip(*numbers_in(video.numpy()), strict=True)
            assert set(clips) == {number_of(key)}
            assert list(frames) == list(range(frames[0], frames[0] + T))
            starts.add((key, frames[0]))
    assert len(starts) > 20, "windows begin anywhere"


def test_every_start_of_a_clip_comes(tmp_path: Path):
    data = opened(write_shards(tmp_path, [("a", 19), ("b", 19)]))
    starts = {start_of(video) for batch in read(data, 30, 2) for video in batch.video}
    assert starts == {0, 1, 2, 3}


def test_a_window_of_a_long_clip_reads_little_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Counted, not timed: of 500 frames, 16 and one of reference, each from the keyframe (every 16) before it.

    Pictures are so small here that the container's own table is a third of what is read.
    """
    data = opened(write_shards(tmp_path, [("a", 500), ("b", 500)], shard_bytes=10**9))
    index = read_index(tmp_path / "shards")
    clip_bytes = float(index[[name for name in index if str(name).endswith("_size")]].sum(axis=1).mean())
    pread, count = os.pread, []
    monkeypatch.setattr(os, "pread", lambda *given: count.append(given[1]) or pread(*given))
    windows = sum(len(batch.keys) for batch in read(data, 8, 4))
    assert 0.05 * clip_bytes < sum(count) / windows < 0.5 * clip_bytes


def test_sound_rows_are_those_of_the_frames_and_their_surroundings(shards: Path):
    k, seen = SETTINGS.window_frames, set()
    for batch in read(opened(shards), 12):
        for key, video, rows in zip(batch.keys, batch.video, batch.whisper.numpy(), strict=True):
            number, start = number_of(key), start_of(video)
            assert rows.shape == (2 * (T + 2 * k), LAYERS, DIM)
            expected = np.arange(2 * (start - k), 2 * (start + T + k))
            inside = (expected >= 0) & (expected < 2 * LENGTHS[number])
            assert rows[inside, 0, 1].tolist() == expected[inside].tolist()
            assert set(rows[inside, 0, 0]) == {number}
            assert not rows[~inside].any(), "zero padding (section 3.4)"
            assert rows[inside, 1, 2].all()
            seen |= {int(inside[0]), int(inside[-1]) + 2}
    assert seen == {0, 1, 2, 3}, "windows at both ends of a clip and away from them"


def test_the_reference_comes_from_any_clip_of_the_source(shards: Path):
    pairs = set()
    for batch in read(opened(shards), 30):
        for key, (number, frame) in zip(batch.keys, numbers_in(batch.reference.numpy()), strict=True):
            assert SOURCES[number] == SOURCES[number_of(key)]
            assert 0 <= frame < LENGTHS[number]
            pairs.add((number_of(key), number))
    assert {(0, 1), (1, 0), (0, 0), (2, 5), (5, 2)} <= pairs


def test_every_frame_of_a_source_is_as_likely():
    of_source = ClipsOfSource(np.array([b"a", b"b", b"a", b"a"]), np.array([1, 50, 1, 2]))
    random = np.random.default_rng(0)
    drawn = [of_source.row_of_frame(2, random) for _ in range(400)]
    assert [drawn.count(row) for row in range(4)] == pytest.approx([100, 0, 100, 200], abs=40)


def test_the_reference_can_be_kept_to_its_clip(shards: Path):
    for batch in read(opened(shards, reference="clip"), 10):
        assert [number for number, _ in numbers_in(batch.reference.numpy())] == [number_of(key) for key in batch.keys]


def test_masks_are_those_of_the_whole_clip(tmp_path: Path):
    random = np.random.default_rng(0)
    track = face(120) + np.cumsum(random.normal(size=(120, 1, 2)) / 3, axis=0)
    data = opened(write_shards(tmp_path, [("a", 120), ("b", 20)], landmarks={0: track}))
    index = read_index(tmp_path / "shards")
    row = index[index["key"] == "clip-000"].iloc[0]
    with (tmp_path / "shards" / row["shard"]).open("rb") as file:
        members = []
        for name in ("landmarks_npy", "boxes_npy"):
            file.seek(int(row[f"{name}_offset"]))
            members.append(decode_npy(file.read(int(row[f"{name}_size"]))))
    whole, seen = mask_boxes(members[0], median_face(members[1]), MaskSettings()), 0
    for batch in read(data, 12, 1):
        if batch.keys == ("clip-000",):
            start = start_of(batch.video[0])
            np.testing.assert_allclose(batch.mask_boxes[0], whole[start : start + T], atol=1e-3)
            number, frame = numbers_in(batch.reference.numpy())[0]
            assert number == 0
            np.testing.assert_allclose(batch.reference_box[0], whole[frame], atol=1e-3)
            seen += 1
    assert seen > 3


def test_windows_and_references_have_a_face_in_every_frame(tmp_path: Path):
    track = face(80, np.arange(80) < 50)
    data = opened(write_shards(tmp_path, [("a", 80), ("b", 20)], landmarks={0: track}))
    for batch in read(data, 40, 1):
        assert batch.mask_boxes.isfinite().all()
        if batch.keys == ("clip-000",):
            assert start_of(batch.video[0]) + T <= 50
            assert numbers_in(batch.reference.numpy())[0][1] < 50
        assert not batch.quarantined


def test_another_size_scales_pictures_and_masks_alike(shards: Path):
    for size in (32, 128):
        for one, other in zip(read(opened(shards), 3), read(opened(shards, size=size), 3), strict=True):
            assert other.video.shape == (4, T, size * 3 // 2, size)
            assert [numbers_in(v.numpy()) for v in other.video] == [numbers_in(v.numpy()) for v in one.video]
            torch.testing.assert_close(other.mask_boxes, one.mask_boxes * size / SIDE)
            torch.testing.assert_close(other.reference_box, one.reference_box * size / SIDE)
            assert other.frames().sub(one.frames().mean()).abs().max() < 2


def test_random_numbers_differ_between_windows(shards: Path):
    batches = read(opened(shards), 10)
    assert len({seed for batch in batches for seed in batch.noise_seed.tolist()}) == 40
    draws = torch.cat([batch.drop_draws for batch in batches])
    assert len(draws.unique()) == 80
    assert 0 <= draws.min() < 0.2 < 0.8 < draws.max() < 1


# Which window comes when


def test_an_epoch_has_a_clip_as_often_as_it_has_room_for_windows(shards: Path):
    data = opened(shards)
    assert len(data) == sum(frames // T for frames in LENGTHS) == 2 + 1 + 2 + 1 + 4 + 3
    keys = [key for batch in read(data, 13, 1, global_batch=13) for key in batch.keys]
    assert {number_of(key): keys.count(key) for key in keys} == {0: 2, 1: 1, 2: 2, 3: 1, 4: 4, 5: 3}
    once = [key for batch in read(opened(shards, weight="clip"), 6, 1, global_batch=6) for key in batch.keys]
    assert sorted(map(number_of, once)) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("world", [2, 4])
def test_global_batches_are_the_same_for_any_number_of_ranks(shards: Path, world: int):
    data = opened(shards)
    alone = all_content(read(data, 6, 4))
    ranks = [all_content(read(data, 24 // world, 1, rank=rank, world=world, global_batch=4)) for rank in range(world)]
    assert [window for together in zip(*ranks, strict=True) for window in together] == alone


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_are_the_same_for_any_number_of_workers(shards: Path, workers: int):
    data = opened(shards)
    assert all_content(read(data, 8, 2, workers=workers)) == all_content(read(data, 8, 2, workers=0))


def test_a_resumed_run_sees_what_the_uninterrupted_one_would_have(shards: Path):
    data = opened(shards)
    whole = read(data, 12)  # 3 windows more than 3 epochs of 12
    resumed = read(opened(shards), 5, start_sample=28)
    assert all_content(resumed) == all_content(whole[7:])
    assert torch.cat([batch.sample for batch in whole]).tolist() == list(range(48))


def test_epochs_and_seeds_differ(shards: Path):
    epochs = read(opened(shards), 2, 12)
    other = read(opened(shards, seed=1), 1, 12)
    assert len({tuple(batch.keys) for batch in [*epochs, *other]}) == 3
    assert not set(content(epochs[0])) & set(content(epochs[1]))


def test_a_dataset_can_be_sent_to_a_process(shards: Path):
    data = opened(shards)
    assert all_content(read(pickle.loads(pickle.dumps(data)), 2)) == all_content(read(data, 2))


def test_held_out_sources_are_never_trained_on(shards: Path):
    data = opened(shards, validation_share=0.3)
    validation = data.validation()
    assert validation is not None
    held_out = held_out_sources(SOURCES, 0.3)
    assert 0 < len(held_out) < len(set(SOURCES))
    trained = {SOURCES[number_of(key)] for batch in read(data, 10, 2) for key in batch.keys}
    seen = {SOURCES[number_of(key)] for batch in read(validation, 10, 2) for key in batch.keys}
    assert seen <= held_out
    assert trained.isdisjoint(held_out)
    assert len(data) + len(validation) == len(opened(shards))
    assert all_content(read(validation, 2, 2)) == all_content(read(validation, 2, 2))
    assert opened(shards).validation() is None


def test_which_sources_are_held_out_follows_from_each_alone():
    many = [f"{i:064x}" for i in range(1000)]
    held_out = held_out_sources(many, 0.1)
    assert 70 < len(held_out) < 130
    assert held_out_sources(many[::2], 0.1) == held_out & set(many[::2])
    assert len(held_out_sources(many[:3], 1e-9)) == 1, "at least one"
    assert len(held_out_sources(many[:3], 1.0)) == 2, "never all"
    assert not held_out_sources(many[:1], 0.5)
    assert not held_out_sources(many, 0.0)


# What goes wrong


def without_whisper(folder: Path, key: str) -> None:
    index = read_index(folder / "shards")
    index.loc[index["key"] == key, ["whisper_npy_offset", "whisper_npy_size"]] = pd.NA
    write_index(folder / "shards", index)


def shorter_landmarks(folder: Path, key: str) -> None:
    index = read_index(folder / "shards")
    index.loc[index["key"] == key, "frames"] += 1
    index.loc[index["key"] == key, "whisper_npy_size"] += 2 * LAYERS * DIM * 2
    write_index(folder / "shards", index)


def cut_off(folder: Path, key: str) -> None:
    """End the tar of this clip in its first member, so that others in it may be gone, too."""
    index = read_index(folder / "shards")
    row = index[index["key"] == key].iloc[0]
    with (folder / "shards" / row["shard"]).open("r+b") as file:
        file.truncate(int(row["offset"]) + 600)


def missing_tar(folder: Path, key: str) -> None:
    index = read_index(folder / "shards")
    (folder / "shards" / index[index["key"] == key].iloc[0]["shard"]).unlink()


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (damage, "clip-004.mp4: Invalid data found when processing input"),
        (without_whisper, "has no member whisper.npy"),
        (shorter_landmarks, "70 landmarks and 70 boxes for 71 frames"),
        (cut_off, "bytes expected at byte"),
        (missing_tar, "No such file"),
    ],
)
def test_what_cannot_be_read_is_replaced_and_reported_alike_everywhere(copy: Path, harm, says: str):
    harm(copy, "clip-004")
    data = opened(copy)
    alone = read(data, 6, 4)
    bad = {key: reason for batch in alone for key, reason in batch.quarantined}
    assert "clip-004" in bad
    assert says in bad["clip-004"]
    assert all(key not in bad for batch in alone for key in batch.keys)
    ranks = [all_content(read(data, 12, 1, rank=rank, world=2, global_batch=4, workers=1)) for rank in range(2)]
    assert [window for pair in zip(*ranks, strict=True) for window in pair] == all_content(alone)
    assert all_content(read(data, 2, 4, start_sample=16)) == all_content(alone)[16:]


def test_the_replacement_is_the_next_sample_of_the_order(copy: Path):
    data = opened(copy)
    before = [key for batch in read(data, 13, 1, global_batch=13) for key in batch.keys]
    damage(copy, "clip-003")
    after = [key for batch in read(data, 13, 1, global_batch=13) for key in batch.keys]
    order = [*before, *before]
    assert after == [next(key for key in order[i:] if key != "clip-003") for i in range(13)]


def test_a_damaged_reference_is_blamed_itself(copy: Path):
    damage(copy, "clip-001", 2000, 10_000)  # of the source of clip-000
    batches = read(opened(copy), 30)
    bad = {key for batch in batches for key, _ in batch.quarantined}
    assert bad == {"clip-001"}
    assert "clip-000" in {key for batch in batches for key in batch.keys}


def test_each_bad_clip_is_logged_once(copy: Path, caplog: pytest.LogCaptureFixture):
    damage(copy, "clip-004")
    with caplog.at_level(logging.WARNING):
        read(opened(copy), 12)
    assert len([record for record in caplog.records if "clip-004 cannot be read" in record.getMessage()]) == 1


def many_clips(folder: Path, bad: int) -> Path:
    write_shards(folder, [(f"source-{i}", 20) for i in range(40)], shard_bytes=1_000_000)
    for i in range(bad):
        damage(folder, f"clip-{i:03d}", 0, 20_000)
    return folder


def test_too_many_bad_clips_end_the_run(tmp_path: Path):
    data = opened(many_clips(tmp_path, bad=12), max_bad_share=0.05)
    with pytest.raises(DataError, match=r"1\d clips cannot be read: .*data\.max_bad_share \(5\.0%\).*shards\.verify"):
        read(data, 40, 1)


def test_a_few_bad_clips_do_not(tmp_path: Path):
    assert len(read(opened(many_clips(tmp_path, bad=9), max_bad_share=0.05), 40, 1)) == 40


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_without_a_readable_clip_ends(tmp_path: Path, workers: int):
    data = opened(many_clips(tmp_path, bad=40), max_bad_share=1.0)
    with pytest.raises(DataError, match="32 clips in a row cannot be read; the last, clip-"):
        read(data, 1, 1, workers=workers)


def test_a_folder_without_an_index_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match=r"no index\.parquet in it .* python curation/run\.py"):
        opened(tmp_path)


def test_the_folder_of_the_shards_itself_will_do(shards: Path):
    assert len(opened(shards / "shards")) == len(opened(shards))


def test_what_the_vae_cannot_take_is_refused(shards: Path):
    with pytest.raises(DataError, match=r"data\.size 100: the VAE needs a multiple of 8"):
        opened(shards, size=100)


def test_too_few_windows_are_refused(shards: Path):
    with pytest.raises(ValueError, match="13 windows of training data do not fill one global batch of 16"):
        loader(opened(shards), 16)
    with pytest.raises(DataError, match="nothing to train on: 7 clips, .* 7 shorter than 80 frames"):
        opened(shards, frames=80)


def test_features_of_two_whispers_are_refused(copy: Path):
    index = read_index(copy / "shards")
    index.loc[3, "whisper_npy_size"] += 640
    write_index(copy / "shards", index)
    with pytest.raises(DataError, match=f"not the Whisper features .*{index['key'][3]}; curate them all with one"):
        opened(copy)


def test_a_first_shard_that_is_gone_is_no_hindrance(copy: Path):
    (copy / "shards" / read_index(copy / "shards")["shard"][0]).unlink()
    assert opened(copy).layers == LAYERS
    for tar in (copy / "shards").glob("*.tar"):
        tar.unlink()
    with pytest.raises(DataError, match="no shard can be read; the first: .*shard-000000.tar: No such file"):
        opened(copy)


def test_shards_without_whisper_are_refused(copy: Path):
    index = read_index(copy / "shards")
    index[["whisper_npy_offset", "whisper_npy_size"]] = pd.NA
    write_index(copy / "shards", index.astype({"whisper_npy_offset": "Int64", "whisper_npy_size": "Int64"}))
    with pytest.raises(DataError, match="steps/whisper"):
        opened(copy)


# Windows of another length


def test_the_same_clips_can_be_read_in_longer_windows(shards: Path):
    data = opened(shards)
    long = data.of_length(40)
    assert len(long) == 3  # of the clips of 40, 70 and 50 frames
    for batch in read(long, 6, 1):
        assert LENGTHS[number_of(batch.keys[0])] >= 40
        clips, frames = zip(*numbers_in(batch.video[0].numpy()), strict=True)
        assert set(clips) == {number_of(batch.keys[0])}
        assert list(frames) == list(range(frames[0], frames[0] + 40))
    assert read(data, 1)[0].video.shape[1] == T, "the other dataset is as it was"
    assert len(data.of_length(1000)) == 0
