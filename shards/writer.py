"""Samples -> a tar whose bytes depend on the samples alone, as webdataset's own writer would write them.

Members sorted, times, owners and names zero or empty, no PAX headers. With the standard library: webdataset imports
torch, a second and 530 MB of each worker.
"""

import io
import tarfile
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from shards.sample import KEY_PATTERN, MEMBER_PATTERN, Sample
from storage.atomic_write import atomic_write

BLOCK = 512
MAX_MEMBER_BYTES = 8 * 2**30 - 1  # more needs a PAX header


class ShardWriter:
    """A tar under construction: `.bytes` so far; it appears at `path` when the `with` block ends without error.

    Any member name is written, so that parts may carry more than the members of a sample.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        file = self._stack.enter_context(atomic_write(self.path))
        self._tar = tarfile.open(fileobj=file, mode="w|")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if error is None:
            try:
                self._tar.close()
            except BaseException as failed:
                self._abandon(failed)
                raise
            self._stack.close()
        else:
            self._abandon(error)

    @property
    def bytes(self) -> int:
        """Where the next sample will begin."""
        return self._tar.offset

    def write(self, sample: Sample) -> dict[str, tuple[int, int]]:
        """Append one sample; gives where the bytes of each member lie: name -> (offset, size)."""
        _check_names(sample)
        places = {}
        for name, data in sorted(sample.members.items()):
            header = tarfile.TarInfo(f"{sample.key}.{name}")  # of the year 1970, and nobody's
            header.size = len(data)
            places[name] = (self.bytes + BLOCK, header.size)
            self._tar.addfile(header, io.BytesIO(data))
            assert self.bytes == places[name][0] - BLOCK + tar_bytes(header.size), "headers that were not expected"
        return places

    def _abandon(self, error: BaseException) -> None:
        # tarfile's stream would otherwise write its buffer to a closed file when collected
        with suppress(OSError, ValueError):
            self._tar.fileobj.close()  # pyright: ignore[reportOptionalMemberAccess]
        with suppress(type(error)):
            self._stack.__exit__(type(error), error, error.__traceback__)


def write_tar(path: Path, samples: Iterable[Sample]) -> None:
    """Write samples, in the order given, to a tar that appears whole or not at all."""
    with ShardWriter(path) as writer:
        for sample in samples:
            writer.write(sample)


def tar_bytes(size: int) -> int:
    """What a member of `size` bytes takes in a tar: header, content, padding."""
    return BLOCK + -(-size // BLOCK) * BLOCK


def _check_names(sample: Sample) -> None:
    if not KEY_PATTERN.fullmatch(sample.key):
        raise ValueError(f"key {sample.key!r} is not 1 to 64 of A-Z a-z 0-9 _ -")
    if not sample.members:
        raise ValueError(f"{sample.key}: no members")
    for name, data in sample.members.items():
        if not MEMBER_PATTERN.fullmatch(name):
            raise ValueError(f"{sample.key}: member {name!r} is not 1 to 32 of a-z 0-9 . _ -")
        if len(data) > MAX_MEMBER_BYTES:
            raise ValueError(f"{sample.key}.{name}: {len(data)} bytes; a member can have {MAX_MEMBER_BYTES}")
