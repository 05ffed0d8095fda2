"""Files and folders that appear under their names complete, and on the disk, or not at all.

Plain POSIX: works on a local disk and on NFS. A killed writer leaves `.tmp-...` beside the target.
"""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

TEMPORARY_PREFIX = ".tmp-"


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """A binary file to write, renamed to `path` when the block ends and removed when it raises.

    What the block raises is raised, even if closing the file fails once more because the disk is full.
    """
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{path.name}-{secrets.token_hex(4)}")
    file = temporary.open("xb")
    try:
        yield file
        file.flush()
        os.fsync(file.fileno())
        file.close()
        temporary.replace(path)
        sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            file.close()
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """An empty folder to fill, renamed to `path` when the block ends and removed when it raises."""
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{path.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Write the entries of a folder to the disk, so that its renames survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed writers left in a folder. Only for the one process that writes there."""
    for path in folder.glob(f"{TEMPORARY_PREFIX}*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
