"""Builds the corpus of corpus.yaml, or any number of plain talkers, with the truth about each video beside it.

    python -m demo.corpus --output DIR                              the described corpus
    python -m demo.corpus --output DIR --talkers 30 --seconds 60    good talkers only, for benchmarks and training
    python -m demo.corpus --output DIR --talkers 60 --seconds 90 --people speakers --script train --size 640
                                                                    close talkers for a speaker model to learn from
    python -m demo.corpus --output DIR --recordings                 and four talkers with the voices of real people

One process per core. A video appears under its name when it is whole; the same command continues an interrupted build
and a second run does nothing. Faces are kept in the user's cache: only the first build on a machine draws them.
truth.json says what is in every video: expected verdicts, audio offset, cuts, gaps, whose voice, the mouth's track.
"""

import argparse
import hashlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from fractions import Fraction
from itertools import cycle, pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import weights
from demo import faces, generator, recordings, render, speech
from demo.speech import SAMPLE_RATE, MouthTrack, Phoneme, Speech, Voice

TABLE_PATH = Path(__file__).with_name("corpus.yaml")
VERSION = 1  # of what the videos look like; raise it and they are built again
GRID_FPS = 25  # of curation: truth is told on its clock
PAUSES_S = (0.2, 0.5)
ROOM_TONE = 10 ** (-66 / 20)
CARD_SIZE = 1.4, 1.6  # width and height, in those of the landmarks
INSET_SHARE = 0.4  # of the picture's height
MISSING_FRAMES = 0.25  # of a variable rate
CLOSE_PITCHES = {"high": (1.1, 1.36), "low": (0.88, 1.06)}  # of close_talkers, per kind of person in faces.py
CLOSE_PACES = (0.85, 1.2)  # length_scale
SMALLEST_CLOSE = 512  # pixels
CLOSE_SIDES = (1.1, 1.18)  # of the portrait, in the frame's; below 1.1 the head's motion would show the portrait's edge
RECORDED: dict[recordings.Name, int] = {"nist_f1": 0, "nist_f2": 18, "nist_m1": 11, "nist_m2": 23}  # whose face


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Expectation(Strict):
    """What the curation must say of one stretch of a video."""

    start_s: float = 0
    end_s: float
    verdict: Literal["keep", "drop"]
    reason: str = "keep"
    offset_frames: int | None = None


class Cut(Strict):
    """From here on another framing, and another person if a face is given."""

    at_s: float
    side: int
    centre_x: float = 0.5
    face: int | None = None
    voice: tuple[float, float] | None = None


class Cover(Strict):
    """Something before the face."""

    at_s: float
    frames: int


class Pause(Strict):
    at_s: float
    seconds: float


class Video(Strict):
    """One row of the table."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    what: str
    face: int
    seconds: float
    expect: tuple[Expectation, ...]
    voice: tuple[float, float] = (1.0, 1.0)  # pitch, length_scale
    recording: recordings.Name | None = None  # this real voice, from the first frame to the last, instead of `voice`
    width: int = 1280
    height: int = 720
    side: int
    centre_x: float = 0.5
    fps: str = "25"
    cuts: tuple[Cut, ...] = ()
    covered: tuple[Cover, ...] = ()
    inset: int | None = None  # a second, smaller person who listens
    mouth: Literal["talks", "closed"] = "talks"
    sound: Literal["speech", "music", "silence", "none"] = "speech"
    dubbed_by: tuple[float, float] | None = None  # this voice with other words instead of the talker's own
    pause: Pause | None = None
    delay_frames: int = 0  # of 25 fps; late sound is positive
    audio_layout: str = "mono"
    blur_sigma: float = 0
    crf: int = 20
    rotation: int = 0
    variable_rate: bool = False
    kept_share: float = 1.0  # of the file's bytes

    @property
    def people(self) -> set[int]:
        return {
            self.face,
            *(cut.face for cut in self.cuts if cut.face is not None),
            *([self.inset] if self.inset is not None else []),
        }


class Job(Strict):
    """One video with the words said in it and its seed: all that a worker needs."""

    video: Video
    texts: tuple[tuple[str, ...], ...]  # per stretch between cuts to other people; last, the words of the dub
    seed: int

    @property
    def recipe(self) -> str:
        """Changes when the video would."""
        # A video without a recording is described as before there were any: none of these is built again.
        unused = {"video": {"recording"}} if self.video.recording is None else None
        described = f"{VERSION} {faces.CACHE_VERSION} {self.model_dump_json(exclude=unused)}"
        return hashlib.sha256(described.encode()).hexdigest()[:16]


def read_table(path: Path = TABLE_PATH) -> list[Video]:
    """The rows of the table; pydantic's error says which field of which row is wrong."""
    return [Video.model_validate(row) for row in yaml.safe_load(path.read_text(encoding="utf-8"))]


