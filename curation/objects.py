"""Objects of a store through curation: copied to this node, curated as local files, removed.

`identify` leaves its copy in the scratch, because the driver hands what was identified to the worker that became idle
last; `curate` takes that copy, or makes another, and removes it.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from curation import source
from curation.source import Curated, Identity, failed, unread
from curation.videos import storable
from media.probe import Limits
from storage.scratch import Copy, Scratch
from storage.store import RemoteFile, StoreError, stat


def identify(file: RemoteFile, limits: Limits, scratch: Scratch) -> Identity:
    """Return who an object is, from a copy on this node, which stays in the scratch if the object is a video."""
    scratch.clear()
    try:
        listed = stat(file.url)
        if not 0 < (listed.size or 0) <= limits.max_bytes:
            return refuse(listed, limits)
        copy = scratch.copy(file.url)
        now = stat(file.url)
    except (OSError, ValueError) as error:
        return unread(file, "error:io", describe(file, error))
    if (now.size, now.version) != (copy.file.size, copy.file.version):
        text = f"{file}: changed while it was copied; the same command curates it again"
        return unread(copy.file, "error:changed", text)
    found = source.identify(copy.path, limits, copy.sha256)
    if found.probe is None:
        scratch.clear()
    found = replace(found, detail=rename(found.detail, copy))
    return replace(found, path=copy.file, mtime_ns=copy.file.version_number, inode=None)


def refuse(file: RemoteFile, limits: Limits) -> Identity:
    """Return the identity of an object that is not copied, because it is empty or too large."""
    if not file.size:
        return unread(file, "error:probe", f"{file}: empty file")
    return unread(file, "error:limits", f"{file}: {file.size} bytes, the limit is {limits.max_bytes}")


def describe(file: RemoteFile, error: Exception) -> str:
    if isinstance(error, StoreError):
        return str(error)
    return f"{file}: cannot be copied ({getattr(error, 'strerror', None) or error})"


def curate(identity: Identity, run: Callable[[Identity], Curated], scratch: Scratch) -> Curated:
    """Curate an object as a local file, with `run`; its rows name the object. Nothing is left in the scratch."""
    assert isinstance(identity.path, RemoteFile)
    try:
        try:
            copy = scratch.copy(identity.path.url)
        except OSError as error:
            return failed(identity, "error:io", describe(identity.path, error))
        if copy.sha256 != identity.source_id:
            text = f"{identity.path}: changed since it was identified; the same command curates it again"
            return failed(identity, "error:changed", text)
        here = unread(copy.path, "", "")
        local = replace(identity, path=copy.path, bytes=here.bytes, mtime_ns=here.mtime_ns, inode=here.inode)
        return of_object(run(local), copy)
    finally:
        scratch.clear()


def of_object(curated: Curated, copy: Copy) -> Curated:
    """Return the rows of a copy as those of its object."""
    name = storable(copy.file)

    def renamed(row: dict[str, Any], column: str) -> dict[str, Any]:
        return {**row, column: name, "detail": rename(row.get("detail"), copy)}

    clips = [renamed(clip, "source") for clip in curated.clips]
    return replace(curated, source=renamed(curated.source, "path"), clips=clips)


def rename(text: Any, copy: Copy) -> Any:
    """Return a text with the object in place of its copy."""
    return text.replace(str(copy.path), copy.file.url) if isinstance(text, str) else text
