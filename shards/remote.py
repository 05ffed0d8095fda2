"""Shards that lie in an object store, read sample by sample in ranges of their tars.

`bring_index` makes a folder here that stands for them: their index, the recipe beside it, and `store.json`, which says
where the tars are. `open_sample` and `open_tar` read from such a folder as from one with the tars in it. With a cache,
samples are kept on this machine by their sha256: of the index in its order as many as fit, so that any number of
processes keep the same ones and the folder has a bound. A store that does not answer is a StoreError, which is not the
sample's fault; a shard that is not there is a ShardError, as on a disk.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Self

import pandas as pd

from shards.index import INDEX_NAME, offset_column, read_index, size_column
from shards.member import OpenSample
from shards.reader import Row, ShardError
from storage.atomic_write import atomic_write
from storage.store import PIECE_BYTES, ObjectError, RemoteFile, list_below, read_pieces, read_range, stat

MARK = "store.json"
GB = 1e9


@dataclass(frozen=True)
class RemoteShards:
    """Where the tars of a folder are; `starts`: shard -> bytes of all samples in the shards before it."""

    url: str
    cache: str | None
    cache_bytes: float
    starts: Mapping[str, int]

    def read(self, row: Row) -> bytes:
        """Return the bytes of a sample in its tar, headers and padding included. Raises ShardError or StoreError."""
        if self.cache is None or self.starts[row["shard"]] + row["offset"] + row["bytes"] > self.cache_bytes:
            return self._fetch(row)
        path = Path(self.cache, row["sha256"][:2], row["sha256"])
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            data = b""
        if len(data) != row["bytes"]:
            data = self._fetch(row)
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as file:
                file.write(data)
        return data

    def _fetch(self, row: Row) -> bytes:
        try:
            return read_range(f"{self.url}/{row['shard']}", int(row["offset"]), int(row["offset"] + row["bytes"]))
        except ObjectError as error:
            raise ShardError(f"{error} (if {INDEX_NAME} names it, mirror the output again)") from error


class FetchedSample:
    """A sample of a store in memory, to be read like one on disk."""

    def __init__(self, shards: RemoteShards, row: Row) -> None:
        self.name, self.row, self.data = f"{shards.url}/{row['shard']}", row, shards.read(row)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def member(self, name: str) -> io.BytesIO:
        """One member as a file. Raises ShardError if the sample has none of this name."""
        offset, size = self.row[offset_column(name)], self.row[size_column(name)]
        if pd.isna(offset):
            raise ShardError(f"{self.name}: {self.row['key']}: has no member {name}")
        start = int(offset - self.row["offset"])
        return io.BytesIO(self.data[start : start + int(size)])


class RemoteTar(io.RawIOBase):
    """A tar of a store as a file, read from its start on."""

    def __init__(self, url: str) -> None:
        self.file, self._place = stat(url), 0

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        assert self.file.size is not None
        data = read_range(self.file.url, self._place, min(self._place + len(into), self.file.size))
        into[: len(data)] = data
        self._place += len(data)
        return len(data)


def bring_index(url: str, folder: Path, cache: Path | None = None, cache_gb: float = 0.0) -> Path:
    """Make a folder that stands for an output in a store, or for its shards; return it. Raises ShardError, StoreError.

    It is like an output folder: the recipe, and below it `shards`.
    """
    there = {file.url.removeprefix(f"{url}/"): file for file in list_below(url)}
    place = next((name for name in (f"shards/{INDEX_NAME}", INDEX_NAME) if name in there), None)
    if place is None:
        raise ShardError(f"{url}: no {INDEX_NAME} in it or in its folder shards; python -m curation.mirror copies it")
    shards_url = there[place].url.removesuffix(f"/{INDEX_NAME}")
    beside = there if place != INDEX_NAME else {file.name: file for file in list_recipes(url.rpartition("/")[0])}
    shards = folder / "shards"
    shards.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("recipe*.yaml"):
        if old.name not in beside:
            old.unlink(missing_ok=True)
    for name, file in beside.items():
        if name.startswith("recipe") and name.endswith(".yaml"):
            bring(file, folder / name)
    bring(there[place], shards / INDEX_NAME)
    index = read_index(shards)
    starts, end = {}, 0
    for shard, bytes_ in zip(index["shard"], index["bytes"], strict=True):
        starts.setdefault(shard, end)
        end += int(bytes_)
    described = RemoteShards(shards_url, None if cache is None else str(cache.absolute()), cache_gb * GB, starts)
    with atomic_write(shards / MARK) as file:
        file.write(json.dumps(asdict(described)).encode())
    remote_of.cache_clear()
    return folder


def list_recipes(url: str) -> list[RemoteFile]:
    """Return the recipes in a prefix, not those below it."""
    return [file for file in list_below(url) if "/" not in file.url.removeprefix(f"{url}/")]


def bring(file: RemoteFile, path: Path) -> None:
    """Copy an object to a file, in place of what is there."""
    with atomic_write(path) as target:
        for piece in read_pieces(file):
            target.write(piece)


def folder_name(url: str) -> str:
    """Return a short name of a URL for a folder."""
    return hashlib.sha256(url.encode()).hexdigest()[:16]


@lru_cache(64)
def remote_of(shards: Path) -> RemoteShards | None:
    """Return where the tars of a folder are, or None: in it."""
    mark = shards / MARK
    return RemoteShards(**json.loads(mark.read_text(encoding="utf-8"))) if mark.is_file() else None


def open_sample(shards: Path, row: Row) -> OpenSample | FetchedSample:
    """Open the sample that a row of the index describes. Raises ShardError, or StoreError."""
    remote = remote_of(shards)
    return OpenSample(shards, row) if remote is None else FetchedSample(remote, row)


def open_tar(path: Path) -> BinaryIO | io.BufferedReader:
    """Open a tar to be read from its start to its end. Raises OSError."""
    remote = remote_of(path.parent)
    return path.open("rb") if remote is None else io.BufferedReader(RemoteTar(f"{remote.url}/{path.name}"), PIECE_BYTES)