def plain_talkers(count: int, seconds: float, seed: int, people: dict[int, str] = faces.VETTED) -> list[Video]:
    """Any number of good talkers: people in turn, each time with another voice, framing and frame rate."""
    rng = np.random.default_rng([seed, 1])
    videos = []
    for i, (person, kind) in zip(range(count), cycle(people.items()), strict=False):
        low, high = faces.PITCHES[kind]
        large = rng.random() < 0.2
        width, height = (1920, 1080) if large else (1280, 720)
        videos.append(
            Video(
                name=f"talker_{i:04d}",
                what="good talker",
                face=person,
                seconds=seconds,
                voice=(round(rng.uniform(low, high), 2), round(rng.uniform(0.9, 1.15), 2)),
                width=width,
                height=height,
                side=int(height * rng.uniform(1.04, 1.25)),
                centre_x=round(rng.uniform(0.4, 0.6), 2),
                fps=str(rng.choice(["25", "25", "30", "30000/1001"])),
                expect=(Expectation(end_s=seconds, verdict="keep", offset_frames=0),),
            )
        )
    return videos


def close_talkers(count: int, seconds: float, seed: int, people: dict[int, str], size: int) -> list[Video]:
    """Good talkers in small square frames at 25 fps, for a speaker model: cheap to draw, encode and decode.

    The people speak in turn, each time with another pitch, pace and framing; pitch and pace vary more than those of
    plain_talkers, so that a model does not learn one voice.
    """
    rng = np.random.default_rng([seed, 3])
    videos = []
    for i, (person, kind) in zip(range(count), cycle(people.items()), strict=False):
        videos.append(
            Video(
                name=f"talker_{i:04d}",
                what="good talker, close",
                face=person,
                seconds=seconds,
                voice=(round(rng.uniform(*CLOSE_PITCHES[kind]), 2), round(rng.uniform(*CLOSE_PACES), 2)),
                width=size,
                height=size,
                side=int(size * rng.uniform(*CLOSE_SIDES)),
                centre_x=round(rng.uniform(0.46, 0.54), 2),
                expect=(Expectation(end_s=seconds, verdict="keep", offset_frames=0),),
            )
        )
    return videos


def recorded_talkers() -> list[Video]:
    """Good talkers with the real voices of recordings.py, each as long as its recording."""
    return [
        Video(
            name=name,
            what="good talker with a real voice",
            face=face,
            seconds=recordings.RECORDINGS[name].seconds,
            recording=name,
            side=800,
            expect=(Expectation(end_s=recordings.RECORDINGS[name].seconds, verdict="keep", offset_frames=0),),
        )
        for name, face in RECORDED.items()
    ]


def plan(videos: list[Video], seed: int, script: str = "described") -> list[Job]:
    """Give every voice its own sentences of a script. The plan depends on the arguments only."""
    stretches = [[*_stretches(video), *([video.seconds] if video.dubbed_by else [])] for video in videos]
    lengths_s = [s for video in stretches for s in video]
    texts = iter(speech.allot_sentences(lengths_s, np.random.default_rng([seed, 2]), script))
    return [
        Job(video=video, texts=(*_recorded_texts(video), *(tuple(next(texts)) for _ in lengths)), seed=seed)
        for video, lengths in zip(videos, stretches, strict=True)
    ]


