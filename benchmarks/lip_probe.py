"""How well does the lip probe tell synchronous clips from others, calibrated on nothing but the clips themselves?

    python benchmarks/lip_probe.py --clips ../shared/media [--cache /tmp/lip_probe]

`--clips` is a folder of videos with a labels.csv (columns file, class, sync, audio). Every clip with sound and a face
joins one unlabelled pool, the bad ones too; each is scored by a ridge that has not seen its source; labels are only
looked at when the tables are printed. Needs the weights yolov8n_face, face_landmarker and whisper_tiny_en.
"""

import argparse
import csv
import os
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

import weights
from clock import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from media import geometry
from media.audio import cut, read_audio
from media.errors import MediaError
from media.frames import GridReader, read_crops, scan
from media.probe import probe
from models.face_landmarks import FaceLandmarks
from models.lip_probe import (
    MIN_FRAMES,
    NULL_FRAMES,
    ROWS_PER_FRAME,
    WHISPER_LAYER,
    LipProbe,
    LipRecord,
    LipScore,
)
from models.lip_probe_fit import LipFit, fit_probe
from models.mouth import mouth_channels
from models.whisper_features import WhisperFeatures
from models.yolo_face import YoloFace

DETECT_EVERY = 12
CROP_SIZE = 320
EXPANSION = 1.6
MAX_OFFSET = 6  # beyond: rejected; up to it the sound is shifted
WINDOWED_FRAMES = 200
MIN_AGREEMENT = 0.7
LENGTHS = {"2-4 s": (50, 100), "4-8 s": (100, 200), "> 8 s": (201, 10**9)}

# Clips that show the same person, or may: never in different folds, never each other's foreign voice.
SAME_SOURCE = {
    "dub_obama": "obama",
    "dub_brit": "brit",
    "kim_lip_synced": "kim",
    "kim_presenter": "kim",
    "syncnet_example": "news",
    "dub_lemon": "news",
    "grid_pwij3p": "grid",
    "grid_swwp2s": "grid",
}
ORIGINAL, COPY = "real__syncnet_example.avi", "unsync__syncnet_example_offset12.avi"


class Meter:
    """From a file to what the probe needs of it."""

    def __init__(self) -> None:
        files = weights.require("yolov8n_face", "face_landmarker", "whisper_tiny_en")
        self.faces = YoloFace(files["yolov8n_face"], size=480, min_score=0.4)
        self.landmarks = FaceLandmarks(files["face_landmarker"])
        self.whisper = WhisperFeatures(files["whisper_tiny_en"])

    def measure(self, path: Path) -> tuple[np.ndarray, np.ndarray] | None:
        """Mouth channels [T, 28] and Whisper rows [2T, 384] of a whole file; None without a face or a sound."""
        header = probe(path)
        audio = read_audio(path, header)
        boxes = self.track(path)
        if audio is None or boxes is None:
            return None
        squares = geometry.squares(boxes, EXPANSION, 3.0, header.width, header.height)
        crops = read_crops(GridReader(path, header), 0, squares, CROP_SIZE)
        mesh = self.landmarks.measure(crops)
        rows = self.whisper.encode(cut(audio, 0, len(boxes) * SAMPLES_PER_FRAME))
        return mouth_channels(mesh.points, mesh.blendshapes), rows[:, WHISPER_LAYER]

    def track(self, path: Path) -> np.ndarray | None:
        """The largest face of each 12th frame, interpolated, in source pixels."""
        header = probe(path)
        found: dict[int, np.ndarray] = {}
        frames = 0
        for i, picture in scan(path, header):
            frames = i + 1
            if i % DETECT_EVERY == 0 and len(faces := self.faces.detect([picture])[0]):
                found[i] = faces[0, :4] * (header.width / picture.shape[1])
        if not found:
            return None
        boxes, seen = np.zeros((frames, 4), np.float32), np.zeros(frames, bool)
        for i, box in found.items():
            boxes[i], seen[i] = box, True
        return geometry.fill_gaps(boxes, seen)


