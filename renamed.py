"""Names that stages and scores had in earlier versions, so that profiles and outputs of then can still be read."""

from collections.abc import Mapping
from typing import Any, TypeVar

STAGES = {
    "filters/audible": "filters/source_speech",
    "filters/glance": "filters/keyframe_face_size",
    "filters/speech": "filters/clip_speech",
}
SCORES = {"glance_face_max_px": "keyframe_face_max_px", "glance_gap_s": "keyframe_gap_s"}
# Columns of timings.parquet hold the last part of a stage's name; those of stages that shared a decode hold several.
CPU_COLUMNS = {f"cpu_s_{old.split('/')[1]}": f"cpu_s_{new.split('/')[1]}" for old, new in STAGES.items()}
COLUMNS = {**SCORES, **CPU_COLUMNS}

T = TypeVar("T")


def stage_today(name: str) -> str:
    """Return the name that a stage has today: `filters/source_speech` for `filters/audible`."""
    return STAGES.get(name, name)


def with_todays_names(row: Mapping[str, T]) -> dict[str, T]:
    """Return a row, or scores, with today's names of columns, and of the stage in `stage` and `remainder`."""
    renamed: dict[str, Any] = {COLUMNS.get(name, name): value for name, value in row.items()}
    if isinstance(renamed.get("stage"), str):
        renamed["stage"] = stage_today(renamed["stage"])
    return renamed
