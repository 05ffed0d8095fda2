"""What the network will see of some shards, before hours are spent on them: one picture.

    python -m training.look --data OUT --profile embedded --to look.png

A block for each window, as the trainer's own loader draws it: the reference frame with its mask outlined; frames with
theirs; the same as the network is given them, grey inside the mask; and, if the base is there, the frames through its
codec, which is the best that a trained network could give. Settings are those of the profile's section `training`.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

from command import parser_of
from storage.atomic_write import atomic_write
from training.batch import Batch
from training.data import loader, open_data
from training.latents import LatentCodec
from training.settings import TrainingSettings, load_settings
from training.validation import to_uint8

SHOWN_FRAMES = 8  # of a window, evenly spread
EDGE, TEXT_PX, LEAST_PX = 2, 18, 96  # between pictures; a line of text; a picture's side
MASK_COLOUR = (255, 80, 160)


def draw_sheet(batch: Batch, codec: LatentCodec | None) -> np.ndarray:
    """[H, W, 3] uint8 RGB: for each window a line of text, then rows of tiles.

    A row has the reference, or nothing, and the shown frames: as they are, masked and, with a codec, decoded.
    """
    frames, masks = batch.frames(), batch.masks()
    times = shown_frames(frames.shape[1])
    reference, reference_mask = batch.reference_frame(), batch.reference_mask()
    blocks = []
    for b, key in enumerate(batch.keys):
        rows = [outline(frames[b, times], masks[b, times]), to_uint8(frames[b, times] * (1 - masks[b, times]))]
        if codec is not None:
            rows.append(to_uint8(codec.decode(codec.scale * codec.moments(frames[b])[0])[times]))
        first = outline(reference[b : b + 1], reference_mask[b : b + 1])[0]
        empty = np.full_like(first, 255)
        lines = [np.hstack([pad(tile) for tile in (first if not i else empty, *row)]) for i, row in enumerate(rows)]
        blocks += [text_line(key, lines[0].shape[1]), *lines]
    return np.vstack(blocks)


def shown_frames(count: int) -> list[int]:
    """The places of the frames that are shown of a window of so many."""
    return np.unique(np.linspace(0, count - 1, min(count, SHOWN_FRAMES)).round().astype(int)).tolist()


def outline(frames: torch.Tensor, masks: torch.Tensor) -> np.ndarray:
    """[N, 3, H, W] in -1..1 -> [N, H, W, 3] uint8 RGB, with the edge of their masks [N, 1, H, W] in colour."""
    found = to_uint8(frames)
    for picture, mask in zip(found, masks[:, 0].byte().numpy(), strict=True):
        picture[cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8)) > 0] = MASK_COLOUR
    return found


def pad(picture: np.ndarray) -> np.ndarray:
    """A tile: the picture, small ones enlarged by a whole factor, with a white edge."""
    factor = -(-LEAST_PX // len(picture))
    large = picture.repeat(factor, 0).repeat(factor, 1)
    return np.pad(large, ((0, EDGE), (0, EDGE), (0, 0)), constant_values=255)


def text_line(text: str, width: int) -> np.ndarray:
    line = np.full((TEXT_PX, width, 3), 255, np.uint8)
    return cv2.putText(line, text, (2, TEXT_PX - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)  # pyright: ignore


def load_codec(settings: TrainingSettings) -> LatentCodec | None:
    """The codec of the base; None, and a line that says so, where there is none."""
    try:
        return LatentCodec.load(Path(settings.model.base), torch.device("cpu"), torch.float32)
    except (ValueError, OSError) as error:
        print(f"without the row of the codec: {error}", file=sys.stderr)
        return None


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("python -m training.look", __doc__)
    parser.add_argument("--data", type=Path, required=True, help="output folder of a curation, or its shards/")
    parser.add_argument("--profile", default="embedded", help="a profile of pipelines.yaml (default: %(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="GROUP.SETTING=VALUE", help="change one setting")
    parser.add_argument("--windows", type=int, default=6, help="how many are shown (default: %(default)s)")
    parser.add_argument("--to", type=Path, default=Path("look.png"), help="the picture (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        settings = load_settings(options.profile, options.set)
        data = open_data(options.data, replace(settings.data, cache="none", workers=0), settings.mask)
        batch = next(loader(data, min(options.windows, len(data))))
        sheet = draw_sheet(batch, load_codec(settings))
        with atomic_write(options.to) as file:
            file.write(cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))[1].tobytes())
    except (ValueError, OSError) as error:  # ProfileError, DataError, TableError
        print(f"python -m training.look: {error}", file=sys.stderr)
        return 2
    for key, reason in batch.quarantined:
        print(f"{key}: cannot be read and was replaced: {reason}")
    print(f"{options.to}: {len(batch.keys)} of {len(data)} windows of an epoch")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
