"""`<output>/dataset/labels.parquet`: what a data set's list says of each segment whose file was there, a row each.

Fixed columns are below; every other one is a label of the list (`identity`, `language`, ...) as text.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from storage.table import TableFormat, read_table, write_table

FOLDER = "dataset"  # of an output folder
LABELS = TableFormat("dataset.labels", 1)
MEANINGS = {
    "source": "path of the video; column path of sources.parquet",
    "start_frame": "first frame of the segment, 25 fps grid; missing: all of the file",
    "end_frame": "frame after the last; missing: the end of the file",
    "x0": "where the list says that the person is, pixels of the source; missing: anywhere",
    "y0": "the same",
    "x1": "the same",
    "y1": "the same",
    "entry": "name of the entry in the list",
    "dataset": "name of the data set",
    "licence": "what may be done with it",
}
FRAMES, CORNERS = ("start_frame", "end_frame"), ("x0", "y0", "x1", "y1")


def labels_path(output: Path) -> Path:
    return output / FOLDER / "labels.parquet"


def write_labels(output: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add the labels of some sources to those of an output; rows of the same source are replaced."""
    added = pd.DataFrame(list(rows)).reindex(columns=[*MEANINGS, *label_names(rows)])
    before = read_labels(output)
    kept = before.loc[~before["source"].isin(added["source"])]
    table = pd.concat([kept, added], ignore_index=True) if len(kept) else added
    names = [*MEANINGS, *sorted(set(table) - set(MEANINGS))]
    types = dict.fromkeys(FRAMES, "Int64") | dict.fromkeys(CORNERS, "float64")
    table: Any = table.astype({name: types.get(str(name), "str") for name in names})[names]
    table = table.sort_values(["source", "start_frame", "entry"], ignore_index=True, na_position="first")
    labels_path(output).parent.mkdir(parents=True, exist_ok=True)
    write_table(labels_path(output), table, LABELS, {n: MEANINGS.get(n, f"label {n} of the list") for n in names})


def label_names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return sorted({name for row in rows for name in row} - set(MEANINGS))


def read_labels(output: Path) -> pd.DataFrame:
    """The labels of an output; a table without rows if it has none. Raises TableError."""
    path = labels_path(output)
    return read_table(path, LABELS) if path.exists() else pd.DataFrame(columns=list(MEANINGS))


def add_labels(clips: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """Return the clips with the labels of the entry that the middle of each lies in, missing where there is none.

    A label that is called as a column of the clips is left out.
    """
    names = [name for name in labels if name not in ("source", *FRAMES, *CORNERS) and name not in clips]
    starts = labels["start_frame"].astype("Float64").to_numpy(float, na_value=0.0)
    ends = labels["end_frame"].astype("Float64").to_numpy(float, na_value=float("inf"))
    rows_of = {source: list(rows) for source, rows in labels.groupby("source").indices.items()}
    middles = ((clips["start_frame"] + clips["end_frame"]) / 2).to_numpy(float)
    chosen = [
        next((row for row in rows_of.get(source, []) if starts[row] <= middle < ends[row]), None)
        for source, middle in zip(clips["source"], middles, strict=True)
    ]
    values = {name: [None if row is None else labels[name].iat[row] for row in chosen] for name in names}
    return clips.assign(**{name: pd.Series(column, clips.index, dtype="str") for name, column in values.items()})
