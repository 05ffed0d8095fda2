"""Mirrored windows are those of mirrored clips, and all else stays as it is."""

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from media.encode import encode_mp4
from models.mask import MaskSettings
from shards.sample import LANDMARKS, VIDEO, Sample, encode_npy
from tests.training.numbered import DIM, LAYERS, SIDE, face, numbered_sample
from tests.training.toys import toy_vae
from training.batch import Batch
from training.cache import open_cache
from training.data import Indexed, loader, open_data
from training.distributed import Ranks
from training.flip import flip, mirror_boxes, mirror_planes
from training.latents import LatentCodec
from training.loss import prepare_inputs
from training.settings import DataSettings, NoiseSettings, load_settings
from training.stream import Loaded
from training.window import StoredClip, empty, fill

SETTINGS = DataSettings(size=SIDE, frames=4, workers=0)
FRAMES = 20


def opened(shards: Path, flip: float, **settings: object):
    return open_data(shards, replace(SETTINGS, flip=flip, **settings), MaskSettings())  # pyright: ignore


def read(shards: Path, flip: float, count: int = 12, start_sample: int = 0, **settings: object) -> list[Batch]:
    return list(islice(loader(opened(shards, flip, **settings), 2, start_sample=start_sample), count))


def coloured(mirrored: bool) -> Sample:
    """A clip of coloured blobs that move to the right, its landmarks with them; or the same in a mirror."""
    y, x = np.mgrid[:SIDE, :SIDE]
    shift = np.arange(FRAMES)[:, None, None, None]
    centre = np.array([20, 44, 30])
    picture = 128 + 100 * np.exp(-((x[..., None] - centre - shift) ** 2 + (y[..., None] - 30) ** 2) / 150)
    track = face(FRAMES) - (16, 0) + np.arange(FRAMES)[:, None, None] * (0.5, 0.0)
    if mirrored:
        picture, track[..., 0] = picture[:, :, ::-1], SIDE - track[..., 0]
    sample = numbered_sample(0, "a", FRAMES)
    video = encode_mp4(np.ascontiguousarray(picture).astype(np.uint8), crf=0)
    return Sample(sample.key, {**sample.members, VIDEO: video, LANDMARKS: encode_npy(track.astype(np.float16))})


def window(sample: Sample) -> dict[str, np.ndarray]:
    arrays, clip = empty(1, SETTINGS, LAYERS, DIM), StoredClip(sample.key, FRAMES, lambda: Loaded(sample))
    assert fill(arrays, 0, clip, clip, np.random.default_rng(3), MaskSettings()) is None
    arrays["sample"][:] = 0
    return arrays


def test_a_mirrored_window_is_that_of_the_mirrored_clip():
    found, expected = window(coloured(False)), window(coloured(True))
    assert np.abs(found["video"].astype(int) - expected["video"]).max() > 50, "the blobs lie on one side"
    assert np.abs(found["mask_boxes"] - expected["mask_boxes"]).max() > 5
    flip(found, 0)
    for name in ("mask_boxes", "reference_box"):
        np.testing.assert_allclose(found[name], expected[name], atol=0.02)  # landmarks are halves of single precision
    for name in ("video", "reference"):
        assert np.abs(found[name].astype(int) - expected[name]).mean() < 0.5, name
    for name in set(found) - {"mask_boxes", "reference_box", "video", "reference"}:
        assert np.array_equal(found[name], expected[name]), name


def test_twice_mirrored_is_as_before():
    random = np.random.default_rng(0)
    planes, boxes = random.integers(0, 255, (2, 3, 96, 64), np.uint8), random.random((2, 4), np.float32)
    assert np.array_equal(mirror_planes(mirror_planes(planes)), planes)
    np.testing.assert_allclose(mirror_boxes(mirror_boxes(boxes, 64), 64), boxes, atol=1e-5)
    assert mirror_boxes(np.array([10.0, 5.0, 20.0, 9.0]), 64).tolist() == [44, 5, 54, 9]


def as_before(batch: Batch, b: int) -> tuple[bytes, ...]:
    return tuple(value[b].numpy().tobytes() for value in vars(batch).values() if isinstance(value, torch.Tensor))


@pytest.mark.parametrize("mode", ["index", "stream"])
def test_some_windows_are_mirrored_and_the_others_are_the_same_bytes(shards: Path, mode: Literal["index", "stream"]):
    plain, mixed, all_of_them = (read(shards, flip, mode=mode) for flip in (0.0, 0.5, 1.0))
    if mode == "stream":  # there a draw more moves all that follow
        plain = read(shards, 1e-12, mode=mode)
    count = 0
    for a, b, c in zip(plain, mixed, all_of_them, strict=True):
        for i in range(2):
            assert torch.equal(torch.from_numpy(mirror_planes(a.video[i].numpy())), c.video[i])
            assert torch.equal(torch.from_numpy(mirror_planes(a.reference[i].numpy())), c.reference[i])
            assert torch.equal(a.noise_seed, c.noise_seed) and torch.equal(a.whisper, c.whisper)
            whole = as_before(b, i)
            assert whole in (as_before(a, i), as_before(c, i)), "video, reference and masks go together"
            count += whole == as_before(c, i)
    assert 4 < count < 20


def test_which_are_mirrored_follows_from_the_place_in_the_order(shards: Path):
    whole, resumed = read(shards, 0.5), read(shards, 0.5, 5, start_sample=14)
    assert [as_before(b, i) for b in resumed for i in range(2)] == [
        as_before(b, i) for b in whole[7:] for i in range(2)
    ]


def test_what_is_validated_is_not_mirrored(shards: Path):
    held_out = opened(shards, 1.0, validation_share=0.3).validation()
    assert held_out is not None and held_out.settings.flip == 0
    assert opened(shards, 1.0).of_length(8).settings.flip == 0


def test_cached_pictures_are_mirrored_likewise_and_latents_refused(shards: Path, tmp_path: Path):
    codec, alone = LatentCodec(toy_vae()), Ranks(0, 1, torch.device("cpu"))
    found = []
    for chance in (0.0, 1.0):
        data = opened(shards, chance, cache="pictures")
        assert isinstance(data, Indexed)
        data.cache = open_cache(tmp_path, data.clips(), data.content, data.settings, MaskSettings(), codec, alone)
        found.append(next(loader(data, 2)))
    plain, mirrored = found
    assert torch.equal(torch.from_numpy(mirror_planes(plain.video.numpy())), mirrored.video)
    assert torch.equal(plain.masks().flip(-1), mirrored.masks())
    masked = [prepare_inputs(b, codec, NoiseSettings(), "paper").mask for b in found]
    assert torch.equal(masked[0].flip(-1), masked[1])
    with pytest.raises(ValueError, match=r"data\.flip 0\.5 mirrors pictures, and data\.cache: latents keeps none"):
        opened(shards, 0.5, cache="latents")


def test_a_share_beyond_one_is_refused():
    with pytest.raises(ValueError, match=r"data\.flip is 1\.5"):
        load_settings("sayanything", ["data.flip=1.5"])
