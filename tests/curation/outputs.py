"""An output folder of a run with the embedded profile, made up in a second: real videos, samples, scores, tables."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

import pipelines
from clock import SAMPLES_PER_FRAME
from curation.ledger_files import part_path
from curation.limits import stages_of
from curation.margin import cut_to_clip
from manifests.summary import write_summary
from manifests.writer import main_reason, write_manifests
from media.encode import encode_flac, encode_mp4
from models.mask import CORNERS, POINTS
from shards.packer import pack
from shards.sample import Sample, encode_json, encode_npy
from shards.writer import write_tar
from tests.videos import Pictures, Sound, numbered, tone, write_video

MARGIN = 3
PX = 64
GOOD = {
    "source_loudness_db": -20.0, "source_speech_s": 7.0, "source_speech_share": 0.8, "shot_cuts": 0.0,
    "keyframe_face_max_px": 380.0, "keyframe_gap_s": 2.0,
    "source_face_max_px": 400.0, "face_share": 1.0, "face_max_px": 400.0, "face_median_px": 390.0, "face_p10_px": 380.0,
    "face_score": 0.9, "faces_mean": 1.0, "second_face_px": 0.0, "span_face_max_px": 400.0, "speech_share": 0.8,
    "loudness_db": -20.0, "crop_px": 500.0, "blur": 0.4, "niqe": 5.0, "landmark_share": 1.0, "lip_confidence": 0.7,
    "lip_offset_frames": 0.0, "lip_zero_frames": 0.0, "lip_threshold": 0.3, "lip_window_confidence": 0.7,
    "lip_window_threshold": 0.3, "lip_window_agreement": 1.0,
}  # fmt: skip
OF_SOURCE = (
    "source_loudness_db", "source_speech_s", "source_speech_share", "keyframe_face_max_px", "keyframe_gap_s",
    "shot_cuts", "source_face_max_px",
)  # fmt: skip
OF_TRACK = ("face_share", "face_max_px", "face_median_px", "face_p10_px", "face_score", "faces_mean", "second_face_px")


def only(*names: str, **scores: float) -> dict[str, float]:
    return {name: GOOD[name] for name in names} | scores


def made_rows(folder: Path) -> list[dict[str, Any]]:
    """`anna.mp4` kept, cut, blurred; `berta's #1.mp4` without speech; `<cleo>.mp4`, which killed workers; a copy."""

    def row(source: str, start: int, end: int, reason: str, stage: str | None, **more: Any) -> dict[str, Any]:
        name = source.encode().hex().ljust(64, "0")
        key = f"{name[:16]}-{start * 40:08d}-{end * 40:08d}"
        place = {"key": key, "source_id": name, "source": str(folder / "videos" / source), "start_frame": start}
        told = {"kept": reason == "kept", "reason": reason, "stage": stage, "audio_shift_frames": 0}
        return {**place, "end_frame": end, **told, **more}

    quiet = {"source_speech_s": 1.0, "source_speech_share": 0.1}
    copy = row("anna.mp4", 0, 200, "duplicate", None, audio_shift_frames=None)
    return [
        row("anna.mp4", 0, 60, "kept", None, **GOOD),
        row("anna.mp4", 60, 75, "no_face", "steps/stable_spans", **only(*OF_SOURCE, face_share=0.0)),
        row("anna.mp4", 75, 140, "blur", "filters/blur", **(GOOD | {"blur": 0.7})),
        row("anna.mp4", 140, 200, "kept", None, **(GOOD | {"blur": 0.65, "lip_offset_frames": 2.0}))
        | {"audio_shift_frames": 2},
        row("berta's #1.mp4", 0, 50, "no_speech", "filters/source_speech", **(GOOD | quiet)),
        row("berta's #1.mp4", 50, 75, "no_speech", "filters/source_speech", remainder="steps/stable_spans:short",
            **only(*OF_SOURCE, *OF_TRACK, **quiet)),
        row("<cleo>.mp4", 0, 40, "error:worker_crash", None, detail="Fatal Python error: </script> Segmentation fault"),
        copy | {"source": str(folder / "videos" / "copy of anna.mp4"), "detail": "same bytes"},
    ]  # fmt: skip


def made_output(folder: Path, score_only: bool = True, rows: list[dict[str, Any]] | None = None) -> Path:
    """Writes videos, parts, shards, manifests and recipe below `folder`; gives the output folder."""
    rows = made_rows(folder) if rows is None else rows
    output = folder / "out"
    videos = folder / "videos"
    videos.mkdir(parents=True, exist_ok=True)
    for name, frames in (("anna.mp4", 200), ("berta's #1.mp4", 75)):
        write_video(
            videos / name, Pictures(frames, draw=lambda i: numbered(i, PX, PX)), [Sound(tone(frames / 25), codec="aac")]
        )
    (videos / "<cleo>.mp4").write_bytes(b"would kill again whoever opens it")
    recipe = write_recipe(output, score_only)
    stages = stages_of(recipe)
    parts = write_parts(output, [row for row in rows if "lip_confidence" in row], recipe["hash"])
    kept = {row["key"]: row for row in rows if row["kept"]}
    index = pack(
        {key: parts[key] for key in kept},
        output / "shards",
        edit=lambda key: partial(
            cut_to_clip,
            audio_shift_frames=kept[key]["audio_shift_frames"],
            scores={name: kept[key][name] for name in GOOD},
        ),
    )
    for key, shard in zip(index["key"], index["shard"], strict=True):
        kept[key]["shard"] = shard
    scores: dict[str, str] = dict.fromkeys(OF_TRACK, "of its face")
    for stage in stages:
        scores |= stage.SCORES
    reasons: dict[str, str] = {name: text for stage in stages for name, text in stage.REASONS.items()}
    names = [stage.name for stage in stages]
    write_manifests(output, rows, made_sources(rows), scores=scores, reasons=reasons, stages=names)
    write_summary(output)
    return output


def write_recipe(output: Path, score_only: bool) -> dict[str, Any]:
    recipe = {"profile": pipelines.load("embedded").as_dict(), "score_only": score_only, "weights": {}, "code": "0"}
    recipe["hash"] = pipelines.recipe_hash(recipe)
    output.mkdir(parents=True)
    (output / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return recipe


def write_parts(output: Path, rows: list[dict[str, Any]], recipe: str) -> dict[str, Path]:
    """A sample for each of these rows, as curation leaves them; key -> part."""
    parts = {row["key"]: part_path(output, row["source_id"]) for row in rows}
    for part in set(parts.values()):
        part.parent.mkdir(parents=True, exist_ok=True)
        write_tar(part, [made_sample(row, recipe) for row in rows if parts[row["key"]] == part])
    return parts


def made_sample(row: dict[str, Any], recipe: str) -> Sample:
    frames = row["end_frame"] - row["start_frame"]
    heard = frames + 2 * MARGIN
    place = {name: row[name] for name in ("source_id", "start_frame", "end_frame")}
    fields = {**place, "frames": frames, "size": PX, "audio_shift_frames": 0, "margin_frames": MARGIN, "recipe": recipe}
    voice = np.zeros(frames * 5 // 4, np.float16)
    voice[10:30] = 0.9
    points = np.full((len(POINTS), 2), (30, 15))  # the head in one place, the corners of the mouth below it
    points[CORNERS] = [(26, 40), (34, 40)]
    return Sample(
        row["key"],
        {
            "mp4": encode_mp4(np.stack([numbered(i, PX, PX) for i in range(frames)])),
            "flac": encode_flac(0.3 * np.sin(np.arange(heard * SAMPLES_PER_FRAME) / 20)),
            "boxes.npy": encode_npy(np.tile(np.array([10, 10, 50, 50], np.float32), (frames, 1))),
            "landmarks.npy": encode_npy(np.tile(points.astype(np.float16), (frames, 1, 1))),
            "whisper.npy": encode_npy(np.arange(heard * 2, dtype=np.float16)[:, None, None]),
            "voice.npy": encode_npy(voice),
            "json": encode_json({**fields, "scores": {}}),
        },
    )


def made_sources(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for path in dict.fromkeys(row["source"] for row in rows):
        own = [row for row in rows if row["source"] == path]
        reason, frames = main_reason(own), max(row["end_frame"] for row in own)
        status = {"kept": "kept", "duplicate": "duplicate", "error:worker_crash": "error"}.get(reason, "dropped")
        told = {"path": path, "source_id": own[0]["source_id"], "status": status, "reason": reason, "frames": frames}
        detail = next((row["detail"] for row in own if row.get("detail")), None)
        original = rows[0]["source"] if status == "duplicate" else None
        timing = {"wall_s": frames / 10, "worker": "w", "cpu_s_shots_faces": 1.0}
        found.append({**told, "detail": detail, "duplicate_of": original, "duration_s": frames / 25, **timing})
    return found
