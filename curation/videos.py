"""Which files a run is about: folders, files and lists of files -> paths, sorted, each once.

Each may be a URL of an object store (s3://, gs://, az://, https://): `storage/store.py`.
"""

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pandas as pd

from storage.store import ObjectError, RemoteFile, StoreError, download, is_prefix, is_url, list_below, parse_url, stat

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".flv", ".wmv", ".asf",
     ".ogv", ".3gp", ".mxf", ".vob", ".dv", ".nut"}
)  # fmt: skip
LIST_SUFFIXES = (".txt", ".csv", ".parquet")
COLUMN = "path"
SEPARATORS = (",", ";", "\t")
SPELLED = re.compile(r"\\+(?=udc[89a-f][0-9a-f]|[\udc80-\udcff])")  # backslashes that `storable` must tell from its own


LOOK_UPS = 16  # requests at a time for the entries of a list

Video = Path | RemoteFile


class State(NamedTuple):
    """What changes when a file changes. An object has its version's number for a time, and no inode."""

    bytes: int
    mtime_ns: int
    inode: int | None


class VideoListError(ValueError):
    """Nothing to curate, or a list that cannot be read."""


def local_files(videos: Iterable[Video]) -> list[Path]:
    """Return those of the videos that are files, not objects of a store."""
    return [video for video in videos if isinstance(video, Path)]


def list_videos(given: Sequence[Video]) -> tuple[list[Video], dict[str, int]]:
    """The absolute paths of all videos, sorted, and how many files of which suffix were passed over in folders.

    A file that is named is always taken, whatever it is called; so is every entry of a list, whether it exists or not:
    it gets its row. Objects come after files. Raises VideoListError if something given does not exist, or if there is
    nothing at all.
    """
    found: set[Path] = set()
    objects: set[RemoteFile] = set()
    ignored: Counter[str] = Counter()
    for path in given:
        if isinstance(path, RemoteFile):
            objects |= list_objects(path, ignored)
        elif path.is_dir():
            for file in files_below(path):
                if file.suffix.lower() in VIDEO_SUFFIXES:
                    found.add(file.absolute())
                else:
                    ignored[file.suffix.lower()] += 1
        elif not path.exists():
            raise VideoListError(f"{path}: does not exist; --videos takes folders, video files and lists of them")
        elif path.suffix.lower() in LIST_SUFFIXES:
            listed = entries(path)
            found |= {(path.parent / entry).absolute() for entry in listed if not is_url(entry)}
            objects |= look_up(entry for entry in listed if is_url(entry))
        else:
            found.add(path.absolute())
    if not found and not objects:
        raise VideoListError(
            f"no video below {', '.join(map(str, given))}; known by name: {' '.join(sorted(VIDEO_SUFFIXES))}"
        )
    return [*sorted(found), *sorted(objects)], dict(ignored)


def list_objects(given: RemoteFile, ignored: Counter[str]) -> set[RemoteFile]:
    """Return the videos of a URL: all below a prefix, the entries of a list, or the object itself."""
    try:
        if is_prefix(given.url):
            return choose_videos(given.url, list_below(given.url), ignored)
        file = stat(given.url)
        if file.suffix.lower() not in LIST_SUFFIXES:
            return {file}
        with TemporaryDirectory() as folder:
            copy = Path(folder) / f"list{file.suffix}"
            download(file, copy)
            listed = entries(copy)
    except StoreError as error:
        raise VideoListError(str(error)) from error
    parent = given.url.rpartition("/")[0]
    return look_up(entry if is_url(entry) else f"{parent}/{entry}" for entry in listed)


def choose_videos(prefix: str, files: Iterable[RemoteFile], ignored: Counter[str]) -> set[RemoteFile]:
    """Return what is a video by its name, without what is hidden; count the rest, as in a folder."""
    found = set()
    for file in files:
        if any(part.startswith(".") for part in PurePosixPath(file.url.removeprefix(prefix)).parts):
            continue
        if file.suffix.lower() in VIDEO_SUFFIXES:
            found.add(file)
        else:
            ignored[file.suffix.lower()] += 1
    return found


def look_up(urls: Iterable[str]) -> set[RemoteFile]:
    """Return the objects of a list with their sizes; without, where one is not there or not ours to see."""

    def look(file: RemoteFile) -> RemoteFile:
        try:
            return stat(file.url)
        except ObjectError:
            return file

    try:
        files = [parse_url(url) for url in urls]
        with ThreadPoolExecutor(LOOK_UPS) as pool:
            return set(pool.map(look, files))
    except (StoreError, ValueError) as error:
        raise VideoListError(str(error)) from error


