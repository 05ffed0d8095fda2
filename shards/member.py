"""One sample of a shard, open: its members as files to seek in, and rows of those that are arrays.

What is not read costs nothing: a training window needs 16 of a clip's frames and 40 of its Whisper rows, a small part
of the sample.
"""

import io
import math
import os
from functools import lru_cache
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
from numpy.lib import format as npy_format

from shards.index import INDEX_NAME, offset_column, size_column
from shards.reader import Row, ShardError

NPY_HEADER_BYTES = 128  # numpy's, for an array of a few axes


class OpenSample:
    """The sample that a row of the index describes; close it, or use it in a `with` block."""

    def __init__(self, shards: Path, row: Row) -> None:
        self.path, self.row = shards / row["shard"], row
        try:
            self.descriptor = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            text = f"{error.strerror} (if {INDEX_NAME} names it, copy it back or curate again)"
            raise ShardError(f"{self.path}: {text}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)

    def member(self, name: str) -> "Member":
        """One member as a file. Raises ShardError if the sample has none of this name."""
        offset, size = self.row[offset_column(name)], self.row[size_column(name)]
        if pd.isna(offset):
            raise ShardError(f"{self.path}: {self.row['key']}: has no member {name}")
        return Member(f"{self.path}: {self.row['key']}.{name}", self.descriptor, int(offset), int(size))


class Member(io.RawIOBase):
    """`size` bytes of an open file as a file of its own, read-only."""

    def __init__(self, name: str, descriptor: int, offset: int, size: int) -> None:
        self.name, self._descriptor, self._offset, self._size, self._place = name, descriptor, offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._place = (0, self._place, self._size)[whence] + offset
        return self._place

    def read(self, size: int = -1) -> bytes:
        """The next bytes. Raises ShardError if the file ends before the member does."""
        left = max(self._size - self._place, 0)
        wanted = left if size < 0 else min(size, left)
        data = os.pread(self._descriptor, wanted, self._offset + self._place)
        if len(data) != wanted:
            raise ShardError(f"{self.name}: {wanted} bytes expected at byte {self._place}, {len(data)} found")
        self._place += wanted
        return data


@lru_cache(4096)
def npy_layout(header: bytes) -> tuple[int, tuple[int, ...], np.dtype]:
    """Where the rows of an npy file begin, its shape and dtype. Cached: parsing costs more than reading a few rows."""
    file = io.BytesIO(header)
    if npy_format.read_magic(file) != (1, 0):
        raise ValueError("not an npy file of version 1.0")
    shape, fortran, dtype = npy_format.read_array_header_1_0(file)
    if fortran or dtype.hasobject or not shape:
        raise ValueError("not an array of numbers in C order")
    return file.tell(), shape, dtype


def read_rows(file: io.RawIOBase | io.BytesIO, first: int, last: int) -> tuple[np.ndarray, int]:
    """Rows [first, last) of an npy file, as far as it has them, and how many it has in all.

    Raises ShardError if it is no npy file of numbers.
    """
    try:
        start, shape, dtype = npy_layout(file.read(NPY_HEADER_BYTES))
        first, last = max(first, 0), min(last, shape[0])
        wanted = (max(last - first, 0), *shape[1:])
        row_bytes = dtype.itemsize * math.prod(shape[1:])
        file.seek(start + first * row_bytes)
        return np.frombuffer(file.read(wanted[0] * row_bytes), dtype).reshape(wanted), shape[0]
    except ShardError:
        raise
    except ValueError as error:
        raise ShardError(f"{getattr(file, 'name', 'npy')}: {error}") from error
