"""What a row of the tables looks and sounds like: a poster, three seconds with their sound, its outline.

A clip that has a sample is shown by it; face box, landmarks and the mask that training puts over it by default are
drawn on a second copy beside. Any other is shown from its source video, if that is still there. Rows that ended in an
error are never opened: their file may have killed a worker.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from clock import FPS, SAMPLES_PER_FRAME
from curation.ledger_files import part_path
from media.audio import cut, read_audio
from media.encode import decode_flac, decode_mp4, encode_mp4
from media.errors import MediaError
from media.frames import scan
from media.probe import probe
from models.mask import POINTS, MaskSettings, mask_boxes, median_face
from shards.index import INDEX_NAME, read_index
from shards.reader import ShardError, extents, read_extent, read_sample
from shards.sample import AUDIO, BOXES, LANDMARKS, VIDEO, Sample, decode_npy

PREVIEW_FRAMES = 75
EVERY = 2  # frames of the source to one of the preview
RATE = Fraction(FPS, EVERY)
CROP_PX = 160  # side of a face crop in a preview
PICTURE_PX = 240  # longer side of a whole picture in one
CRF = 30
WAVE_POINTS = 160
HEARD_FRAMES = 20 * FPS  # of a long row, the sound around its middle
SOUGHT_FRAMES = 600 * FPS  # sound is decoded from the start of a file: no further than this
SPEAKING = 0.5  # silero's threshold
VOICE = "voice.npy"
BOX_COLOUR, POINT_COLOUR, MASK_COLOUR = (255, 196, 0), (0, 230, 160), (255, 80, 160)

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Preview:
    """Three seconds of a row with their sound; empty where nothing is known."""

    begins_s: float  # of the preview, in the source
    poster: bytes  # WebP
    preview: bytes  # MP4, 12.5 fps, with sound where there is any
    overlay: bool  # whether the right half of the preview is the left one with box, landmarks and mask drawn
    heard_s: tuple[float, float]  # where the sound that follows lies in the source
    wave: Sequence[int]  # loudest sample of each 160th of it, 0 to 100
    speech: Sequence[tuple[float, float]] | None  # where somebody speaks, as shares of it; None if that is not stored
    curve: Sequence[float]  # how well lips and sound agree at lags of -15 to 15 frames


class Album:
    """The pictures of an output folder; `run` is the folder with the parts, `stages` those of its recipe."""

    def __init__(self, output: Path, run: Path, stages: Sequence[Any]) -> None:
        self.shards, self.run = output / "shards", run
        index = read_index(self.shards) if (self.shards / INDEX_NAME).exists() else None
        rows: Any = [] if index is None else index.to_dict("records")
        self.packed = {row["key"]: row for row in rows}
        self.curves = [stage.curve for stage in stages if hasattr(stage, "curve")]

    def picture(self, row: Row) -> Preview | None:
        """None where there is nothing left to show, or nothing that should be opened."""
        if row["reason"].startswith("error:"):
            return None
        try:
            sample = self.sample(row)
            return from_source(row) if sample is None else self.from_sample(row, sample)
        except (MediaError, ShardError, OSError):
            return None

    def sample(self, row: Row) -> Sample | None:
        """Return the clip's sample from its part, which has more members, or from its shard."""
        part = part_path(self.run, row["source_id"])
        extent = next((each for each in extents(part) if each.key == row["key"]), None) if part.exists() else None
        if extent is not None:
            return read_extent(part, extent)
        return read_sample(self.shards, self.packed[row["key"]]) if row["key"] in self.packed else None

    def from_sample(self, row: Row, sample: Sample) -> Preview:
        members, fields = sample.members, sample.json
        frames = decode_mp4(members[VIDEO], PREVIEW_FRAMES)[::EVERY]
        plain = np.stack([cv2.resize(frame, (CROP_PX, CROP_PX), interpolation=cv2.INTER_AREA) for frame in frames])
        scale, boxes = CROP_PX / fields["size"], decode_npy(members[BOXES])
        drawn = plain.copy()
        outline(drawn, boxes[::EVERY] * scale, BOX_COLOUR)
        if LANDMARKS in members:
            points = decode_npy(members[LANDMARKS])
            dot(drawn, points[::EVERY] * np.float32(scale))
            if points.shape[1] == len(POINTS):
                outline(drawn, mask_boxes(points, median_face(boxes), MaskSettings())[::EVERY] * scale, MASK_COLOUR)
        margin = fields.get("margin_frames", 0)
        shift = (row["audio_shift_frames"] if row["kept"] else 0) - fields["audio_shift_frames"] if margin else 0
        sound = decode_flac(members[AUDIO])[(margin + shift) * SAMPLES_PER_FRAME :]
        sound = sound[: fields["frames"] * SAMPLES_PER_FRAME]
        return Preview(
            row["start_s"],
            poster(plain),
            encode_mp4(np.concatenate([plain, drawn], axis=2), RATE, CRF, sound[: PREVIEW_FRAMES * SAMPLES_PER_FRAME]),
            True,
            (row["start_s"], row["end_s"]),
            wave(sound),
            spans(decode_npy(members[VOICE]) > SPEAKING) if VOICE in members else None,
            next((curve for each in self.curves if (curve := each(sample)) is not None), ()),
        )


