"""What the tables of an output say about themselves and each other, checked without opening a shard."""

import io
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

import renamed
from clock import FPS
from manifests.reader import ManifestError, read_clips
from manifests.schema import FOLDER, KEPT, SOURCES_FORMAT, STATUSES, TIMINGS_FORMAT
from manifests.summary import funnel, read_funnel, summary_text
from manifests.writer import PartitionError, check_partition
from shards.index import read_index
from storage.table import TableError, read_table

TIME_ERROR_S = 1e-6  # of a sum of floats
CHECKED_FIELDS = ("source_id", "start_frame", "end_frame", "frames")  # equal in clips, index and JSON

Rows = list[dict[str, Any]]


class Finding(NamedTuple):
    """One thing that is wrong: its kind, as in this module's docstring, and a sentence that names where."""

    kind: str
    text: str


@dataclass(frozen=True)
class Tables:
    """What the output says about itself; None for a table that cannot be read."""

    clips: pd.DataFrame | None
    sources: pd.DataFrame | None
    index: pd.DataFrame | None
    timings: pd.DataFrame | None

    @cached_property
    def samples(self) -> Rows:
        return [] if self.index is None else records(self.index)


def records(table: Any) -> Rows:
    """A DataFrame as rows; Any, since pandas' stubs take a selection of one for a Series."""
    return table.to_dict("records")


def read_tables(output: Path) -> tuple[Tables, list[Finding]]:
    """Return the tables of an output folder, and a finding for each that cannot be read."""
    found, findings = [], []
    readers: tuple[Callable[[], pd.DataFrame], ...] = (
        lambda: read_clips(output),
        lambda: read_table(output / FOLDER / "sources.parquet", SOURCES_FORMAT),
        lambda: read_index(output / "shards"),
        lambda: read_table(output / FOLDER / "timings.parquet", TIMINGS_FORMAT).rename(columns=renamed.COLUMNS),
    )
    for reader in readers:
        try:
            found.append(reader())
        except (TableError, ManifestError) as error:
            found.append(None)
            findings.append(Finding("table", str(error)))
    return Tables(*found), findings


def check_manifests(tables: Tables) -> Iterator[Finding]:
    """What is wrong with sources and clips, seen without the shards."""
    if tables.clips is None or tables.sources is None:
        return
    yield from check_times(tables.clips)
    columns = ["source", "source_id", "key", "start_frame", "end_frame", "kept", "reason", "shard"]
    of_source: dict[str, Rows] = defaultdict(list)
    for row in records(tables.clips[columns]):
        of_source[row["source"]].append(row)
        if row["kept"] != (row["reason"] == KEPT):
            yield Finding("clip", f"{row['key']}: kept is {row['kept']}, its reason is {row['reason']}")
    sources = records(tables.sources)
    yield from check_states(sources, of_source)
    timed = None if tables.timings is None else set(tables.timings["path"])
    for path in sorted({source["path"] for source in sources} ^ timed) if timed is not None else ():
        yield Finding("source", f"{path}: is in one of sources.parquet and timings.parquet alone")
    for source in sources:
        try:
            check_partition(of_source[source["path"]], source)
        except PartitionError as error:
            yield Finding("timeline", str(error))
        kept = [row["end_frame"] - row["start_frame"] for row in of_source[source["path"]] if row["kept"]]
        counts = f"{source['clips_kept']} clips, {source['kept_s']:.2f} s"
        counted = f"{len(kept)} clips, {sum(kept) / FPS:.2f} s"
        if counts != counted:
            yield Finding("count", f"{source['path']}: sources.parquet says {counts} kept, its clips say {counted}")


def check_times(clips: pd.DataFrame) -> Iterator[Finding]:
    """Check the seconds of clips against their frames."""
    start, end = clips["start_frame"] / FPS, clips["end_frame"] / FPS
    for name, true in (("start_s", start), ("end_s", end), ("duration_s", end - start)):
        wrong: Any = clips[~((clips[name] - true).abs() < TIME_ERROR_S)]
        for key, value in zip(wrong["key"], wrong[name], strict=True):
            yield Finding("clip", f"{key}: {name} is {value}, which its frames do not give")


