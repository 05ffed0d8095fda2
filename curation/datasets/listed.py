"""What every list of a data set becomes: entries, each a part of one video with what is known of it."""

import csv
import importlib
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
COMMON = ("__init__", "listed", "match")


class ListError(ValueError):
    """A list that is not as its data set publishes it; the text says file, line and column."""


@dataclass(frozen=True)
class Crop:
    """Where the person is: x0, y0, x1, y1 in pixels of a picture `of_height` high (0: as it is), else in shares."""

    x0: float
    y0: float
    x1: float
    y1: float
    of_height: float | None = None

    def in_pixels(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Return the corners in pixels of a picture of this size."""
        scale = height / self.of_height if self.of_height else 1.0
        x, y = (width, height) if self.of_height is None else (scale, scale)
        return self.x0 * x, self.y0 * y, self.x1 * x, self.y1 * y


@dataclass(frozen=True)
class Entry:
    """One entry of a list. Names of files are without suffix, with as many folders before them as tell them apart.

    A file with one of `cut_names` is the entry itself, already cut; in one with one of `video_names` it lasts from
    `start_s` to `end_s`, None: to the end of the file.
    """

    name: str
    cut_names: tuple[str, ...] = ()
    video_names: tuple[str, ...] = ()
    start_s: float = 0.0
    end_s: float | None = None
    crop: Crop | None = None
    fps: float | None = None
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Dataset:
    """A data set: how its list is read, what may be done with it as its owners say, and what its users should know."""

    read: Callable[[Path], list[Entry]]
    licence: str
    note: str = ""
    name_of_stem: Callable[[str], str] = str  # the name in the list of a file that a downloader called otherwise


def dataset_names() -> list[str]:
    """`hdtf`, `vfhq` and so on: every data set that there is."""
    return sorted(file.stem for file in FOLDER.glob("*.py") if file.stem not in COMMON)


def dataset_of(name: str) -> Dataset:
    """Return the data set of that name, one of `dataset_names`."""
    return importlib.import_module(f"curation.datasets.{name}").DATASET


def wrong(path: Path, line: int, column: int, text: str) -> ListError:
    return ListError(f"{path}:{line}:{column}: {text}")


def read_text(path: Path) -> str:
    """Raises ListError for what is no UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        column = error.start - error.object.rfind(b"\n", 0, error.start)
        raise wrong(path, line, column, "is not UTF-8") from error
    except OSError as error:
        raise ListError(f"{path}: cannot be read ({error.strerror})") from error


def find_lists(path: Path, pattern: str) -> list[Path]:
    """The files of a list: itself, or those below a folder that match. Raises ListError if there is none."""
    found = [path] if path.is_file() else sorted(path.rglob(pattern))
    if not found:
        raise ListError(f"{path}: no {pattern} below it; --list names the folder or file of the published list")
    return found


@dataclass(frozen=True)
class Word:
    """A word or field of a list and where it stands."""

    text: str
    path: Path
    line: int
    column: int

    def wrong(self, expected: str) -> ListError:
        return wrong(self.path, self.line, self.column, f"found {self.text!r}, expected {expected}")

    def number(self) -> float:
        try:
            value = float(self.text)
        except ValueError as error:
            raise self.wrong("a number") from error
        if not 0 <= value < float("inf"):
            raise self.wrong("a number, 0 or more")
        return value


def read_words(path: Path, minimum: int = 1) -> Iterator[list[Word]]:
    """Yield the words of each line that has any. Raises ListError for a line with fewer than `minimum`."""
    for line, text in enumerate(read_text(path).splitlines(), 1):
        words = [Word(found[0], path, line, found.start() + 1) for found in re.finditer(r"\S+", text)]
        if words and len(words) < minimum:
            raise wrong(path, line, len(text.rstrip()) + 1, f"the line ends after {len(words)} of {minimum} words")
        if words:
            yield words


def read_csv(path: Path) -> Iterator[list[Word]]:
    """Yield the fields of each row that has any; a field's column is its place in the row. Raises ListError."""
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        for row in reader:
            if row:
                yield [Word(text.strip(), path, reader.line_num, i) for i, text in enumerate(row, 1)]
    except csv.Error as error:
        raise wrong(path, reader.line_num, 1, str(error)) from error


class Fields:
    """A mapping of a JSON list that says where a field is missing or wrong, by the place of its name in the text."""

    def __init__(self, path: Path, text: str, name: str, value: Any, start: int = 0) -> None:
        self.path, self.text, self.name, self.value = path, text, name, value
        found = text.find(json.dumps(name, ensure_ascii=False), start)
        self.start = max(found, start)
        if not isinstance(value, dict):
            raise self.wrong(f"{name!r} is {value!r}, expected an object")

    def wrong(self, text: str) -> ListError:
        line = self.text.count("\n", 0, self.start) + 1
        return wrong(self.path, line, self.start - self.text.rfind("\n", 0, self.start), text)

    def fields(self, name: str) -> "Fields":
        self.need(name)
        return Fields(self.path, self.text, name, self.value[name], self.start)

    def words(self, name: str) -> str:
        self.need(name)
        return str(self.value[name])

    def number(self, name: str) -> float:
        self.need(name)
        value = self.value[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
            raise self.wrong(f"{name!r} of {self.name!r} is {value!r}, expected a number, 0 or more")
        return float(value)

    def need(self, name: str) -> None:
        if name not in self.value:
            raise self.wrong(f"{self.name!r} has no {name!r}")


def read_json(path: Path) -> tuple[str, Any]:
    """The text of a JSON file and what it says. Raises ListError."""
    text = read_text(path)
    try:
        return text, json.loads(text)
    except json.JSONDecodeError as error:
        raise wrong(path, error.lineno, error.colno, error.msg) from error


def read_objects(path: Path) -> Iterator[Fields]:
    """The named objects of a JSON file, {name: {...}}. Raises ListError."""
    text, objects = read_json(path)
    if not isinstance(objects, dict):
        raise wrong(path, 1, 1, "expected an object of clips by name")
    for name, value in objects.items():
        yield Fields(path, text, name, value)


def shares(box: Fields) -> Crop:
    """The crop of a `bbox` as CelebV-HQ and MultiTalk have it: top, bottom, left, right in shares."""
    return Crop(box.number("left"), box.number("top"), box.number("right"), box.number("bottom"))


def check_times(start_s: float, end_s: float, error: ListError) -> tuple[float, float]:
    """Return both, or raise the error if the end does not come after the start."""
    if end_s <= start_s:
        raise error
    return start_s, end_s
