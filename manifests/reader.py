"""The manifests of an output folder as DataFrames. Raises ManifestError where they cannot be had.

Tables of earlier versions are read with today's names of stages and columns (`renamed.py`).
"""

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

import renamed
from manifests.schema import CLIPS_FORMAT, FOLDER, SOURCES_FORMAT, TIMINGS_FORMAT
from storage.table import TableError, TableFormat, read_notes, read_table


class ManifestError(ValueError):
    """The folder is not an output of a curation run, or one by another version."""


@dataclass(frozen=True)
class Notes:
    """What a run stores about its tables: reason -> meaning, score -> meaning, the stages in order."""

    reasons: dict[str, str]
    scores: dict[str, str]
    stages: list[str]


def read_clips(output: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """clips.parquet, or some columns of it: one row per clip, kept or dropped, sorted by source and start."""
    return _read(output, "clips", CLIPS_FORMAT, columns)


def read_sources(output: Path) -> pd.DataFrame:
    """sources.parquet, one row per source, with the columns of timings.parquet beside them."""
    sources = _read(output, "sources", SOURCES_FORMAT)
    return sources.merge(_read(output, "timings", TIMINGS_FORMAT), on="path", how="left", validate="1:1")


def read_run_notes(output: Path) -> Notes:
    """The reasons, scores and stages of the run that wrote the manifests."""
    try:
        notes = read_notes(_path(output, "clips"), CLIPS_FORMAT)
    except TableError as error:
        raise ManifestError(str(error)) from error
    reasons, scores, stages = (json.loads(notes[name]) for name in ("reasons", "scores", "stages"))
    return Notes(reasons, renamed.with_todays_names(scores), [renamed.stage_today(stage) for stage in stages])


def _read(output: Path, name: str, table_format: TableFormat, columns: list[str] | None = None) -> pd.DataFrame:
    try:
        table = read_table(_path(output, name), table_format, columns)
    except TableError as error:
        raise ManifestError(str(error)) from error
    table = table.rename(columns=renamed.COLUMNS)
    if "stage" in table.columns:
        table["stage"] = table["stage"].astype("category").cat.rename_categories(renamed.stage_today)
    return table


def _path(output: Path, name: str) -> Path:
    path = output / FOLDER / f"{name}.parquet"
    if not path.is_file():
        raise ManifestError(f"{output}: no {FOLDER}/{name}.parquet; not an output folder, or its run has not ended yet")
    return path
