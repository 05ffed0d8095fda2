"""Rows -> `<output>/manifests/*.parquet`, after checking that they account for every frame of every source.

The bytes of clips.parquet and sources.parquet depend on the rows only, not on their order, the time or the worker.
What does depend on them (timings) goes into a third table. Memory: the rows of one row group, and 8 bytes per clip.
"""

import json
import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NamedTuple

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
from storage.table import TableFormat, open_table

Row = Mapping[str, Any]

ROW_GROUP = 20_000  # clips that are written together


class PartitionError(ValueError):
    """The rows of a source do not cover its timeline exactly once."""


class Account(NamedTuple):
    """A source and all its clips, kept or dropped."""

    source: Row
    clips: Sequence[Row]


def write_manifests(
    output: Path,
    clips: Iterable[Row],
    sources: Iterable[Row],
    *,
    scores: Mapping[str, str],
    reasons: Mapping[str, str],
    stages: Sequence[str] = (),
) -> None:
    """Sort the rows, and write them as `write_accounts` does."""
    accounts = group(clips, sources)
    cpu = {name for account in accounts for name in account.source if stage_of_cpu_column(name)}
    write_accounts(output, accounts, scores=scores, reasons=reasons, stages=stages, cpu_columns=cpu)


def group(clips: Iterable[Row], sources: Iterable[Row]) -> list[Account]:
    """Return each source with its clips, in order of path. Raises SchemaError if they do not belong together."""
    of_source: dict[str, list[Row]] = defaultdict(list)
    for row in clips:
        if not isinstance(row.get("source"), str):
            raise SchemaError(f"{row.get('key')}: source is {row.get('source')!r}, expected str")
        of_source[row["source"]].append(row)
    ordered = sorted(sources, key=lambda row: str(row.get("path")))
    paths = Counter(str(row.get("path")) for row in ordered)
    twice, strange = [path for path, n in paths.items() if n > 1], of_source.keys() - paths.keys()
    if twice:
        raise SchemaError(f"{twice[0]}: two rows in sources")
    if strange:
        raise SchemaError(f"{min(strange)}: clips of a source that has no row in sources")
    return [Account(row, of_source.get(path, [])) for row, path in zip(ordered, paths, strict=True)]


def write_accounts(
    output: Path,
    accounts: Iterable[Account],
    *,
    scores: Mapping[str, str],
    reasons: Mapping[str, str],
    stages: Sequence[str] = (),
    cpu_columns: Collection[str] = (),
) -> None:
    """Check and write clips.parquet, timings.parquet and, last, sources.parquet, from sources in order of path.

    `scores` and `reasons` give the meaning of each score column and of each reason that the filters of the run add;
    `stages` is their order, kept for the summary. start_s, end_s and duration_s of a clip, clips_kept and kept_s of a
    source are computed here. Raises SchemaError or PartitionError; then no table is written.
    """
    allowed = declared_reasons(reasons)
    clip_columns = (*CLIPS, *score_columns(scores))
    timing_columns = (
        *TIMINGS,
        *(Column(n, "float64", "s", "CPU time of the stage", optional=True) for n in sorted(cpu_columns)),
    )
    notes = {"reasons": json.dumps(allowed), "scores": json.dumps(dict(scores)), "stages": json.dumps(list(stages))}
    folder = output / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    rows = _Rows()
    with ExitStack() as stack:
        tables = [  # the last one entered appears first
            stack.enter_context(_open_table(folder, name, columns, table_format, notes))
            for name, columns, table_format in (
                ("sources", SOURCES, SOURCES_FORMAT),
                ("timings", timing_columns, TIMINGS_FORMAT),
                ("clips", clip_columns, CLIPS_FORMAT),
            )
        ]
        for account in accounts:
            rows.add(*_check_account(account, clip_columns, timing_columns, allowed))
            if len(rows.clips) >= ROW_GROUP:
                rows.write(*tables)
        rows.write(*tables)
        rows.check_kept_once()


class _Rows:
    """Rows that wait for their row group, and of all rows before a hash of each kept key."""

    def __init__(self) -> None:
        self.clips: list[Row] = []
        self.timings: list[Row] = []
        self.sources: list[Row] = []
        self.kept = array("q")
        self.last_path = ""

    def add(self, source: Row, timing: Row, clips: list[dict[str, Any]]) -> None:
        assert source["path"] > self.last_path, f"{source['path']} comes after {self.last_path}"
        self.last_path = source["path"]
        self.sources.append(source)
        self.timings.append(timing)
        self.clips += clips
        self.kept.extend(hash(row["key"]) for row in clips if row["kept"])

    def write(self, *tables: Callable[[Sequence[Row]], None]) -> None:
        """Append the rows that wait to the tables: sources, timings, clips."""
        for write, rows in zip(tables, (self.sources, self.timings, self.clips), strict=True):
            write(rows)
            rows.clear()

    def check_kept_once(self) -> None:
        twice = len(self.kept) - len(np.unique(np.frombuffer(self.kept, np.int64)))
        if twice:
            raise SchemaError(f"{twice} keys are kept twice")


@contextmanager
def _open_table(
    folder: Path, name: str, columns: Sequence[Column], table_format: TableFormat, notes: Mapping[str, str]
) -> Iterator[Callable[[Sequence[Row]], None]]:
    """Give a function that appends rows to a table of the manifests."""
    meanings = {column.name: column.description for column in columns}
    with open_table(folder / f"{name}.parquet", table_format, meanings, notes) as write:
        yield lambda rows: write(_frame(rows, columns))


def _check_account(
    account: Account, clip_columns: Sequence[Column], timing_columns: Sequence[Column], allowed: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    """Return the rows of a source, of its timing and of its clips in order, after checking them."""
    clips = sorted((_clip(row) for row in account.clips), key=_clip_order)
    _check_rows(clips, clip_columns, allowed, "source", "key")
    for row in clips:
        if row["kept"] != (row["reason"] == KEPT):
            raise SchemaError(f"{row['source']}: {row['key']}: kept is {row['kept']}, reason is {row['reason']!r}")
    source = dict(account.source)
    timing = _timing(source)
    _count_kept(source, clips)
    _check_rows([source], SOURCES, allowed, "path", "status")
    _check_rows([timing], timing_columns, allowed, "path", "worker")
    _check_status(source)
    check_partition(clips, source)
    return source, timing, clips


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


def _count_kept(row: dict[str, Any], clips: Sequence[Row]) -> None:
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


def _check_status(row: Row) -> None:
    status, reason = row["status"], row["reason"]
    if status not in STATUSES:
        raise SchemaError(f"{row['path']}: status {status!r} is not one of {', '.join(STATUSES)}")
    if (status == KEPT) != (row["clips_kept"] > 0) or (status == KEPT) != (reason == KEPT):
        raise SchemaError(f"{row['path']}: status {status}, reason {reason}, {row['clips_kept']} clips kept")


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
