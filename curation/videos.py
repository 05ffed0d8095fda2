"""Which files a run is about: folders, files and lists of files -> paths, sorted, each once."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".flv", ".wmv", ".asf",
     ".ogv", ".3gp", ".mxf", ".vob", ".dv", ".nut"}
)  # fmt: skip
LIST_SUFFIXES = (".txt", ".csv", ".parquet")
COLUMN = "path"


class VideoListError(ValueError):
    """Nothing to curate, or a list that cannot be read."""


def list_videos(given: Sequence[Path]) -> tuple[list[Path], dict[str, int]]:
    """The absolute paths of all videos, sorted, and how many files of which suffix were passed over in folders.

    A file that is named is always taken, whatever it is called; so is every entry of a list, whether it exists or not:
    it gets its row. Raises VideoListError if something given does not exist, or if there is nothing at all.
    """
    found: set[Path] = set()
    ignored: Counter[str] = Counter()
    for path in given:
        if path.is_dir():
            for file in files_below(path):
                if file.suffix.lower() in VIDEO_SUFFIXES:
                    found.add(file.absolute())
                else:
                    ignored[file.suffix.lower()] += 1
        elif not path.exists():
            raise VideoListError(f"{path}: does not exist; --videos takes folders, video files and lists of them")
        elif path.suffix.lower() in LIST_SUFFIXES:
            found |= {(path.parent / entry).absolute() for entry in entries(path)}
        else:
            found.add(path.absolute())
    if not found:
        raise VideoListError(
            f"no video below {', '.join(map(str, given))}; known by name: {' '.join(sorted(VIDEO_SUFFIXES))}"
        )
    return sorted(found), dict(ignored)


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
    """The paths in a list: lines of a text, or the column `path` of a table (its only column under any name)."""
    if path.suffix.lower() == ".txt":
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")  # names of files are bytes, not text
        return [line for line in text.splitlines() if line.strip()]
    is_csv = path.suffix.lower() == ".csv"
    table = pd.read_csv(path, dtype=str, na_filter=False) if is_csv else pd.read_parquet(path)
    column = COLUMN if COLUMN in table else table.columns[0] if len(table.columns) == 1 else None
    if column is None:
        raise VideoListError(f"{path}: needs a column {COLUMN!r}; it has {', '.join(map(str, table.columns))}")
    return [str(entry) for entry in table[column].dropna() if str(entry).strip()]
