"""Objects in stores (S3, Google, Azure, HTTPS) by their URL, through fsspec: listed, read in pieces, written, retried.

Every request has a deadline, and one that fails is made again after each of `WAITS_S`, unless the store says that the
object is not there or not ours to see. The drivers find credentials as they always do (environment, their own files,
the machine's role); none is asked for, kept or shown here, and a URL that holds one is refused.
"""

import errno
import hashlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import fsspec
from fsspec.asyn import sync
from fsspec.exceptions import FSTimeoutError

DRIVERS = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs", "https": "aiohttp", "http": "aiohttp"}
OPTIONS = {"s3": {"config_kwargs": {"retries": {"max_attempts": 0}}}}  # botocore's own, which wait up to 20 s each
WAITS_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # a minute in all: a server that is restarted is back by then
DEADLINE_S = 30.0  # for a request, and
BYTES_PER_S = 1e6  # so many of the bytes that it moves a second
LIST_DEADLINE_S = 1800.0  # a million names arrive a thousand at a time
PIECE_BYTES = 8 * 2**20  # of one read: what is lost when one fails
LASTING_STATES = frozenset({400, 401, 403, 404, 405, 410, 416})  # of HTTP: asking again changes nothing
LASTING_ERRORS = frozenset(  # of drivers, by name: they may not be installed
    {
        "NoCredentialsError",
        "PartialCredentialsError",
        "ParamValidationError",
        "ClientAuthenticationError",
        "DefaultCredentialsError",
    }
)
VERSIONS = ("ETag", "etag", "Last-Modified", "LastModified", "last_modified", "updated", "mtime")  # the first counts
SIGNED = re.compile(r"[?&](x-amz-signature|x-goog-signature|signature|sig|token|access_token)=", re.IGNORECASE)
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


class StoreError(OSError):
    """A store does not answer, or not as it should, after all attempts; it may later."""


class ObjectError(StoreError):
    """An object, a prefix or a bucket is not there, or not ours to read or write."""


@dataclass(frozen=True, order=True)
class RemoteFile:
    """An object in a store: equal by its URL; its size and version are those of its listing, if it was listed."""

    url: str
    size: int | None = field(default=None, compare=False)
    version: str = field(default="", compare=False)  # its etag, else its time of modification, else empty

    @property
    def name(self) -> str:
        return PurePosixPath(self._path).name

    @property
    def suffix(self) -> str:
        return PurePosixPath(self._path).suffix

    @property
    def version_number(self) -> int:
        """A number that changes with the version, for where the time of a local file is kept: 56 bits."""
        return int.from_bytes(hashlib.sha256(self.version.encode()).digest()[:7], "big")

    @property
    def _path(self) -> str:
        return urlsplit(self.url).path if self.url.startswith("http") else self.url.partition("://")[2]

    def __str__(self) -> str:
        return self.url


def is_url(text: str) -> bool:
    return URL.match(text) is not None


def parse_url(text: str) -> RemoteFile:
    """Return the object, or the prefix, of this URL. Raises ValueError for one that cannot be used here."""
    scheme = text.partition("://")[0]
    if scheme not in DRIVERS:
        raise ValueError(f"{text}: no store that is known; there are {', '.join(f'{name}://' for name in DRIVERS)}")
    if SIGNED.search(text) or (scheme.startswith("http") and "@" in urlsplit(text).netloc):
        shown = text.partition("?")[0].rpartition("@")[2]
        raise ValueError(
            f"...{shown}: the URL holds a signature or a password, which would be kept in tables and logs; give the "
            "store's own address (s3://bucket/key) and the credentials in the environment"
        )
    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        driver = DRIVERS[scheme]
        raise ValueError(
            f"{text}: {scheme}:// needs {driver}, which is not installed: pip install {driver}, or the extra `cloud`"
        ) from error
    return RemoteFile(text.rstrip("/") if not scheme.startswith("http") else text)


def parse_place(text: str) -> Path | RemoteFile:
    """Return the path, or the object or prefix of this URL. Raises ValueError for a URL that cannot be used."""
    return parse_url(text) if is_url(text) else Path(text)


def stat(url: str) -> RemoteFile:
    """Return an object with its size and version. Raises StoreError."""
    info = request(url, "info")
    if info.get("type") == "directory":
        raise ObjectError(f"{url}: a prefix, not an object")
    if info.get("size") is None:
        raise ObjectError(f"{url}: the server does not say how large it is")
    return described(url, info)


