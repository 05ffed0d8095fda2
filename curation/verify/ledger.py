"""Whether manifests and parts say of every finished source what the ledger does."""

import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from curation.ledger_files import ATTEMPTS, DROPPED_PARTS, FOLDER, part_path, read_finished, read_log
from curation.verify.shards import with_path
from curation.verify.tables import Finding, Rows, Tables, records
from manifests.schema import KEPT
from shards.reader import ShardError, extents
from storage.table import TableError

AGAIN = "run the same command again"


def check_ledger(output: Path, tables: Tables) -> Iterator[Finding]:
    """Check manifests and parts against the ledger, and that every source that was begun has ended."""
    folder = output / FOLDER
    if not folder.is_dir():
        return
    sources, clips = sources_and_clips(tables)
    dropped_parts, ended = read_log(folder / DROPPED_PARTS), set()
    try:
        for segment, row in read_finished(output):
            path, curated = row["path"], json.loads(row["curated"])
            if path in ended:
                yield Finding("ledger", f"{segment}: has two ends of {path}")
            elif path in sources:
                yield from check_end(path, row, curated["clips"], sources[path], clips.get(path, []))
            elif sources:
                yield Finding("unfinished", f"{path}: finished, and not in sources.parquet yet; {AGAIN}")
            ended.add(path)
            if curated["sampled"] and row["source_id"] not in dropped_parts:
                yield from check_part(part_path(output, row["source_id"]), curated["sampled"])
    except TableError as error:
        yield Finding("table", str(error))
        return
    for path in sorted(sources.keys() - ended):
        yield Finding("ledger", f"{path}: in sources.parquet, and the ledger has no end of it")
    for path in sorted(read_log(folder / ATTEMPTS) - ended):
        yield Finding("unfinished", f"{path}: begun, and it has no end; {AGAIN}")


def sources_and_clips(tables: Tables) -> tuple[dict[str, dict[str, Any]], dict[str, Rows]]:
    """The rows of sources.parquet by path and of clips.parquet by source; none if a table is missing."""
    clips: dict[str, Rows] = defaultdict(list)
    if tables.sources is None or tables.clips is None:
        return {}, clips
    for row in records(tables.clips[["source", "key", "start_frame", "end_frame", "kept"]]):
        clips[row["source"]].append(row)
    return {row["path"]: row for row in records(tables.sources[["path", "status", "reason"]])}, clips


def check_end(
    path: str, end: Mapping[str, Any], stated: Rows, source: Mapping[str, Any], clips: Rows
) -> Iterator[Finding]:
    """A source's rows in the manifests against those that the ledger holds; a corpus filter may still have dropped."""
    was, now = (f"{row['status']} ({row['reason']})" for row in (end, source))
    if was != now and (end["status"], source["status"]) != (KEPT, "dropped"):
        yield Finding("ledger", f"{path}: {was} in the ledger, {now} in sources.parquet; {AGAIN}")
    spans, found = ({(row["key"], row["start_frame"], row["end_frame"]) for row in rows} for rows in (stated, clips))
    for key, start, end_frame in sorted(spans ^ found):
        where = "clips.parquet" if (key, start, end_frame) in found else "the ledger"
        yield Finding("ledger", f"{path}: clip {key} [{start}, {end_frame}) is in {where} alone; {AGAIN}")
    kept, were_kept = ({row["key"] for row in rows if row["kept"]} for rows in (clips, stated))
    for key in sorted(kept - were_kept):
        yield Finding("ledger", f"{path}: clip {key} is kept, and was dropped when its source was curated")


def check_part(part: Path, sampled: Collection[str]) -> Iterator[Finding]:
    """Check that a part holds the samples that the ledger lists; only headers are read."""
    if not part.is_file():
        yield Finding("ledger", f"{part}: missing, and nobody removed it with --drop-parts; copy it back")
        return
    try:
        found = {extent.key for extent in extents(part)}
    except (ShardError, OSError) as error:
        yield Finding("ledger", with_path(part, error))
        return
    yield from (Finding("ledger", f"{part}: lacks {key}") for key in sorted(set(sampled) - found))
    yield from (
        Finding("ledger", f"{part}: holds {key}, unknown to the ledger") for key in sorted(found - set(sampled))
    )
