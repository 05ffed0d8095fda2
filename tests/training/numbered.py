"""Small real shards whose pictures, sound rows and masks say which clip and frame they are."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from media.encode import encode_mp4
from models.mask import CORNERS, HEAD, POINTS
from shards.index import read_index
from shards.packer import pack
from shards.sample import BOXES, JSON, LANDMARKS, MEMBERS, VIDEO, WHISPER, Sample, encode_json, encode_npy
from shards.writer import write_tar

SIDE, CELL = 64, 16  # a picture is 4 x 4 black or white cells: 8 bits of its frame number, 8 of its clip
LAYERS, DIM = 2, 3
Clips = Sequence[tuple[str, int]]  # (source, frames); its place in the list is a clip's number


@cache
def numbered_video(number: int, frames: int) -> bytes:
    codes = np.arange(frames) + 256 * number
    bits = codes[:, None] >> np.arange(16) & 1
    cells = np.where(bits, 200, 40).astype(np.uint8).reshape(frames, 4, 4)
    return encode_mp4(np.repeat(np.repeat(cells, CELL, 1), CELL, 2)[..., None].repeat(3, -1))


def numbers_in(planes: np.ndarray) -> list[tuple[int, int]]:
    """(clip, frame) of pictures [T, 3/2 h, w], of any size."""
    cell = planes.shape[-1] // 4
    luma = planes[:, : 4 * cell].reshape(-1, 4, cell, 4, cell).mean(axis=(2, 4))
    codes = ((luma.reshape(-1, 16) > 128) << np.arange(16)).sum(axis=1)
    return [(int(code) // 256, int(code) % 256) for code in codes]


def face(frames: int, found: np.ndarray | None = None) -> np.ndarray:
    """[T, K, 2] landmarks of a head at rest in the middle of the picture, half as high as it; NaN where not found."""
    points = np.zeros((len(POINTS), 2), np.float32)
    points[:] = (SIDE / 2, 0.7 * SIDE)
    points[HEAD] = (SIDE / 2, 0.4 * SIDE)
    points[CORNERS, 0] += (-5, 5)
    track = np.tile(points, (frames, 1, 1))
    if found is not None:
        track[~found] = np.nan
    return track


def numbered_sample(number: int, source: str, frames: int, landmarks: np.ndarray | None = None) -> Sample:
    """Whisper rows are [[clip, row, 0], [0, 0, 1]]."""
    rows = np.zeros((2 * frames, LAYERS, DIM), np.float16)
    rows[:, 0, 0], rows[:, 0, 1], rows[:, 1, 2] = number, np.arange(2 * frames), 1
    described = {"source_id": source, "start_frame": 0, "end_frame": frames, "frames": frames}
    box = np.array([0.25, 0.25, 0.75, 0.75], np.float32) * SIDE
    return Sample(
        f"clip-{number:03d}",
        {
            VIDEO: numbered_video(number, frames),
            WHISPER: encode_npy(rows),
            LANDMARKS: encode_npy((face(frames) if landmarks is None else landmarks).astype(np.float16)),
            BOXES: encode_npy(np.tile(box, (frames, 1))),
            JSON: encode_json(described),
        },
    )


def number_of(key: str) -> int:
    return int(key.removeprefix("clip-"))


def write_shards(
    folder: Path, clips: Clips, shard_bytes: int = 60_000, landmarks: Mapping[int, np.ndarray] | None = None
) -> Path:
    """Shards with their index in `folder/shards`; some 3 clips of 40 frames each."""
    part = folder / "part.tar"
    samples = [numbered_sample(i, source, n, (landmarks or {}).get(i)) for i, (source, n) in enumerate(clips)]
    folder.mkdir(parents=True, exist_ok=True)
    write_tar(part, samples)
    present = set(MEMBERS) & set(samples[0].members)
    pack({s.key: part for s in samples}, folder / "shards", shard_bytes=shard_bytes, required=present)
    part.unlink()
    return folder


def damage(folder: Path, key: str, offset: int = 4000, length: int = 3000) -> None:
    """Overwrite the middle of a clip's video."""
    index = read_index(folder / "shards")
    row = index[index["key"] == key].iloc[0]
    with (folder / "shards" / row["shard"]).open("r+b") as file:
        file.seek(int(row["mp4_offset"]) + min(offset, int(row["mp4_size"]) // 2))
        file.write(b"\x5a" * min(length, int(row["mp4_size"]) // 4))
