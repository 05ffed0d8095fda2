"""Parts (one tar per source) -> shards of about equal size, then the index.

Samples are laid out in the order of sha256(seed, key), so that neighbours in a shard come from different sources and
the bytes depend on the set of clips only. Shards that the index names are never touched: clips that are new since go
to further shards. A shard without an index row is what an interrupted run left; it is removed and written again, with
the same bytes if the clips are the same. Memory: a sample or two, and about 1 KB per clip for its place and its row.
"""

import hashlib
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from shards.index import INDEX_NAME, index_frame, offset_column, read_index, size_column, write_index
from shards.reader import Extent, extents, read_extent, read_sample
from shards.sample import MEMBERS, Sample, problems, sample_sha256
from shards.writer import ShardWriter, tar_bytes
from storage.atomic_write import remove_leftovers

SHARD_BYTES = 500_000_000
INDEX_ROW_BYTES = 250  # measured 100 in index.parquet, 100,000 rows; the rest is room for what `edit` adds


class PackError(ValueError):
    """Packing cannot start, or a sample is not complete enough for a shard."""


class Piece(NamedTuple):
    """A sample to be packed and where it lies in its part."""

    part: Path
    extent: Extent


class Need(NamedTuple):
    """What a packing takes: clips that are not packed yet, their bytes before `edit`, and the bytes free there."""

    clips: int
    bytes: int
    free: int


def pack(
    clips: Mapping[str, Path],
    shards: Path,
    *,
    sha256: Mapping[str, str] | None = None,
    name: str = "shard",
    seed: int = 0,
    shard_bytes: int = SHARD_BYTES,
    edit: Callable[[Sample], Sample] | None = None,
    required: Collection[str] = MEMBERS,
    announce: Callable[[Need], None] | None = None,
    progress: Callable[[Sample], None] | None = None,
) -> pd.DataFrame:
    """Pack the kept clips, key -> part, into `<shards>/<name>-000000.tar` and so on; gives the whole index.

    `clips` are all kept clips of the output; the parts of those packed before are not opened. A sample that
    has not the `sha256` given for it stops the packing, as one that lacks one of `required` does. `edit` may
    change the members of a sample, not its key. `announce` is called with what will be packed before anything is
    written, `progress` with each packed sample.
    Raises PackError or ShardError; then the index is as it was.
    """
    shards.mkdir(parents=True, exist_ok=True)
    packed = _read_packed(shards)
    pieces = _pieces(clips, packed, seed)
    _check_packed(packed, clips, shards)
    remove_leftovers(shards)
    _remove_unindexed(shards, packed, name)
    need = _need(pieces, shards)
    if announce:
        announce(need)
    if need.bytes > need.free:
        raise PackError(f"{shards}: packing needs {need.bytes / 1e9:.2f} GB, {need.free / 1e9:.2f} GB are free")
    if not pieces and (shards / INDEX_NAME).exists():
        return packed
    tables = [packed]
    samples = _samples(pieces, sha256, edit, required)
    for number, batch in zip(count(_next_number(packed, name)), _batches(samples, shard_bytes), strict=False):
        path = shards / f"{name}-{number:06d}.tar"
        rows = []
        with ShardWriter(path) as writer:
            for sample in batch:
                rows.append(_write(writer, sample))
                if progress:
                    progress(sample)
        tables.append(index_frame(rows))
    write_index(shards, pd.concat(tables))
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
    parts = sorted({clips[key] for key in waiting})
    found = {}
    for part in parts:
        for extent in extents(part):
            if extent.key in waiting and clips[extent.key] == part:
                found[extent.key] = Piece(part, extent)
    missing = sorted(waiting - set(found))
    if missing:
        raise PackError(f"{clips[missing[0]]}: has no clip {missing[0]} ({len(missing)} of {len(waiting)} are missing)")
    return [found[key] for key in pack_order(waiting, seed)]


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


def _remove_unindexed(shards: Path, packed: pd.DataFrame, name: str) -> None:
    indexed = set(packed["shard"])
    for path in shards.glob("*.tar"):
        if path.name not in indexed and _number(path.name, name) is not None:
            path.unlink()


def _need(pieces: list[Piece], shards: Path) -> Need:
    needed = sum(piece.extent.bytes + INDEX_ROW_BYTES for piece in pieces)
    return Need(len(pieces), needed, shutil.disk_usage(shards).free)


def _next_number(packed: pd.DataFrame, name: str) -> int:
    numbers = [_number(shard, name) for shard in packed["shard"].unique()]
    return max((number for number in numbers if number is not None), default=-1) + 1


def _number(shard: str, name: str) -> int | None:
    match = re.fullmatch(rf"{re.escape(name)}-(\d{{6,}})\.tar", shard)
    return int(match[1]) if match else None


def _samples(
    pieces: list[Piece],
    sha256: Mapping[str, str] | None,
    edit: Callable[[Sample], Sample] | None,
    required: Collection[str],
) -> Iterator[Sample]:
    """The samples as they will lie in the shards."""
    for part, extent in pieces:
        read = read_extent(part, extent, (sha256 or {}).get(extent.key))
        sample = Sample(read.key, {name: data for name, data in read.members.items() if name in MEMBERS})
        if edit:
            sample = edit(sample)
        assert sample.key == read.key, f"edit changed the key {read.key} to {sample.key}"
        assert set(sample.members) <= set(MEMBERS), f"edit added members to {read.key}: {sorted(sample.members)}"
        wrong = problems(sample, required)
        if wrong:
            raise PackError(f"{part}: {sample.key}: {'; '.join(wrong)}")
        yield sample


def _batches(samples: Iterator[Sample], shard_bytes: int) -> Iterator[Iterator[Sample]]:
    """Samples cut into runs of at most `shard_bytes` (and at least one). Each run must be used up before the next."""
    waiting = next(samples, None)

    def run() -> Iterator[Sample]:
        nonlocal waiting
        size = 0
        while waiting and (size == 0 or size + _size(waiting) <= shard_bytes):
            size += _size(waiting)
            yield waiting
            waiting = next(samples, None)

    while waiting:
        yield run()


def _size(sample: Sample) -> int:
    return sum(tar_bytes(len(data)) for data in sample.members.values())


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
