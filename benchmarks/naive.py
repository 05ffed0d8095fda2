"""The usual way to preprocess talking heads, stage by stage over files: the other end of the scale from the floor.

    python benchmarks/naive.py --videos FOLDER --output FOLDER [--json FILE]

Restated, not copied, from what LatentSync's public pipeline does to a video: each stage reads video files and writes
new ones, four lossy generations in all. It runs on one thread, with the network files and the thresholds of the
profile, so that it keeps what the profile keeps; where LatentSync has SyncNet and HyperIQA, the profile's lip probe and
filters stand. Stages, as they are timed:

resample     to 25 fps and 16 kHz: x264 medium, crf 23 (ffmpeg's defaults); LatentSync copies the pictures of a source
             that has 25 fps already, so for such a corpus this line is to be left out (`curation.py` prints both)
shots        PySceneDetect on every frame; each piece encoded anew, veryfast, crf 22 (PySceneDetect's defaults)
segments     pieces of at most `steps/windows.max_s`, copied between keyframes
faces        Ultralytics' predict() on every whole frame by itself, 640 pixels; crops encoded anew, crf 13
sync         crops dumped as JPEG and WAV and read back; 478 landmarks of every frame; the sound's rules are asked here
quality      the frames read again; the profile's quality filters
whisper      each clip padded to 30 s, OpenAI's package
lip_audio    the lip probe; what is kept is encoded a fourth time, with its sound shifted, crf 23

In favour of the usual way: frames are read once where detection and cropping need them; the crops are encoded once
(LatentSync does it twice, and twice more before its sync measure); no second face detection (it runs S3FD there) and
no SyncNet for every frame; networks loaded before the clock. Against it: the last encoding, which it does as a copy.
"""

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # read when numpy and torch are imported

import argparse
import resource
import shutil
import sys
import wave
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np

import pipelines
import weights
from benchmarks.result import write_json
from benchmarks.sources import ffmpeg
from clock import FPS
from curation.clip import Clip, FaceTrack, Source
from curation.stage import Filter, Stage, build_stages
from curation.verdicts import Verdict
from curation.videos import list_videos, local_files
from media.probe import probe
from models.lip_probe import WHISPER_LAYER
from models.mouth import mouth_channels

DETECTOR_PX = 640  # Ultralytics' default
MAX_IOU = 0.5
SMOOTHING = 0.8  # share of the square before in the next: the usual running average
PADDED_S = 30


@dataclass
class Piece:
    """A file that a stage wrote, and the frames of the source (at 25 fps) that it holds."""

    source: Path
    file: Path
    start: int
    end: int
    kept: bool = True
    reason: str = "kept"
    mouth: np.ndarray | None = None  # [T, 28], for the lip probe
    rows: np.ndarray | None = None  # [2 * T, 384], likewise

    def dropped(self, verdict: Verdict) -> None:
        self.kept, self.reason = verdict.keep, verdict.reason


@dataclass
class Clock:
    """CPU seconds of this process and of its children by (source, stage)."""

    cpu_s: dict[tuple[Path, str], float] = field(default_factory=lambda: defaultdict(float))

    @contextmanager
    def on(self, source: Path, stage: str) -> Iterator[None]:
        before = cpu_s()
        yield
        self.cpu_s[source, stage] += cpu_s() - before

    def of(self, source: Path) -> dict[str, float]:
        return {stage: seconds for (path, stage), seconds in self.cpu_s.items() if path == source}


def cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


