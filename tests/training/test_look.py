"""The sheet shows the frames, masks and codec of the very windows that the trainer's loader draws."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from models.mask import MaskSettings
from tests.training.numbered import SIDE, number_of, write_shards
from training.batch import Batch
from training.data import loader, open_data
from training.latents import LatentCodec
from training.linear_codec import LinearCodec, fit_codec
from training.look import EDGE, LEAST_PX, TEXT_PX, draw_sheet, main, shown_frames
from training.settings import DataSettings

FACTOR = -(-LEAST_PX // SIDE)
TILE = FACTOR * SIDE + EDGE
GREY, EDGE_COLOUR = 128, (255, 80, 160)


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Batch:
    shards = write_shards(tmp_path_factory.mktemp("look"), [("a", 40), ("b", 40), ("c", 40)])
    data = open_data(shards, DataSettings(frames=4, size=SIDE, workers=0), MaskSettings())
    return next(loader(data, 3))


def tile(sheet: np.ndarray, rows: int, window: int, row: int, column: int) -> np.ndarray:
    """One picture of a sheet with so many rows to a window, at its own size."""
    top = window * (TEXT_PX + rows * TILE) + TEXT_PX + row * TILE
    part = sheet[top : top + TILE - EDGE, column * TILE : (column + 1) * TILE - EDGE]
    return part[::FACTOR, ::FACTOR]


def number_in(picture: np.ndarray) -> tuple[int, int]:
    """(clip, frame) as tests/training/numbered.py draws them; the middle of each cell, which a mask's edge may miss."""
    cell = SIDE // 4
    bits = [picture[y * cell + 3, x * cell + 3, 1] > 128 for y in range(4) for x in range(4)]
    code = sum(int(bit) << i for i, bit in enumerate(bits))
    return code // 256, code % 256


def test_each_window_is_shown_frame_by_frame_beside_a_reference_of_its_clip(batch: Batch) -> None:
    sheet = draw_sheet(batch, None)
    assert sheet.shape == (3 * (TEXT_PX + 2 * TILE), 5 * TILE, 3)
    for window, key in enumerate(batch.keys):
        shown = [number_in(tile(sheet, 2, window, 0, column)) for column in range(5)]
        assert {clip for clip, _ in shown} == {number_of(key)}
        first = shown[1][1]
        assert [frame for _, frame in shown[1:]] == list(range(first, first + 4))


def test_the_masked_row_is_grey_where_the_outline_of_the_row_above_is_and_nowhere_else(batch: Batch) -> None:
    sheet = draw_sheet(batch, None)
    above, masked = (tile(sheet, 2, 0, row, 1).astype(int) for row in (0, 1))
    inside = batch.masks()[0, 0, 0].numpy() > 0
    assert inside.any() and (masked[inside] == GREY).all()
    edge = (above == EDGE_COLOUR).all(axis=-1)
    assert edge.any() and np.abs(above - masked)[~inside & ~edge].max() == 0


def test_the_last_row_is_what_the_codec_keeps_and_another_codec_shows_that_it_does_not(batch: Batch) -> None:
    frames = batch.frames().flatten(0, 1)
    fitted = fit_codec(frames, 4, 24)
    torch.manual_seed(0)
    random = LinearCodec(factor=4, latent_channels=24)
    for bank in (random.analysis, random.synthesis):
        torch.nn.init.normal_(bank, std=0.02)
    errors = []
    for codec in (fitted, random):
        sheet = draw_sheet(batch, LatentCodec(codec))
        truth = ((batch.frames()[0, 0].permute(1, 2, 0) + 1) * 127.5).numpy()
        errors.append(float(np.abs(tile(sheet, 3, 0, 2, 1) - truth).mean()))
    assert errors[0] < 12 < 40 < errors[1]


def test_long_windows_are_shown_by_eight_frames() -> None:
    assert shown_frames(16) == [0, 2, 4, 6, 9, 11, 13, 15] and shown_frames(3) == [0, 1, 2]


def test_the_command_writes_a_picture_and_says_what_is_missing(tmp_path: Path, capsys: Any) -> None:
    shards = write_shards(tmp_path / "out", [("a", 20), ("b", 20)])
    settings = ["--set", f"model.base={tmp_path}", "--set", f"data.size={SIDE}", "--set", "mask.crop=face"]
    settings += ["--set", "data.validation_share=0"]
    assert main(["--data", str(shards), *settings, "--windows", "2", "--to", str(tmp_path / "look.png")]) == 0
    picture = cv2.imread(str(tmp_path / "look.png"))
    assert picture is not None and picture.shape == (2 * (TEXT_PX + 2 * TILE), 3 * TILE, 3)
    assert "without the row of the codec" in capsys.readouterr().err
    assert main(["--data", str(tmp_path / "nothing"), "--to", str(tmp_path / "none.png")]) == 2
    assert "python -m training.look: " in capsys.readouterr().err and not (tmp_path / "none.png").exists()
