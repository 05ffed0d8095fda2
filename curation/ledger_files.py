"""The files of `<output>/ledger`: what a run has begun, what it has finished, what it has removed.

    000000.parquet ...   LEDGER: a row per finished source; of two rows of a path the one in the later segment counts
    attempts.log         sources that were handed to a worker, written before
    dropped_parts.log    sources whose part was removed on purpose (`--drop-parts`), written before

`curation/ledger.py` writes them and `curation/verify` reads them. The logs hold one JSON string per line.
"""

import gzip
import json
import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

import renamed
from storage.atomic_write import TEMPORARY_PREFIX
from storage.table import TableFormat, read_table

FOLDER = "ledger"
LEDGER = TableFormat("curation.ledger", 4)
MEANINGS = {
    "path": "path of the source",
    "source_id": "sha256 of the source, empty if it could not be read",
    "bytes": "size of the file when it was curated, -1 if unknown",
    "mtime_ns": "its modification time, of an object a number of its etag; -1 if unknown",
    "status": "of its row in sources.parquet",
    "reason": "likewise",
    "curated": "JSON: the source's row, its clips' rows, key -> sha256 of the samples in the part",
}
HEADS = ("path", "source_id", "bytes", "mtime_ns", "status", "reason")
SOURCES_AT_ONCE = 500  # sorted in memory; the row of an hour of video takes about 1 MB
MOST_RANGES = 256  # files that are open at the same time
ATTEMPTS = "attempts.log"
DROPPED_PARTS = "dropped_parts.log"


def part_path(output: Path, source_id: str) -> Path:
    """The tar with the samples of a source, kept clips and dropped ones that were measured to the end."""
    return output / "parts" / source_id[:2] / f"{source_id}.tar"


def segments(output: Path) -> list[Path]:
    """The tables of finished sources, in order of commit."""
    return sorted((output / FOLDER).glob("[0-9]*.parquet"))


def read_segment(path: Path, heads_only: bool = False) -> list[dict[str, Any]]:
    """The rows of a segment; without the column `curated` if only heads are asked for. Raises TableError."""
    table: pd.DataFrame = read_table(path, LEDGER, columns=[*HEADS] if heads_only else None)
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def read_finished(output: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """(segment, row) of every finished source, in order of segment; each path once. Raises TableError."""
    last = {row["path"]: path for path in segments(output) for row in read_segment(path, heads_only=True)}
    for path in segments(output):
        yield from ((path, row) for row in read_segment(path) if last[row["path"]] == path)


def read_in_order(output: Path, at_once: int = SOURCES_AT_ONCE) -> Iterator[dict[str, Any]]:
    """Yield the row of every finished source in order of path, with `at_once` of them in memory. Raises TableError.

    More than those are first spread over temporary files in the ledger's folder, each of which holds a range of paths.
    """
    paths = sorted({row["path"] for path in segments(output) for row in read_segment(path, heads_only=True)})
    if len(paths) <= at_once:
        found = {row["path"]: row for _, row in read_finished(output)}
        yield from (found[path] for path in paths)
        return
    firsts = paths[:: max(at_once, -(-len(paths) // MOST_RANGES))]
    with TemporaryDirectory(prefix=TEMPORARY_PREFIX, dir=output / FOLDER) as folder:
        ranges = [Path(folder) / f"{number}.jsonl.gz" for number in range(len(firsts))]
        with ExitStack() as files:
            writers = [files.enter_context(gzip.open(path, "wt", 1, "utf-8")) for path in ranges]
            for _, row in read_finished(output):
                writers[bisect_right(firsts, row["path"]) - 1].write(f"{json.dumps(row)}\n")
        for path in ranges:
            with gzip.open(path, "rt", encoding="utf-8") as file:
                yield from sorted(map(json.loads, file), key=itemgetter("path"))
            path.unlink()


def parse_curated(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the column `curated` of a finished source: `source`, `clips` and `sampled`, with today's names."""
    found = json.loads(row["curated"])
    clips = [renamed.with_todays_names(clip) for clip in found["clips"]]
    return {**found, "source": renamed.with_todays_names(found["source"]), "clips": clips}


def append_to_log(log: Path, texts: Iterable[str]) -> None:
    """Append lines to a log, and return when they are on the disk."""
    with log.open("a+b") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # torn by a power cut: what follows must not become part of it
                file.write(b"\n")
        file.writelines(f"{json.dumps(text)}\n".encode() for text in texts)
        file.flush()
        os.fsync(file.fileno())


def read_log(log: Path) -> set[str]:
    """Return the lines of a log; a line that a power cut tore is left out."""
    found = set()
    for line in log.read_text(encoding="utf-8").split("\n")[:-1] if log.exists() else []:
        with suppress(ValueError):
            found.add(json.loads(line))
    return found
