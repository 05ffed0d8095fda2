"""Rows -> `<output>/manifests/*.parquet`, after checking that they account for every frame of every source.

The bytes of clips.parquet and sources.parquet depend on the rows only, not on their order, the time or the worker.
What does depend on them (timings) goes into a third table.
"""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clock import FPS
from manifests.schema import (
    CLIPS,
    CLIPS_FORMAT,
    FOLDER,
    KEPT,
    SOURCES,
    SOURCES_FORMAT,
    STATUSES,
    TIMINGS,
    TIMINGS_FORMAT,
    Column,
    SchemaError,
    declared_reasons,
    score_columns,
    stage_of_cpu_column,
    suggest,
)
from storage.atomic_write import remove_leftovers
from storage.table import write_table

Row = Mapping[str, Any]


class PartitionError(ValueError):
    """The rows of a source do not cover its timeline exactly once."""


def write_manifests(
    output: Path,
    clips: Iterable[Row],
    sources: Iterable[Row],
    *,
    scores: Mapping[str, str],
    reasons: Mapping[str, str],
    stages: Sequence[str] = (),
) -> None:
    """Check and write clips.parquet, timings.parquet and, last, sources.parquet.

    `scores` and `reasons` give the meaning of each score column and of each reason that the filters of the run add;
    `stages` is their order, kept for the summary. start_s, end_s and duration_s of a clip, clips_kept and kept_s of a
    source are computed here. Raises SchemaError or PartitionError before anything is written.
    """
    allowed = declared_reasons(reasons)
    clip_columns = (*CLIPS, *score_columns(scores))
    clip_rows = sorted((_clip(row) for row in clips), key=_clip_order)
    _check_rows(clip_rows, clip_columns, allowed, "source", "key")
    _check_kept(clip_rows)

    of_source: dict[str, list[Row]] = defaultdict(list)
    for row in clip_rows:
        of_source[row["source"]].append(row)
    source_rows = sorted((dict(row) for row in sources), key=lambda row: str(row.get("path")))
    timing_rows = [_timing(row) for row in source_rows]
    for row in source_rows:
        _count_kept(row, of_source.get(row.get("path", ""), []))
    _check_rows(source_rows, SOURCES, allowed, "path", "status")
    _check_sources(source_rows, of_source)

    folder = output / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    notes = {"reasons": json.dumps(allowed), "scores": json.dumps(dict(scores)), "stages": json.dumps(list(stages))}
    cpu = sorted({name for row in timing_rows for name in row if stage_of_cpu_column(name)})
    timing_columns = (*TIMINGS, *(Column(n, "float64", "s", "CPU time of the stage", optional=True) for n in cpu))
    _check_rows(timing_rows, timing_columns, allowed, "path", "worker")
    tables = (
        ("clips", clip_rows, clip_columns, CLIPS_FORMAT),
        ("timings", timing_rows, timing_columns, TIMINGS_FORMAT),
        ("sources", source_rows, SOURCES, SOURCES_FORMAT),
    )
    for name, rows, columns, table_format in tables:
        meanings = {column.name: column.description for column in columns}
        write_table(folder / f"{name}.parquet", _frame(rows, columns), table_format, meanings, notes)


def main_reason(rows: Iterable[Row]) -> str:
    """The reason of a source with these rows: 'kept' if one is, else the reason of most of its frames."""
    frames: Counter[str] = Counter()
    for row in rows:
        frames[row["reason"]] += row["end_frame"] - row["start_frame"]
    return KEPT if KEPT in frames else max(sorted(frames), key=lambda reason: frames[reason])


def check_partition(rows: Iterable[Row], source: Row) -> None:
    """Raises PartitionError unless the rows of a source cover its frames [0, `frames`) exactly once.

    `source` has `path` and `frames`; where the length was never found (`frames` missing or 0), one dropped row [0, 0)
    stands for it.
    """
    ordered = sorted(rows, key=_clip_order)
    frames = 0 if _missing(source.get("frames")) else int(source["frames"])
    wrong = [] if ordered else ["no rows"]
    if frames == 0:
        if len(ordered) > 1 or any(row["end_frame"] != 0 or row["kept"] for row in ordered):
            wrong.append(f"has no frames, so one dropped row [0, 0) is expected, not {len(ordered)} rows")
    else:
        wrong += _gaps(ordered, frames) if ordered else []
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise PartitionError(f"{source['path']}: {'; '.join(wrong[:3])}{more}")


def _gaps(ordered: list[Row], frames: int) -> list[str]:
    """What is wrong with rows sorted by start, as sentences."""
    wrong, reached, last = [], 0, ""
    for row in ordered:
        start, end = row["start_frame"], row["end_frame"]
        if start < 0 or end <= start:
            wrong.append(f"row {row['key']} is [{start}, {end})")
            continue
        if start > reached:
            wrong.append(f"frames {reached} to {start} belong to no row")
        if start < reached:
            wrong.append(f"frames {start} to {min(end, reached)} belong to two rows, {last} and {row['key']}")
        if end > reached:
            reached, last = end, row["key"]
    if reached < frames:
        wrong.append(f"frames {reached} to {frames} belong to no row")
    if reached > frames:
        wrong.append(f"row {last} ends at frame {reached}, the source at {frames}")
    return wrong


