import io

import av
import numpy as np
import torch

from media.encode import decode_mp4, encode_mp4
from models.mask import draw
from training.batch import Batch, fill_boxes, rgb


def painted(frames: int, side: int) -> np.ndarray:
    """Smooth saturated colours: [T, side, side, 3] uint8."""
    y, x = np.mgrid[:side, :side] / side
    t = np.arange(frames)[:, None, None]
    waves = [np.sin(6 * x + t), np.cos(5 * y - t / 2), np.sin(4 * (x + y) + 2)]
    return np.stack([128 + 127 * wave * np.ones((frames, side, side)) for wave in waves], axis=-1).astype(np.uint8)


def planes_of_file(data: bytes) -> np.ndarray:
    with av.open(io.BytesIO(data), "r") as container:
        return np.stack([frame.to_ndarray(format="yuv420p") for frame in container.decode(video=0)])


def a_batch() -> Batch:
    return Batch(
        video=torch.full((2, 3, 48, 32), 128, dtype=torch.uint8),
        reference=torch.full((2, 48, 32), 128, dtype=torch.uint8),
        mask_boxes=torch.tensor([8.0, 16, 24, 40]).expand(2, 3, 4),
        reference_box=torch.tensor([0.0, 0, 16, 8]).expand(2, 4),
        whisper=torch.zeros(2, 14, 1, 4, dtype=torch.float16),
        noise_seed=torch.tensor([1, 2]),
        drop_draws=torch.zeros(2, 2, dtype=torch.float64),
        sample=torch.tensor([0, 1]),
        keys=("a", "b"),
        quarantined=(("c", "why"),),
    )


def test_colours_are_those_of_pyav_without_its_truncation():
    data = encode_mp4(painted(3, 64))
    ours = (rgb(torch.from_numpy(planes_of_file(data))).permute(0, 2, 3, 1) + 1) * 127.5
    difference = ours.numpy() - decode_mp4(data)
    assert -0.1 < difference.min() < difference.max() < 3, "swscale cuts twice: 1.1 levels darker on average"


def test_colours_come_back_no_darker_than_they_were_encoded():
    pictures = painted(8, 64)
    ours = (rgb(torch.from_numpy(planes_of_file(encode_mp4(pictures)))).permute(0, 2, 3, 1) + 1) * 127.5
    assert np.abs((ours.numpy() - pictures).mean(axis=(0, 1, 2))).max() < 0.6


def test_black_grey_and_white_have_their_values():
    planes = torch.full((3, 6, 4), 128, dtype=torch.uint8)
    planes[:, :4] = torch.tensor([16, 126, 235]).view(3, 1, 1)
    picture = rgb(planes)
    assert picture.shape == (3, 3, 4, 4)
    assert picture[0].eq(-1).all()
    assert picture[1].abs().max() < 0.01
    assert picture[2].sub(1).abs().max() < 1e-6


def test_pictures_and_masks_have_the_shapes_of_the_network():
    batch = a_batch()
    assert batch.frames().shape == (2, 3, 3, 32, 32)
    assert batch.reference_frame().shape == (2, 3, 32, 32)
    assert batch.masks().shape == (2, 3, 1, 32, 32)
    assert batch.reference_mask().shape == (2, 1, 32, 32)
    assert batch.frames().dtype == batch.masks().dtype == torch.float32


def test_masks_are_those_that_generation_draws():
    boxes = np.array([[-3.2, 4.5, 10.49, 12.51], [0, 0, 32, 32], [20.0, 30.0, 50.0, 60.0]], np.float32)
    assert np.array_equal(fill_boxes(torch.from_numpy(boxes), 32).numpy(), draw(boxes, 32, 32))
    assert a_batch().reference_mask()[0, 0, :8, :16].min() == 1
    assert a_batch().reference_mask().sum() == 2 * 8 * 16


def test_a_batch_moves_whole():
    moved = a_batch().to("meta")
    assert {t.device.type for t in vars(moved).values() if isinstance(t, torch.Tensor)} == {"meta"}
    assert moved.keys == ("a", "b")