class Naive:
    """The networks, loaded, and the profile's rules."""

    def __init__(self, profile: pipelines.Profile, folder: Path) -> None:
        cv2.setNumThreads(1)
        self.folder, self.settings = folder, dict(profile.stages)
        self.rules: dict[str, Stage] = {stage.name: stage for stage in build_stages(profile.stages)}
        for name in ("steps/voice_activity", "filters/niqe"):
            self.rules[name].load()
        self.detector = open_detector(self.weights("steps/faces"))
        self.detect(np.zeros((DETECTOR_PX, DETECTOR_PX, 3), np.uint8))
        self.landmarker = open_landmarker(self.weights("steps/landmarks"))
        self.whisper, self.hidden = open_whisper(self.weights("steps/whisper"))

    def weights(self, stage: str) -> Path:
        name = self.settings[stage]["weights"]
        return weights.require(name)[name]

    def decide(self, name: str, scores: Mapping[str, float]) -> Verdict:
        rule = self.rules[name]
        assert isinstance(rule, Filter)
        return rule.decide(scores)

    def place(self, stage: str, piece: Piece, suffix: str = ".mp4") -> Path:
        folder = self.folder / stage
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{piece.source.stem}-{piece.start:06d}-{piece.end:06d}{suffix}"

    def resample(self, video: Path) -> Piece:
        piece = Piece(video, video, 0, probe(video).frames)
        file = self.place("resample", piece)
        ffmpeg("-i", video, "-r", "25", "-c:v", "libx264", "-ar", "16000", "-ac", "1", "-c:a", "aac", file)
        return Piece(video, file, 0, probe(file).frames)

    def shots(self, whole: Piece) -> list[Piece]:
        from scenedetect import AdaptiveDetector, detect

        shots = self.settings["steps/shots"]
        detector = AdaptiveDetector(
            adaptive_threshold=shots["threshold"],
            window_width=shots["window_frames"],
            min_scene_len=round(shots["min_shot_s"] * FPS),
            min_content_val=shots["min_content"],
        )
        found = detect(str(whole.file), detector, start_in_scene=True)
        pieces = [Piece(whole.source, whole.file, start.frame_num, end.frame_num) for start, end in found]
        for piece in pieces:
            file = self.place("shots", piece)
            times = ("-ss", f"{piece.start / FPS:.3f}", "-t", f"{(piece.end - piece.start) / FPS:.3f}")
            ffmpeg(
                *times, "-i", whole.file, "-c:v", "libx264", "-preset", "veryfast", "-crf", "22", "-c:a", "aac", file
            )
            piece.file = file
        return pieces

    def segments(self, shot: Piece) -> list[Piece]:
        seconds = self.settings["steps/windows"]["max_s"]
        first = self.place("segments", shot, "")
        table = first.with_suffix(".csv")
        cut = ("-f", "segment", "-segment_time", seconds, "-segment_list", table, "-reset_timestamps", "1")
        ffmpeg("-i", shot.file, "-c", "copy", *map(str, cut), f"{first}-%03d.mp4")
        pieces = []
        for line in table.read_text(encoding="utf-8").splitlines():
            name, start_s, end_s = line.split(",")
            start, end = (min(round(float(time_s) * FPS), shot.end - shot.start) for time_s in (start_s, end_s))
            pieces.append(Piece(shot.source, table.with_name(name), shot.start + start, shot.start + end))
        return pieces

    def faces(self, segment: Piece) -> list[Piece]:
        """Clips with one steady face, written as crops with their sound; and what was dropped."""
        boxes, crops = self.crops(segment.file)
        track = track_of(boxes)
        pieces = []
        for start, end, reason in self.rules["steps/stable_spans"].spans(track, ()):  # type: ignore[attr-defined]
            piece = Piece(segment.source, segment.file, segment.start + start, segment.start + end)
            side = track.cut(start, end).shorter_side
            if reason:
                piece.kept, piece.reason = False, reason
            else:
                piece.dropped(self.decide("filters/clip_face_size", {"span_face_max_px": float(side.max())}))
            if piece.kept:
                piece.file = self.place("faces", piece)
                size = self.settings["steps/crop"]["size"]
                pipe = ("-f", "rawvideo", "-pix_fmt", "bgr24", "-s", f"{size}x{size}", "-r", "25", "-i", "-")
                sound = ("-ss", f"{start / FPS:.3f}", "-t", f"{(end - start) / FPS:.3f}", "-i", segment.file)
                coded = ("-map", "0:v", "-map", "1:a", "-c:v", "libx264", "-crf", "13", "-pix_fmt", "yuv420p")
                ffmpeg(*pipe, *sound, *coded, "-c:a", "aac", piece.file, data=np.stack(crops[start:end]).tobytes())
            pieces.append(piece)
        return pieces

    def crops(self, file: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Faces of every frame, [N, 5] with the largest first, and the square around the largest; the last one held."""
        crop = self.settings["steps/crop"]
        boxes, crops, square = [], [], None
        for frame in frames_of(file):
            found = self.detect(frame)
            if len(found):
                x0, y0, x1, y1 = found[0, :4]
                half = min(max(x1 - x0, y1 - y0) * crop["expansion"], *frame.shape[:2]) / 2
                new = np.array([(x0 + x1) / 2, (y0 + y1) / 2, half])
                square = new if square is None else SMOOTHING * square + (1 - SMOOTHING) * new
            boxes.append(found)
            crops.append(cut_out(frame, square, crop["size"]))
        return boxes, crops

    def detect(self, frame: np.ndarray) -> np.ndarray:
        score = self.settings["steps/faces"]["min_score"]
        result = self.detector.predict(frame, imgsz=DETECTOR_PX, conf=score, iou=MAX_IOU, device="cpu", verbose=False)
        found = result[0].boxes.data.cpu().numpy()[:, :5]
        sides = found[:, 2:4] - found[:, :2]
        return found[np.argsort(-sides.prod(axis=1))]

    def sync(self, piece: Piece) -> None:
        import mediapipe

        folder = self.place("sync", piece, "")
        folder.mkdir()
        ffmpeg("-i", piece.file, "-qscale:v", "2", folder / "%06d.jpg")
        ffmpeg("-i", piece.file, "-vn", "-ac", "1", "-ar", "16000", "-c:a", "pcm_s16le", folder / "audio.wav")
        points, shapes = [], []
        for name in sorted(folder.glob("*.jpg")):
            picture = cv2.cvtColor(np.asarray(cv2.imread(str(name))), cv2.COLOR_BGR2RGB)
            found = self.landmarker.detect(mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=picture))
            points.append(mesh_of(found, picture.shape[0]))
            shapes.append(
                [shape.score for shape in found.face_blendshapes[0]] if found.face_blendshapes else [np.nan] * 52
            )
        piece.mouth = mouth_channels(np.array(points, np.float32), np.array(shapes, np.float32))
        for picture in folder.glob("*.jpg"):
            picture.unlink()
        self.judge(piece, "steps/voice_activity", "filters/source_speech", "filters/clip_speech")

    def judge(self, piece: Piece, *names: str, frames: np.ndarray | None = None) -> None:
        """Asks these stages of the profile about a file as if it were a source."""
        header = probe(piece.file)
        clip = Clip(Source("naive", piece.file, header), 0, piece.end - piece.start, frames=frames)
        for name in names:
            clip = next(iter(self.rules[name](clip)))
            if not clip.verdict.keep:
                piece.dropped(clip.verdict)
                return

    def quality(self, piece: Piece) -> None:
        frames = np.stack([cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) for frame in frames_of(piece.file)])
        self.judge(piece, "filters/blur", "filters/niqe", frames=frames)

    def features(self, piece: Piece) -> None:
        import torch
        from whisper.audio import log_mel_spectrogram, pad_or_trim

        with wave.open(str(self.place("sync", piece, "") / "audio.wav")) as file:
            sound = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 32768
        self.hidden.clear()
        with torch.inference_mode():
            mel = log_mel_spectrogram(pad_or_trim(torch.from_numpy(sound)), self.whisper.dims.n_mels)
            self.whisper.embed_audio(mel[None])
        layers = np.stack([layer[0].half().numpy() for layer in self.hidden], 1)[: 2 * (piece.end - piece.start)]
        np.save(self.place("whisper", piece, ".npy"), layers)
        piece.rows = layers[:, WHISPER_LAYER - 1]

    def lip_audio(self, pieces: Sequence[Piece], clock: Clock) -> None:
        """The probe's verdict; then the fourth encoding, with the sound moved."""
        stage: Any = self.rules["filters/lip_audio"]
        for piece in pieces:
            with clock.on(piece.source, "lip_audio"):
                assert piece.mouth is not None and piece.rows is not None
                scores = stage.columns(stage.model.score(piece.mouth, piece.rows), len(piece.mouth))
                piece.dropped(stage.decide({**scores, "duration_s": (piece.end - piece.start) / FPS}))
                if piece.kept:
                    late_s = stage.shift_frames(scores) / FPS
                    both = (
                        "-i",
                        piece.file,
                        "-itsoffset",
                        f"{-late_s:.3f}",
                        "-i",
                        piece.file,
                        "-map",
                        "0:v",
                        "-map",
                        "1:a",
                    )
                    ffmpeg(*both, "-c:v", "libx264", "-c:a", "aac", self.place("lip_audio", piece))

    def run(self, videos: Sequence[Path], clock: Clock) -> list[Piece]:
        """What became of every stretch of the videos."""
        ended, waiting = list[Piece](), list[Piece]()
        for video in videos:
            with clock.on(video, "resample"):
                whole = self.resample(video)
            with clock.on(video, "shots"):
                shots = self.shots(whole)
            with clock.on(video, "segments"):
                segments = [segment for shot in shots for segment in self.segments(shot)]
            with clock.on(video, "faces"):
                pieces = [piece for segment in segments for piece in self.faces(segment)]
            for name, stage in (("sync", self.sync), ("quality", self.quality), ("whisper", self.features)):
                with clock.on(video, name):
                    for piece in pieces:
                        if piece.kept:
                            stage(piece)
            ended += [piece for piece in pieces if not piece.kept]
            waiting += [piece for piece in pieces if piece.kept]
        self.lip_audio(waiting, clock)
        return ended + waiting


def frames_of(file: Path) -> Iterator[np.ndarray]:
    """Every frame of a video, [H, W, 3] uint8 BGR."""
    capture = cv2.VideoCapture(str(file), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    while (read := capture.read())[0]:
        yield np.asarray(read[1])


def cut_out(frame: np.ndarray, square: np.ndarray | None, size: int) -> np.ndarray:
    """The square (centre and half its side) of a frame, moved inside it, at `size` pixels; black before any face."""
    if square is None:
        return np.zeros((size, size, 3), np.uint8)
    half = square[2]
    x, y = np.clip(square[:2], half, np.array(frame.shape[1::-1]) - half)
    x0, y0, side = max(0, round(x - half)), max(0, round(y - half)), max(1, round(2 * half))
    return cv2.resize(frame[y0 : y0 + side, x0 : x0 + side], (size, size), interpolation=cv2.INTER_AREA)


def track_of(boxes: list[np.ndarray]) -> FaceTrack:
    """The largest face of each frame."""
    found = np.array([len(each) > 0 for each in boxes])
    first = np.array([each[0] if len(each) else np.zeros(5) for each in boxes], np.float32)
    count = np.array([len(each) for each in boxes], np.uint8)
    return FaceTrack(first[:, :4], first[:, 4], found, count, np.zeros(len(boxes), np.float32))


def mesh_of(found: Any, side: int) -> list[tuple[float, float, float]]:
    """The 478 points of one picture in its pixels; NaN without a face."""
    if not found.face_landmarks:
        return [(np.nan, np.nan, np.nan)] * 478
    return [(point.x * side, point.y * side, point.z * side) for point in found.face_landmarks[0]]


def open_detector(path: Path) -> Any:
    """Ultralytics as it comes, offline; ONNX Runtime on one thread."""
    os.environ |= {"YOLO_CONFIG_DIR": str(weights.cache_folder()), "YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false"}
    import onnxruntime
    from ultralytics.models import YOLO
    from ultralytics.nn.autobackend import AutoBackend
    from ultralytics.nn.backends.onnx import ONNXBackend

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    AutoBackend._BACKEND_MAP["onnx"] = partial(ONNXBackend, session_options=options)
    return YOLO(str(path), task="detect")


def open_landmarker(path: Path) -> Any:
    from mediapipe.tasks.python import vision
    from mediapipe.tasks.python.core.base_options import BaseOptions

    options = vision.FaceLandmarkerOptions(
        base_options=BaseOptions(model_asset_path=str(path)), num_faces=1, output_face_blendshapes=True
    )
    return vision.FaceLandmarker.create_from_options(options)


def open_whisper(path: Path) -> tuple[Any, list[Any]]:
    """OpenAI's model, and the list to which each of the encoder's blocks adds its output."""
    import torch
    import whisper

    torch.set_num_threads(1)
    model, hidden = whisper.load_model(str(path), device="cpu"), []
    for block in model.encoder.blocks:
        block.register_forward_hook(lambda _block, _given, output: hidden.append(output))
    return model, hidden


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, nargs="+", required=True)
    parser.add_argument(
        "--output", type=Path, required=True, help="a folder; what an earlier run left in it is removed"
    )
    parser.add_argument("--profile", default="embedded")
    parser.add_argument("--set", action="append", default=[], metavar="STAGE.SETTING=VALUE")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    videos = local_files(list_videos(options.videos)[0])
    shutil.rmtree(options.output, ignore_errors=True)
    naive, clock = Naive(pipelines.load(options.profile, options.set), options.output), Clock()
    pieces = naive.run(videos, clock)
    naive.landmarker.close()  # MediaPipe's own __del__ comes too late
    sources = []
    for video in videos:
        spans = [[p.start, p.end, p.kept, p.reason] for p in sorted(pieces, key=lambda p: p.start) if p.source == video]
        frames = probe(video).frames
        sources.append({"path": str(video), "seconds": frames / FPS, "spans": spans, "cpu_s": clock.of(video)})
    minutes = sum(source["seconds"] for source in sources) / 60
    stages = dict.fromkeys(stage for _, stage in clock.cpu_s)
    by_stage = {name: sum(s for (_, stage), s in clock.cpu_s.items() if stage == name) / minutes for name in stages}
    kept_s = sum(piece.end - piece.start for piece in pieces if piece.kept) / FPS
    print(f"{minutes:.2f} minutes of {len(videos)} sources, {kept_s:.1f} s kept; CPU seconds per minute of source")
    for name, seconds in by_stage.items():
        print(f"{name:12s} {seconds:8.2f}")
    print(f"{'everything':12s} {sum(by_stage.values()):8.2f}")
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"peak memory {peak_mb:.0f} MB")
    numbers = {"sources": sources, "cpu_s_per_minute": by_stage, "peak_mb": peak_mb, "kept_s": kept_s}
    write_json(options.json, numbers)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
