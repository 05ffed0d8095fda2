"""Lip-sync a video to a sound with a trained checkpoint (appendix B).

    python training/generate.py --checkpoint RUN --video V.mp4 --audio A.wav --output O.mp4
    torchrun --nproc-per-node 8 training/generate.py --checkpoint RUN --list jobs.csv
    python training/generate.py --detect O.mp4

The result has the length of the sound at 25 fps, the rate of the model. Outside the region around the face each frame
keeps the decoded source's bytes; frames without a face pass through as they are. The pictures carry an invisible mark
that says they are generated (--detect reads it), the container says it in words.

Exit code 0: all done; 1: a job of --list failed (its line says why); 2: refused, or the only job failed.
"""

import argparse
import csv
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parent.parent
if sys.path[0] != str(ROOT):  # run as a script, the first place is this file's own folder
    sys.path[0] = str(ROOT)
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # on a busy CPU spinning threads take 30 times as long

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import yaml  # noqa: E402
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn  # noqa: E402
from torch import Tensor  # noqa: E402

import weights  # noqa: E402
from clock import SAMPLES_PER_FRAME, WHISPER_ROWS_PER_FRAME  # noqa: E402
from command import parser_of  # noqa: E402
from media.audio import AudioTrack, read_sound  # noqa: E402
from media.frames import GridReader, Picture, Planes, read_pictures  # noqa: E402
from media.probe import Probe, probe  # noqa: E402
from media.writer import VideoWriter  # noqa: E402
from models.mask import MaskSettings  # noqa: E402
from models.whisper_features import WhisperFeatures  # noqa: E402
from training import watermark  # noqa: E402
from training.batch import drawn  # noqa: E402
from training.checkpoint import SETTINGS, export_of  # noqa: E402
from training.composite import Crop, paste, union  # noqa: E402
from training.curated import curated_in  # noqa: E402
from training.distributed import join_ranks  # noqa: E402
from training.faces import FaceFinder, FollowedFace  # noqa: E402
from training.latents import LatentCodec, concatenated_and_identity, window_starts  # noqa: E402
from training.network import SayAnything  # noqa: E402
from training.plan import CHUNK_FRAMES, Run, Segments, chunks, runs, source_frames  # noqa: E402
from training.sampler import SAMPLERS, Denoise, guided, karras_sigmas  # noqa: E402
from training.settings import SamplingSettings  # noqa: E402
from training.validation import autocast, to_uint8  # noqa: E402

AT_ONCE = 16  # untouched pictures in memory
PATIENCE = timedelta(days=7)  # of a rank that is through with its jobs for those that are not
Region = Literal["face", "mouth"]  # the face box (appendix B), or only the masked rectangle
Progressed = Callable[[str, int], object]  # (phase, frames of it that were done)


@dataclass(frozen=True)
class Job:
    video: Path
    audio: Path
    output: Path


@dataclass(frozen=True)
class Options:
    """How a video is generated. None: as the checkpoint says (`sampling` in its settings; the paper's: appendix B)."""

    seed: int = 0  # of the noise and of the reference frame
    steps: int | None = None
    guidance: float | None = None
    sampler: str = "euler"
    sigma_max: float | None = None  # SVD's is 700; 80 to 100 spends no steps where training hardly was
    chunk_frames: int = CHUNK_FRAMES  # denoised together; 1 is streaming: each segment is finished before the next
    batch: int = 1  # segments in one forward pass, or as many as have 16 frames
    region: Region | None = None  # what is pasted; None: what the checkpoint was trained for
    reference: Path | None = None  # a picture instead of a random frame of the video
    crf: float = 18.0
    payload: int | None = 0  # of the watermark; None: no watermark


