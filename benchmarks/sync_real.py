"""Do generated mouths of real people speak the sound they were given? Read by the lip probe, on any videos.

    python -m benchmarks.sync_real --checkpoint speaker --videos A.mp4 B.mp4 C.mp4 --json FILE --keep FOLDER

Every video is generated with its own sound and with that of the next. The probe (`models/lip_probe.py`) gives the
confidence that lips and a sound belong together, and the offset at which they do. Controls: the real video with the
next one's sound, and the video generated for the next one's sound with its own, both have to be low.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import weights
from benchmarks.result import write_json
from clock import FPS, SAMPLES_PER_FRAME, WHISPER_ROWS_PER_FRAME
from command import parser_of
from media.audio import AudioTrack, read_sound
from media.encode import encode_flac
from media.frames import scan
from media.probe import probe
from models.face_landmarks import FaceLandmarks
from models.lip_probe import WHISPER_LAYER, LipProbe
from models.mouth import mouth_channels
from models.whisper_features import WhisperFeatures
from training.generator import Generator, Job, Options

LONG_SIDE = 640  # of the frames in which landmarks are looked for
WHISPER = "whisper_tiny_en"  # what the probe was fitted on


@dataclass(frozen=True)
class Row:
    """Confidence and offset (frames, positive: late sound) of one video with one sound."""

    video: str
    lips: str  # real, or generated for which sound
    sound: str
    confidence: float | None
    offset_frames: int | None


class Reader:
    """The networks that read lips and sound."""

    def __init__(self) -> None:
        found = weights.require("face_landmarker", WHISPER, "lip_probe")
        self.landmarks = FaceLandmarks(found["face_landmarker"])
        self.whisper = WhisperFeatures(found[WHISPER], "cpu")
        self.probe = LipProbe.load(found["lip_probe"])

    def channels(self, video: Path, frames: int) -> np.ndarray:
        """Return the mouth's motion in the first frames of a video, [T, 28]."""
        meshes = [self.landmarks.measure(frame[None]) for _, frame in scan(video, probe(video), LONG_SIDE, frames)]
        points = np.concatenate([mesh.points for mesh in meshes])
        blendshapes = np.concatenate([mesh.blendshapes for mesh in meshes])
        return mouth_channels(points, blendshapes)

    def score(self, channels: np.ndarray, sound: AudioTrack) -> tuple[float | None, int | None]:
        """Return confidence and offset; None where too few frames have a face."""
        rows = self.whisper.rows(sound, 0, WHISPER_ROWS_PER_FRAME * len(channels))[:, WHISPER_LAYER]
        found = self.probe.score(channels, rows)
        return (None, None) if found is None else (round(found.confidence, 3), found.offset_frames)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        if len(options.videos) < 2:
            raise ValueError("--videos: two and more are needed, each speaks with the next one's sound")
        generator, reader = Generator(options.checkpoint, torch.device("cpu"), options.base), Reader()
    except (ValueError, OSError) as error:
        print(f"refused: {error}", file=sys.stderr)
        return 2
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for video, other in zip(options.videos, [*options.videos[1:], options.videos[0]], strict=True):
            rows += measure(video, other, generator, reader, options.seconds, folder)
            Console(width=120).print(draw_table(rows))
    write_json(options.json, {"seconds": options.seconds, "rows": [asdict(row) for row in rows]})
    return 0


def measure(video: Path, other: Path, generator: Generator, reader: Reader, seconds: float, folder: Path) -> list[Row]:
    """Return the rows of one video: real and generated, with its own and with another's sound."""
    sounds = {"own": cut_sound(video, seconds, folder), "other": cut_sound(other, seconds, folder)}
    heard = {name: read_sound(path) for name, path in sounds.items()}
    frames = min(round(seconds * FPS), *(len(track) // SAMPLES_PER_FRAME for track in heard.values()))
    lips = {"real": reader.channels(video, frames)}
    for name, path in sounds.items():
        made = folder / f"{video.stem}-{name}.mp4"
        generator.generate(Job(video, path, made), Options())
        lips[f"for {name}"] = reader.channels(made, frames)
    return [
        Row(video.stem, shown, name, *reader.score(channels, track))
        for shown, channels in lips.items()
        for name, track in heard.items()
    ]


def cut_sound(video: Path, seconds: float, folder: Path) -> Path:
    """Write the first seconds of a video's sound beside the results; return the file."""
    path = folder / f"{video.stem}.flac"
    path.write_bytes(encode_flac(read_sound(video)[: round(seconds * FPS) * SAMPLES_PER_FRAME]))
    return path


def draw_table(rows: Sequence[Row]) -> Table:
    table = Table("video", "lips", "sound", "confidence", "offset, frames")
    for row in rows:
        table.add_row(row.video, row.lips, row.sound, str(row.confidence), str(row.offset_frames))
    return table


def parser() -> argparse.ArgumentParser:
    found = parser_of("python -m benchmarks.sync_real", __doc__)
    found.add_argument("--checkpoint", type=Path, required=True, help="a run, its folder export, or speaker")
    found.add_argument("--videos", type=Path, nargs="+", required=True, help="videos of people who speak")
    found.add_argument("--seconds", type=float, default=6.0, help="of each at most (default: %(default)s)")
    found.add_argument("--json", type=Path, help="file for the numbers")
    found.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the generated videos there")
    found.add_argument("--base", type=Path, help="diffusers folder with the VAE; default: where the training had it")
    return found


if __name__ == "__main__":
    raise SystemExit(main())