def check_states(sources: Rows, of_source: Mapping[str, Rows]) -> Iterator[Finding]:
    """Check that every source has one row, with the state that follows from its clips or, for a copy, its original."""
    ids = {source["path"]: source["source_id"] for source in sources if source["status"] != "duplicate"}
    for path, times in Counter(source["path"] for source in sources).items():
        if times > 1:
            yield Finding("source", f"{path}: has {times} rows in sources.parquet")
    for path in of_source.keys() - {source["path"] for source in sources}:
        yield Finding("source", f"{path}: has clips and no row in sources.parquet")
    for source in sources:
        path, status, original = source["path"], source["status"], source["duplicate_of"]
        rows = of_source.get(path, [])
        if status not in STATUSES:
            yield Finding("source", f"{path}: state {status} is not one of {', '.join(STATUSES)}")
        if (status == KEPT) != any(row["kept"] for row in rows):
            yield Finding("source", f"{path}: state {status}, {sum(row['kept'] for row in rows)} clips kept")
        if status == "duplicate" and ids.get(original, "") != source["source_id"]:
            yield Finding("source", f"{path}: a duplicate of {original}, which is no source with the same bytes")
        if any(not same(row["source_id"], source["source_id"]) for row in rows):
            yield Finding("source", f"{path}: its clips bear the sha256 of another file")


def check_places(tables: Tables) -> Iterator[Finding]:
    """Check that every kept clip, and nothing else, is in the index once, with the same place and frames."""
    if tables.clips is None or tables.index is None:
        return
    places: dict[str, Rows] = defaultdict(list)
    for sample in tables.samples:
        places[sample["key"]].append(sample)
    wrong = tables.clips[~tables.clips["kept"] & tables.clips["shard"].notna()]
    for key, shard in zip(wrong["key"], wrong["shard"], strict=True):
        yield Finding("clip", f"{key}: dropped, and clips.parquet places it in {shard}")
    kept = records(tables.clips[tables.clips["kept"]])
    for key, times in Counter(clip["key"] for clip in kept).items():
        if times > 1:
            yield Finding("clip", f"{key}: has {times} kept rows in clips.parquet")
    for key in places.keys() - {clip["key"] for clip in kept}:
        yield Finding("clip", f"{key}: not a kept clip, and the index has it in {places[key][0]['shard']}")
    for clip in kept:
        found = places.get(clip["key"], [])
        if not found:
            yield Finding("clip", f"{clip['key']} of {clip['source']}: kept, and in no shard")
        elif len(found) > 1:
            where = ", ".join(row["shard"] for row in found)
            yield Finding("clip", f"{clip['key']}: {len(found)} times in the index: {where}")
        else:
            clip["frames"] = clip["end_frame"] - clip["start_frame"]
            yield from (Finding("clip", f"{clip['key']}: {text}") for text in disagreements(clip, found[0]))


def disagreements(clip: Mapping[str, Any], sample: Mapping[str, Any]) -> list[str]:
    """Columns in which a clip's row and its sample's row of the index differ."""
    return [
        f"{name} is {clip[name]} in clips.parquet, {sample[name]} in the index"
        for name in ("shard", *CHECKED_FIELDS)
        if not same(clip[name], sample[name])
    ]


def contradictions(found: Mapping[str, Any], stated: Mapping[str, Any], without: Collection[str]) -> Iterator[str]:
    """`blur is 0.4, 0.5 in the ledger` for what both say, and say differently; `stated` is what the ledger holds."""
    for name in sorted(found.keys() & stated.keys() - set(without)):
        if not same(found[name], stated[name]):
            yield f"{name} is {found[name]}, {stated[name]} in the ledger"


def same(one: Any, other: Any) -> bool:
    return one == other if pd.notna(one) and pd.notna(other) else pd.isna(one) and pd.isna(other)


def check_summary(output: Path, tables: Tables) -> Iterator[Finding]:
    """Check the counts of summary.csv against clips.parquet."""
    if tables.clips is None:
        return
    path = output / FOLDER / "summary.csv"
    try:
        text = path.read_text(encoding="utf-8")
        stated = counts_of(pd.read_csv(io.StringIO(text), keep_default_na=False))
        true = summary_text(read_funnel(output))
    except (OSError, ValueError, KeyError) as error:
        yield Finding("table", f"{path}: cannot be read ({str(error) or type(error).__name__})")
        return
    counted = counts_of(funnel(tables.clips))
    if stated == counted and text != true:
        yield Finding("count", f"{path}: hours, shares or lines are not those that follow from clips.parquet")
    for place in sorted(stated.keys() | counted.keys()):
        if stated.get(place) != counted.get(place):
            clips, frames = counted.get(place, (0, 0))
            said = "{} clips, {} frames".format(*stated.get(place, (0, 0)))
            where = " ".join(name for name in place if name)
            yield Finding("count", f"{path}: {where}: {said}; clips.parquet has {clips} clips, {frames} frames")


def counts_of(table: pd.DataFrame) -> dict[tuple[str, str], tuple[int, int]]:
    """(stage, reason) -> (clips, frames) of a funnel."""
    columns = (table[name] for name in ("stage", "reason", "clips", "frames"))
    return {(str(stage), str(reason)): (clips, frames) for stage, reason, clips, frames in zip(*columns, strict=True)}
