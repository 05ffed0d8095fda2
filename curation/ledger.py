"""What a run has done: its recipe, and the rows of every source that is finished.

Plain files, each of which appears by one rename and never changes: `recipe.yaml`, then `ledger/000000.parquet` and so
on. A source is done when its rows are in a segment; everything else is simply done again. The same command therefore
continues an interrupted run.
"""

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

import pipelines
import weights
from curation.source import Curated, Identity
from shards.table import TableFormat, read_table, write_table
from shards.whole_file import remove_leftovers, whole_file

LEDGER = TableFormat("curation.ledger", 1)
SCORES = TableFormat("curation.corpus_scores", 1)
SEGMENT_SOURCES = 256
SEGMENT_S = 30.0
CODE_ROOMS = ("curation", "media", "models", "shards")  # what decides the bytes of a part
MEANINGS = {
    "path": "path of the source",
    "source_id": "sha256 of the source, empty if it could not be read",
    "bytes": "size of the file when it was curated, -1 if unknown",
    "mtime_ns": "its modification time, -1 if unknown",
    "curated": "JSON: the source's row, its clips' rows, the keys that have a sample in the part",
}


class LedgerError(ValueError):
    """An output folder that this run must not write into."""


def recipe_of(profile: pipelines.Profile, score_only: bool) -> dict[str, Any]:
    """Everything that decides the result: settings, the networks' sha256, the code; and the hash of it all."""
    recipe: dict[str, Any] = {
        "profile": profile.as_dict(),
        "score_only": score_only,
        "weights": {name: weights.sha256_of(name) for name in sorted(set(pipelines.weights_of(profile)))},
        "code": code_sha256(),
    }
    recipe["hash"] = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
    return recipe


def code_sha256() -> str:
    digest = hashlib.sha256()
    for room in CODE_ROOMS:
        for file in sorted((pipelines.ROOT / room).rglob("*.py")):
            digest.update(f"{file.relative_to(pipelines.ROOT)}\0".encode() + file.read_bytes())
    return digest.hexdigest()


class Ledger:
    """The finished sources of one output folder. `add` keeps one in memory, `flush` makes all of them last."""

    def __init__(self, output: Path, recipe: dict[str, Any]) -> None:
        self.folder = output / "ledger"
        self.folder.mkdir(parents=True, exist_ok=True)
        check_recipe(output, recipe)
        remove_leftovers(self.folder)
        self.next_segment = 0
        self.waiting: list[dict[str, Any]] = []
        self.flushed_s = time.monotonic()
        self.done: dict[str, tuple[Identity, Curated]] = {}
        segments = sorted(self.folder.glob("[0-9]*.parquet"))
        for path in segments:
            for row in read_table(path, LEDGER).to_dict("records"):
                self.done[row["path"]] = from_row(row)
            self.next_segment = int(path.stem) + 1

    def finished(self, path: Path) -> bool:
        """Whether this file was curated and has not changed since, by size and time of modification."""
        entry = self.done.get(storable(path))
        if entry is None:
            return False
        try:
            status = path.stat()
        except OSError:
            return True  # it has its rows; that it is gone now changes nothing
        return (entry[0].bytes, entry[0].mtime_ns) == (status.st_size, status.st_mtime_ns)

    def add(self, identity: Identity, curated: Curated) -> None:
        self.done[storable(identity.path)] = (identity, curated)
        self.waiting.append(to_row(identity, curated))
        if len(self.waiting) >= SEGMENT_SOURCES or time.monotonic() - self.flushed_s > SEGMENT_S:
            self.flush()

    def flush(self) -> None:
        if self.waiting:
            path = self.folder / f"{self.next_segment:06d}.parquet"
            write_table(path, pd.DataFrame(self.waiting), LEDGER, MEANINGS)
            self.next_segment += 1
            self.waiting.clear()
        self.flushed_s = time.monotonic()

    def curated(self) -> list[Curated]:
        """What came of every source, in order of path."""
        return [self.done[path][1] for path in sorted(self.done)]

    def scores(self, stage: str) -> dict[str, dict[str, float]]:
        """What a corpus filter has settled: key -> scores."""
        found: dict[str, dict[str, float]] = {}
        for path in self.score_segments(stage):
            rows = read_table(path, SCORES).set_index("key").to_dict("index")
            found |= {str(key): {str(name): float(value) for name, value in row.items()} for key, row in rows.items()}
        return found

    def settle(self, stage: str, scores: dict[str, dict[str, float]]) -> None:
        """Keeps these scores for good: a fit on more clips, later, does not judge them again."""
        if scores:
            frame = pd.DataFrame([{"key": key, **row} for key, row in sorted(scores.items())])
            path = self.folder / f"{stage.split('/')[1]}-{len(self.score_segments(stage)):06d}.parquet"
            write_table(path, frame, SCORES, dict.fromkeys(frame, f"{stage}, as in clips.parquet"))

    def score_segments(self, stage: str) -> list[Path]:
        return sorted(self.folder.glob(f"{stage.split('/')[1]}-*.parquet"))


def check_recipe(output: Path, recipe: dict[str, Any]) -> None:
    """Writes recipe.yaml, or raises LedgerError if the folder holds the work of another recipe."""
    path = output / "recipe.yaml"
    if not path.exists():
        with whole_file(path) as file:
            file.write(yaml.safe_dump(recipe, sort_keys=False).encode())
        return
    earlier = yaml.safe_load(path.read_text(encoding="utf-8"))
    if earlier.get("hash") != recipe["hash"]:
        changes = "\n".join(f"  {line}" for line in differences(earlier, recipe) if not line.startswith("hash:"))
        raise LedgerError(
            f"{output} was curated with another recipe:\n{changes}\n"
            "Give another --output, or run with the settings and the code of that recipe to continue it."
        )


def differences(old: Any, new: Any, where: str = "") -> Iterator[str]:
    """Lines such as `profile.stages.9.filters/niqe.max_niqe: 9.0 -> 7.5`."""
    if isinstance(old, list) and isinstance(new, list):
        old, new = dict(enumerate(old)), dict(enumerate(new))
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from differences(old.get(key), new.get(key), f"{where}.{key}".lstrip("."))
    elif old != new:
        yield f"{where}: {old} -> {new}"


def storable(path: Path | str) -> str:
    """A path as parquet can hold it: bytes that are not UTF-8 spelled out."""
    return str(path).encode("utf-8", "backslashreplace").decode("utf-8")


def to_row(identity: Identity, curated: Curated) -> dict[str, Any]:
    return {
        "path": storable(identity.path),
        "source_id": identity.source_id or "",
        "bytes": -1 if identity.bytes is None else identity.bytes,
        "mtime_ns": -1 if identity.mtime_ns is None else identity.mtime_ns,
        "curated": json.dumps(
            {"source": curated.source, "clips": curated.clips, "sampled": curated.sampled}, sort_keys=True
        ),
    }


def from_row(row: dict[str, Any]) -> tuple[Identity, Curated]:
    size = None if row["bytes"] < 0 else row["bytes"]
    mtime_ns = None if row["mtime_ns"] < 0 else row["mtime_ns"]
    identity = Identity(Path(row["path"]), row["source_id"] or None, size, mtime_ns, None)
    return identity, Curated(**json.loads(row["curated"]))
