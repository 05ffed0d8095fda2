"""A checkpoint and the networks around it: a video and a sound -> the video lip-synced to the sound (appendix B).

The way of a video: `FaceFinder` follows its face; `plan` says which source frame each output frame shows and cuts runs
with a face into chunks; `chunk` denoises one after the other; `composite` pastes the decoded crops into the source's
planes. Frames without a face pass through.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
import yaml
from torch import Tensor

import weights
from clock import FPS, SAMPLES_PER_FRAME, WHISPER_ROWS_PER_FRAME
from media.audio import AudioTrack, read_sound
from media.frames import GridReader, Picture, Planes, read_pictures
from media.probe import Probe, probe
from media.writer import VideoWriter
from models.mask import MaskSettings
from models.voice_activity import VoiceActivity
from models.whisper_features import WhisperFeatures
from training import watermark
from training.batch import fill_boxes
from training.checkpoint import SETTINGS, codec_folder, export_of
from training.chunk import average_segments, crossfade, frame_noise, keep_known
from training.composite import PlacedCrop, paste, union
from training.curated import curated_in
from training.faces import FaceFinder, FollowedFace
from training.fade import fade, shares
from training.gate import Gate
from training.latents import LatentCodec, concatenated_and_identity
from training.network import SayAnything
from training.person import FaceChoice
from training.plan import CHUNK_FRAMES, Run, Segments, chunks, runs, source_frames
from training.sampler import SAMPLERS, karras_sigmas
from training.settings import SamplingSettings
from training.validation import autocast, to_uint8

AT_ONCE = 16  # untouched pictures in memory
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
    audio_guidance: float | None = None  # None, and none in the checkpoint: as `guidance`
    sampler: str = "euler"
    sigma_max: float | None = None  # SVD's is 700; 80 to 100 spends no steps where training hardly was
    chunk_frames: int = CHUNK_FRAMES  # denoised together; 1 is streaming: each segment is finished before the next
    batch: int = 1  # segments in one forward pass, or as many as have 16 frames
    face: FaceChoice = "largest"  # which one is generated where there are several
    hear_all: bool = False  # whether the network hears what is no speech
    region: Region | None = None  # what is pasted; None: what the checkpoint was trained for
    reference: Path | None = None  # a picture instead of a random frame of the shot
    crf: float = 18.0
    payload: int | None = 0  # of the watermark; None: no watermark


@dataclass(frozen=True)
class Film:
    """A source video, its face track, and which source frame each output frame shows."""

    reader: GridReader
    track: FollowedFace
    shown: np.ndarray

    @property
    def probe(self) -> Probe:
        return self.reader.probe

    @property
    def first_shot(self) -> int:
        """The first shot in which there is a face."""
        return int(self.track.shot[self.track.has_face.argmax()])

    def shot_of(self, run: Run) -> int:
        return int(self.track.shot[self.shown[run.start]])

    def pictures(self, start: int, end: int) -> list[Picture]:
        """Return the source pictures of output frames [start, end); backwards where the video runs back."""
        wanted = self.shown[start:end]
        low, high = int(wanted.min()), int(wanted.max()) + 1
        found = read_pictures(self.reader, low, high)
        return [found[source - low] for source in wanted]

    def planes(self, start: int, end: int) -> Iterator[Planes]:
        """Yield the planes of the source pictures of output frames [start, end), as they are."""
        for first in range(start, end, AT_ONCE):
            for picture in self.pictures(first, min(first + AT_ONCE, end)):
                yield picture.planes


@dataclass(frozen=True)
class Take:
    """All that the frames of one output video are made of."""

    film: Film
    sound: AudioTrack
    reference: np.ndarray  # [S, S, 3] uint8 RGB, a face crop of the shot at hand
    reference_mask: np.ndarray  # [4] in its pixels
    options: Options
    gate: Gate | None = None  # None: all of the sound is heard


class Generator:
    """A checkpoint and the networks around it, loaded once for any number of videos."""

    def __init__(self, checkpoint: Path, device: torch.device, base: Path | None = None) -> None:
        folder = export_of(checkpoint)
        settings = yaml.safe_load((folder / SETTINGS).read_text(encoding="utf-8"))
        curated = curated_in(settings, checkpoint)
        self.device, self.fusion = device, settings["model"]["fusion"]
        self.precision = "bf16" if device.type == "cuda" else "fp32"
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.codec = LatentCodec.load(base or codec_folder(folder, settings["model"]["base"]), device, dtype)
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
        self.voice = VoiceActivity()

    @torch.no_grad()
    def generate(self, job: Job, options: Options, progressed: Progressed = lambda phase, count: None) -> int:
        """Write one video and return its number of frames. Raises ValueError (MediaError among them)."""
        for path in (job.video, job.audio):
            if not path.is_file():
                raise ValueError(f"{path}: no such file")
        sound, described = read_sound(job.audio), probe(job.video)
        frames = -(-len(sound) // SAMPLES_PER_FRAME)
        progressed("frames", frames)
        options = self.complete(options)
        track = self.faces.follow(job.video, described, frames, self.mask, lambda: progressed("faces", 1), options.face)
        if not track.has_face.any():
            wanted = f"face number {options.face}" if isinstance(options.face, int) else "face"
            seconds = len(track.boxes) / FPS
            raise ValueError(f"{job.video}: no {wanted} in its first {seconds:.1f} s; nothing to lip-sync")
        film = Film(GridReader(job.video, described), track, source_frames(len(track.boxes), frames))
        gate = None if options.hear_all else Gate.of(sound, self.voice)
        take = Take(film, sound, *self.choose_reference(film, options, film.first_shot), options, gate)
        mark = watermark.provenance(options.payload) if options.payload is not None else {}
        with (
            closing(film.reader),
            VideoWriter(job.output, film.pictures(0, 1)[0], job.audio, options.crf, mark) as writer,
        ):
            for planes in self.generate_planes(take):
                writer.write(planes)
                progressed("generate", 1)
        return frames

    def complete(self, options: Options) -> Options:
        """Return the options with what they leave open taken from the checkpoint."""
        open_ones = {
            name: getattr(self.sampling, name) for name in ("steps", "guidance", "audio_guidance", "sigma_max")
        }
        return replace(options, **{name: value for name, value in open_ones.items() if getattr(options, name) is None})

    def generate_planes(self, take: Take) -> Iterator[Planes]:
        """Yield the planes of every output frame in order."""
        film, track, done = take.film, take.film.track, 0
        for run, in_shot in self.runs_of(take):
            yield from film.planes(done, run.start)
            placed = self.place_crops(in_shot, self.generate_run(in_shot, run))
            seen = shares(run, track.has_face, track.shot, film.shown)
            yield from paste(fade(placed, seen), take.options.payload)
            done = run.end
        yield from film.planes(done, len(film.shown))

    def runs_of(self, take: Take) -> Iterator[tuple[Run, Take]]:
        """Yield the runs of a video, each with the take in which the reference is of its shot."""
        film, track, shot = take.film, take.film.track, take.film.first_shot
        for run in runs(track.has_face, track.boxes, track.shot, film.shown):
            if film.shot_of(run) != shot and take.options.reference is None:
                shot = film.shot_of(run)
                reference, mask = self.choose_reference(film, take.options, shot)
                take = replace(take, reference=reference, reference_mask=mask)
            yield run, take

    def generate_run(self, take: Take, run: Run) -> Iterator[tuple[int, Picture, np.ndarray]]:
        """Yield the frames of one run, their pictures and what is generated of them, [S, S, 3] uint8 RGB.

        They are made chunk by chunk; the first latents of a chunk are the last ones of the chunk before.
        """
        known, tail = None, np.empty((0, self.size, self.size, 3), np.uint8)
        pieces = chunks(run, self.segments, take.options.chunk_frames)
        for number, chunk in enumerate(pieces):
            pictures = take.film.pictures(chunk.start, chunk.end)
            latents = self.denoise_chunk(take, chunk, pictures, known)
            made = to_uint8(self.codec.decode(latents))
            made[: len(tail)] = crossfade(tail, made[: len(tail)])
            last = number == len(pieces) - 1
            ready = len(made) if last else len(made) - self.segments.overlap
            known, tail = latents[ready:], made[ready:]
            for i in range(ready):
                yield chunk.start + i, pictures[i], made[i]

    def denoise_chunk(self, take: Take, chunk: Run, pictures: list[Picture], known: Tensor | None) -> Tensor:
        """Return clean latents [m, 4, h, w] of a chunk; its first frames are `known` if the chunk before made them."""
        options, sampling = take.options, self.sampling
        assert options.steps is not None and options.guidance is not None and options.sigma_max is not None, "complete"
        with autocast(self.device, self.precision):
            concatenated, identity = self.encode_pictures(take, chunk, pictures)
            tokens = self.network.audio(self.whisper_rows(take.sound, chunk, take.gate))[0]
            residuals = self.network.id_guider(identity)
            denoise = average_segments(
                self.network, concatenated, tokens, residuals, self.segments, options.guidance, options.batch,
                options.audio_guidance,
            )  # fmt: skip
            times = [0 if sampling.noise == "shared" else t for t in range(chunk.start, chunk.end)]
            noise = torch.stack([frame_noise(options.seed, t, tuple(concatenated.shape[1:])) for t in times])
            sigmas = karras_sigmas(options.steps, sampling.sigma_min, options.sigma_max)
            return SAMPLERS[options.sampler](keep_known(denoise, known), noise.to(self.device), sigmas)

    def encode_pictures(self, take: Take, chunk: Run, pictures: list[Picture]) -> tuple[Tensor, Tensor]:
        """Return what is concatenated with the latents of a chunk, [m, 4, h, w], and what the ID-Guider sees."""
        film, scale = take.film, self.size / self.faces.size
        source = film.shown[chunk.start : chunk.end]
        crops = [
            self.resize(picture.crop(film.track.squares[s], film.probe, self.faces.size))
            for picture, s in zip(pictures, source, strict=True)
        ]
        mask = fill_boxes(torch.from_numpy(film.track.mask[source] * scale).to(self.device), self.size)
        reference = self.to_tensor(self.resize(take.reference)[None])
        reference_mask = fill_boxes(torch.from_numpy(take.reference_mask * scale).to(self.device)[None], self.size)
        concatenated, identity = concatenated_and_identity(
            self.codec, self.to_tensor(np.stack(crops))[None], mask[None], reference, reference_mask, self.fusion
        )
        return concatenated[0], identity

    def whisper_rows(self, sound: AudioTrack, chunk: Run, gate: Gate | None = None) -> Tensor:
        """Return the Whisper rows of a chunk with k frames on both sides: [1, 2 (m + 2 k), layers, dim].

        Beyond the sound they are zero.
        """
        first = WHISPER_ROWS_PER_FRAME * (chunk.start - self.window_frames)
        last = WHISPER_ROWS_PER_FRAME * (chunk.end + self.window_frames)
        end = WHISPER_ROWS_PER_FRAME * -(-len(sound) // SAMPLES_PER_FRAME)
        part = sound, max(first, 0), min(last, end)
        found = self.whisper.rows(*part) if gate is None else gate.rows(self.whisper, *part)
        rows = np.zeros((last - first, *found.shape[1:]), np.float32)
        rows[max(-first, 0) :][: len(found)] = found
        return torch.from_numpy(rows)[None].to(self.device)

    def choose_reference(self, film: Film, options: Options, shot: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a crop [S, S, 3] and its mask [4] in its pixels: of a given picture, or of a random frame of a shot.

        Who is generated in another shot may be somebody else.
        """
        if options.reference is not None:
            return self.faces.picture(options.reference, self.mask)
        there = np.flatnonzero(film.track.has_face & (film.track.shot == shot))
        chosen = int(np.random.default_rng(options.seed).choice(there))
        picture = read_pictures(film.reader, chosen, chosen + 1)[0]
        return picture.crop(film.track.squares[chosen], film.probe, self.faces.size), film.track.mask[chosen]

    def place_crops(self, take: Take, made: Iterable[tuple[int, Picture, np.ndarray]]) -> Iterator[PlacedCrop]:
        """Yield what `generate_run` makes with its places in the source."""
        film = take.film
        for t, picture, crop in made:
            source = film.shown[t]
            square, mask = self.locate_crop(film.track, source)
            scale, corner = (square[2] - square[0]) / self.size, np.tile(square[:2], 2)
            box = mask
            if (take.options.region or self.region) == "face":
                box, found = film.track.boxes[source], self.faces.face_in(crop)
                box = box if found is None else union(box, found * scale + corner)
            shown = picture.crop(square, film.probe, self.size)
            yield PlacedCrop(picture, shown, crop, (mask - corner) / scale, square, box)

    def locate_crop(self, track: FollowedFace, source: int) -> tuple[np.ndarray, np.ndarray]:
        """Return where the crop generated for a source frame lies, int [4], and its mask [4], both in source pixels."""
        square = np.round(track.squares[source]).astype(int)
        return square, track.mask[source] * ((square[2] - square[0]) / self.faces.size) + np.tile(square[:2], 2)

    def resize(self, crop: np.ndarray) -> np.ndarray:
        """Return a crop [S, S, 3] in the size that the network was trained on."""
        if len(crop) == self.size:
            return crop
        return cv2.resize(crop, (self.size, self.size), interpolation=cv2.INTER_AREA)

    def to_tensor(self, crops: np.ndarray) -> Tensor:
        """Return crops [T, S, S, 3] uint8 as [T, 3, S, S] float32 in [-1, 1] on the device."""
        return torch.from_numpy(crops).to(self.device).permute(0, 3, 1, 2).float() / 127.5 - 1
