"""What a run has done: its recipe, and the rows of every source that is finished.

Plain files, each of which appears by one rename and never changes: `recipe.yaml`, then `ledger/000000.parquet` and so
on. A source is done when its rows are in a segment; everything else is simply done again. The same command therefore
continues an interrupted run.
"""

import hashlib
import json
import shlex
import time
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

import pipelines
import weights
from curation.ledger_files import (
    ATTEMPTS,
    DROPPED_PARTS,
    FOLDER,
    HEADS,
    LEDGER,
    MEANINGS,
    append_to_log,
    parse_curated,
    read_finished,
    read_in_order,
    read_log,
    read_segment,
    segments,
)
from curation.source import Curated, Identity, writing
from curation.videos import Video, state_of, storable
from storage.atomic_write import atomic_write, remove_leftovers
from storage.table import write_table

SEGMENT_SOURCES = 256
SEGMENT_S = 30.0
# What decides the bytes of a part: these, but for the files that only judge, check or show what is finished.
CODE = ("clock.py", "curation", "media", "models", "shards", "storage")
NOT_DECIDING = (
    "curation/review/",
    "curation/duplicates.py",
    "curation/mirror.py",
    "curation/verify/",
    "curation/refilter.py",
    "curation/limits.py",
)
OF_ONE_FILE = ("error:io", "error:changed")  # failures that say nothing about a copy
RECIPE_ADVICE = "restore it from a copy, or give another --output; without it nobody can tell how this one was made"


class LedgerError(ValueError):
    """An output folder that this run must not write into."""


def recipe_of(profile: pipelines.Profile, score_only: bool) -> dict[str, Any]:
    """Return what decides the result (settings, sha256 of networks and code), and the hash of it all."""
    recipe: dict[str, Any] = {
        "profile": profile.as_dict(),
        "score_only": score_only,
        "weights": {name: weights.sha256_of(name) for name in sorted(set(pipelines.weights_of(profile)))},
        "code": code_sha256(),
    }
    return {**recipe, "hash": pipelines.recipe_hash(recipe)}


