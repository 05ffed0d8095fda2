"""Whether the tars hold what the index says, byte for byte, and nothing else."""

import multiprocessing
import random
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

import renamed
from curation.verify.streams import check_streams
from curation.verify.tables import CHECKED_FIELDS, Finding, Rows, Tables, records, same
from shards.index import INDEX_NAME, offset_column, size_column
from shards.reader import Extent, ShardError, extents, read_extent
from shards.sample import AUDIO, BOXES, JSON, MEMBERS, VIDEO, Sample, problems, sample_sha256
from shards.writer import BLOCK, tar_bytes
from storage.atomic_write import TEMPORARY_PREFIX

SECTION_BYTES = 32_000_000  # what a worker takes at a time
STATED = "stated"  # beside the columns of the index: the row of clips.parquet
RECORD = 20 * BLOCK  # a tar ends in two blocks of zeros and is filled up to this


class Section(NamedTuple):
    """Neighbouring samples of one shard, as rows of the index, and which of them are to be decoded."""

    path: Path
    rows: Rows
    decoded: frozenset[str]
    required: frozenset[str]


def check_shards(
    shards: Path, tables: Tables, decoded: frozenset[str], workers: int, advance: Callable[[int], None]
) -> Iterator[Finding]:
    """What is wrong with the files in `shards/`; `advance` is called with the bytes of each finished section."""
    if tables.index is None:
        return
    of_shard: dict[str, Rows] = defaultdict(list)
    clips = [] if tables.clips is None else records(tables.clips[tables.clips["kept"]])
    stated = {clip["key"]: clip for clip in clips}
    for row in sorted(tables.samples, key=lambda row: (row["shard"], row["offset"])):
        of_shard[row["shard"]].append({**row, STATED: stated.get(row["key"])})
    yield from check_files(shards, of_shard.keys())
    there = {shards / name: rows for name, rows in of_shard.items() if (shards / name).is_file()}
    for path, rows in there.items():
        yield from check_layout(path, rows)
    required = required_members(tables.samples)
    sections = [section for path, rows in there.items() for section in cut_sections(path, rows, decoded, required)]
    try:
        for section, findings in check_sections(sections, max(1, min(workers, len(sections)))):
            yield from findings
            advance(sum(row["bytes"] for row in section.rows))
    except BrokenProcessPool:
        text = "stopped: a worker process died, most likely for want of memory; try fewer --workers"
        yield Finding("shard", f"{shards}: {text}")


def check_files(shards: Path, names: Collection[str]) -> Iterator[Finding]:
    """The tars on the disk are those that the index names."""
    there = {path.name for path in shards.iterdir()} if shards.is_dir() else set()
    for name in sorted(names):
        if not (shards / name).is_file():
            what = "no file" if name in there else "missing"
            yield Finding("shard", f"{shards / name}: {what}, and the index names it")
    for name in sorted(there - {*names, INDEX_NAME}):
        if not name.startswith(TEMPORARY_PREFIX):
            yield Finding("shard" if name.endswith(".tar") else "stray", f"{shards / name}: not named by the index")


def check_layout(path: Path, rows: Rows) -> Iterator[Finding]:
    """The samples lie in a shard one after another, and then it ends; `rows` are sorted by offset."""
    spans = [(0, 0), *((row["offset"], row["offset"] + row["bytes"]) for row in rows)]
    for (_, end), (start, _), row in zip(spans, spans[1:], rows, strict=False):
        if start < end:
            yield Finding("shard", f"{path}: {row['key']}: the index lets it overlap with the sample before")
    try:
        size, end = path.stat().st_size, max(end for _, end in spans)
        with path.open("rb") as file:
            file.seek(end)
            tail = file.read(RECORD + 2 * BLOCK)
        if size < end + 2 * BLOCK:
            yield Finding("shard", f"{path}: cut off: {size} bytes, at least {end + 2 * BLOCK} expected")
        elif any(start > end for (_, end), (start, _) in pairwise(spans)) or any(tail) or size > end + len(tail):
            yield from (Finding("shard", f"{path}: {text}") for text in find_strays(path, rows))
    except (ShardError, OSError) as error:
        yield Finding("shard", with_path(path, error))


def find_strays(path: Path, rows: Rows) -> Iterator[str]:
    """Yield what lies in a shard and is not in the index."""
    placed = {Extent(row["key"], row["offset"], row["bytes"]) for row in rows}
    found = [extent for extent in extents(path) if extent not in placed]
    yield from (f"{extent.key} lies at byte {extent.offset}, where the index has no such sample" for extent in found)
    if not found:
        yield "does not end after its last sample"


