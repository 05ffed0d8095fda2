"""Whether a mouth follows a sound: generated talkers, their lips read again and held against the truth.

    python -m demo.corpus --output DIR --talkers 20 --seconds 6 --seed 7      talkers that the training never saw
    python benchmarks/speak.py --run RUN --unseen DIR --json FILE [--seen DIR] [--keep FOLDER]

Each clip is generated twice: with its own sound, and with that of another clip, which says other words. The opening and
the width of the mouth are read off every frame by the face landmarker and correlated over the frames of a clip:

    own           generated with its own sound, with the clip's truth
    other_audio   generated with another's sound, with that other's truth: high if the mouth follows the sound
    other_video   generated with another's sound, with the clip's own truth: high if it follows the source's mouth
    truths        the two truths with each other: what chance gives
    real          the video itself, with its truth: what the reading allows

Every number is the mean over clips with its 95 % interval (Student's t). `--deaf` is the control: with the audio tokens
at zero `other_audio` must fall to about `truths`. Beside FILE lies a picture of mouths for each folder.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, fields
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy import stats

import weights
from benchmarks.result import write_json
from clock import FPS, SAMPLES_PER_FRAME
from demo.directions import load
from demo.geometry import measure_mouth
from demo.side_by_side import draw_strip, read_shown, save_png
from media.audio import read_sound
from media.encode import encode_flac
from media.frames import GridReader, scan
from media.probe import probe
from models.face_landmarks import FaceLandmarks
from training.generator import Generator, Job, Options

LONG_SIDE = 640  # of the pictures that are read; at 1280 pixels the correlation with the truth is the same within .003
FEWEST_FRAMES = 10  # with a mouth in both, for a correlation
SHOWN_CLIPS = 8  # of a contact sheet
GAP = 8  # pixels between its clips


@dataclass(frozen=True)
class Talker:
    """A video of `demo.corpus` and what is said in it, on the 25 fps clock."""

    video: Path
    people: tuple[int, ...]
    sentences: frozenset[str]
    opening: np.ndarray  # [T]
    width: np.ndarray  # [T]


@dataclass(frozen=True)
class Lips:
    """What was read off T frames; NaN where no face was found."""

    opening: np.ndarray  # [T] eye-corner distances
    width: np.ndarray  # [T]

    @property
    def failed_frames(self) -> int:
        return int(np.isnan(self.opening).sum())


@dataclass(frozen=True)
class Measured:
    """The numbers of one clip."""

    own: float
    other_audio: float
    other_video: float
    truths: float
    real: float
    own_width: float
    other_audio_width: float
    other_video_width: float
    truths_width: float
    real_width: float
    spread: float  # of the opening, own sound: standard deviation over that of the real video
    closure: float  # share of the frames of p, b and m with the opening in its lowest quarter; a quarter is chance
    closure_real: float  # the same of the real video
    mask_error: float  # own sound: mean absolute difference to the real video inside the mask, grey levels of the luma
    cpu_s_per_s: float  # of this process for a second of generated video, faces, sound and encoding included


def read_talkers(folder: Path) -> list[Talker]:
    """The good talkers of a folder, one of each person first, then a second of each.

    Raises ValueError if it has none that `speak` can use.
    """
    path = folder / "truth.json"
    if not path.is_file():
        raise ValueError(f"{path}: no such file; python -m demo.corpus --output {folder} --talkers 20 builds one")
    found, order = [], []
    for name, truth in sorted(json.loads(path.read_text(encoding="utf-8")).items()):
        plain = not truth["cuts"] and not truth["gaps"] and truth["offset_frames"] == 0
        video = folder / f"{name}.mp4"
        if (
            not plain
            or not truth["voices"]
            or any(e["verdict"] != "keep" for e in truth["expect"])
            or not video.exists()
        ):
            continue
        people, sentences = tuple(truth["people"]), frozenset(s for texts in truth["texts"] for s in texts)
        order.append(sum(talker.people == people for talker in found))
        found.append(Talker(video, people, sentences, np.array(truth["mouth_opening"]), np.array(truth["mouth_width"])))
    if len(found) < 2:
        raise ValueError(
            f"{folder}: {len(found)} good talkers; two and more are needed, each speaks to another's sound"
        )
    return [found[i] for i in np.argsort(order, kind="stable")]


def choose_other(talkers: Sequence[Talker], number: int) -> Talker:
    """The next talker who says other words. Raises ValueError if there is none."""
    following = [*talkers[number + 1 :], *talkers[:number]]
    found = next((other for other in following if not other.sentences & talkers[number].sentences), None)
    if found is None:
        raise ValueError(f"{talkers[number].video}: every other talker says one of its sentences")
    return found


def read_lips(path: Path, frames: int | None = None) -> Lips:
    """Opening and width of the mouth in the first `frames` frames of a video on the 25 fps grid."""
    landmarks, reference = FaceLandmarks(weights.require("face_landmarker")["face_landmarker"]), load().reference
    found, last, numbers = [], None, np.empty(0)
    for _, frame in scan(path, probe(path), LONG_SIDE, frames):
        if frame is not last:
            last, numbers = frame, measure_mouth(landmarks.measure(frame[None]).points[0], reference)
        found.append(numbers[:2])
    opening, width = np.array(found).T
    return Lips(opening, width)


def correlate(read: np.ndarray, truth: np.ndarray) -> float:
    """Pearson's correlation over the frames where both are numbers.

    0 if one of them never moves, or if hardly a frame has a mouth: that follows nothing either.
    """
    frames = min(len(read), len(truth))
    both = np.isfinite(read[:frames]) & np.isfinite(truth[:frames])
    if both.sum() < FEWEST_FRAMES:
        return 0.0
    a, b = read[:frames][both], truth[:frames][both]
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 1e-9 and b.std() > 1e-9 else 0.0


def spread_of(opening: np.ndarray, real: np.ndarray) -> float:
    """How far an opening moves: its standard deviation over that of the real one; NaN where there is none."""
    known = opening[np.isfinite(opening)]
    return float(known.std() / np.nanstd(real)) if len(known) else float("nan")


def closure_of(opening: np.ndarray, truth: np.ndarray) -> float:
    """Share of the frames in which the truth closes the lips where the opening is in its lowest quarter; or NaN."""
    opening, closed = opening[: len(truth)], truth[: len(opening)] == 0
    closed &= np.isfinite(opening)
    return float((opening[closed] <= np.nanquantile(opening, 0.25)).mean()) if closed.any() else float("nan")


def summarize(values: Sequence[float]) -> dict[str, Any]:
    """Mean of the values that are numbers, its 95 % interval (None for a single one), and how many there are."""
    known = np.array([value for value in values if np.isfinite(value)])
    if not len(known):
        return {"mean": None, "interval": None, "clips": 0}
    interval = None
    if len(known) > 1:
        reach = stats.t.ppf(0.975, len(known) - 1) * known.std(ddof=1) / np.sqrt(len(known))
        interval = [round(float(known.mean() + sign * reach), 4) for sign in (-1, 1)]
    return {"mean": round(float(known.mean()), 4), "interval": interval, "clips": len(known)}


def deafen(generator: Generator) -> None:
    """Cut the listening path: audio tokens are zero whatever is heard."""

    def silence(_module: torch.nn.Module, _rows: object, tokens: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(tokens)

    generator.network.audio.register_forward_hook(silence)  # pyright: ignore[reportArgumentType]


def measure(
    generator: Generator, talker: Talker, other: Talker, options: Options, seconds: float, folder: Path
) -> tuple[Measured, int]:
    """One clip: its numbers, and the generated frames in which no face was found.

    Writes own.mp4 and other.mp4 into `folder`.
    """
    frames = min(round(seconds * FPS), len(talker.opening), len(other.opening))
    folder.mkdir(parents=True, exist_ok=True)
    cpu_s = []
    for name, speaker in (("own", talker), ("other", other)):
        began = time.process_time()
        sound = folder / f"{name}.flac"
        sound.write_bytes(encode_flac(read_sound(speaker.video)[: frames * SAMPLES_PER_FRAME]))
        generator.generate(Job(talker.video, sound, folder / f"{name}.mp4"), options)
        cpu_s.append(time.process_time() - began)
    real, own, foreign = (read_lips(path, frames) for path in (talker.video, folder / "own.mp4", folder / "other.mp4"))
    truth, theirs = talker.opening[:frames], other.opening[:frames]
    width, their_width = talker.width[:frames], other.width[:frames]
    measured = Measured(
        own=correlate(own.opening, truth),
        other_audio=correlate(foreign.opening, theirs),
        other_video=correlate(foreign.opening, truth),
        truths=correlate(truth, theirs),
        real=correlate(real.opening, truth),
        own_width=correlate(own.width, width),
        other_audio_width=correlate(foreign.width, their_width),
        other_video_width=correlate(foreign.width, width),
        truths_width=correlate(width, their_width),
        real_width=correlate(real.width, width),
        spread=spread_of(own.opening, real.opening),
        closure=closure_of(own.opening, truth),
        closure_real=closure_of(real.opening, truth),
        mask_error=mask_error(generator, talker.video, folder / "own.mp4", frames),
        cpu_s_per_s=cpu_s[0] * FPS / frames,
    )
    return measured, own.failed_frames + foreign.failed_frames


def mask_error(generator: Generator, real: Path, made: Path, frames: int) -> float:
    """Mean absolute difference of two videos inside the mask, grey levels of the luma, over the frames with a face."""
    described = probe(real)
    track = generator.faces.follow(real, described, frames, generator.mask)
    with closing(GridReader(real, described)) as before, closing(GridReader(made, probe(made))) as after:
        found = []
        pairs = zip(read_shown(before, np.arange(frames)), read_shown(after, np.arange(frames)), strict=True)
        for t, pair in enumerate(pairs):
            if not track.has_face[t]:
                continue
            x0, y0, x1, y1 = np.maximum(np.round(generator.locate_crop(track, t)[1]), 0).astype(int)
            a, b = (picture.planes[0][y0:y1, x0:x1].astype(np.float32) for picture in pair)
            found.append(float(np.abs(a - b[: len(a), : a.shape[1]]).mean()))
    return float(np.mean(found)) if found else float("nan")


_generator: Generator | None = None  # of a worker's process


def open_generator(run: Path, device: str, base: Path | None, deaf: bool) -> Generator:
    """Load a checkpoint, in a process of its own for all clips that this one measures."""
    global _generator
    torch.set_num_threads(1)
    _generator = Generator(run, torch.device(device), base)
    if deaf:
        deafen(_generator)
    return _generator


def measure_here(talker: Talker, other: Talker, options: Options, seconds: float, folder: Path) -> tuple[Measured, int]:
    """`measure` with the generator of this process."""
    assert _generator is not None
    return measure(_generator, talker, other, options, seconds, folder)


def speak(
    pool: Executor,
    pairs: Sequence[tuple[Talker, Talker]],
    options: Options,
    seconds: float,
    folder: Path,
    console: Console,
) -> dict[str, Any]:
    """All clips of one folder: {measure: {mean, interval, clips}}, frames without a face, and the rows of the clips.

    `pairs` are the talkers, each with the one whose sound it is given.
    """
    rows: list[dict[str, Any]] = []
    failed = frames = 0
    begun = [
        pool.submit(measure_here, talker, other, options, seconds, folder / talker.video.stem)
        for talker, other in pairs
    ]
    for number, ((talker, other), each) in enumerate(zip(pairs, begun, strict=True)):
        measured, lost = each.result()
        failed += lost
        frames += 2 * min(round(seconds * FPS), len(talker.opening), len(other.opening))
        numbers = {name: round(value, 4) for name, value in vars(measured).items()}
        rows.append({"clip": talker.video.stem, "people": talker.people, "other": other.video.stem, **numbers})
        console.print(
            f"{number + 1}/{len(pairs)} {talker.video.stem}: own {measured.own:.2f}, other_audio "
            f"{measured.other_audio:.2f}, other_video {measured.other_video:.2f}; "
            f"{measured.cpu_s_per_s:.1f} CPU-s for a second"
        )
    return {
        **{field.name: summarize([row[field.name] for row in rows]) for field in fields(Measured)},
        "people": len({person for talker, _ in pairs for person in talker.people}),
        "frames": frames,
        "failed_frames": failed,
        "clips": rows,
    }


def contact_sheet(talkers: Sequence[Talker], folder: Path) -> np.ndarray:
    """Three rows for each clip: the real mouth, with its own sound, with another's; RGB."""
    strips = []
    for talker in talkers[:SHOWN_CLIPS]:
        made = [folder / talker.video.stem / f"{name}.mp4" for name in ("own", "other")]
        strips.append(draw_strip(talker.video, made, ["real", "own", "other"]))
        strips.append(np.full((GAP, strips[0].shape[1], 3), 255, np.uint8))
    return np.vstack(strips[:-1])


