"""A folder with a table: one CSV with a column `path`, below the folder of the videos, and whatever else is known.

`start_s` and `end_s` make a segment, `x0`, `y0`, `x1`, `y1` (pixels) a crop, `fps` is what the table promises; every
other column is a label (`identity`, `language`, `split`, ...). An empty field says nothing.
"""

from pathlib import Path, PurePath

from curation.datasets.listed import Crop, Dataset, Entry, ListError, Word, check_times, read_csv, wrong

TIMES, CORNERS = ("start_s", "end_s"), ("x0", "y0", "x1", "y1")


def read(path: Path) -> list[Entry]:
    """The entries of a CSV, or of the only one in a folder. Raises ListError."""
    files = [path] if path.is_file() else sorted(path.glob("*.csv"))
    if len(files) != 1:
        raise ListError(f"{path}: {len(files)} tables (.csv) in it; --list names the one that is meant")
    rows = read_csv(files[0])
    heading = [word.text for word in next(rows, [])]
    if "path" not in heading:
        raise wrong(files[0], 1, 1, f"no column path; there is {', '.join(heading) or 'nothing'}")
    return [entry_of(row, heading) for row in rows]


def entry_of(row: list[Word], heading: list[str]) -> Entry:
    if len(row) != len(heading):
        raise row[-1].wrong(f"{len(heading)} fields in the row as in the heading, not {len(row)}")
    given = {name: word for name, word in zip(heading, row, strict=True) if word.text}
    if "path" not in given:
        raise row[heading.index("path")].wrong("the path of a video")
    name = given["path"].text
    stem = str(PurePath(name).with_suffix(""))
    corners = [given[key].number() for key in CORNERS if key in given]
    crop = Crop(*corners, of_height=0.0) if len(corners) == 4 else None
    fps = given["fps"].number() if "fps" in given else None
    known = {"path", "fps", *TIMES, *CORNERS}
    labels = {key: word.text for key, word in given.items() if key not in known}
    if not any(key in given for key in TIMES):
        return Entry(name, (stem,), crop=crop, fps=fps, labels=labels)
    start_s = given["start_s"].number() if "start_s" in given else 0.0
    end_s = given["end_s"].number() if "end_s" in given else None
    if end_s is not None:
        check_times(start_s, end_s, given["end_s"].wrong("an end after the start"))
    return Entry(f"{name}#{start_s:g}", (), (stem,), start_s, end_s, crop, fps, labels)


DATASET = Dataset(read, "as the table says")
