from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from models.mask import MaskSettings
from shards.index import INDEX, INDEX_NAME, MEANINGS, read_index
from storage.table import write_table
from tests.training.numbered import SIDE, damage, numbers_in, write_shards
from tests.training.toys import toy_vae
from training.batch import Batch
from training.cache import REFERENCE_EVERY, Cache, open_cache
from training.data import Indexed, loader, open_data
from training.distributed import Ranks
from training.latents import LatentCodec
from training.linear_codec import LinearCodec
from training.loss import prepare_inputs
from training.settings import DataSettings, NoiseSettings

ALONE = Ranks(0, 1, torch.device("cpu"))
CLIPS = [("a", 40), ("a", 30), ("b", 60)]


def settings(cache: str, **others: object) -> DataSettings:
    return replace(DataSettings(frames=4, size=SIDE, workers=0, cache=cache), **others)  # pyright: ignore


def opened(shards: Path, cache: str, folder: Path, codec: LatentCodec, mask: MaskSettings = MaskSettings()) -> Indexed:
    data = open_data(shards, settings(cache), mask)
    assert isinstance(data, Indexed)
    if cache != "none":
        data.cache = open_cache(folder, data.clips(), data.content, data.settings, mask, codec, ALONE)
    return data


@pytest.fixture(scope="module")
def codec() -> LatentCodec:
    return LatentCodec(toy_vae())


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards"), CLIPS)


def cache_of(data: Indexed) -> Cache:
    assert data.cache is not None
    return data.cache


def batches(data: Indexed, count: int = 6) -> list[Batch]:
    return list(islice(loader(data, 2), count))


def test_windows_of_cached_pictures_are_those_of_the_shards(shards, tmp_path, codec):
    for batch in batches(opened(shards, "pictures", tmp_path, codec)):
        for key, video, reference in zip(batch.keys, batch.video, batch.reference, strict=True):
            clips, frames = zip(*numbers_in(video.numpy()), strict=True)
            assert set(clips) == {int(key.removeprefix("clip-"))}
            assert list(frames) == list(range(frames[0], frames[0] + 4))
            assert {numbers_in(reference[None].numpy())[0][0], clips[0]} <= {0, 1} or clips[0] == 2


@pytest.mark.parametrize("make", [lambda: LatentCodec(toy_vae()), lambda: LatentCodec(LinearCodec(factor=4))])
@pytest.mark.parametrize("fusion", ["paper", "vae_feature"])
def test_cached_latents_are_what_the_codec_would_have_made(shards, tmp_path, make, fusion):
    made, pictures = make(), opened(shards, "pictures", tmp_path / "p", make())
    latents = opened(shards, "latents", tmp_path / "l", made)
    shown = next(iter(loader(pictures, 2)))
    rows = np.array([int(key.removeprefix("clip-")) for key in shown.keys])
    places = [numbers_in(video.numpy())[0][1] for video in shown.video]
    starts = cache_of(latents).starts[[list(latents._keys).index(key.encode()) for key in shown.keys]]
    arrays = cache_of(latents).latents
    assert arrays is not None
    stored = np.stack([arrays[s + p : s + p + 4] for s, p in zip(starts, places, strict=True)])
    assert len(rows) == 2
    other = replace(shown, latents=torch.from_numpy(stored))
    a, b = (prepare_inputs(batch, made, NoiseSettings(), fusion) for batch in (shown, other))
    torch.testing.assert_close(a.z0, b.z0, rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(a.conditions.concatenated, b.conditions.concatenated, rtol=2e-3, atol=2e-3)
    assert torch.equal(a.n, b.n) and torch.equal(a.conditions.identity, b.conditions.identity)


def test_references_of_cached_latents_are_one_frame_a_second(shards, tmp_path, codec):
    seen = {
        numbers_in(r[None].numpy())[0]
        for b in batches(opened(shards, "latents", tmp_path, codec), 20)
        for r in b.reference
    }
    assert len(seen) > 3
    assert all(frame % REFERENCE_EVERY == 0 for _, frame in seen)


def test_a_mouth_crop_is_a_part_of_the_picture_and_its_mask_goes_with_it(shards, tmp_path, codec):
    mouth = MaskSettings(crop="mouth", crop_side=1.0)
    whole = cache_of(opened(shards, "pictures", tmp_path / "whole", codec))
    part = cache_of(opened(shards, "pictures", tmp_path / "part", codec, mouth))
    scale = (whole.masks[0, 2] - whole.masks[0, 0]) / (part.masks[0, 2] - part.masks[0, 0])
    assert 0.4 < scale < 0.6, "the face is half as high as the picture"
    centre = part.masks[0].reshape(2, 2).mean(axis=0)
    assert np.abs(centre - SIDE / 2).max() < 4


def test_another_mask_another_vae_or_other_clips_make_the_cache_again(shards, tmp_path, codec):
    first = opened(shards, "latents", tmp_path, codec)
    stamp = (tmp_path / "cache.yaml").read_text()
    opened(shards, "latents", tmp_path, codec)
    assert (tmp_path / "cache.yaml").read_text() == stamp
    opened(shards, "latents", tmp_path, codec, MaskSettings(up=0.3))
    assert (tmp_path / "cache.yaml").read_text() != stamp
    with torch.no_grad():
        other = toy_vae()
        next(other.parameters()).add_(1)
    opened(shards, "latents", tmp_path, LatentCodec(other))
    assert (tmp_path / "cache.yaml").read_text() != stamp
    assert first.cache is not None


def test_a_clip_of_the_same_name_and_length_with_other_bytes_makes_the_cache_again(tmp_path, codec):
    shards = write_shards(tmp_path / "shards", CLIPS)
    before = opened(shards, "pictures", tmp_path / "cache", codec)
    stamp = (tmp_path / "cache" / "cache.yaml").read_text()
    index = read_index(shards / "shards")
    index.loc[0, "sha256"] = "0" * 64
    write_table(shards / "shards" / INDEX_NAME, index, INDEX, MEANINGS)
    after = opened(shards, "pictures", tmp_path / "cache", codec)
    assert [clip.key for clip in after.clips()] == [clip.key for clip in before.clips()]
    assert (tmp_path / "cache" / "cache.yaml").read_text() != stamp


def test_a_damaged_clip_is_replaced_and_named(tmp_path, codec):
    shards = write_shards(tmp_path / "shards", CLIPS)
    damage(shards, "clip-000")
    data = opened(shards, "pictures", tmp_path / "cache", codec)
    data.settings = replace(data.settings, max_bad_share=1.0, reference="clip")
    found = list(islice(loader(data, 2), 12))
    assert all("clip-000" not in batch.keys for batch in found)
    assert any(key == "clip-000" for batch in found for key, _ in batch.quarantined)