def read_records(folder: Path, labels: Iterable[dict[str, str]], cache: Path | None) -> list[LipRecord]:
    meter, records = None, []
    for name in (row["file"] for row in labels if row["audio"] not in ("none", "unreadable")):
        kept = cache / f"{name}.npz" if cache else None
        if kept is None or not kept.exists():
            meter = meter or Meter()
            try:
                measured = meter.measure(folder / name) or (np.zeros((0, 28)), np.zeros((0, 384)))
            except MediaError as error:
                print(f"{name}: {error}", file=sys.stderr)
                continue
            print(f"measured {name}", file=sys.stderr)
            if kept:
                np.savez(kept, channels=measured[0], rows=measured[1])
        else:
            with np.load(kept) as arrays:
                measured = arrays["channels"], arrays["rows"]
        source = next((group for part, group in SAME_SOURCE.items() if part in name), name)
        if len(measured[0]):
            records.append(LipRecord(name, source, *measured))
    return records


def verdict(score: LipScore | None, lip_probe: LipProbe) -> str:
    """The rule that filters/lip_audio is advised to use."""
    if score is None:
        return "unknown"
    windowed = score.frames > WINDOWED_FRAMES
    confident = score.confidence >= lip_probe.threshold(score.frames)
    if windowed:
        confident &= score.window_confidence >= lip_probe.threshold(100) and score.window_agreement >= MIN_AGREEMENT
    if not confident:
        return "no_evidence"
    return "keep" if abs(score.offset_frames) <= MAX_OFFSET else "offset"


def print_clips(records: list[LipRecord], fit: LipFit, label: dict[str, str]) -> None:
    print(
        f"\n{'label':<18} {'clip':<44} {'s':>5} {'offset':>6} {'conf.':>6} {'needs':>6} {'4 s':>6} {'agree':>6} verdict"
    )
    for record in sorted(records, key=lambda r: (label[r.key], r.key)):
        score = fit.scores.get(record.key)
        numbers = f"{'':>6} {'':>6} {'':>6} {'':>6} {'':>6}"
        if score:
            needed = fit.probe.threshold(score.frames)
            numbers = f"{score.offset_frames:>+6d} {score.confidence:>6.2f} {needed:>6.2f}"
            numbers += f" {score.window_confidence:>6.2f} {score.window_agreement:>6.2f}"
        seconds = len(record.channels) / FPS
        print(f"{label[record.key]:<18} {record.key[:44]:<44} {seconds:>5.1f} {numbers} {verdict(score, fit.probe)}")


def print_labels(fit: LipFit, label: dict[str, str]) -> None:
    print(f"\n{'label':<18} {'clips':>5} {'conf. min median max':>22} {'offset min median max':>22}  verdicts")
    for name in sorted({label[key] for key in fit.scores}):
        scores = [score for key, score in fit.scores.items() if label[key] == name]
        confidence = np.percentile([s.confidence for s in scores], (0, 50, 100))
        offset = np.percentile([s.offset_frames for s in scores], (0, 50, 100))
        verdicts = [verdict(score, fit.probe) for score in scores]
        counts = ", ".join(f"{v} {verdicts.count(v)}" for v in sorted(set(verdicts)))
        middle = "{:>8.2f} {:>6.2f} {:>6.2f} {:>8.0f} {:>6.0f} {:>6.0f}".format(*confidence, *offset)
        print(f"{name:<18} {len(scores):>5} {middle}  {counts}")


def print_foreign(records: list[LipRecord], fit: LipFit) -> None:
    """Every clip's lips with the next other source's voice: what the thresholds let through."""
    print(
        "\nlips with a foreign voice, by a probe that has heard both (the whole clips, not the cuts of the calibration)"
    )
    print(f"{'length':<8} {'pairs':>5} {'median':>7} {'95 %':>6} {'99 %':>6} {'max':>6} {'over thr.':>10} {'kept':>6}")
    scores = []
    for i, lips in enumerate(records):
        others = [voice for step in range(1, len(records)) for voice in [records[(i + 7 * step) % len(records)]]]
        for voice in [voice for voice in others if voice.source_id != lips.source_id][:8]:
            frames = min(len(lips.channels), len(voice.channels))
            scores.append(fit.probe.score(lips.channels[:frames], voice.rows[: ROWS_PER_FRAME * frames]))
    for name, (low, high) in LENGTHS.items():
        chosen = [score for score in scores if score and low <= score.frames < high]
        confidence = np.array([score.confidence for score in chosen])
        over = np.mean([score.confidence >= fit.probe.threshold(score.frames) for score in chosen])
        kept = np.mean([verdict(score, fit.probe) == "keep" for score in chosen])
        quantiles = " ".join(f"{q:>6.2f}" for q in (*np.percentile(confidence, (95, 99)), confidence.max()))
        print(f"{name:<8} {len(chosen):>5} {np.median(confidence):>7.2f} {quantiles} {over:>10.3f} {kept:>6.3f}")