def _recorded_texts(video: Video) -> list[tuple[str, ...]]:
    return [recordings.RECORDINGS[video.recording].texts] if video.recording else []


def _stretches(video: Video) -> list[float]:
    """Seconds between cuts to other people, of those whose words are not given by a recording."""
    if video.recording is not None:
        return []
    edges = [0.0, *(cut.at_s for cut in video.cuts if cut.face is not None), video.seconds]
    return [end - start for start, end in pairwise(edges)]


def _say(
    video: Video, seconds: float, voice: tuple[float, float], texts: Iterable[str], rng: np.random.Generator
) -> Speech:
    """Sentences after each other on a track of exactly these seconds, with the pause of the video in its place."""
    files = weights.require(*speech.WEIGHTS)
    parts = speech.speak(tuple(texts), Voice(*voice), files, int(rng.integers(1 << 31)))
    pauses = rng.uniform(*PAUSES_S, len(parts))
    if video.pause is not None:
        starts = np.cumsum(pauses) + np.cumsum([0, *(part.seconds for part in parts[:-1])])
        first_after = int(np.searchsorted(starts, video.pause.at_s))
        pauses[min(first_after, len(parts) - 1)] = video.pause.seconds
    return speech.join(parts, pauses.tolist(), seconds)


def _own_speech(job: Job, rng: np.random.Generator) -> Speech:
    """What the people in the picture say, one after another."""
    video = job.video
    if video.recording is not None:
        files = weights.require(video.recording, recordings.WHISPER, *speech.WEIGHTS)
        return recordings.read_recording(video.recording, files)
    voices = [video.voice, *(cut.voice or video.voice for cut in video.cuts if cut.face is not None)]
    said = [_say(video, s, v, t, rng) for s, v, t in zip(_stretches(video), voices, job.texts, strict=False)]
    phonemes: list[Phoneme] = []
    start_s = 0.0
    for part in said:
        phonemes += [Phoneme(p.symbol, p.start_s + start_s, p.end_s + start_s, p.stressed) for p in part.phonemes]
        start_s += part.seconds
    return Speech(np.concatenate([part.samples for part in said]), tuple(phonemes))


def shift_sound(samples: np.ndarray, delay_frames: int) -> np.ndarray:
    """The sound moved later by frames of 25 fps, silence where it came from, the same length."""
    shift = delay_frames * SAMPLE_RATE // GRID_FPS
    shifted = np.zeros_like(samples)
    if shift >= 0:
        shifted[shift:] = samples[: len(samples) - shift]
    else:
        shifted[:shift] = samples[-shift:]
    return shifted