class Generator:
    """A checkpoint and the networks around it, loaded once for any number of videos."""

    def __init__(self, checkpoint: Path, device: torch.device, base: Path | None = None) -> None:
        folder = export_of(checkpoint)
        settings = yaml.safe_load((folder / SETTINGS).read_text(encoding="utf-8"))
        curated = curated_in(settings, checkpoint)
        self.device, self.fusion = device, settings["model"]["fusion"]
        self.precision = "bf16" if device.type == "cuda" else "fp32"
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.codec = LatentCodec.load(base or Path(settings["model"]["base"]), device, dtype)
        self.network = SayAnything.load(folder).to(device).eval().requires_grad_(False)
        self.size: int = settings["data"]["size"]
        self.window_frames: int = settings["data"]["window_frames"]
        self.mask = MaskSettings(**settings["mask"])
        self.sampling = SamplingSettings(**settings.get("sampling", {}))
        self.segments = Segments.of(settings["data"]["frames"])
        self.region: Region = self.mask.crop
        self.faces = FaceFinder(curated, str(device))
        whisper = curated["steps/whisper"]["weights"]
        self.whisper = WhisperFeatures(weights.require(whisper)[whisper], str(device))

    @torch.no_grad()
    def generate(self, job: Job, options: Options, progressed: Progressed = lambda phase, count: None) -> int:
        """Write one video; how many frames it has. Raises ValueError (MediaError among them) with what is wrong."""
        for path in (job.video, job.audio):
            if not path.is_file():
                raise ValueError(f"{path}: no such file")
        sound, described = read_sound(job.audio), probe(job.video)
        frames = -(-len(sound) // SAMPLES_PER_FRAME)
        progressed("frames", frames)
        options = self.completed(options)
        track = self.faces.follow(job.video, described, frames, self.mask, lambda: progressed("faces", 1))
        if not track.has_face.any():
            raise ValueError(f"{job.video}: no face in its first {len(track.boxes) / 25:.1f} s; nothing to lip-sync")
        shown = source_frames(len(track.boxes), frames)
        film = Film(GridReader(job.video, described), track, shown)
        reference = self.reference(film, options)
        with (
            closing(film.reader),
            VideoWriter(
                job.output,
                film.pictures(0, 1)[0],
                job.audio,
                options.crf,
                watermark.provenance(options.payload) if options.payload is not None else {},
            ) as writer,
        ):
            for planes in self.frames(film, sound, reference, options):
                writer.write(planes)
                progressed("generate", 1)
        return frames

    def completed(self, options: Options) -> Options:
        """The options with what they leave open taken from the checkpoint."""
        open_ones = {name: getattr(self.sampling, name) for name in ("steps", "guidance", "sigma_max")}
        return replace(options, **{name: value for name, value in open_ones.items() if getattr(options, name) is None})

    def frames(
        self, film: "Film", sound: AudioTrack, reference: tuple[np.ndarray, np.ndarray], options: Options
    ) -> Iterator[Planes]:
        """The planes of every output frame in order."""
        done = 0
        for run in runs(film.track.has_face, film.track.boxes, film.shown):
            yield from film.untouched(done, run.start)
            crops = self.crops(film, self.run(film, run, sound, reference, options), options)
            yield from paste(crops, options.payload)
            done = run.end
        yield from film.untouched(done, len(film.shown))

    def run(
        self, film: "Film", run: Run, sound: AudioTrack, reference: tuple[np.ndarray, np.ndarray], options: Options
    ) -> Iterator[tuple[int, Picture, np.ndarray]]:
        """The frames of one run, their pictures and what is generated of them, [S, S, 3] uint8 RGB.

        They are made chunk by chunk, each held to the last four latents of the one before.
        """
        known, tail = None, np.empty((0, self.size, self.size, 3), np.uint8)
        pieces = chunks(run, self.segments, options.chunk_frames)
        for number, chunk in enumerate(pieces):
            pictures = film.pictures(chunk.start, chunk.end)
            latents = self.denoised(film, chunk, pictures, sound, reference, options, known)
            made = to_uint8(self.codec.decode(latents))
            made[: len(tail)] = crossfaded(tail, made[: len(tail)])
            last = number == len(pieces) - 1
            ready = len(made) if last else len(made) - self.segments.overlap
            known, tail = latents[ready:], made[ready:]
            for i in range(ready):
                yield chunk.start + i, pictures[i], made[i]

    def denoised(
        self,
        film: "Film",
        chunk: Run,
        pictures: list[Picture],
        sound: AudioTrack,
        reference: tuple[np.ndarray, np.ndarray],
        options: Options,
        known: Tensor | None,
    ) -> Tensor:
        """Clean latents [m, 4, h, w] of a chunk; its first frames are `known` if the chunk before made them."""
        source = film.shown[chunk.start : chunk.end]
        crops = [
            p.crop(film.track.squares[s], film.probe, self.faces.size) for p, s in zip(pictures, source, strict=True)
        ]
        scale = self.size / self.faces.size
        shown = self.tensor(np.stack([self.resized(crop) for crop in crops]))
        mask = drawn(torch.from_numpy(film.track.mask[source] * scale).to(self.device), self.size)
        reference_mask = drawn(torch.from_numpy(reference[1] * scale).to(self.device)[None], self.size)
        with autocast(self.device, self.precision):
            concatenated, identity = concatenated_and_identity(
                self.codec,
                shown[None],
                mask[None],
                self.tensor(self.resized(reference[0])[None]),
                reference_mask,
                self.fusion,
            )
            tokens = self.network.audio(self.rows(sound, chunk))[0]
            residuals = self.network.id_guider(identity)
            denoise = averaged(self.network, concatenated[0], tokens, residuals, self.segments, options)
            shape, shared = tuple(concatenated.shape[2:]), self.sampling.noise == "shared"
            times = [0 if shared else t for t in range(chunk.start, chunk.end)]
            noise = torch.stack([frame_noise(options.seed, t, shape) for t in times])
            assert options.steps is not None and options.sigma_max is not None, "completed in `generate`"
            sigmas = karras_sigmas(options.steps, self.sampling.sigma_min, options.sigma_max)
            return SAMPLERS[options.sampler](held(denoise, known), noise.to(self.device), sigmas)

    def rows(self, sound: AudioTrack, chunk: Run) -> Tensor:
        """Whisper rows of a chunk and k frames on both sides, zero beyond the sound: [1, 2 (m + 2 k), layers, dim]."""
        first = WHISPER_ROWS_PER_FRAME * (chunk.start - self.window_frames)
        last = WHISPER_ROWS_PER_FRAME * (chunk.end + self.window_frames)
        end = WHISPER_ROWS_PER_FRAME * -(-len(sound) // SAMPLES_PER_FRAME)
        found = self.whisper.rows(sound, max(first, 0), min(last, end))
        rows = np.zeros((last - first, *found.shape[1:]), np.float32)
        rows[max(-first, 0) :][: len(found)] = found
        return torch.from_numpy(rows)[None].to(self.device)

    def reference(self, film: "Film", options: Options) -> tuple[np.ndarray, np.ndarray]:
        """(crop [S, S, 3], mask [4] in its pixels): a given picture, or a random frame with a face."""
        if options.reference is not None:
            return self.faces.picture(options.reference, self.mask)
        chosen = int(np.random.default_rng(options.seed).choice(np.flatnonzero(film.track.has_face)))
        picture = read_pictures(film.reader, chosen, chosen + 1)[0]
        return picture.crop(film.track.squares[chosen], film.probe, self.faces.size), film.track.mask[chosen]

    def crops(self, film: "Film", made: Iterable[tuple[int, Picture, np.ndarray]], options: Options) -> Iterator[Crop]:
        """What `run` makes, with its places in the source."""
        for t, picture, crop in made:
            source = film.shown[t]
            square, mask = self.place(film.track, source)
            scale, corner = (square[2] - square[0]) / self.size, np.tile(square[:2], 2)
            box = mask
            if (options.region or self.region) == "face":
                box, found = film.track.boxes[source], self.faces.face_in(crop)
                box = box if found is None else union(box, found * scale + corner)
            shown = picture.crop(square, film.probe, self.size)
            yield Crop(picture, shown, crop, (mask - corner) / scale, square, box)

    def place(self, track: FollowedFace, source: int) -> tuple[np.ndarray, np.ndarray]:
        """Where the crop generated for a source frame lies, int [4], and its mask [4], both in source pixels."""
        square = np.round(track.squares[source]).astype(int)
        return square, track.mask[source] * ((square[2] - square[0]) / self.faces.size) + np.tile(square[:2], 2)

    def resized(self, crop: np.ndarray) -> np.ndarray:
        return (
            crop if len(crop) == self.size else cv2.resize(crop, (self.size, self.size), interpolation=cv2.INTER_AREA)
        )

    def tensor(self, crops: np.ndarray) -> Tensor:
        """[T, S, S, 3] uint8 -> [T, 3, S, S] float32 in [-1, 1] on the device."""
        return torch.from_numpy(crops).to(self.device).permute(0, 3, 1, 2).float() / 127.5 - 1


@dataclass(frozen=True)
class Film:
    """A source video, its face track, and which source frame each output frame shows."""

    reader: GridReader
    track: FollowedFace
    shown: np.ndarray

    @property
    def probe(self) -> Probe:
        return self.reader.probe

    def pictures(self, start: int, end: int) -> list[Picture]:
        """The source pictures of output frames [start, end); backwards where the video runs back."""
        wanted = self.shown[start:end]
        low, high = int(wanted.min()), int(wanted.max()) + 1
        found = read_pictures(self.reader, low, high)
        return [found[source - low] for source in wanted]

    def untouched(self, start: int, end: int) -> Iterator[Planes]:
        for first in range(start, end, AT_ONCE):
            for picture in self.pictures(first, min(first + AT_ONCE, end)):
                yield picture.planes


def averaged(
    network: SayAnything,
    concatenated: Tensor,
    tokens: Tensor,
    residuals: list[Tensor],
    segments: Segments,
    options: Options,
) -> Denoise:
    """The denoiser of a chunk [m, 4, h, w]: segments, averaged in every step where they overlap."""
    frames, length = len(concatenated), segments.frames
    starts = window_starts(frames, length, segments.overlap)
    places = [torch.arange(start, start + length).clamp(max=frames - 1) for start in starts]  # short: the last repeats
    at_once = max(options.batch, 16 // length)
    batches = [places[i : i + at_once] for i in range(0, len(places), at_once)]
    assert options.guidance is not None, "completed in `generate`"
    guidance = options.guidance
    counts = torch.zeros(frames, device=concatenated.device)
    for place in places:
        counts[place.unique()] += 1

    def part(x: Tensor, batch: list[Tensor]) -> Tensor:
        return torch.stack([x[place] for place in batch])

    def residuals_of(batch: list[Tensor]) -> list[Tensor]:
        if residuals and len(residuals[0]) == frames > 1:  # one per frame: Table 3, "video fusion"
            return [part(residual, batch).flatten(0, 1) for residual in residuals]
        return [residual.expand(len(batch), -1, -1, -1) for residual in residuals]

    denoisers = [
        guided(network, part(concatenated, batch), part(tokens, batch), residuals_of(batch), guidance)
        for batch in batches
    ]

    def denoise(z: Tensor, sigma: float) -> Tensor:
        total = torch.zeros_like(z)
        for batch, denoise_batch in zip(batches, denoisers, strict=True):
            for place, answer in zip(batch, denoise_batch(part(z, batch), sigma), strict=True):
                once = place.unique()
                total[once] += answer[: len(once)]
        return total / counts.view(-1, 1, 1, 1)

    return denoise


def held(denoise: Denoise, known: Tensor | None) -> Denoise:
    """A denoiser whose first frames answer what is known, so that every path ends there."""
    if known is None:
        return denoise

    def denoise_held(z: Tensor, sigma: float) -> Tensor:
        return torch.cat([known, denoise(z, sigma)[len(known) :]])

    return denoise_held


def frame_noise(seed: int, t: int, shape: tuple[int, ...]) -> Tensor:
    """The noise of absolute frame t: the same whatever segment or chunk it is in."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed * 1_000_003 + t))


def crossfaded(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """[k, H, W, 3] uint8: from the pictures of the chunk before to those of this one, linearly."""
    weight = (np.arange(1, len(before) + 1) / (len(before) + 1)).reshape(-1, 1, 1, 1)
    return np.rint(before * (1 - weight) + after * weight).astype(np.uint8)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    if options.detect is not None:
        return detect(options.detect)
    try:
        jobs = read_jobs(options)
        if options.checkpoint is None:
            raise ValueError("--checkpoint is missing: a run of training/train.py, or its folder export")
        device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
        with join_ranks(device, PATIENCE) as ranks:
            generator = Generator(options.checkpoint, ranks.device, options.base)
            chosen = options_of(options)
            made = [done(generator, job, chosen, ranks.first) for job in jobs[ranks.rank :: ranks.world]]
            [failed] = ranks.sum(made.count(False))  # torchrun ends all ranks when one has failed: they end together
    except (ValueError, OSError) as error:
        print(f"refused: {error}", file=sys.stderr)
        return 2
    return 0 if not failed else 1 if options.list else 2


def done(generator: Generator, job: Job, options: Options, show: bool) -> bool:
    """One job with a progress bar; False, and a line that says why, if it failed."""
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn(), disable=not show
    )
    try:
        with bar:
            phases: dict[str, Any] = {}

            def progressed(phase: str, count: int) -> None:
                if phase == "frames":
                    phases["faces"] = bar.add_task(f"{job.output.name}: faces", total=2 * count)
                    phases["generate"] = bar.add_task(f"{job.output.name}: frames", total=count)
                else:
                    bar.advance(phases[phase], count)

            frames = generator.generate(job, options, progressed)
    except (ValueError, OSError) as error:
        print(f"{job.output}: {error}", file=sys.stderr)
        return False
    print(f"{job.output}: {frames} frames, {frames / 25:.2f} s")
    return True


def detect(path: Path) -> int:
    try:
        found = watermark.detect(path)
    except (ValueError, OSError) as error:
        print(f"refused: {error}", file=sys.stderr)
        return 2
    if found.payload is None:
        print(f"{path}: no mark of SayAnything found (z {found.z:.1f})")
        return 1
    sure = f"z {found.z:.1f}, false alarm {found.false_alarm:.1e}"
    print(f"{path}: generated by SayAnything, payload {found.payload} ({sure})")
    return 0


def read_jobs(options: argparse.Namespace) -> list[Job]:
    """The one job of the command line, or those of a CSV with the columns video, audio, output."""
    if options.list is None:
        given = [options.video, options.audio, options.output]
        if None in given:
            raise ValueError("--video, --audio and --output are needed, or --list FILE, or --detect VIDEO")
        return [Job(*given)]
    with options.list.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    missing = {"video", "audio", "output"} - set(rows[0] if rows else ())
    if missing:
        raise ValueError(f"{options.list}: no column {', '.join(sorted(missing))}; video,audio,output are needed")
    folder = options.list.parent
    return [Job(*(folder / row[name] for name in ("video", "audio", "output"))) for row in rows]


def options_of(given: argparse.Namespace) -> Options:
    names = ("seed", "steps", "guidance", "sampler", "sigma_max", "batch", "region", "reference", "crf")
    found = Options(**{name: getattr(given, name) for name in names})
    return replace(
        found,
        chunk_frames=1 if given.streaming else found.chunk_frames,
        payload=None if given.no_watermark else given.payload,
    )


def parser() -> argparse.ArgumentParser:
    found = parser_of("python training/generate.py", __doc__)
    plain = Options()
    found.add_argument("--checkpoint", type=Path, help="a run of training/train.py, or its folder export")
    found.add_argument("--video", type=Path)
    found.add_argument("--audio", type=Path, help="sound file, or a video whose sound is taken")
    found.add_argument("--output", type=Path, help="the MP4 to write")
    found.add_argument(
        "--list", type=Path, help="CSV with the columns video,audio,output; under torchrun spread over GPUs"
    )
    found.add_argument("--base", type=Path, help="diffusers folder with the VAE; default: where the training had it")
    found.add_argument("--device", choices=("cuda", "cpu"), help="default: cuda if there is one")
    found.add_argument(
        "--seed", type=int, default=plain.seed, help="of noise and reference frame (default: %(default)s)"
    )
    found.add_argument("--reference", type=Path, help="a picture of the face; default: a random frame of the video")
    found.add_argument("--steps", type=int, help="denoising steps (default: the checkpoint's; the paper's 15)")
    found.add_argument(
        "--guidance",
        type=float,
        help="1 switches it off and halves the time (default: the checkpoint's; the paper's 3)",
    )
    found.add_argument(
        "--sampler", choices=sorted(SAMPLERS), default=plain.sampler, help="heun: two passes a step, for few steps"
    )
    found.add_argument("--sigma-max", type=float, help="first noise level (default: the checkpoint's; SVD's 700)")
    found.add_argument("--streaming", action="store_true", help="finish each segment before the next begins")
    found.add_argument(
        "--batch", type=int, default=plain.batch, help="segments in one forward pass (default: %(default)s)"
    )
    found.add_argument(
        "--region",
        choices=("face", "mouth"),
        default=plain.region,
        help="what is pasted (default: what the checkpoint was trained for)",
    )
    found.add_argument("--crf", type=float, default=plain.crf, help="of H.264; 0 is lossless (default: %(default)s)")
    found.add_argument(
        "--payload", type=int, default=plain.payload, help="0 to 255, what the watermark says (default: %(default)s)"
    )
    found.add_argument(
        "--no-watermark", action="store_true", help="leave the pictures unmarked; then say it is generated yourself"
    )
    found.add_argument(
        "--detect", type=Path, metavar="VIDEO", help="say whether a video carries the mark; nothing else is done"
    )
    return found


if __name__ == "__main__":
    raise SystemExit(main())