def find_again(stored: Iterable[str]) -> list[Video]:
    """Return the videos of these paths, as tables hold them, that are there. Raises VideoListError."""
    paths = sorted(stored)
    found = [*map(Path, (path for path in paths if not is_url(path))), *sorted(look_up(filter(is_url, paths)))]
    return [video for video in found if state_of(video)]


def state_of(video: Video) -> State | None:
    """Return size and time of a file as it is now, of an object as it was listed; None if it is not there."""
    if isinstance(video, RemoteFile):
        return None if video.size is None else State(video.size, video.version_number, None)
    try:
        status = video.stat()
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return None
    return State(status.st_size, status.st_mtime_ns, status.st_ino)


def refuse_as_output(output: Path, given: Sequence[Video]) -> None:
    """Raise VideoListError if the folder of the results is one of the folders of videos."""
    for path in given:
        if isinstance(path, Path) and path.is_dir() and path.resolve() == output.resolve():
            raise VideoListError(f"--output {output} is a folder of --videos; give the results a folder of their own")


def files_below(folder: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """All files below a folder; hidden ones and hidden folders are left out, and links that lead in a circle."""
    above |= {folder.resolve()}
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            if entry.resolve() not in above:
                yield from files_below(entry, above)
        elif entry.is_file():
            yield entry


def entries(path: Path) -> list[str]:
    """The paths in a list: lines of a text, or the column `path` of a table (its only column under any name).

    Raises VideoListError where a list can be read in two ways.
    """
    if path.suffix.lower() == ".parquet":
        table = pd.read_parquet(path)
        column = path_column(path, [str(name) for name in table.columns])
        found = [
            os.fsdecode(entry) if isinstance(entry, bytes) else str(entry) for entry in table.iloc[:, column].dropna()
        ]
    elif path.suffix.lower() == ".csv":
        found = csv_entries(path)
    else:
        found = [line.removesuffix("\r") for line in text_of(path).split("\n")]
    return [entry for entry in found if entry.strip()]


def text_of(path: Path) -> str:
    """A list as text; names of files are bytes, so what is not UTF-8 becomes what Python makes of it in a path."""
    content = path.read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise VideoListError(f"{path}: is UTF-16; save it as UTF-8")
    return content.decode("utf-8-sig", "surrogateescape")


def csv_entries(path: Path) -> list[str]:
    """The column `path` of a CSV with any of SEPARATORS, or its only column, with a heading or without."""
    text = text_of(path)
    heading = text.partition("\n")[0].strip()
    separator = next((each for each in SEPARATORS if COLUMN in heading.split(each)), ",")
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        rows = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise VideoListError(f"{path}: {error}") from error
    if not rows:
        return []
    names = rows[0][1]
    if len(names) == 1 and names != [COLUMN]:
        if any(each in names[0] for each in SEPARATORS):
            names = next(names[0].split(each) for each in SEPARATORS if each in names[0])
        elif is_entry(path, names[0]):
            rows.insert(0, (0, [COLUMN]))
        elif not all(is_entry(path, row[0]) for _, row in rows[1:]):
            raise VideoListError(
                f"{path}: line 1, {names[0]!r}, may be a heading or a video; begin with a line {COLUMN}"
            )
    column = path_column(path, names)
    for line, row in rows:
        if len(row) != len(names):
            raise VideoListError(
                f"{path}: line {line} has {len(row)} fields, the heading has {len(names)}: "
                f'quote names with {separator!r} in them, "like{separator}this.mp4"'
            )
    return [row[column] for _, row in rows[1:]]


def is_entry(path: Path, text: str) -> bool:
    """Whether a line of a list looks like the name of a file, not like a heading."""
    return "/" in text or Path(text).suffix.lower() in VIDEO_SUFFIXES or (path.parent / text).exists()


def path_column(path: Path, names: Sequence[str]) -> int:
    """The place of the column `path`, or of the only one. Raises VideoListError if it is not clear."""
    if names.count(COLUMN) > 1:
        raise VideoListError(f"{path}: more than one column {COLUMN!r}")
    if COLUMN not in names and len(names) != 1:
        raise VideoListError(f"{path}: needs a column {COLUMN!r}; it has {', '.join(names)}")
    return names.index(COLUMN) if COLUMN in names else 0


def storable(path: Video | str) -> str:
    """A path as text that a table can hold: bytes that are not UTF-8 are spelled out, as \\udcff.

    Different paths give different texts: backslashes before what looks like such a spelling are doubled.
    """
    text = SPELLED.sub(lambda found: 2 * found[0], str(path))
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
