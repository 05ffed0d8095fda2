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
from curation.source import Curated, Identity, writing
from curation.videos import storable
from manifests.ledger import (
    ATTEMPTS,
    DROPPED_PARTS,
    FOLDER,
    HEADS,
    LEDGER,
    MEANINGS,
    finished,
    note,
    noted,
    read_segment,
    segments,
)
from shards.table import TableFormat, read_table, write_table
from shards.whole_file import remove_leftovers, whole_file

SCORES = TableFormat("curation.corpus_scores", 1)
SEGMENT_SOURCES = 256
SEGMENT_S = 30.0
OF_ONE_FILE = ("error:io", "error:changed")  # failures that say nothing about a copy
RECIPE_ADVICE = "restore it from a copy, or give another --output; without it nobody can tell how this one was made"
CODE_ROOMS = ("curation", "media", "models", "shards")  # what decides the bytes of a part


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
    return {**recipe, "hash": pipelines.recipe_hash(recipe)}


def code_sha256() -> str:
    digest = hashlib.sha256()
    for room in CODE_ROOMS:
        for file in sorted((pipelines.ROOT / room).rglob("*.py")):
            digest.update(f"{file.relative_to(pipelines.ROOT)}\0".encode() + file.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Entry:
    """A finished source as the ledger remembers it; its rows stay on the disk."""

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

    def failed(self, reason: str) -> bool:
        """Whether it ended in an error, of this kind (`worker_crash`) or of any (empty)."""
        return self.status == "error" and reason in ("", self.reason.removeprefix("error:"))


class Ledger:
    """The finished sources of one output folder. `add` keeps one in memory, `flush` makes all of them last.

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
        self.done: dict[str, Entry] = {}
        self.attempts = self.folder / ATTEMPTS
        for path in segments(output):
            for row in read_segment(path, heads_only=True):
                self.done[row["path"]] = Entry(path.name, *(row[name] for name in HEADS[1:]))
            self.next_segment = int(path.stem) + 1
        self.interrupted = noted(self.attempts) - self.done.keys()

    def finished(self, path: Path, retry: str | None = None) -> bool:
        """Whether this file was curated and has not changed since, by size and time of modification.

        One that failed is not finished when `retry` asks for its reason, or for all (empty).
        """
        entry = self.done.get(storable(path))
        if entry is None or (retry is not None and entry.failed(retry)):
            return False
        try:
            status = path.stat()
        except (OSError, ValueError):  # ValueError: a NUL in the name
            return True  # it has its rows; that it is gone now changes nothing
        return (entry.bytes, entry.mtime_ns) == (status.st_size, status.st_mtime_ns)

    def originals(self, waiting: Iterable[Path]) -> dict[str, str]:
        """source id -> path of the sources that stand for their copies, without those that are curated again."""
        again = {storable(path) for path in waiting}
        return {e.source_id: path for path, e in self.done.items() if e.stands_for_copies and path not in again}

    def orphans(self, videos: Iterable[Path], waiting: Iterable[Path]) -> list[Path]:
        """The videos that stand here as copies of a source that failed, or has other bytes now."""
        again = set(waiting)
        originals = self.originals(again)
        entries = ((path, self.done.get(storable(path))) for path in videos if path not in again)
        return [path for path, e in entries if e and e.status == "duplicate" and e.source_id not in originals]

    def begin(self, identity: Identity) -> None:
        """Notes an attempt, on the disk, before it is made."""
        self.guard()
        with writing(self.attempts):
            note(self.attempts, [storable(identity.path)])

    def add(self, identity: Identity, curated: Curated) -> None:
        row = to_row(identity, curated)
        self.done[row["path"]] = Entry(f"{self.next_segment:06d}.parquet", *(row[name] for name in HEADS[1:]))
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

    def curated(self) -> list[Curated]:
        """What came of every source, in order of path."""
        assert not self.waiting, "flush first"
        found = {row["path"]: Curated(**json.loads(row["curated"])) for _, row in finished(self.output)}
        return [found[path] for path in sorted(found)]

    def drop_parts(self, parts: Iterable[Path]) -> None:
        """Removes parts, after noting that this is on purpose."""
        self.guard()
        gone = sorted(parts)
        with writing(self.folder / DROPPED_PARTS):
            note(self.folder / DROPPED_PARTS, [part.stem for part in gone])
        for part in gone:
            part.unlink(missing_ok=True)

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
            self.guard()
            frame = pd.DataFrame([{"key": key, **row} for key, row in sorted(scores.items())])
            path = self.folder / f"{stage.split('/')[1]}-{len(self.score_segments(stage)):06d}.parquet"
            write_table(path, frame, SCORES, dict.fromkeys(frame, f"{stage}, as in clips.parquet"))

    def score_segments(self, stage: str) -> list[Path]:
        return sorted(self.folder.glob(f"{stage.split('/')[1]}-*.parquet"))


def check_recipe(output: Path, recipe: dict[str, Any], fork: bool) -> None:
    """Writes recipe.yaml, or raises LedgerError if the folder holds the work of another recipe and may not go on.

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
        with whole_file(path) as file:
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
    """What to do instead if the recipes differ in thresholds only, else nothing."""
    changed = changed_thresholds(old, new)
    if not changed:
        return ""
    settings = "".join(f" --set {setting}" for setting in changed)
    folders = [shlex.quote(str(folder)) for folder in (output, output.with_name(f"{output.name}-refiltered"))]
    return (
        "Only thresholds changed, and what was measured stays true. To decide anew without measuring:\n"
        f"  python -m manifests.refilter {folders[0]}{settings} --to {folders[1]}\n"
    )


def changed_thresholds(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Settings such as `filters/niqe.max_niqe=7.5` if all that two recipes differ in is what `decide` alone reads."""
    if "profile" not in old:
        return []
    restored, changed = deepcopy(new), []
    for before, after in zip(old["profile"]["stages"], restored["profile"]["stages"], strict=False):
        for name in before.keys() & after.keys():
            for key in sorted(before[name].keys() & set(getattr(pipelines.stage_class(name), "THRESHOLDS", ()))):
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
