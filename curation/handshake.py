"""Whether a worker's node sees the storage that the driver sees: the output, by writing into it, and the videos.

The driver puts a token into OUT/.handshake. Every worker reads it, writes a file beside it that the driver must find,
and looks at some of the listed videos. A node whose mount is missing or empty would fail faster than others work, and
so get most of the sources.
"""

import os
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from curation.videos import Video, state_of
from storage.atomic_write import atomic_write
from storage.store import RemoteFile, StoreError, stat

FOLDER = ".handshake"  # of an output folder, while a run lasts
TOKEN = "token"  # noqa: S105  the name of a file
VIDEOS = 5


class HandshakeError(ValueError):
    """A node does not see what the driver sees; says what."""


@dataclass(frozen=True)
class Handshake:
    """What a worker must find: a token in a folder that it may write to, and files of these sizes."""

    folder: Path
    token: str
    videos: tuple[tuple[Video, int], ...]


def offer(output: Path, videos: Sequence[Video]) -> Handshake:
    """Write a new token into an output folder; a few of the videos that exist here go with it, spread over the list."""
    folder = output / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    token = secrets.token_hex(16)
    with atomic_write(folder / TOKEN) as file:
        file.write(token.encode())
    step = max(1, len(videos) // VIDEOS)
    states = [(path, state_of(path)) for path in videos[::step][:VIDEOS]]
    return Handshake(folder, token, tuple((path, state.bytes) for path, state in states if state))


def answer(handshake: Handshake, reply: str) -> None:
    """Look for what the driver sees, and leave a file of this name for it. Raises HandshakeError."""
    place = handshake.folder / TOKEN
    try:
        found = place.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise HandshakeError(f"does not see the output folder: {place}: {error.strerror}") from error
    if found != handshake.token:
        raise HandshakeError(f"sees another output folder: {place} holds another token")
    path = handshake.folder / reply
    try:
        with path.open("x", encoding="ascii") as file:
            file.write(handshake.token)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise HandshakeError(f"cannot write into the output folder: {path}: {error.strerror}") from error
    for video, size in handshake.videos:
        check_video(video, size)


def check_video(path: Video, size: int) -> None:
    """Raise HandshakeError unless a file, or an object of a store, is there, readable and of this size."""
    try:
        found = stat(path.url).size if isinstance(path, RemoteFile) else readable_bytes(path)
    except StoreError as error:
        raise HandshakeError(f"does not see the videos: {error}") from error
    except OSError as error:
        raise HandshakeError(f"does not see the videos: {path}: {error.strerror}") from error
    if found != size:
        raise HandshakeError(f"sees other videos: {path} has {found} bytes there, {size} here")


def readable_bytes(path: Path) -> int:
    """Return the size of a file that can be opened. Raises OSError."""
    with path.open("rb") as file:
        return os.fstat(file.fileno()).st_size


def check_reply(handshake: Handshake, reply: str) -> None:
    """Raise HandshakeError unless the file that a worker left has arrived here; then remove it."""
    path = handshake.folder / reply
    try:
        found = path.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise HandshakeError(f"writes into another folder: {path} is not seen by the driver") from error
    if found != handshake.token:
        raise HandshakeError(f"writes into another folder: {path} holds another token")
    path.unlink(missing_ok=True)


def end(output: Path) -> None:
    """Remove the folder."""
    shutil.rmtree(output / FOLDER, ignore_errors=True)