def _clip(row: Row) -> dict[str, Any]:
    """A clip row with the times that follow from its frames."""
    if not all(isinstance(row.get(name), Integral) for name in ("start_frame", "end_frame")):
        raise SchemaError(f"{row.get('source')}: {row.get('key')}: start_frame and end_frame must be integers")
    start, end = int(row["start_frame"]), int(row["end_frame"])
    times = {"start_s": start / FPS, "end_s": end / FPS, "duration_s": (end - start) / FPS}
    for name, value in times.items():
        if abs(row.get(name, value) - value) > 1e-6:
            raise SchemaError(f"{row.get('source')}: {row.get('key')}: {name} is {row[name]}, the frames say {value}")
    return {**row, **times}


def _timing(row: dict[str, Any]) -> dict[str, Any]:
    """Move what belongs to timings.parquet out of a source row."""
    names = [name for name in row if name in ("wall_s", "worker") or stage_of_cpu_column(name)]
    return {"path": row.get("path"), **{name: row.pop(name) for name in names}}


def _count_kept(row: dict[str, Any], clips: list[Row]) -> None:
    frames = [clip["end_frame"] - clip["start_frame"] for clip in clips if clip["kept"]]
    counts = {"clips_kept": len(frames), "kept_s": sum(frames) / FPS}
    for name, value in counts.items():
        if abs(row.get(name, value) - value) > 1e-6:
            raise SchemaError(f"{row.get('path')}: {name} is {row[name]}, its rows say {value}")
    row.update(counts)


def _clip_order(row: Row) -> tuple[Any, ...]:
    return str(row.get("source")), row["start_frame"], row["end_frame"], str(row.get("key"))


def _check_rows(rows: list[Any], columns: Sequence[Column], reasons: Mapping[str, str], *where: str) -> None:
    """Every value of the type that its column has, every reason declared, no column unknown."""
    known = [column.name for column in columns]
    for row in rows:
        place = ": ".join(str(row.get(name)) for name in where)
        unknown = [name for name in row if name not in known]
        if unknown:
            raise SchemaError(f"{place}: undeclared column {unknown[0]!r}{suggest(unknown[0], known)}")
        for column in columns:
            value = row.get(column.name)
            if not (column.optional and _missing(value)) and not ACCEPTS[column.dtype](value):
                raise SchemaError(f"{place}: {column.name} is {value!r}, expected {column.dtype}")
        reason = row.get("reason", KEPT)
        if reason != KEPT and reason not in reasons:
            raise SchemaError(f"{place}: undeclared reason {reason!r}{suggest(reason, list(reasons))}")


def _check_kept(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        if row["kept"] != (row["reason"] == KEPT):
            raise SchemaError(f"{row['source']}: {row['key']}: kept is {row['kept']}, reason is {row['reason']!r}")
    twice = [key for key, n in Counter(row["key"] for row in rows if row["kept"]).items() if n > 1]
    if twice:
        raise SchemaError(f"{len(twice)} keys are kept twice, first {twice[0]}")


def _check_sources(rows: list[dict[str, Any]], clips: dict[str, list[Row]]) -> None:
    paths = [row["path"] for row in rows]
    if len(set(paths)) != len(paths):
        raise SchemaError(f"{Counter(paths).most_common(1)[0][0]}: two rows in sources")
    strange = sorted(set(clips) - set(paths))
    if strange:
        raise SchemaError(f"{strange[0]}: clips of a source that has no row in sources")
    for row in rows:
        status, reason = row["status"], row["reason"]
        if status not in STATUSES:
            raise SchemaError(f"{row['path']}: status {status!r} is not one of {', '.join(STATUSES)}")
        if (status == KEPT) != (row["clips_kept"] > 0) or (status == KEPT) != (reason == KEPT):
            raise SchemaError(f"{row['path']}: status {status}, reason {reason}, {row['clips_kept']} clips kept")
        check_partition(clips.get(row["path"], []), row)


def _missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def _is_integer(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool | np.bool_)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


ACCEPTS: dict[str, Callable[[Any], bool]] = {
    "str": _is_text,
    "category": _is_text,
    "bool": _is_bool,
    "boolean": _is_bool,
    "int64": _is_integer,
    "Int64": _is_integer,
    "float64": _is_number,
}


def _frame(rows: Sequence[Row], columns: Sequence[Column]) -> pd.DataFrame:
    return pd.DataFrame({column.name: _series([row.get(column.name) for row in rows], column) for column in columns})


def _series(values: list[Any], column: Column) -> pd.Series:
    values = [None if _missing(value) else value for value in values]
    if column.dtype in ("str", "category"):
        values = [value if value is None else _storable(value) for value in values]
    if column.dtype == "category":
        used = pd.Index(sorted({value for value in values if value is not None}), dtype="str")
        return pd.Series(pd.Categorical(values, categories=used))
    return pd.Series(values, dtype=column.dtype)  # type: ignore[call-overload]


def _storable(text: str) -> str:
    """Text as parquet can hold it: bytes of a file name that are not UTF-8 become \\udcXX, spelled out."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
