"""Whether manifests and parts say of every finished source what the ledger does."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from curation.ledger_files import (
    ATTEMPTS,
    DROPPED_PARTS,
    FOLDER,
    parse_curated,
    part_path,
    read_finished,
    read_log,
    read_segment,
    segments,
)
from curation.verify.shards import with_path
from curation.verify.tables import Finding, Rows, Tables, contradictions, records
from shards.reader import ShardError, extents, read_extent
from storage.atomic_write import TEMPORARY_PREFIX
from storage.table import TableError

AGAIN = "run the same command again"
PACKED = ("shard", "audio_shift_frames")  # what packing changes in the rows of clips
SPAN = ("start_frame", "end_frame")  # compared as a whole, before


def check_ledger(output: Path, tables: Tables, whole_parts: bool) -> Iterator[Finding]:
    """Check manifests and parts against the ledger, and that every source that was begun has ended."""
    folder = output / FOLDER
    if not folder.is_dir():
        return
    sources, clips = sources_and_clips(tables)
    dropped_parts, ended = read_log(folder / DROPPED_PARTS), set()
    try:
        for segment, row in read_finished(output):
            path, curated = row["path"], parse_curated(row)
            if path in ended:
                yield Finding("ledger", f"{segment}: has two ends of {path}")
            elif path in sources:
                yield from check_end(path, row, curated, sources[path], clips.rows(path))
            elif sources:
                yield Finding("unfinished", f"{path}: finished, and not in sources.parquet yet; {AGAIN}")
            ended.add(path)
            if curated["sampled"] and row["source_id"] not in dropped_parts:
                yield from check_part(part_path(output, row["source_id"]), curated["sampled"], whole_parts)
    except TableError as error:
        yield Finding("table", str(error))
        return
    yield from check_strays(output)
    for path in sorted(sources.keys() - ended):
        yield Finding("ledger", f"{path}: in sources.parquet, and the ledger has no end of it")
    for path in sorted(read_log(folder / ATTEMPTS) - ended):
        yield Finding("unfinished", f"{path}: begun, and it has no end; {AGAIN}")


class OfSource:
    """The rows of clips.parquet by source; a table may have a million of them, so they are made when asked for."""

    def __init__(self, clips: pd.DataFrame | None) -> None:
        self._clips = pd.DataFrame({"source": []}) if clips is None else clips
        self._places = self._clips.groupby("source").indices

    def rows(self, path: str) -> Rows:
        return records(self._clips.iloc[self._places[path]]) if path in self._places else []


def sources_and_clips(tables: Tables) -> tuple[dict[str, dict[str, Any]], OfSource]:
    """The rows of sources.parquet, with their timings, by path, and the clips; none if a table is missing."""
    if tables.sources is None or tables.clips is None:
        return {}, OfSource(None)
    sources = {row["path"]: row for row in records(tables.sources)}
    for row in [] if tables.timings is None else records(tables.timings):
        sources.get(row["path"], {}).update(row)
    return sources, OfSource(tables.clips)


def check_strays(output: Path) -> Iterator[Finding]:
    """Check that every part is one of a source of the ledger, of its present bytes or of earlier ones."""
    ends = [row for segment in segments(output) for row in read_segment(segment, heads_only=True)]
    if read_log(output / FOLDER / ATTEMPTS) - {row["path"] for row in ends}:
        return  # an interrupted source may have left its part
    known = {part_path(output, row["source_id"]) for row in ends}
    for path in sorted((output / "parts").rglob("*")):
        if not path.is_dir() and path not in known and not path.name.startswith(TEMPORARY_PREFIX):
            yield Finding("stray", f"{path}: the part of no source of this run")


def check_end(
    path: str, end: Mapping[str, Any], curated: Mapping[str, Any], source: Mapping[str, Any], clips: Rows
) -> Iterator[Finding]:
    """A source's rows in the manifests against those that the ledger holds."""
    stated: Rows = curated["clips"]
    was, now = (f"{row['status']} ({row['reason']})" for row in (end, source))
    if was != now:
        yield Finding("ledger", f"{path}: {was} in the ledger, {now} in sources.parquet; {AGAIN}")
    spans, found = ({(row["key"], row["start_frame"], row["end_frame"]) for row in rows} for rows in (stated, clips))
    for key, start, end_frame in sorted(spans ^ found):
        where = "clips.parquet" if (key, start, end_frame) in found else "the ledger"
        yield Finding("ledger", f"{path}: clip {key} [{start}, {end_frame}) is in {where} alone; {AGAIN}")
    for text in contradictions(source, curated["source"], ("status", "reason")):
        yield Finding("value", f"{path}: {text}")
    now = {row["key"]: row for row in clips}
    for row in stated:
        for text in contradictions(now.get(row["key"], {}), row, (*PACKED, *SPAN)):
            yield Finding("value", f"{path}: clip {row['key']}: {text}")


def check_part(part: Path, sampled: Mapping[str, str], whole: bool) -> Iterator[Finding]:
    """Check that a part holds the samples that the ledger lists, by their names or, `whole`, by every byte."""
    if not part.is_file():
        yield Finding("ledger", f"{part}: missing, and nobody removed it with --drop-parts; copy it back")
        return
    try:
        found = {extent.key: extent for extent in extents(part)}
    except (ShardError, OSError) as error:
        yield Finding("ledger", with_path(part, error))
        return
    yield from (Finding("ledger", f"{part}: lacks {key}") for key in sorted(sampled.keys() - found.keys()))
    yield from (
        Finding("ledger", f"{part}: holds {key}, unknown to the ledger")
        for key in sorted(found.keys() - sampled.keys())
    )
    for key in sorted(found.keys() & sampled.keys()) if whole else ():
        try:
            read_extent(part, found[key], sampled[key])
        except (ShardError, OSError) as error:
            yield Finding("ledger", with_path(part, error))
