"""The files of `<output>/ledger`: what a run has begun, what it has finished, what it has removed.

    000000.parquet ...   LEDGER: a row per finished source; of two rows of a path the one in the later segment counts
    attempts.log         sources that were handed to a worker, written before
    dropped_parts.log    sources whose part was removed on purpose (`--drop-parts`), written before

`curation/ledger.py` writes them and `curation/verify` reads them. The logs hold one JSON string per line.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

import renamed
from storage.table import TableFormat, read_table

FOLDER = "ledger"
LEDGER = TableFormat("curation.ledger", 4)
MEANINGS = {
    "path": "path of the source",
    "source_id": "sha256 of the source, empty if it could not be read",
    "bytes": "size of the file when it was curated, -1 if unknown",
    "mtime_ns": "its modification time, -1 if unknown",
    "status": "of its row in sources.parquet",
    "reason": "likewise",
    "curated": "JSON: the source's row, its clips' rows, key -> sha256 of the samples in the part",
}
HEADS = ("path", "source_id", "bytes", "mtime_ns", "status", "reason")
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