def play_music(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """A slow tune of plucked chords with a beat: [N] float32."""
    times = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    music = np.zeros(len(times))
    for k, start_s in enumerate(np.arange(0, seconds, 0.375)):
        since = np.maximum(times - start_s, 0)
        begun = times >= start_s
        root = (220.0, 174.6, 261.6, 196.0)[(k // 8) % 4]
        tone = root * 2 ** (rng.choice([0, 4, 7, 12]) / 12)
        pluck = sum(np.sin(2 * np.pi * h * tone * since) / h**1.5 for h in range(1, 6))
        music += begun * pluck * np.exp(-since * 4)
        if k % 2 == 0:
            music += begun * 1.5 * np.sin(2 * np.pi * 55 * since) * np.exp(-since * 18)
    return (0.35 * music / np.abs(music).max()).astype(np.float32)


def _soundtrack(job: Job, own: Speech, rng: np.random.Generator) -> np.ndarray:
    video = job.video
    if video.sound == "music":
        return play_music(video.seconds, rng)
    if video.sound in ("silence", "none"):
        return np.zeros_like(own.samples)
    spoken = own
    if video.dubbed_by is not None:
        spoken = _say(video, video.seconds, video.dubbed_by, job.texts[-1], rng)
    tone = ROOM_TONE * rng.standard_normal(len(own.samples)).astype(np.float32)
    return np.clip(shift_sound(spoken.samples, video.delay_frames) + tone, -1, 1)


def frame_times(video: Video, rng: np.random.Generator) -> list[Fraction]:
    """When each frame is first shown, in seconds."""
    fps = Fraction(video.fps)
    count = round(video.seconds * fps)
    times = [i / fps for i in range(count)]
    if video.variable_rate:
        shown = rng.random(count) >= MISSING_FRAMES
        shown[[0, -1]] = True
        times = [t for t, keep in zip(times, shown, strict=True) if keep]
    return times


def _frames(job: Job, track: MouthTrack, times: list[Fraction], rng: np.random.Generator) -> Iterator[np.ndarray]:
    """The upright frames of a video."""
    video = job.video
    seconds = np.array([float(t) for t in times])
    opening, width = speech.sample_track(track, seconds)
    if video.mouth == "closed":
        opening, width = np.zeros_like(opening), np.zeros_like(width)
    motion = render.make_motion(seconds, track.stresses_s if video.mouth == "talks" else (), rng)
    grain = render.Grain(video.width, video.height, rng)
    inset = _Inset(video, video.inset, seconds, rng) if video.inset is not None else None
    shots = [(0.0, video.face, video.side, video.centre_x)]
    for cut in video.cuts:
        shots.append((cut.at_s, cut.face if cut.face is not None else shots[-1][1], cut.side, cut.centre_x))
    for shot, following in pairwise([*shots, (video.seconds + 1, 0, 0, 0)]):
        start_s, person, side, centre_x = shot
        framing = render.Framing(video.width, video.height, side, centre_x)
        stage = render.Stage(faces.load_identity(faces.cache_path(person)), framing)
        for t in np.flatnonzero((seconds >= start_s - 1e-6) & (seconds < following[0] - 1e-6)).tolist():
            frame = stage.draw(opening[t], width[t], motion, t)
            if any(c.at_s - 1e-6 <= seconds[t] < c.at_s + c.frames / GRID_FPS - 1e-6 for c in video.covered):
                _cover(frame, stage.points)
            if inset is not None:
                inset.draw(frame, t)
            if video.blur_sigma:
                frame = cv2.GaussianBlur(frame, (0, 0), video.blur_sigma)
            yield grain.add(frame)


def _cover(frame: np.ndarray, points: np.ndarray) -> None:
    """A plain card over the whole face, in the mean colour of what it hides: a loss of the face and not a cut.

    Measured on three people: the face detector's score falls below .04, PySceneDetect's content value stays below 15.
    """
    low, high = points.min(0), points.max(0)
    centre, half = (low + high) / 2, np.array(CARD_SIZE) * (high - low) / 2
    x0, y0 = np.maximum(centre - half, 0).astype(int)
    x1, y1 = np.minimum(centre + half, frame.shape[1::-1]).astype(int)
    frame[y0:y1, x0:x1] = frame[y0:y1, x0:x1].mean((0, 1))


class _Inset:
    """A small second picture in the lower right corner, as in a video call: somebody who listens."""

    def __init__(self, video: Video, person: int, seconds: np.ndarray, rng: np.random.Generator):
        side = int(video.height * INSET_SHARE)
        framing = render.Framing(side, side, int(1.04 * side))
        self._stage = render.Stage(faces.load_identity(faces.cache_path(person)), framing)
        self._motion = render.make_motion(seconds, (), rng)
        self._side, self._margin = side, video.height // 30

    def draw(self, frame: np.ndarray, t: int) -> None:
        height, width = frame.shape[:2]
        y, x = height - self._side - self._margin, width - self._side - self._margin
        frame[y - 4 : y + self._side + 4, x - 4 : x + self._side + 4] = 235
        frame[y : y + self._side, x : x + self._side] = self._stage.draw(0.0, 0.0, self._motion, t)


def build_video(job: Job, output: Path) -> None:
    """Writes <output>/<name>.mp4 and then its truth, by which a finished video is known."""
    video = job.video
    # Random numbers depend on the video's name and not on its place, so that a new row changes no other video.
    name = int.from_bytes(hashlib.sha256(video.name.encode()).digest()[:4], "big")
    sound_rng, picture_rng = (np.random.default_rng([job.seed, name, part]) for part in (0, 1))
    own = _own_speech(job, sound_rng)
    track = speech.mouth_track(own.phonemes, video.seconds, picture_rng, gain=picture_rng.uniform(0.9, 1.15))
    sound = _soundtrack(job, own, sound_rng)
    times = frame_times(video, picture_rng)
    encoding = render.Encoding(
        fps=Fraction(video.fps),
        crf=video.crf,
        audio_layout=None if video.sound == "none" else video.audio_layout,
        rotation=video.rotation,
    )
    path = output / f"{video.name}.mp4"
    truth_path(output, video.name).unlink(missing_ok=True)
    render.write_video(path, _frames(job, track, times, picture_rng), times, sound, encoding)
    if video.kept_share < 1:
        data = path.read_bytes()
        _write(path, data[: int(len(data) * video.kept_share)])
    _write(truth_path(output, video.name), json.dumps(truth(job, track), indent=1).encode())


def truth(job: Job, track: MouthTrack) -> dict[str, Any]:
    """What is in a video, on the clock of curation: frames of 25 per second from the first frame on."""
    video = job.video
    opening, width = speech.sample_track(track, np.arange(round(video.seconds * GRID_FPS)) / GRID_FPS)
    if video.mouth == "closed":
        opening, width = np.zeros_like(opening), np.zeros_like(width)
    voices = [{"from_s": 0.0, "face": video.face, "voice": video.recording or video.voice}]
    voices += [{"from_s": cut.at_s, "face": cut.face, "voice": cut.voice} for cut in video.cuts if cut.face is not None]
    if video.dubbed_by is not None:
        voices = [{"from_s": 0.0, "face": None, "voice": video.dubbed_by}]
    elif video.mouth == "closed":
        voices = [{**voice, "face": None} for voice in voices]
    return {
        "recipe": job.recipe,
        "name": video.name,
        "what": video.what,
        "expect": [e.model_dump() for e in video.expect],
        "offset_frames": video.delay_frames,
        "cuts": [round(cut.at_s * GRID_FPS) for cut in video.cuts],
        "gaps": [[round(c.at_s * GRID_FPS), round(c.at_s * GRID_FPS) + c.frames] for c in video.covered],
        "voices": voices if video.sound == "speech" else [],
        "texts": job.texts if video.sound == "speech" or video.mouth == "talks" else [],
        "people": sorted(video.people),
        "mouth_opening": [round(float(o), 3) for o in opening],
        "mouth_width": [round(float(w), 3) for w in width],
    }


def truth_path(output: Path, name: str) -> Path:
    """The truth of one video; its presence says that the video is whole."""
    return output / "truth" / f"{name}.json"


def is_built(job: Job, output: Path) -> bool:
    """Whether the video is there and is what the job would build."""
    path = truth_path(output, job.video.name)
    if not path.exists() or not (output / f"{job.video.name}.mp4").exists():
        return False
    return json.loads(path.read_text(encoding="utf-8"))["recipe"] == job.recipe


def _write(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{path.name}.part")
    partial.write_bytes(data)
    partial.replace(path)


def build_corpus(jobs: list[Job], output: Path, workers: int, console: Console) -> None:
    """Builds what is missing: faces first, then videos, longest first; writes truth.json last."""
    (output / "truth").mkdir(parents=True, exist_ok=True)
    missing = [job for job in jobs if not is_built(job, output)]
    people = sorted({person for job in missing for person in job.video.people})
    unknown = [person for person in people if not faces.cache_path(person).exists()]
    missing.sort(key=lambda job: -job.video.seconds * job.video.width * job.video.height)
    columns = TextColumn("{task.description:>7}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console) as progress:
        stages: list[tuple[str, Callable[[Any, Path], None], list[Any]]]
        stages = [("faces", _build_face, unknown), ("videos", _build_video, missing)]
        for what, function, work in stages:
            if not work:
                continue
            bar = progress.add_task(what, total=len(work))
            # Spawned, not forked: networks and threads of the parent do not survive a fork.
            with ProcessPoolExecutor(min(workers, len(work)), get_context("spawn"), _start_worker) as pool:
                for done in as_completed([pool.submit(function, item, output) for item in work]):
                    done.result()
                    progress.advance(bar)
    truths = {
        job.video.name: json.loads(truth_path(output, job.video.name).read_text(encoding="utf-8")) for job in jobs
    }
    _write(output / "truth.json", json.dumps(truths, indent=1).encode())


def _start_worker() -> None:
    cv2.setNumThreads(1)


def _build_face(person: int, _output: Path) -> None:
    faces.build_identity(person, faces.open_sculptor(), faces.load_solutions()).save(faces.cache_path(person))


def _build_video(job: Job, output: Path) -> None:
    build_video(job, output)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m demo.corpus", description="Build talking-head videos with known truth."
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the videos, truth.json and truth/")
    parser.add_argument("--talkers", type=int, help="this many good talkers instead of the described corpus")
    parser.add_argument(
        "--seconds", type=float, default=12.0, help="length of each of --talkers (default: %(default)s)"
    )
    parser.add_argument(
        "--people",
        nargs="+",
        metavar="SEED",
        default=["vetted"],
        help=f"faces of --talkers: seeds, or one of {', '.join(faces.GROUPS)} (default: vetted)",
    )
    parser.add_argument("--size", type=int, help="square frames of this many pixels for --talkers, at least 512")
    parser.add_argument(
        "--script",
        choices=tuple(speech.SCRIPTS),
        default="described",
        help="which sentences are said (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="other words, voices and motion (default: %(default)s)")
    parser.add_argument("--recordings", action="store_true", help="and a talker for each of the four real voices")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these videos of the corpus")
    parser.add_argument(
        "--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes (default: one per core)"
    )
    options = parser.parse_args(arguments)
    console = Console(stderr=True)
    if not options.talkers and (options.size or options.people != ["vetted"]):
        parser.error("--size and --people are for --talkers: the described corpus has its own")
    try:
        people = faces.choose_people(options.people)
    except ValueError as error:
        parser.error(str(error))
    if options.size and (options.size < SMALLEST_CLOSE or options.size % 2):
        parser.error(f"--size {options.size}: an even number from {SMALLEST_CLOSE} on; smaller faces are not kept")
    if not options.talkers:
        videos = read_table()
    elif options.size:
        videos = close_talkers(options.talkers, options.seconds, options.seed, people, options.size)
    else:
        videos = plain_talkers(options.talkers, options.seconds, options.seed, people)
    if options.recordings:
        videos += recorded_talkers()
    jobs = plan(videos, options.seed, options.script)
    if options.only:
        unknown = set(options.only) - {job.video.name for job in jobs}
        if unknown:
            parser.error(f"no such video: {', '.join(sorted(unknown))}")
        jobs = [job for job in jobs if job.video.name in options.only]
    recorded = [job.video.recording for job in jobs if job.video.recording is not None]
    heard = [*recorded, recordings.WHISPER] if recorded else []
    try:
        weights.require(*generator.WEIGHTS, *speech.WEIGHTS, "face_landmarker", *heard)
    except weights.WeightsError as error:
        console.print(str(error), style="red", markup=False)
        return 1
    build_corpus(jobs, options.output, options.workers, console)
    minutes = math.fsum(job.video.seconds for job in jobs) / 60
    console.print(f"{len(jobs)} videos, {minutes:.1f} minutes, truth.json in {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