def from_source(row: Row) -> Preview | None:
    """Three seconds from the middle of a row, whole pictures of its source."""
    path = Path(row["source"])
    if not path.is_file() or row["end_frame"] == row["start_frame"]:
        return None
    header = probe(path)
    first = max(row["start_frame"], (row["start_frame"] + row["end_frame"] - PREVIEW_FRAMES) // 2)
    last = min(row["end_frame"], first + PREVIEW_FRAMES)
    frames = [picture for _, picture in scan(path, header, PICTURE_PX, last, start_frame=first)][::EVERY]
    if not frames:
        return None
    height, width = (side // 2 * 2 for side in frames[0].shape[:2])  # H.264 in 4:2:0 has even sides
    plain = np.stack([frame[:height, :width] for frame in frames])
    from_frame = max(row["start_frame"], min(first, (first + last - HEARD_FRAMES) // 2))
    to_frame = min(row["end_frame"], from_frame + HEARD_FRAMES)
    track = read_audio(path, replace(header, duration_s=to_frame / FPS)) if to_frame < SOUGHT_FRAMES else None
    heard = (to_frame - from_frame) * SAMPLES_PER_FRAME
    shown = None if track is None else cut(track, first * SAMPLES_PER_FRAME, (last - first) * SAMPLES_PER_FRAME)
    return Preview(
        first / FPS,
        poster(plain),
        encode_mp4(plain, RATE, CRF, shown),
        False,
        (from_frame / FPS, to_frame / FPS),
        () if track is None else wave(cut(track, from_frame * SAMPLES_PER_FRAME, heard)),
        None,
        (),
    )


def thumbnail(row: Row, frame: int) -> np.ndarray | None:
    """[h, w, 3] uint8 RGB: one small picture of a row's source; None where there is none."""
    path = Path(row["source"])
    try:
        found = scan(path, probe(path), CROP_PX, frame + 1, start_frame=frame) if path.is_file() else iter(())
        return next((picture for _, picture in found), None)
    except (MediaError, OSError):
        return None


def outline(frames: np.ndarray, boxes: np.ndarray, colour: tuple[int, int, int]) -> None:
    """Draws a box, in the pixels of the frames, on each of them; NaN draws none."""
    for picture, box in zip(frames, boxes, strict=False):
        if np.isfinite(box).all():
            x0, y0, x1, y1 = np.round(box).astype(int).tolist()
            cv2.rectangle(picture, (x0, y0), (x1, y1), colour, 1, cv2.LINE_AA)


def dot(frames: np.ndarray, points: np.ndarray) -> None:
    """Draws points [T, K, 2], in the pixels of the frames, on each of them."""
    for picture, places in zip(frames, points, strict=False):
        for x, y in places[np.isfinite(places).all(axis=1)].astype(float):
            cv2.circle(picture, (round(x), round(y)), 0, POINT_COLOUR, -1)


def poster(frames: np.ndarray) -> bytes:
    """The middle frame as WebP."""
    picture = cv2.cvtColor(frames[len(frames) // 2], cv2.COLOR_RGB2BGR)
    return cv2.imencode(".webp", picture, [cv2.IMWRITE_WEBP_QUALITY, 60])[1].tobytes()


def wave(sound: np.ndarray) -> list[int]:
    """The loudest sample of each of WAVE_POINTS equal parts, in percent of full scale."""
    pieces = np.array_split(np.abs(sound), WAVE_POINTS)
    return [min(100, round(100 * float(piece.max(initial=0)))) for piece in pieces]


def spans(active: np.ndarray) -> list[tuple[float, float]]:
    """Runs of True, as shares of the whole."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], active, [False]]).astype(int))) / max(len(active), 1)
    return [(round(start, 4), round(end, 4)) for start, end in edges.reshape(-1, 2).tolist()]
