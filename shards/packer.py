"""Parts (one tar per source) -> shards of about equal size, then the index.

Samples are laid out in the order of sha256(seed, key), so that neighbours in a shard come from different sources, and
cut into shards by the bytes that their members have in the parts: what a shard holds depends on the set of clips only,
and any process can write any shard. Shards that the index names are never touched: clips that are new since go to
further shards. Beside a shard that is written a note of its rows is left, so that an interrupted packing goes on with
the next; a shard with neither note nor index row is removed. Memory: a sample or two, and about 1 KB per clip for its
place and its row.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from shards.index import INDEX_NAME, index_frame, offset_column, read_index, size_column, write_index
from shards.reader import Extent, ShardError, read_extent, read_sample, walk
from shards.sample import MEMBERS, Sample, problems, sample_sha256
from shards.writer import BLOCK, ShardWriter, tar_bytes
from storage.atomic_write import atomic_write, remove_leftovers

SHARD_BYTES = 500_000_000
INDEX_ROW_BYTES = 250  # measured 100 in index.parquet, 100,000 rows; the rest is room for what `edit` adds
NOTES = ".packed"  # in the folder of the shards: rows of those that the index does not name yet

Edit = Callable[[Sample], Sample]


class PackError(ValueError):
    """Packing cannot start, or a sample is not complete enough for a shard."""


class Piece(NamedTuple):
    """A sample to be packed: where it lies in its part, and what its members will take in a shard."""

    part: Path
    extent: Extent
    size: int


@dataclass(frozen=True)
class ShardJob:
    """One shard to be written: the samples in order, their sha256 in the parts, and what changes them."""

    path: Path
    pieces: tuple[Piece, ...]
    sha256: tuple[str | None, ...]
    edits: tuple[Edit | None, ...]
    required: frozenset[str] = field(default=frozenset(MEMBERS))

    @property
    def bytes(self) -> int:
        return sum(piece.size for piece in self.pieces)

    def digest(self) -> str:
        """Return a hash over all that decides the shard's bytes."""
        content = [
            [str(piece.part), *piece.extent, sha256, _describe_edit(edit)]
            for piece, sha256, edit in zip(self.pieces, self.sha256, self.edits, strict=True)
        ]
        return hashlib.sha256(json.dumps([content, sorted(self.required)]).encode()).hexdigest()


Do = Callable[[Iterable[ShardJob]], Iterator[list[dict[str, Any]]]]


class Need(NamedTuple):
    """What a packing takes: clips that are not packed yet, their bytes before `edit`, and the bytes free there."""

    clips: int
    bytes: int
    free: int


def write_shards(jobs: Iterable[ShardJob]) -> Iterator[list[dict[str, Any]]]:
    """Write shards one after the other; yield the rows of the index of each."""
    for job in jobs:
        yield write_shard(job)


def write_shard(job: ShardJob) -> list[dict[str, Any]]:
    """Write one shard and a note of its rows, which are returned. Raises PackError or ShardError."""
    rows = []
    with ShardWriter(job.path) as writer:
        for piece, sha256, edit in zip(job.pieces, job.sha256, job.edits, strict=True):
            rows.append(_write(writer, _read_piece(piece, sha256, edit, job.required)))
    note = _note_path(job)
    note.parent.mkdir(exist_ok=True)
    with atomic_write(note) as file:
        file.write(json.dumps({"digest": job.digest(), "rows": rows}).encode())
    return rows