def delayed(record: LipRecord, frames: int) -> LipRecord:
    rows = ROWS_PER_FRAME * frames
    return replace(record, rows=np.concatenate([np.repeat(record.rows[:1], rows, 0), record.rows[:-rows]]))


def print_controls(records: list[LipRecord], fit: LipFit) -> None:
    if {ORIGINAL, COPY} <= fit.scores.keys():
        offsets = [fit.scores[key].offset_frames for key in (ORIGINAL, COPY)]
        print(
            f"\noriginal and its copy with the sound 12 frames late: offsets {offsets}, apart {offsets[1] - offsets[0]}"
        )
    later = fit_probe(lambda: (delayed(record, 5) for record in records))
    if later:
        sure = [key for key, score in fit.scores.items() if score.confidence > fit.probe.threshold(score.frames)]
        moved = [later.scores[key].offset_frames - fit.scores[key].offset_frames for key in sure]
        counts = dict(zip(*(part.tolist() for part in np.unique(moved, return_counts=True)), strict=True))
        print(f"the whole pool 5 frames late: offsets move by (frames: clips) {counts}")
    rng = np.random.default_rng(0)
    broken = [
        replace(r, rows=np.roll(r.rows, rng.integers(len(r.rows) // 3, 2 * len(r.rows) // 3), 0)) for r in records
    ]
    print(f"a pool in which no clip is in sync: {'no probe' if fit_probe(lambda: iter(broken)) is None else 'A PROBE'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--clips", type=Path, required=True, help="folder with videos and labels.csv")
    parser.add_argument("--cache", type=Path, help="folder that keeps what was measured of each clip")
    arguments = parser.parse_args()
    if arguments.cache:
        arguments.cache.mkdir(parents=True, exist_ok=True)
    labels = list(csv.DictReader((arguments.clips / "labels.csv").open()))
    label = {row["file"]: "reject" if row["class"] == "reject" else row["sync"] for row in labels}
    label |= {row["file"]: "reject (silent)" for row in labels if row["audio"] == "silent"}
    silent = {row["file"] for row in labels if row["audio"] == "silent"}
    records = read_records(arguments.clips, labels, arguments.cache)
    speaking = [record for record in records if record.key not in silent]  # the pipeline's speech filter comes first
    fit = fit_probe(lambda: iter(speaking))
    if fit is None:
        sys.exit("too few clips to fit a probe")
    seconds = sum(len(record.channels) for record in speaking) / FPS
    print(
        f"{len(speaking)} clips, {seconds:.0f} s of {SAMPLE_RATE} Hz sound; the probe learned from {fit.probe.voters}"
    )
    cells = " ".join(f"{n / FPS:.0f} s: {t:.2f} " for n, t in zip(NULL_FRAMES, fit.probe.null_thresholds, strict=True))
    print(f"99th percentile of swapped pairs: {cells}")
    print_clips(speaking, fit, label)
    print_labels(fit, label)
    usable = [record for record in speaking if record.key in fit.scores and len(record.channels) >= MIN_FRAMES]
    print_foreign(usable, fit)
    print("\nsilent clips, which the speech filter drops before")
    for record in (record for record in records if record.key in silent):
        score = fit.probe.score(record.channels, record.rows)
        print(f"{record.key:<44} {'' if score is None else f'{score.confidence:.2f}':>5} {verdict(score, fit.probe)}")
    print_controls(speaking, fit)


if __name__ == "__main__":
    main()