def code_sha256() -> str:
    """Return the hash over the files of code that decide what a run writes into its parts."""
    digest = hashlib.sha256()
    for place in (pipelines.ROOT / name for name in CODE):
        for file in [place] if place.is_file() else sorted(place.rglob("*.py")):
            name = file.relative_to(pipelines.ROOT).as_posix()
            if not name.startswith(NOT_DECIDING):
                digest.update(f"{name}\0".encode() + file.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class FinishedSource:
    """What the ledger keeps in memory of a finished source; its rows stay on the disk."""

    segment: str
    source_id: str
    bytes: int
    mtime_ns: int
    status: str
    reason: str

    @property
    def stands_for_copies(self) -> bool:
        """Whether a file with the same bytes need not be curated: this one was, or failed because of its bytes."""
        return bool(self.source_id) and self.status != "duplicate" and self.reason not in OF_ONE_FILE

    def has_failed(self, reason: str) -> bool:
        """Whether it ended in an error, of this kind (`worker_crash`) or of any (empty)."""
        return self.status == "error" and reason in ("", self.reason.removeprefix("error:"))


class Ledger:
    """The finished sources of one output folder: `add` takes one, `flush` writes those that wait to the disk.

    `guard` is called before anything is committed; it raises if this process may no longer write here. Raises
    OutputError when the folder cannot be written.
    """

    def __init__(
        self, output: Path, recipe: dict[str, Any], fork: bool = False, guard: Callable[[], None] = lambda: None
    ) -> None:
        self.guard = guard
        self.output, self.folder = output, output / FOLDER
        self.folder.mkdir(parents=True, exist_ok=True)
        check_recipe(output, recipe, fork)
        for folder in (output, self.folder, *output.glob("parts/*")):
            remove_leftovers(folder)
        self.next_segment = 0
        self.waiting: list[dict[str, Any]] = []
        self.flushed_s = time.monotonic()
        self.done: dict[str, FinishedSource] = {}
        self.attempts = self.folder / ATTEMPTS
        for path in segments(output):
            for row in read_segment(path, heads_only=True):
                self.done[row["path"]] = FinishedSource(path.name, *(row[name] for name in HEADS[1:]))
            self.next_segment = int(path.stem) + 1
        self.interrupted = read_log(self.attempts) - self.done.keys()

    def is_finished(self, path: Video, retry: str | None = None) -> bool:
        """Whether this file was curated and has not changed since, by size and time of modification.

        One that failed is not finished when `retry` asks for its reason, or for all (empty).
        """
        entry = self.done.get(storable(path))
        if entry is None or (retry is not None and entry.has_failed(retry)):
            return False
        state = state_of(path)
        if state is None:
            return True  # it has its rows; that it is gone now changes nothing
        return (entry.bytes, entry.mtime_ns) == (state.bytes, state.mtime_ns)

    def originals(self, waiting: Iterable[Video]) -> dict[str, str]:
        """source id -> path of the sources that stand for their copies, without those that are curated again."""
        again = {storable(path) for path in waiting}
        return {e.source_id: path for path, e in self.done.items() if e.stands_for_copies and path not in again}

    def orphans(self, videos: Iterable[Video], waiting: Iterable[Video]) -> list[Video]:
        """The videos that stand here as copies of a source that failed, or has other bytes now."""
        again = set(waiting)
        originals = self.originals(again)
        entries = ((path, self.done.get(storable(path))) for path in videos if path not in again)
        return [path for path, e in entries if e and e.status == "duplicate" and e.source_id not in originals]

    def begin(self, identity: Identity) -> None:
        """Write into the log, and to the disk, that this source is about to be curated."""
        self.guard()
        with writing(self.attempts):
            append_to_log(self.attempts, [storable(identity.path)])

    def add(self, identity: Identity, curated: Curated) -> None:
        row = to_row(identity, curated)
        self.done[row["path"]] = FinishedSource(f"{self.next_segment:06d}.parquet", *(row[name] for name in HEADS[1:]))
        self.waiting.append(row)
        if len(self.waiting) >= SEGMENT_SOURCES or time.monotonic() - self.flushed_s > SEGMENT_S:
            self.flush()

    def flush(self) -> None:
        if self.waiting:
            self.guard()
            path = self.folder / f"{self.next_segment:06d}.parquet"
            with writing(path):
                write_table(path, pd.DataFrame(self.waiting), LEDGER, MEANINGS)
            self.next_segment += 1
            self.waiting.clear()
        self.flushed_s = time.monotonic()

    def read(self) -> Iterator[Curated]:
        """Yield the result of every finished source, in order of commit."""
        assert not self.waiting, "flush first"
        return (Curated(**parse_curated(row)) for _, row in read_finished(self.output))

    def read_in_order(self) -> Iterator[Curated]:
        """Yield the result of every finished source, in order of path."""
        assert not self.waiting, "flush first"
        return (Curated(**parse_curated(row)) for row in read_in_order(self.output))

    def drop_parts(self, parts: Iterable[Path]) -> None:
        """Remove parts, after writing into the log that this was asked for."""
        self.guard()
        gone = sorted(parts)
        with writing(self.folder / DROPPED_PARTS):
            append_to_log(self.folder / DROPPED_PARTS, [part.stem for part in gone])
        for part in gone:
            part.unlink(missing_ok=True)


def check_recipe(output: Path, recipe: dict[str, Any], fork: bool) -> None:
    """Write recipe.yaml, or raise LedgerError if the folder was curated with another recipe.

    With `fork` it may: what is finished stays as it is, the rest follows the new recipe. Every sample names its own.
    """
    path = output / "recipe.yaml"
    earlier = read_recipe(path) if path.exists() else recipe
    if earlier["hash"] != recipe["hash"] and not fork:
        changes = "\n".join(f"  {line}" for line in differences(earlier, recipe) if not line.startswith("hash:"))
        raise LedgerError(
            f"{output} was curated with another recipe:\n{changes}\n{refilter_advice(output, earlier, recipe)}"
            "Give another --output; or run with the settings and the code of that recipe to continue it; or add --fork "
            "to keep what is finished and do the rest with this one."
        )
    if not path.exists() or earlier["hash"] != recipe["hash"]:
        if path.exists():
            path.rename(path.with_name(f"recipe-{earlier['hash'][:8]}.yaml"))
        with atomic_write(path) as file:
            file.write(yaml.safe_dump(recipe, sort_keys=False).encode())


def read_recipe(path: Path) -> dict[str, Any]:
    """The recipe of an output; raises LedgerError if the file holds none."""
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise LedgerError(f"{path}: cannot be read ({str(error).splitlines()[0]}); {RECIPE_ADVICE}") from error
    if not isinstance(recipe, dict) or not isinstance(recipe.get("hash"), str):
        raise LedgerError(f"{path}: is no recipe: it has no hash; {RECIPE_ADVICE}")
    return recipe


def refilter_advice(output: Path, old: dict[str, Any], new: dict[str, Any]) -> str:
    """Return the command that applies new thresholds without measuring, if only those changed; else nothing."""
    changed = changed_thresholds(old, new)
    if not changed:
        return ""
    settings = "".join(f" --set {setting}" for setting in changed)
    folders = [shlex.quote(str(folder)) for folder in (output, output.with_name(f"{output.name}-refiltered"))]
    return (
        "Only thresholds changed, and what was measured stays true. To decide anew without measuring:\n"
        f"  python -m curation.refilter {folders[0]}{settings} --to {folders[1]}\n"
    )


def changed_thresholds(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return settings such as `filters/niqe.max_niqe=7.5` if recipes differ in deciding settings only, else none."""
    if "profile" not in old:
        return []
    restored, changed = deepcopy(new), []
    for before, after in zip(old["profile"]["stages"], restored["profile"]["stages"], strict=False):
        for name in before.keys() & after.keys():
            for key in sorted(before[name].keys() & pipelines.stage_class(name).deciding_settings()):
                if before[name][key] != after[name][key]:
                    changed.append(f"{name}.{key}={yaml.safe_dump(after[name][key]).splitlines()[0]}")
                    after[name][key] = before[name][key]
    return changed if {**restored, "hash": old["hash"]} == old else []


def differences(old: Any, new: Any, where: str = "") -> Iterator[str]:
    """Lines such as `profile.stages.9.filters/niqe.max_niqe: 9.0 -> 7.5`."""
    if isinstance(old, list) and isinstance(new, list):
        old, new = dict(enumerate(old)), dict(enumerate(new))
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from differences(old.get(key), new.get(key), f"{where}.{key}".lstrip("."))
    elif old != new:
        yield f"{where}: {old} -> {new}"


def to_row(identity: Identity, curated: Curated) -> dict[str, Any]:
    return {
        "path": storable(identity.path),
        "source_id": identity.source_id or "",
        "bytes": -1 if identity.bytes is None else identity.bytes,
        "mtime_ns": -1 if identity.mtime_ns is None else identity.mtime_ns,
        "status": curated.source["status"],
        "reason": curated.source["reason"],
        "curated": json.dumps(
            {"source": curated.source, "clips": curated.clips, "sampled": curated.sampled}, sort_keys=True
        ),
    }