def described(url: str, info: dict[str, Any]) -> RemoteFile:
    version = next((str(info[name]).strip('"') for name in VERSIONS if info.get(name)), "")
    return RemoteFile(url, int(info["size"]), version)


def is_prefix(url: str) -> bool:
    """Whether a URL names no object but what lies below it. Raises StoreError if there is neither."""
    return request(url, "info").get("type") == "directory"


def list_below(url: str) -> list[RemoteFile]:
    """Return all objects below a prefix, by URL. Raises StoreError."""
    scheme = url.partition("://")[0]
    found = request(url, "find", detail=True, deadline_s=LIST_DEADLINE_S)
    return sorted(
        described(f"{scheme}://{name.partition('://')[2] or name}", info)
        for name, info in found.items()
        if info.get("type") == "file" and not name.endswith("/")
    )


def read_range(url: str, start: int, end: int) -> bytes:
    """Return bytes [start, end) of an object, in one request. Raises StoreError."""
    if start == end:
        return b""
    data = request(url, "cat_file", start=start, end=end, deadline_s=DEADLINE_S + (end - start) / BYTES_PER_S)
    if len(data) != end - start:
        raise StoreError(f"{url}: {end - start} bytes asked for at byte {start}, {len(data)} came")
    return data


def read_pieces(file: RemoteFile) -> Iterator[bytes]:
    """Yield the bytes of an object whose size is known, in pieces that are asked for one by one."""
    assert file.size is not None
    for start in range(0, file.size, PIECE_BYTES):
        yield read_range(file.url, start, min(start + PIECE_BYTES, file.size))


def download(file: RemoteFile, path: Path) -> str:
    """Copy an object whose size is known into a new file; return the sha256 of its bytes. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("xb") as target:
        for piece in read_pieces(file):
            digest.update(piece)
            target.write(piece)
    return digest.hexdigest()


def sha256_of(file: RemoteFile) -> str:
    """Return the sha256 of an object, read back from the store. Raises StoreError."""
    digest = hashlib.sha256()
    for piece in read_pieces(file):
        digest.update(piece)
    return digest.hexdigest()


def upload(path: Path, url: str) -> None:
    """Copy a file to an object, in place of what is there. Raises StoreError, or OSError if the file cannot be read."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
    request(url, "put_file", before=(str(path),), deadline_s=DEADLINE_S + size / BYTES_PER_S)


def write(url: str, data: bytes) -> None:
    """Write an object, in place of what is there. Raises StoreError."""
    request(url, "pipe_file", data)


def request(
    url: str, method: str, *after: Any, before: tuple[Any, ...] = (), deadline_s: float = DEADLINE_S, **named: Any
) -> Any:
    """Call a method of the driver with the object's path, again after each of WAITS_S. Raises StoreError."""
    for wait_s in (*WAITS_S, None):
        try:
            scheme = url.partition("://")[0]
            files = fsspec.filesystem(scheme, use_listings_cache=False, **OPTIONS.get(scheme, {}))  # one a process
            arguments = (*before, files._strip_protocol(url), *after)
            if files.async_impl:
                return sync(files.loop, getattr(files, f"_{method}"), *arguments, timeout=deadline_s, **named)
            return getattr(files, method)(*arguments, **named)
        except Exception as error:  # drivers have no class of errors in common
            said = error.__cause__ if url.startswith("http") and error.__cause__ else error  # fsspec's HTTP hides it
            if is_lasting(said):
                raise ObjectError(f"{url}: {explain(said, deadline_s)}") from error
            if wait_s is None:
                raise StoreError(f"{url}: {explain(said, deadline_s)}, {len(WAITS_S) + 1} times") from error
        time.sleep(wait_s)
    raise AssertionError("the last attempt returns or raises")


def is_lasting(error: BaseException) -> bool:
    """Whether asking again would fail again."""
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError | UnicodeError | ImportError):
        return True
    named = {kind.__name__ for kind in type(error).__mro__} & LASTING_ERRORS
    states = (vars(error).get(name) for name in ("status", "status_code", "code"))
    return (
        bool(named) or any(state in LASTING_STATES for state in states) or getattr(error, "errno", None) == errno.EINVAL
    )


def explain(error: BaseException, deadline_s: float) -> str:
    """Return what went wrong in a few words, without what was sent."""
    if isinstance(error, FSTimeoutError):
        return f"no answer in {deadline_s:.0f} s"
    if isinstance(error, FileNotFoundError):
        return "not there"
    if isinstance(error, PermissionError):
        return f"forbidden ({first_line(error)}); are there credentials in the environment, on every node?"
    return first_line(error)


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