def draw_table(found: dict[str, dict[str, Any]]) -> Table:
    """A row for each measure, a column for each folder."""
    table = Table("measure", *found)

    def cell(summary: dict[str, Any]) -> str:
        if summary["mean"] is None:
            return "no number"
        low_high = "" if summary["interval"] is None else " ({:.2f} to {:.2f})".format(*summary["interval"])
        return f"{summary['mean']:.2f}{low_high}, {summary['clips']} clips"

    for field in fields(Measured):
        table.add_row(field.name, *(cell(part[field.name]) for part in found.values()))
    table.add_row("frames without a face", *(f"{part['failed_frames']} of {part['frames']}" for part in found.values()))
    return table


def open_pool(workers: int, loading: tuple[Path, str, Path | None, bool]) -> Executor:
    """Processes that each hold the checkpoint; a single one is a thread of this process."""
    if workers == 1:
        return ThreadPoolExecutor(1)
    return ProcessPoolExecutor(workers, get_context("spawn"), open_generator, loading)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    folders = {name: getattr(options, name) for name in ("seen", "unseen") if getattr(options, name) is not None}
    chosen = Options(seed=options.seed, steps=options.steps, guidance=options.guidance, sigma_max=options.sigma_max)
    console = Console(width=120)
    try:
        if not folders:
            raise ValueError("--seen or --unseen is missing: a folder that demo.corpus built")
        talkers = {name: read_talkers(folder) for name, folder in folders.items()}
        pairs = {
            name: [(talker, choose_other(those, i)) for i, talker in enumerate(those[: options.clips])]
            for name, those in talkers.items()
        }
        loading = (options.run, options.device, options.base, options.deaf)
        open_generator(*loading)  # refuses what cannot be loaded before any work
    except (ValueError, OSError) as error:
        print(f"refused: {error}", file=sys.stderr)
        return 2
    found = {}
    with tempfile.TemporaryDirectory() as temporary, open_pool(options.workers, loading) as pool:
        for name, those in pairs.items():
            folder = (options.keep or Path(temporary)) / name
            found[name] = speak(pool, those, chosen, options.seconds, folder, console)
            save_png(options.json.with_suffix(f".{name}.png"), contact_sheet([talker for talker, _ in those], folder))
    console.print(draw_table(found))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.json, {"deaf": options.deaf, "seconds": options.seconds, **found})
    return 0


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python benchmarks/speak.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.add_argument("--run", type=Path, required=True, help="a run of training/train.py, or its folder export")
    found.add_argument("--seen", type=Path, help="talkers whose faces were trained on; these clips were not")
    found.add_argument("--unseen", type=Path, help="talkers of other faces")
    found.add_argument("--json", type=Path, required=True, help="what is written; pictures of mouths lie beside it")
    found.add_argument("--clips", type=int, default=20, help="of each folder at most (default: %(default)s)")
    found.add_argument("--seconds", type=float, default=5.0, help="of each clip at most (default: %(default)s)")
    found.add_argument("--steps", type=int, help="of the sampler (default: the checkpoint's)")
    found.add_argument("--guidance", type=float, help="(default: the checkpoint's)")
    found.add_argument("--sigma-max", type=float, help="(default: the checkpoint's)")
    found.add_argument("--seed", type=int, default=0)
    found.add_argument("--workers", type=int, default=1, help="processes (default: %(default)s)")
    found.add_argument("--deaf", action="store_true", help="the control: audio tokens at zero")
    found.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the generated videos there")
    found.add_argument("--base", type=Path, help="diffusers folder with the VAE; default: where the training had it")
    found.add_argument("--device", choices=("cuda", "cpu"), default="cpu")
    return found


if __name__ == "__main__":
    raise SystemExit(main())