def pack(
    clips: Mapping[str, Path],
    shards: Path,
    *,
    sha256: Mapping[str, str] | None = None,
    name: str = "shard",
    seed: int = 0,
    shard_bytes: int = SHARD_BYTES,
    edit: Callable[[str], Edit] | None = None,
    required: Collection[str] = MEMBERS,
    announce: Callable[[Need], None] | None = None,
    do: Do = write_shards,
) -> pd.DataFrame:
    """Pack the kept clips, key -> part, into `<shards>/<name>-000000.tar` and so on; gives the whole index.

    `clips` are all kept clips of the output; the parts of those packed before are not opened. A sample that
    has not the `sha256` given for it stops the packing, as one that lacks one of `required` does. `edit` gives for a
    key what may change the members of its sample, not its key. `announce` is called with what will be packed before
    anything is written. `do` writes the shards, in any order and in any process, and yields their rows.
    Raises PackError or ShardError; then the index is as it was.
    """
    shards.mkdir(parents=True, exist_ok=True)
    packed = _read_packed(shards)
    pieces = _pieces(clips, packed, seed)
    _check_packed(packed, clips, shards)
    remove_leftovers(shards)

    def job(number: int, batch: Sequence[Piece]) -> ShardJob:
        keys = [piece.extent.key for piece in batch]
        hashes = tuple((sha256 or {}).get(key) for key in keys)
        edits = tuple(edit(key) if edit else None for key in keys)
        return ShardJob(shards / f"{name}-{number:06d}.tar", tuple(batch), hashes, edits, frozenset(required))

    batches = list(enumerate(_batches(pieces, shard_bytes), _next_number(packed, name)))
    noted = {number: rows for number, batch in batches if (rows := _read_note(job(number, batch))) is not None}
    _remove_unindexed(shards, packed, name, noted.keys())
    waiting = [(number, batch) for number, batch in batches if number not in noted]
    need = _need([piece for _, batch in waiting for piece in batch], shards)
    if announce:
        announce(need)
    if need.bytes > need.free:
        raise PackError(f"{shards}: packing needs {need.bytes / 1e9:.2f} GB, {need.free / 1e9:.2f} GB are free")
    if not pieces and (shards / INDEX_NAME).exists():
        shutil.rmtree(shards / NOTES, ignore_errors=True)  # of a packing that was killed after its index
        return packed
    tables = [packed, *(index_frame(rows) for rows in noted.values())]
    tables += [index_frame(rows) for rows in do(job(number, batch) for number, batch in waiting)]
    remove_leftovers(shards)  # of writers that died, and whose shard another has written
    write_index(shards, pd.concat(tables))
    shutil.rmtree(shards / NOTES, ignore_errors=True)
    return read_index(shards)


def retire(shards: Path, kept: Collection[str], *, name: str = "shard") -> pd.DataFrame:
    """Take packed clips that are not among `kept` out of the shards; returns the rows of the index that they had.

    Shards never change: what else lies in one that is touched is copied to a new one, and the old one is removed after
    the index. An interruption leaves the index, and what it names, as it was or as it is to be. Raises ShardError.
    """
    packed = _read_packed(shards)
    stale = packed.loc[~packed["key"].isin(list(kept))]
    if not len(stale):
        return stale
    remove_leftovers(shards)
    _remove_unindexed(shards, packed, name)
    shutil.rmtree(shards / NOTES, ignore_errors=True)
    touched = list(dict.fromkeys(stale["shard"]))
    tables, number = [packed.loc[~packed["shard"].isin(touched)]], _next_number(packed, name)
    for old in touched:
        left = packed.loc[(packed["shard"] == old) & packed["key"].isin(list(kept))].to_dict("records")
        if left:
            with ShardWriter(shards / f"{name}-{number:06d}.tar") as writer:
                rows = [_write(writer, read_sample(shards, row)) for row in left]
            tables.append(index_frame(rows))
            number += 1
    write_index(shards, pd.concat(tables))
    for old in touched:
        (shards / old).unlink(missing_ok=True)
    return stale


def pack_order(keys: Iterable[str], seed: int) -> list[str]:
    """Keys in the order in which they are packed: by sha256 of `<seed>:<key>`."""
    return sorted(keys, key=lambda key: (hashlib.sha256(f"{seed}:{key}".encode()).digest(), key))


def _read_packed(shards: Path) -> pd.DataFrame:
    return read_index(shards) if (shards / INDEX_NAME).exists() else index_frame([])


def _pieces(clips: Mapping[str, Path], packed: pd.DataFrame, seed: int) -> list[Piece]:
    """Return the place of each clip that is not packed yet, in packing order; each part is read once."""
    waiting = set(clips) - set(packed["key"])
    found = {}
    for part in sorted({clips[key] for key in waiting}):
        for piece in _pieces_of(part):
            if piece.extent.key in waiting and clips[piece.extent.key] == part:
                found[piece.extent.key] = piece
    missing = sorted(waiting - set(found))
    if missing:
        raise PackError(f"{clips[missing[0]]}: has no clip {missing[0]} ({len(missing)} of {len(waiting)} are missing)")
    return [found[key] for key in pack_order(waiting, seed)]


def _pieces_of(part: Path) -> Iterator[Piece]:
    """The samples of a part; reads headers only. Raises ShardError if a key comes twice."""
    starts: dict[str, int] = {}
    ends: dict[str, int] = {}
    sizes: dict[str, int] = {}
    last = ""
    for key, member, offset, size in walk(part):
        if key != last and key in starts:
            raise ShardError(f"{part}: {key} comes twice")
        last = key
        starts.setdefault(key, offset - BLOCK)
        ends[key] = offset - BLOCK + tar_bytes(size)
        sizes[key] = sizes.get(key, 0) + (tar_bytes(size) if member in MEMBERS else 0)
    yield from (Piece(part, Extent(key, start, ends[key] - start), sizes[key]) for key, start in starts.items())


