"""Rows of a small run: one source of each status."""

from typing import Any

import pytest

REASONS = {"niqe": "the picture is too poor", "syncnet:offset": "sound and lips are too far apart"}
SCORES = {"niqe_score": "NIQE, lower is better", "syncnet_confidence": "median minus smallest distance"}
STAGES = ["filters/clip_speech", "filters/niqe", "filters/syncnet"]


@pytest.fixture
def clips() -> list[dict[str, Any]]:
    def row(source: str, start: int, end: int, reason: str, stage: str | None = None, **more: Any) -> dict[str, Any]:
        key = f"{source}-{start}-{end}"
        place = {"key": key, "source_id": source * 4, "source": f"/raw/{source}.mp4", "start_frame": start}
        return {**place, "end_frame": end, "kept": reason == "kept", "reason": reason, "stage": stage, **more}

    return [
        row("anna", 60, 250, "niqe", "filters/niqe", niqe_score=9.5),
        row(
            "anna", 0, 60, "kept", niqe_score=4.25, syncnet_confidence=6.0, shard="s-000000.tar", audio_shift_frames=-2
        ),
        row("anna", 250, 251, "short", "steps/windows"),
        row("berta", 0, 500, "no_speech", "filters/clip_speech"),
        row("cleo", 0, 0, "error:probe", None, detail="moov atom not found"),
        {**row("anna", 0, 251, "duplicate"), "source": "/raw/copy of anna.mp4"},
    ]


@pytest.fixture
def sources() -> list[dict[str, Any]]:
    anna = {"source_id": "anna" * 4, "frames": 251, "duration_s": 10.04, "width": 1080, "height": 1920, "fps": 29.97}
    anna |= {"variable_frame_rate": False, "rotation": 90, "video_codec": "h264", "bytes": 12345}
    return [
        {**anna, "path": "/raw/anna.mp4", "status": "kept", "reason": "kept", "worker": "w1", "wall_s": 3.5,
         "cpu_s_faces": 2.0},
        {**anna, "path": "/raw/copy of anna.mp4", "status": "duplicate", "reason": "duplicate",
         "duplicate_of": "/raw/anna.mp4"},
        {"source_id": "berta" * 4, "path": "/raw/berta.mp4", "status": "dropped", "reason": "no_speech", "frames": 500,
         "hdr": True, "cpu_s_clip_speech": 0.5},
        {"path": "/raw/cleo.mp4", "status": "error", "reason": "error:probe", "detail": "moov atom not found"},
    ]  # fmt: skip
