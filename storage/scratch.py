"""Copies of objects on this node: one at a time for each process, hashed while they are copied.

`Scratch` is a folder of this process, which holds a lock in it as long as it lives. What a process that was killed has
left is removed by the next one that makes such a folder.
"""

import fcntl
import hashlib
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TextIO

from storage.store import RemoteFile, download, stat

SPARE_BYTES = 200_000_000  # that a copy leaves free on the disk, for whoever else writes there
MAX_NAME_BYTES = 200  # of 255 that a file system takes; keys may have 1024
LOCK = "lock"


class Copy(NamedTuple):
    """An object on this node: what was read of the store, its sha256, the file."""

    file: RemoteFile
    sha256: str
    path: Path


def default_folder() -> Path:
    """Return the folder below which the copies of this user lie: in $TMPDIR, or /tmp."""
    return Path(tempfile.gettempdir()) / f"sayanything-scratch-{os.getuid()}"


class Scratch:
    """The folder of this process below `root`, made when it is first used."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder: Path | None = None
        self.held: Copy | None = None
        self._lock: TextIO | None = None

    def copy(self, url: str) -> Copy:
        """Return a copy of an object as it is now: the one that is there, or a new one in its place.

        Raises StoreError, or OSError if there is no room for it.
        """
        file = stat(url)
        assert file.size is not None
        if self.held and self.held.file == file and self.held.file.version == file.version:
            return self.held
        self.clear()
        folder = self._open()
        free = shutil.disk_usage(folder).free
        if file.size + SPARE_BYTES > free:
            raise OSError(
                f"scratch {self.root} has {free / 1e9:.1f} GB free, a copy of {url} takes {file.size / 1e9:.1f}; "
                "give --scratch a folder on a larger disk, or fewer --workers"
            )
        path = folder / file_name(file)
        try:
            sha256 = download(file, path)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        self.held = Copy(file, sha256, path)
        return self.held

    def clear(self) -> None:
        """Remove the copy."""
        if self.held:
            self.held.path.unlink(missing_ok=True)
        self.held = None

    def close(self) -> None:
        """Remove the folder."""
        self.held = None
        if self.folder and self._lock:
            shutil.rmtree(self.folder, ignore_errors=True)
            self._lock.close()
        self.folder = self._lock = None

    def _open(self) -> Path:
        if self.folder is None:
            self.root.mkdir(parents=True, exist_ok=True)
            with (self.root / f".{LOCK}").open("w") as one_at_a_time:
                fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
                remove_abandoned(self.root)
                self.folder = Path(tempfile.mkdtemp(dir=self.root))
                self._lock = (self.folder / LOCK).open("w")
                fcntl.flock(self._lock, fcntl.LOCK_EX)
        return self.folder


def remove_abandoned(root: Path) -> None:
    """Remove the folders whose process does not live any more: nobody holds their lock."""
    for folder in root.iterdir():
        if folder.is_dir() and not is_held(folder / LOCK):
            shutil.rmtree(folder, ignore_errors=True)


def is_held(lock: Path) -> bool:
    with suppress(FileNotFoundError), lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def file_name(file: RemoteFile) -> str:
    """Return the name of an object's copy: its own, by which samples call their source, where a file can have it."""
    name = file.name
    if name in ("", ".", "..", LOCK) or "\0" in name or len(os.fsencode(name)) > MAX_NAME_BYTES:
        return hashlib.sha256(os.fsencode(file.url)).hexdigest()[:32] + file.suffix[:8].replace("\0", "")
    return name
