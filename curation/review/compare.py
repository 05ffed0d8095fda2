"""Two runs over the same videos, second by second: what one keeps and the other does not."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clock import FPS
from curation.limits import read_recipe
from manifests.reader import ManifestError, read_clips, read_sources
from manifests.schema import KEPT

LISTED = 200  # spans
COLUMNS = ["source", "start_frame", "end_frame", "before", "after"]

Rows = list[dict[str, Any]]
Table = Any  # a DataFrame


def compare_runs(output: Path, against: Path) -> dict[str, Any]:
    """Return what the page says of `output` beside `against`. Sources are matched by path. Raises ManifestError."""
    spans = changed_spans(read_clips(against), read_clips(output))
    sources = {folder: set(read_sources(folder)["path"]) for folder in (output, against)}
    if not sources[output] & sources[against]:
        raise ManifestError(f"{output} and {against}: no video of one is in the other; sources are matched by path")
    spans["seconds"] = (spans["end_frame"] - spans["start_frame"]) / FPS
    return {
        "against": str(against.absolute()),
        "both": spans["seconds"][(spans["before"] == KEPT) & (spans["after"] == KEPT)].sum(),
        "gained": summarize(spans[(spans["before"] != KEPT) & (spans["after"] == KEPT)], "before"),
        "lost": summarize(spans[(spans["before"] == KEPT) & (spans["after"] != KEPT)], "after"),
        "only_here": len(sources[output] - sources[against]),
        "only_there": len(sources[against] - sources[output]),
        "settings": list(changed_settings(read_recipe(against), read_recipe(output))),
    }


def changed_spans(before: Table, after: Table) -> Table:
    """Return the stretches of the sources that are in both tables, with the reason of each: columns as in COLUMNS."""
    grouped = dict(iter(before.groupby("source", sort=False)))
    found = []
    for path, rows in after.groupby("source", sort=False):
        if path in grouped:
            found += [(path, *span) for span in overlay(grouped[path], rows)]
    return pd.DataFrame(found, columns=COLUMNS)  # pyright: ignore[reportArgumentType]


def overlay(before: Table, after: Table) -> Iterator[tuple[int, int, str, str]]:
    """Yield (start_frame, end_frame, reason before, reason after) where both partitions of a source have a row."""
    edges = np.unique(
        np.concatenate([table[["start_frame", "end_frame"]].to_numpy().ravel() for table in (before, after)])
    )
    sides = [
        (table["start_frame"].to_numpy(), table["end_frame"].to_numpy(), table["reason"].astype(str).to_numpy())
        for table in (before, after)
    ]
    for first, last in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        reasons = [name for starts, ends, names in sides for name in names[(starts <= first) & (ends >= last)][:1]]
        if len(reasons) == 2:
            yield first, last, reasons[0], reasons[1]


def summarize(spans: Table, why: str) -> dict[str, Any]:
    """Return the seconds of some spans, in all and by the reason in the column `why`, and the longest of them."""
    by_reason = spans.groupby(why)["seconds"].sum().sort_values(ascending=False)
    longest = spans.sort_values(["seconds", "source", "start_frame"], ascending=[False, True, True]).head(LISTED)
    return {
        "seconds": spans["seconds"].sum(),
        "reasons": list(by_reason.items()),
        "spans": [
            {"source": row["source"], "start_s": row["start_frame"] / FPS, "end_s": row["end_frame"] / FPS,
             "reason": row[why]}
            for row in longest.to_dict("records")
        ],
        "more": max(0, len(spans) - LISTED),
    }  # fmt: skip


def changed_settings(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield (setting, value before, value after) where two recipes differ; networks and code by their sha256."""
    old, new = flatten(before), flatten(after)
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            yield name, old.get(name, "-"), new.get(name, "-")


def flatten(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a recipe by name: `filters/blur.max_blur`, `weights.niqe`, `code`."""
    stages = {name: settings for stage in recipe["profile"]["stages"] for name, settings in stage.items()}
    found = {f"{name}.{key}": value for name, settings in stages.items() for key, value in settings.items()}
    found |= {key: value for key, value in recipe["profile"].items() if key != "stages"}
    found |= {f"weights.{name}": value for name, value in recipe["weights"].items()}
    return found | {"code": recipe["code"], "score_only": recipe["score_only"]}