def cut_sections(path: Path, rows: Rows, decoded: frozenset[str], required: frozenset[str]) -> Iterator[Section]:
    """A shard's rows cut into runs of about `SECTION_BYTES`."""
    first, size = 0, 0
    for i, row in enumerate(rows):
        size += row["bytes"]
        if size >= SECTION_BYTES or i == len(rows) - 1:
            yield Section(path, rows[first : i + 1], decoded, required)
            first, size = i + 1, 0


def check_sections(sections: Sequence[Section], workers: int) -> Iterator[tuple[Section, list[Finding]]]:
    """Every section with its findings, in order; with more than one worker in processes of their own."""
    if workers == 1:
        yield from ((section, check_section(section)) for section in sections)
        return
    running: deque[tuple[Section, Future[list[Finding]]]] = deque()
    context = multiprocessing.get_context("spawn")  # forked, a thread of pyarrow's or rich's may hold a lock for ever
    with ProcessPoolExecutor(workers, context) as pool:
        for section in sections:
            running.append((section, pool.submit(check_section, section)))
            if len(running) > 2 * workers:
                yield first_result(running)
        while running:
            yield first_result(running)


def first_result(running: deque[tuple[Section, Future[list[Finding]]]]) -> tuple[Section, list[Finding]]:
    section, future = running.popleft()
    return section, future.result()


def check_section(section: Section) -> list[Finding]:
    """What is wrong with some samples of a shard; each is read once."""
    found = []
    for row in section.rows:
        try:
            wrong = check_sample(section.path, row, section.required, row["key"] in section.decoded)
        except Exception as error:  # noqa: BLE001  whatever a damaged sample does, the others are still checked
            wrong = [Finding("sample", f"{type(error).__name__}: {error}")]
        found += [Finding(kind, f"{section.path}: {row['key']}: {text}") for kind, text in wrong]
    return found


def check_sample(path: Path, row: Mapping[str, Any], required: Collection[str], decode: bool) -> list[Finding]:
    """One sample against its row of the index; what is damaged is not decoded."""
    extent = Extent(row["key"], row["offset"], row["bytes"])
    try:
        sample = read_extent(path, extent)
    except ShardError as error:
        return [Finding("sample", without_path(path, error))]
    wrong = find_misplaced(sample, row)
    if sample_sha256(sample.members) != row["sha256"]:
        wrong.append("its sha256 is not that of the index: the bytes have changed")
    if wrong:
        return [Finding("sample", text) for text in wrong]
    wrong = problems(sample, required)
    if not wrong:
        fields = sample.json
        wrong = [
            f"json: {name} is {fields[name]}, the index says {row[name]}"
            for name in CHECKED_FIELDS
            if fields[name] != row[name]
        ]
    if not wrong and row[STATED] is not None:
        wrong = list(differences(sample.json, row[STATED]))
    if wrong or not decode:
        return [Finding("sample", text) for text in wrong]
    return [Finding("decode", text) for text in check_streams(sample)]


def differences(fields: Mapping[str, Any], clip: Mapping[str, Any]) -> Iterator[str]:
    """What a sample's JSON says otherwise than its row of clips.parquet: how far its sound was moved, its scores."""
    moved = {name: fields[name] for name in ("audio_shift_frames",) if name in fields}
    stated = {**moved, **renamed.with_todays_names(fields.get("scores", {}))}
    for name, value in stated.items():
        if name not in clip:
            yield f"json: {name} is no column of clips.parquet"
        elif not same(value, clip[name]):
            yield f"json: {name} is {value}, clips.parquet says {clip[name]}"


def find_misplaced(sample: Sample, row: Mapping[str, Any]) -> list[str]:
    """Members that do not lie where the index says."""
    found, offset = [], row["offset"]
    for name, data in sample.members.items():
        if name not in MEMBERS:
            found.append(f"has a member {name}, which no sample has")
        elif (row[offset_column(name)], row[size_column(name)]) != (offset + BLOCK, len(data)):
            found.append(f"{name} does not lie where the index says")
        offset += tar_bytes(len(data))
    return found


def required_members(rows: Rows) -> frozenset[str]:
    """What every sample must have: a run attaches the others to all of its samples or to none."""
    attached = {name for name in MEMBERS if any(pd.notna(row[offset_column(name)]) for row in rows)}
    return frozenset({VIDEO, AUDIO, BOXES, JSON} | attached)


def choose(keys: Iterable[str], count: int | None, seed: int) -> frozenset[str]:
    """Which samples are decoded: all if `count` is None, else so many, the same for the same seed."""
    ordered = sorted(set(keys))
    return frozenset(ordered if count is None else random.Random(seed).sample(ordered, min(count, len(ordered))))


def with_path(path: Path, error: Exception) -> str:
    return f"{path}: {without_path(path, error)}"


def without_path(path: Path, error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).removeprefix(f"{path}: ")