def _check_packed(packed: pd.DataFrame, clips: Mapping[str, Path], shards: Path) -> None:
    gone = [name for name in packed["shard"].unique() if not (shards / name).is_file()]
    if gone:
        raise PackError(f"{shards / gone[0]}: named by {INDEX_NAME} and missing; copy it back or pack elsewhere")
    stale = [pair for pair in zip(packed["key"], packed["shard"], strict=True) if pair[0] not in clips]
    if stale:
        raise PackError(
            f"{shards}: {len(stale)} packed clips are not kept any more (first: {stale[0][0]} in {stale[0][1]}); "
            "shards are never changed, so pack into a new folder"
        )


def _remove_unindexed(shards: Path, packed: pd.DataFrame, name: str, noted: Collection[int] = ()) -> None:
    indexed = set(packed["shard"])
    for path in shards.glob("*.tar"):
        number = _number(path.name, name)
        if path.name not in indexed and number is not None and number not in noted:
            path.unlink()


def _describe_edit(edit: Edit | None) -> str:
    """Return the name of a function and what is bound to its arguments, without addresses."""
    bound = edit.keywords if isinstance(edit, partial) else {}
    function = edit.func if isinstance(edit, partial) else edit
    return f"{getattr(function, '__qualname__', function)} {json.dumps(bound, sort_keys=True)}"


def _note_path(job: ShardJob) -> Path:
    return job.path.parent / NOTES / f"{job.path.stem}.json"


def _read_note(job: ShardJob) -> list[dict[str, Any]] | None:
    """Return the rows of a shard that an interrupted packing has written just so, or None."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        note = json.loads(_note_path(job).read_text(encoding="utf-8"))
        rows = note["rows"]
        if note["digest"] == job.digest() and job.path.stat().st_size >= rows[-1]["offset"] + rows[-1]["bytes"]:
            return rows
    return None


def _need(pieces: Sequence[Piece], shards: Path) -> Need:
    needed = sum(piece.size + INDEX_ROW_BYTES for piece in pieces)
    return Need(len(pieces), needed, shutil.disk_usage(shards).free)


def _next_number(packed: pd.DataFrame, name: str) -> int:
    numbers = [_number(shard, name) for shard in packed["shard"].unique()]
    return max((number for number in numbers if number is not None), default=-1) + 1


def _number(shard: str, name: str) -> int | None:
    match = re.fullmatch(rf"{re.escape(name)}-(\d{{6,}})\.tar", shard)
    return int(match[1]) if match else None


def _read_piece(piece: Piece, sha256: str | None, edit: Edit | None, required: Collection[str]) -> Sample:
    """One sample as it will lie in a shard."""
    read = read_extent(piece.part, piece.extent, sha256)
    sample = Sample(read.key, {name: data for name, data in read.members.items() if name in MEMBERS})
    if edit:
        sample = edit(sample)
    assert sample.key == read.key, f"edit changed the key {read.key} to {sample.key}"
    assert set(sample.members) <= set(MEMBERS), f"edit added members to {read.key}: {sorted(sample.members)}"
    wrong = problems(sample, required)
    if wrong:
        raise PackError(f"{piece.part}: {sample.key}: {'; '.join(wrong)}")
    return sample


def _batches(pieces: Iterable[Piece], shard_bytes: int) -> Iterator[list[Piece]]:
    """Samples cut into runs of at most `shard_bytes`, and at least one."""
    batch: list[Piece] = []
    size = 0
    for piece in pieces:
        if batch and size + piece.size > shard_bytes:
            yield batch
            batch, size = [], 0
        batch.append(piece)
        size += piece.size
    if batch:
        yield batch


def _write(writer: ShardWriter, sample: Sample) -> dict[str, Any]:
    """Append a sample to a shard; its row of the index."""
    fields = sample.json
    row: dict[str, Any] = {"shard": writer.path.name, "key": sample.key, "offset": writer.bytes}
    row |= {name: fields[name] for name in ("source_id", "frames", "start_frame", "end_frame")}
    row["sha256"] = sample_sha256(sample.members)
    for member, (offset, size) in writer.write(sample).items():
        row[offset_column(member)], row[size_column(member)] = offset, size
    row["bytes"] = writer.bytes - row["offset"]
    return row
