"""Generated videos beside their references -> the metrics of the paper's Table 1, per video and together.

    python training/evaluate.py --generated DIR --reference DIR --output DIR [--metrics fid fvd ssim psnr lpips sync]

A video is compared with the one of the same name (without suffix), frame by frame on the 25 fps grid. The face is found
in the reference; both videos are cut with the same smoothed square around it and scaled to one size, as the shards of
--checkpoint were or as the profile `sayanything` does it, so that what was never generated weighs little. `--region
frame` compares whole frames.

    psnr    of the mean squared error of all frames of a video, so that frames without a change do not make it infinite
    ssim    RGB, Gaussian window of 11 pixels and sigma 1.5 (Wang et al., 2004), by scikit-image
    lpips   AlexNet, version 0.1 (training/evaluation/lpips.py)
    fid     all frames, InceptionV3 (training/evaluation/inception.py)
    fvd     16 frames from each second, I3D (training/evaluation/i3d.py)
    sync    SyncNet v2: confidence (Sync-C), distance (Sync-D), and by how many frames the sound comes after the lips;
            the reference's own beside them, which is what can be reached (models/syncnet.py)
    lip     the same by a fitted lip probe (--lip-probe): from 0 to 1, not to be compared with SyncNet's

PSNR, SSIM, LPIPS and sync are means over videos, FID and FVD distances between the features of all videos; intervals
are 95 % bootstraps over videos. FID and FVD depend on how many features there are: compare only equal numbers. The
paper's crop and list of videos are not published, so its numbers are no target; run its baselines through this script.

A few frames are in memory at a time; features wait in a folder that is removed. Exit code 0: every video has its
numbers; 1: some have an error instead; 2: refused before starting.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

import pipelines
import weights
from command import parser_of
from training.curated import curated_in, deciding

if TYPE_CHECKING:  # torch and the networks are imported when there is something to measure: refusing takes a second
    from models.yolo_face import YoloFace
    from training.evaluation.frechet import Features
    from training.evaluation.metrics import FaceCrop, Metric, Row

SUFFIXES = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".m4v"}
METRICS = ("fid", "fvd", "ssim", "psnr", "lpips", "sync")
WEIGHTS = {"fid": "inception_fid", "fvd": "i3d_kinetics400", "lpips": "lpips_alex", "sync": "syncnet_v2"}
LIP_WEIGHTS = ("face_landmarker", "whisper_tiny_en")
FACES = "yolov8n_face"
PROFILE = "sayanything"  # whose crop is compared without a checkpoint
MEANS = {  # column -> its name in the table
    "psnr": "PSNR",
    "ssim": "SSIM",
    "lpips": "LPIPS",
    "sync_c": "Sync-C",
    "sync_d": "Sync-D",
    "sync_offset_frames": "AV offset (frames)",
    "reference_sync_c": "Sync-C of the references",
    "reference_sync_d": "Sync-D of the references",
    "lip_confidence": "lip probe",
    "lip_offset_frames": "its offset (frames)",
    "reference_lip_confidence": "lip probe of the references",
}
UNITS = {"fid": "frames", "fvd": "clips"}
FRECHET_RESAMPLES = 100  # at most: with 2048 features each takes seconds on a CPU


@dataclass(frozen=True)
class Pair:
    """Two videos of one name."""

    name: str
    generated: Path
    reference: Path | None

    def paths(self) -> dict[str, Path]:
        """By side. Raises ValueError without a reference."""
        if self.reference is None:
            raise ValueError("there is no reference of that name")
        return {"generated": self.generated, "reference": self.reference}


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    with ExitStack() as held:
        try:
            pairs, unused = pair_videos(options.generated, options.reference)
            metrics, absent = choose_metrics(options.metrics)
            files = weights.ensure(*needed_weights(metrics, options))
            options.output.mkdir(parents=True, exist_ok=True)
            folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix=".features-", dir=options.output)))
            networks = load_networks(metrics, files, folder, options)
            crop = crop_of(options.checkpoint)
        except (ValueError, OSError) as error:  # WeightsError, a file that is no probe
            print(f"training/evaluate.py: {error}", file=sys.stderr)
            return 2
        videos = measure_videos(pairs, networks, crop, options)
        means, distances = mean_of_videos(videos, options), distance_of_sets(videos, networks.features, options)
    report = {
        "settings": settings(files, crop, options),
        "together": means | distances,
        "warnings": warnings(videos, distances, unused),
        "absent": absent,
        "videos": videos,
    }
    (options.output / "metrics.json").write_text(json.dumps(to_json(report), indent=1, allow_nan=False) + "\n")
    (options.output / "metrics.md").write_text(markdown(report))
    print(markdown(report))
    return 1 if any(row["error"] for row in videos) else 0


def parser() -> argparse.ArgumentParser:
    found = parser_of("python training/evaluate.py", __doc__)
    found.add_argument("--generated", required=True, type=Path, help="folder of the videos to judge")
    found.add_argument("--reference", required=True, type=Path, help="folder of what they should look like")
    found.add_argument("--output", required=True, type=Path, help="folder for metrics.json and metrics.md")
    found.add_argument("--metrics", nargs="+", choices=METRICS, help="default: all; sync only if its weights are here")
    found.add_argument("--lip-probe", type=Path, help="a fitted probe, such as lip_probe.npz of a curation: adds `lip`")
    found.add_argument(
        "--checkpoint",
        type=Path,
        help=f"run or export: cut faces as its shards were; default: as the profile {PROFILE}",
    )
    found.add_argument("--region", choices=("face", "frame"), default="face", help="what is compared; default: face")
    found.add_argument("--length-tolerance", type=int, default=2, metavar="FRAMES", help="of 25 fps; default: 2")
    found.add_argument("--device", default="cpu", help="cpu or cuda; default: cpu")
    found.add_argument("--resamples", type=int, default=1000, help="of the bootstrap; 0: no intervals; default: 1000")
    found.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    return found


def pair_videos(generated: Path, reference: Path) -> tuple[list[Pair], list[str]]:
    """The generated videos, each with its reference, and the names of the references that nothing was generated for.

    Raises ValueError if no name is shared.
    """
    ours, theirs = videos_by_name(generated), videos_by_name(reference)
    if not ours.keys() & theirs.keys():
        raise ValueError(
            f"no video in {generated} has the name of one in {reference}, suffix apart: "
            f"{', '.join(sorted(ours)[:3]) or 'nothing'} / {', '.join(sorted(theirs)[:3]) or 'nothing'}"
        )
    return [Pair(name, ours[name], theirs.get(name)) for name in sorted(ours)], sorted(theirs.keys() - ours.keys())


def videos_by_name(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise ValueError(f"{folder}: not a folder")
    found: dict[str, Path] = {}
    for path in sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES):
        if path.stem in found:
            raise ValueError(f"{found[path.stem]} and {path} have one name; keep one of them")
        found[path.stem] = path
    return found


def choose_metrics(metrics: Sequence[str] | None) -> tuple[list[str], dict[str, str]]:
    """Return the metrics to measure, and those left out with the reason; metrics given by name are not left out."""
    if metrics is not None:
        return list(dict.fromkeys(metrics)), {}
    try:
        weights.require(WEIGHTS["sync"])
    except weights.WeightsError as error:
        return [metric for metric in METRICS if metric != "sync"], {"sync": str(error)}
    return list(METRICS), {}


def needed_weights(metrics: Sequence[str], options: argparse.Namespace) -> list[str]:
    """Return the names of the weights of these metrics."""
    lips = options.lip_probe is not None
    faces = options.region == "face" or "sync" in metrics or lips
    names = [WEIGHTS[metric] for metric in metrics if metric in WEIGHTS]
    return names + ([FACES] if faces else []) + list(LIP_WEIGHTS if lips else ())


@dataclass(frozen=True)
class Networks:
    """The metrics of a run, where the features of all videos wait, and the face detector."""

    metrics: "list[Metric]"
    features: "dict[str, Features]"
    faces: "YoloFace | None"


def load_networks(
    metrics: Sequence[str], files: dict[str, Path], folder: Path, options: argparse.Namespace
) -> Networks:
    """Load the networks of these metrics. Raises ValueError if a file is not what its name says."""
    from training.evaluation.frechet import Features
    from training.evaluation.metrics import (
        DETECTOR_PX,
        ClipFeatures,
        FrameFeatures,
        LipMetric,
        PerceptualDistance,
        PixelSimilarity,
        SyncMetric,
    )

    found = Networks([], {}, None)
    if FACES in files:
        from models.yolo_face import YoloFace

        found = replace(found, faces=YoloFace(files[FACES], options.device, size=DETECTOR_PX))
    if {"psnr", "ssim"} & set(metrics):
        found.metrics.append(PixelSimilarity())
    if "lpips" in metrics:
        from training.evaluation.lpips import Lpips

        found.metrics.append(PerceptualDistance(Lpips(files[WEIGHTS["lpips"]], options.device)))
    if "fid" in metrics:
        from training.evaluation.inception import Inception

        found.features["fid"] = Features(folder / "fid", Inception.features)
        found.metrics.append(FrameFeatures(Inception(files[WEIGHTS["fid"]], options.device), found.features["fid"]))
    if "fvd" in metrics:
        from training.evaluation.i3d import I3D

        found.features["fvd"] = Features(folder / "fvd", I3D.features)
        found.metrics.append(ClipFeatures(I3D(files[WEIGHTS["fvd"]], options.device), found.features["fvd"]))
    if "sync" in metrics:
        from models.syncnet import SyncNet

        found.metrics.append(SyncMetric(SyncNet(files[WEIGHTS["sync"]], options.device)))
    if options.lip_probe is not None:
        from models.face_landmarks import FaceLandmarks
        from models.lip_probe import LipProbe
        from models.whisper_features import WhisperFeatures

        landmarks, whisper = (files[name] for name in LIP_WEIGHTS)
        probe = LipProbe.load(options.lip_probe)
        found.metrics.append(LipMetric(probe, FaceLandmarks(landmarks), WhisperFeatures(whisper, options.device)))
    return found


def crop_of(checkpoint: Path | None) -> "FaceCrop":
    """Return how the shards of a checkpoint were cut, or how PROFILE cuts. Raises ValueError if it does not say."""
    from training.evaluation.metrics import FaceCrop

    if checkpoint is None:
        return FaceCrop(**deciding(pipelines.load(PROFILE).stages)["steps/crop"])
    from training.checkpoint import SETTINGS, export_of

    settings = yaml.safe_load((export_of(checkpoint) / SETTINGS).read_text(encoding="utf-8"))
    return FaceCrop(**curated_in(settings, checkpoint)["steps/crop"])


def measure_videos(
    pairs: Sequence[Pair], networks: Networks, crop: "FaceCrop", options: argparse.Namespace
) -> "list[Row]":
    """Return one row per name: its numbers, or the error that stands in their place."""
    from training.evaluation.metrics import Settings, measure

    how = Settings(crop, options.region == "frame", options.length_tolerance)
    rows: list[Row] = []
    with progress_bar() as progress:
        for video, each in enumerate(pairs):
            task = progress.add_task(f"{each.name} ({video + 1} of {len(pairs)})", total=None)

            def advance(done: int, total: int, task: TaskID = task) -> None:
                progress.update(task, completed=done, total=total)

            row: Row = {"name": each.name, "error": None}
            try:
                row |= measure(each.paths(), video, networks.metrics, networks.faces, how, advance)
            except (ValueError, OSError) as error:
                row["error"] = str(error)
                progress.console.print(f"{each.name}: {error}", markup=False, highlight=False, soft_wrap=True)
            progress.remove_task(task)
            rows.append(row)
    return rows


def progress_bar() -> Progress:
    count = TextColumn("{task.completed:.0f} of {task.total}")
    columns = (TextColumn("{task.description}"), BarColumn(), count, TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))


def mean_of_videos(videos: "Sequence[Row]", options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Of each column: the mean over the videos that have it, and how sure it is."""
    from training.evaluation.frechet import interval, resample

    found = {}
    for name in MEANS:
        values = np.array([row[name] for row in videos if row.get(name) is not None], np.float64)
        if len(values):
            mean = float(values.mean())
            draws = options.resamples if np.isfinite(mean) else 0
            replicates = resample(len(values), draws, options.seed, partial(weighted_mean, values))
            found[name] = {"value": mean, "interval": interval(mean, replicates), "videos": len(values)}
    return found


