"""Shards of drawn talkers that a small network learns in seconds: a square under the mask, as high as one sound value.

Everything but the picture and the sound is as in real shards, and goes through the real writer and loader.
"""

from pathlib import Path

import numpy as np

from media.encode import encode_mp4
from shards.packer import pack
from shards.sample import BOXES, JSON, LANDMARKS, VIDEO, WHISPER, Sample, encode_json, encode_npy
from shards.writer import write_tar
from tests.training.numbered import SIDE, face

LAYERS, DIM = 2, 16
MOUTH_X, MOUTH_Y = SIDE // 2, 40  # the mask of `face` reaches from row 38 to 56, from column 23 to 41
HALF_WIDTH, REACH = 8, 15  # pixels: of the square, and its height at a value of 1


def openings(frames: int, random: np.random.Generator) -> np.ndarray:
    """[T] in 0..1: syllables of three to six frames, each open or closed to another degree."""
    values = np.repeat(random.random(frames), random.integers(3, 7, frames))
    return values[:frames]


def talking_video(opening: np.ndarray, grey: int) -> bytes:
    video = np.full((len(opening), SIDE, SIDE, 3), grey, np.uint8)
    for picture, value in zip(video, opening, strict=True):
        picture[MOUTH_Y : MOUTH_Y + round(REACH * value), MOUTH_X - HALF_WIDTH : MOUTH_X + HALF_WIDTH] = 20
    return encode_mp4(video)


def whisper_rows(opening: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """[2 T, layers, dim] float16: noise, with the opening of the frame in the first channel of every layer."""
    rows = random.normal(size=(2 * len(opening), LAYERS, DIM))
    rows[..., 0] = 4 * (2 * opening.repeat(2)[:, None] - 1)
    return rows.astype(np.float16)


def write_squares(folder: Path, clips: int, frames: int) -> Path:
    """Shards with their index in `folder/shards`: each clip is a source of its own."""
    samples = []
    for number in range(clips):
        random = np.random.default_rng(number)
        opening = openings(frames, random)
        described = {"source_id": f"talker-{number}", "start_frame": 0, "end_frame": frames, "frames": frames}
        members = {
            VIDEO: talking_video(opening, grey=int(random.integers(120, 220))),
            WHISPER: encode_npy(whisper_rows(opening, random)),
            LANDMARKS: encode_npy(face(frames).astype(np.float16)),
            BOXES: encode_npy(np.tile(np.array([0.25, 0.25, 0.75, 0.75], np.float32) * SIDE, (frames, 1))),
            JSON: encode_json(described),
        }
        samples.append(Sample(f"clip-{number:03d}", members))
    folder.mkdir(parents=True, exist_ok=True)
    write_tar(folder / "part.tar", samples)
    keys = {sample.key: folder / "part.tar" for sample in samples}
    pack(keys, folder / "shards", shard_bytes=10**7, required=set(samples[0].members))
    (folder / "part.tar").unlink()
    return folder
