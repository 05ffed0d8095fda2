"""What the network sees of every clip, made once: for crops that stay the same in every epoch.

    RUN/cache/cache.yaml       what the arrays were made from; another recipe makes them again
    RUN/cache/masks.npy        float32 [N, 4] of all frames of all clips, in pixels of the crop; NaN: no mask
    RUN/cache/pictures.npy     uint8 [N, 3/2 size, size] planes, or of every REFERENCE_EVERYth frame with `latents`
    RUN/cache/latents.npy      float16 [N, parts, C, h, w]: mean, mode of the masked frame and, if the VAE draws, std

`data.cache: pictures` saves decoding, which a small network waits for. `latents` also saves the VAE: 38 % of a step at
SVD's size, for 38 kB a frame of 320 pixels; the reference is then one frame in REFERENCE_EVERY. A clip is read by one
rank, and the arrays are written by all of them; a build that was interrupted begins again.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from media.geometry import within
from models.mask import MaskSettings
from shards.reader import ShardError
from storage.atomic_write import atomic_write
from training.batch import fill_boxes, rgb
from training.distributed import Ranks
from training.latents import LatentCodec
from training.settings import DataSettings
from training.window import TRIES, Arrays, StoredClip, decode, draw_rest, open_video, read_mask, read_sound, width_of

REFERENCE_EVERY = 25  # one a second
PIECE = 64  # frames decoded and encoded at once


@dataclass(frozen=True)
class Cache:
    """The arrays, opened for reading; `starts` and `picture_starts` [clips + 1] are where each clip begins."""

    masks: np.ndarray
    pictures: np.ndarray
    latents: np.ndarray | None
    starts: np.ndarray
    picture_starts: np.ndarray
    step: int  # of the kept pictures: every so many frames one

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """[parts, C, h, w] of a frame; empty if pictures are kept."""
        return () if self.latents is None else self.latents.shape[1:]

    def fill(
        self, arrays: Arrays, b: int, row: int, clip: StoredClip, reference_row: int, random: np.random.Generator
    ) -> tuple[str, str] | None:
        """Put a random window of a clip and a random reference at place b; gives (key, reason) if it cannot."""
        frames = arrays["mask_boxes"].shape[1]
        start = self._place(row, frames, random)
        found = self._reference(reference_row, random)
        if start is None or found is None:
            return clip.key, "no stretch with a face in every frame"
        try:
            with clip.open() as sample:
                read_sound(clip, sample, start, frames, arrays["whisper"][b])
        except ShardError as error:
            return clip.key, str(error)
        window = slice(self.starts[row] + start, self.starts[row] + start + frames)
        arrays["mask_boxes"][b] = self.masks[window]
        arrays["reference"][b], arrays["reference_box"][b] = found
        if self.latents is None:
            arrays["video"][b] = self.pictures[window]
        else:
            arrays["latents"][b] = self.latents[window]
        draw_rest(arrays, b, random)
        return None

    def _place(self, row: int, frames: int, random: np.random.Generator) -> int | None:
        length = int(self.starts[row + 1] - self.starts[row])
        for _ in range(TRIES):
            start = int(random.integers(length - frames + 1))
            if np.isfinite(self.masks[self.starts[row] + start :][:frames]).all():
                return start
        return None

    def _reference(self, row: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray] | None:
        first, last = self.picture_starts[row : row + 2]
        for _ in range(TRIES):
            picture = int(random.integers(last - first))
            box = self.masks[self.starts[row] + picture * self.step]
            if np.isfinite(box).all():
                return self.pictures[first + picture], box
        return None


def open_cache(
    folder: Path,
    clips: list[StoredClip],
    content: str,
    data: DataSettings,
    mask: MaskSettings,
    codec: LatentCodec,
    ranks: Ranks,
    on_clip: Callable[[int], object] = lambda clips: None,
) -> Cache:
    """The cache of some clips, built if it is not there or was made from something else; a meeting point.

    `content` changes if any byte of a clip does.
    A clip that cannot be read has no masks, and its windows are replaced like those of a damaged one.
    """
    step = REFERENCE_EVERY if data.cache == "latents" else 1
    starts = np.concatenate([[0], np.cumsum([clip.frames for clip in clips])])
    picture_starts = np.concatenate([[0], np.cumsum([-(-clip.frames // step) for clip in clips])])
    shapes = {
        "masks": ("<f4", (starts[-1], 4)),
        "pictures": ("|u1", (picture_starts[-1], data.size * 3 // 2, data.size)),
    }
    if data.cache == "latents":
        side = data.size // codec.factor
        shapes["latents"] = ("<f2", (starts[-1], codec.parts, codec.channels, side, side))
    made_from = recipe(content, data, mask, codec)
    if not is_made_from(folder, made_from):
        make_empty(folder, shapes, ranks)
        written = {name: np.load(folder / f"{name}.npy", mmap_mode="r+") for name in shapes}
        for row in range(ranks.rank, len(clips), ranks.world):
            place = slice(starts[row], starts[row + 1])
            into = {name: array[place] for name, array in written.items() if name != "pictures"}
            into["pictures"] = written["pictures"][picture_starts[row] : picture_starts[row + 1]]
            write_clip(clips[row], data, mask, codec, ranks.device, step, into)
            on_clip(1)
        for array in written.values():
            array.flush()
        ranks.wait()
        if ranks.first:
            with atomic_write(folder / "cache.yaml") as file:
                file.write(yaml.safe_dump({"made_from": made_from}).encode())
        ranks.wait()
    opened = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in shapes}
    return Cache(opened["masks"], opened["pictures"], opened.get("latents"), starts, picture_starts, step)


def make_empty(folder: Path, shapes: dict[str, tuple[str, tuple[Any, ...]]], ranks: Ranks) -> None:
    """Files of the right size, made by the first rank; a meeting point."""
    if ranks.first:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cache.yaml").unlink(missing_ok=True)
        for name, (kind, shape) in shapes.items():
            np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.dtype(kind), tuple(map(int, shape))).flush()
    ranks.wait()


def write_clip(
    clip: StoredClip,
    data: DataSettings,
    mask: MaskSettings,
    codec: LatentCodec,
    device: torch.device,
    step: int,
    into: Arrays,
) -> None:
    """Read a whole clip piece by piece into its places of the arrays; NaN masks if it cannot be read."""
    try:
        with clip.open() as sample, open_video(sample) as video:
            size = width_of(video)
            boxes, squares = read_mask(clip, sample, 0, clip.frames, size, mask)
            masks = within(boxes, squares, data.size)
            shown = np.where(np.isfinite(squares), squares, [0, 0, size, size])
            for first in range(0, clip.frames, PIECE):
                place = slice(first, min(first + PIECE, clip.frames))
                planes = np.empty((place.stop - first, data.size * 3 // 2, data.size), np.uint8)
                decode(video, first, planes, shown[place])
                chosen = np.arange(first, place.stop) % step == 0
                into["pictures"][-(-first // step) :][: chosen.sum()] = planes[chosen]
                if "latents" in into:
                    into["latents"][place] = encode_frames(planes, masks[place], codec, device)
            into["masks"][:] = masks
    except ShardError:
        into["masks"][:] = np.nan


def encode_frames(planes: np.ndarray, masks: np.ndarray, codec: LatentCodec, device: torch.device) -> np.ndarray:
    """Encode frames: [T, parts, C, h, w] float16, mean, masked mode and, if the VAE draws, the deviation."""
    pictures = rgb(torch.from_numpy(planes).to(device))
    hidden = fill_boxes(torch.from_numpy(masks).to(device), pictures.shape[-1])
    mean, std = codec.moments(pictures)
    parts = [mean, codec.condition(pictures * (1 - hidden)), *([std] if codec.draws else [])]
    return torch.stack(parts, dim=1).cpu().numpy().astype(np.float16)


def recipe(content: str, data: DataSettings, mask: MaskSettings, codec: LatentCodec) -> str:
    """A hash of all that the arrays depend on: clips, crop, mask, and the VAE if it is used."""
    settings = {**vars(mask), "size": data.size, "cache": data.cache}
    digest = hashlib.sha256(json.dumps([settings, content]).encode())
    if data.cache == "latents":
        for name, value in sorted(codec.vae.state_dict().items()):
            digest.update(name.encode() + value.float().cpu().numpy().tobytes())
    return digest.hexdigest()


def is_made_from(folder: Path, made_from: str) -> bool:
    file = folder / "cache.yaml"
    return file.is_file() and yaml.safe_load(file.read_text(encoding="utf-8")) == {"made_from": made_from}