def weighted_mean(values: np.ndarray, votes: np.ndarray) -> float:
    return float(votes @ values / votes.sum())


def distance_of_sets(
    videos: "Sequence[Row]", features: "dict[str, Features]", options: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    """FID and FVD over the videos without an error, and how sure they are."""
    whole = [video for video, row in enumerate(videos) if not row["error"]]
    found = {name: frechet_distance_of(name, kept, whole, options) for name, kept in features.items()}
    return {name: each for name, each in found.items() if each is not None}


def frechet_distance_of(
    name: str, features: "Features", videos: Sequence[int], options: argparse.Namespace
) -> dict[str, Any] | None:
    """The distance between what was kept of both sides of these videos; None for less than two points."""
    from training.evaluation.frechet import distance, interval, resample, same_distances
    from training.evaluation.metrics import SIDES

    points = [features.read(video, side) for side in SIDES for video in videos]
    count = sum(map(len, points)) // len(SIDES)
    if count < 2:
        return None
    points = same_distances(points)
    draws = min(options.resamples, FRECHET_RESAMPLES)
    with progress_bar() as progress:
        task = progress.add_task(f"{name.upper()} and its resamples", total=1 + draws)

        def of(votes: np.ndarray) -> float:
            progress.advance(task)
            return distance(points[: len(videos)], points[len(videos) :], votes, options.device)

        value = of(np.ones(len(videos), int))
        replicates = resample(len(videos), draws, options.seed, of)
    found = {"value": value, "interval": interval(value, replicates)}
    return found | {"videos": len(videos), "n": count, "features": features.width}


def warnings(videos: "Sequence[Row]", distances: dict[str, dict[str, Any]], unused: Sequence[str]) -> list[str]:
    """Return warnings for the reader of the numbers."""
    found = [
        f"{name.upper()} rests on {each['n']} {UNITS[name]} of {each['features']} features: too few for a covariance, "
        "so that it is far too high; compare it only with one of equally many"
        for name, each in distances.items()
        if each["n"] <= each["features"]
    ]
    if failed := [str(row["name"]) for row in videos if row["error"]]:
        found.append(f"{len(failed)} of {len(videos)} videos are not in these numbers: {', '.join(failed)}")
    if unused:
        found.append(f"nothing was generated for {len(unused)} of the references: {', '.join(unused)}")
    return found


def settings(files: dict[str, Path], crop: "FaceCrop", options: argparse.Namespace) -> dict[str, Any]:
    """Return what decides the numbers, for the report."""
    chosen = (
        "generated",
        "reference",
        "checkpoint",
        "region",
        "length_tolerance",
        "device",
        "resamples",
        "seed",
        "lip_probe",
    )
    values = {name: getattr(options, name) for name in chosen}
    values = {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}
    return values | {"crop": asdict(crop), "weights": {name: weights.sha256_of(name) for name in files}}


def to_json(value: Any) -> Any:
    """Return the report as JSON can hold it: infinity as a word."""
    if isinstance(value, dict):
        return {name: to_json(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(each) for each in value]
    return str(value) if isinstance(value, float) and not np.isfinite(value) else value


def markdown(report: dict[str, Any]) -> str:
    """The report as two tables: all videos together, and each."""
    lines = ["| metric | value | 95 % interval | n |", "|---|---|---|---|"]
    for name, each in report["together"].items():
        low_high = " to ".join(map(format_number, each["interval"])) if each["interval"] else "-"
        count = f"{each['n']} {UNITS[name]} of " if name in UNITS else ""
        title, value = MEANS.get(name, name.upper()), format_number(each["value"])
        lines.append(f"| {title} | {value} | {low_high} | {count}{each['videos']} videos |")
    notes = [f"- {warning}" for warning in report["warnings"]]
    for name, why in report["absent"].items():
        first, *_, last = why.splitlines()
        notes.append(f"- not measured: {name}. {first}; {last}")
    lines += ["", *notes] if notes else []
    shown = [name for name in MEANS if any(row.get(name) is not None for row in report["videos"])]
    lines += ["", f"| video | frames | {' | '.join(MEANS[name] for name in shown)} | error |"]
    lines.append("|---" * (len(shown) + 3) + "|")
    for row in report["videos"]:
        error = " ".join((row["error"] or "").replace("|", "/").split())
        cells = [
            row["name"],
            format_number(row.get("frames")),
            *(format_number(row.get(name)) for name in shown),
            error,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def format_number(value: float | int | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    raise SystemExit(main())
