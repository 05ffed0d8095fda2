"""Checks an output folder: nothing lost, nothing doubled, every sample whole and as the manifests say.

    python -m shards.verify OUT [--all] [--sample N] [--workers N]

Reads every shard once, in order, and decodes some samples or all. What is wrong comes one line each:

    table      a table of the output is missing or cannot be read
    source     a source has not exactly one state, or one that its clips contradict
    timeline   the rows of a source do not cover its frames exactly once
    clip       a kept clip lies in no sample or in several, a dropped one in some, or its row says another place
    shard      a tar is missing, cut off, not named by the index, or holds what the index does not place there
    sample     its bytes are damaged, or its members are not what a sample has
    decode     its video or sound does not decode to what its frames promise
    count      numbers in sources.parquet or summary.csv do not follow from clips.parquet
    ledger     the manifests or a part do not say of a finished source what the ledger does
    unfinished a source was begun and has no end, or its end is not in the manifests: run the same command again

It says what is wrong and mends nothing. Exit code 0: all is well; 1: something is wrong; 2: not an output folder.
"""

import argparse
import io
import json
import multiprocessing
import os
import random
import sys
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import av
import pandas as pd
from av.error import FFmpegError
from av.video.frame import PictureType
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from manifests.ledger import ATTEMPTS, DROPPED_PARTS, noted, part_path
from manifests.ledger import FOLDER as LEDGER_FOLDER
from manifests.ledger import finished as finished_sources
from manifests.reader import ManifestError, read_clips
from manifests.schema import FPS, KEPT, SOURCES_FORMAT, STATUSES
from manifests.summary import funnel
from manifests.writer import FOLDER, PartitionError, check_partition
from shards.index import INDEX_NAME, offset_column, read_index, size_column
from shards.reader import Extent, ShardError, extents, read_extent
from shards.sample import (
    AUDIO,
    BOXES,
    JSON,
    MEMBERS,
    SAMPLES_PER_FRAME,
    VIDEO,
    Sample,
    problems,
    sample_sha256,
)
from shards.table import TableError, read_table
from shards.writer import BLOCK, tar_bytes

SAMPLE = 100  # samples decoded if not told otherwise: about ten seconds of work
SHOWN = 20  # lines per kind of finding
PIECE_BYTES = 32_000_000  # what a worker takes at a time
RECORD = 20 * BLOCK  # a tar ends in two blocks of zeros and is filled up to this
OUTPUT_SIGNS = ("recipe.yaml", f"{FOLDER}/clips.parquet", f"{FOLDER}/sources.parquet", f"shards/{INDEX_NAME}")
AGAIN = "run the same command again"
CHECKED_FIELDS = ("source_id", "start_frame", "end_frame", "frames")  # equal in clips, index and JSON

Rows = list[dict[str, Any]]


class Finding(NamedTuple):
    """One thing that is wrong: its kind, as in this module's docstring, and a sentence that names where."""

    kind: str
    text: str


class Piece(NamedTuple):
    """Neighbouring samples of one shard, as rows of the index, and which of them are to be decoded."""

    path: Path
    rows: Rows
    decoded: frozenset[str]
    required: frozenset[str]


@dataclass(frozen=True)
class Tables:
    """What the output says about itself; None for a table that cannot be read."""

    clips: pd.DataFrame | None
    sources: pd.DataFrame | None
    index: pd.DataFrame | None

    @cached_property
    def samples(self) -> Rows:
        return [] if self.index is None else records(self.index)


def records(table: Any) -> Rows:
    """A DataFrame as rows; Any, since pandas' stubs take a selection of one for a Series."""
    return table.to_dict("records")


def read_tables(output: Path) -> tuple[Tables, list[Finding]]:
    """The tables of an output folder, and a finding for each that cannot be had."""
    found, findings = [], []
    readers: tuple[Callable[[], pd.DataFrame], ...] = (
        lambda: read_clips(output),
        lambda: read_table(output / FOLDER / "sources.parquet", SOURCES_FORMAT),
        lambda: read_index(output / "shards"),
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
    columns = ["source", "source_id", "key", "start_frame", "end_frame", "kept", "reason", "shard"]
    of_source: dict[str, Rows] = defaultdict(list)
    for row in records(tables.clips[columns]):
        of_source[row["source"]].append(row)
        if row["kept"] != (row["reason"] == KEPT):
            yield Finding("clip", f"{row['key']}: kept is {row['kept']}, its reason is {row['reason']}")
    sources = records(tables.sources)
    yield from check_states(sources, of_source)
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


def check_states(sources: Rows, of_source: Mapping[str, Rows]) -> Iterator[Finding]:
    """Every source has one row, with a state that its clips and, for a copy, its original bear out."""
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
    """Every kept clip is in the index once, nothing else is, and both say the same about it."""
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


def check_ledger(output: Path, tables: Tables) -> Iterator[Finding]:
    """Manifests and parts say of every finished source what the ledger does, and no source was begun without end."""
    folder = output / LEDGER_FOLDER
    if not folder.is_dir():
        return
    sources, clips = sources_and_clips(tables)
    dropped_parts, ended = noted(folder / DROPPED_PARTS), set()
    try:
        for segment, row in finished_sources(output):
            path, curated = row["path"], json.loads(row["curated"])
            if path in ended:
                yield Finding("ledger", f"{segment}: has two ends of {path}")
            elif path in sources:
                yield from check_end(path, row, curated["clips"], sources[path], clips.get(path, []))
            elif sources:
                yield Finding("unfinished", f"{path}: finished, and not in sources.parquet yet; {AGAIN}")
            ended.add(path)
            if curated["sampled"] and row["source_id"] not in dropped_parts:
                yield from check_part(part_path(output, row["source_id"]), curated["sampled"])
    except TableError as error:
        yield Finding("table", str(error))
        return
    for path in sorted(sources.keys() - ended):
        yield Finding("ledger", f"{path}: in sources.parquet, and the ledger has no end of it")
    for path in sorted(noted(folder / ATTEMPTS) - ended):
        yield Finding("unfinished", f"{path}: begun, and it has no end; {AGAIN}")


def sources_and_clips(tables: Tables) -> tuple[dict[str, dict[str, Any]], dict[str, Rows]]:
    """The rows of sources.parquet by path and of clips.parquet by source; none if a table is missing."""
    clips: dict[str, Rows] = defaultdict(list)
    if tables.sources is None or tables.clips is None:
        return {}, clips
    for row in records(tables.clips[["source", "key", "start_frame", "end_frame", "kept"]]):
        clips[row["source"]].append(row)
    return {row["path"]: row for row in records(tables.sources[["path", "status", "reason"]])}, clips


def check_end(
    path: str, end: Mapping[str, Any], stated: Rows, source: Mapping[str, Any], clips: Rows
) -> Iterator[Finding]:
    """A source's rows in the manifests against those that the ledger holds; a corpus filter may still have dropped."""
    was, now = (f"{row['status']} ({row['reason']})" for row in (end, source))
    if was != now and (end["status"], source["status"]) != (KEPT, "dropped"):
        yield Finding("ledger", f"{path}: {was} in the ledger, {now} in sources.parquet; {AGAIN}")
    spans, found = ({(row["key"], row["start_frame"], row["end_frame"]) for row in rows} for rows in (stated, clips))
    for key, start, end_frame in sorted(spans ^ found):
        where = "clips.parquet" if (key, start, end_frame) in found else "the ledger"
        yield Finding("ledger", f"{path}: clip {key} [{start}, {end_frame}) is in {where} alone; {AGAIN}")
    kept, were_kept = ({row["key"] for row in rows if row["kept"]} for rows in (clips, stated))
    for key in sorted(kept - were_kept):
        yield Finding("ledger", f"{path}: clip {key} is kept, and was dropped when its source was curated")


def check_part(part: Path, sampled: Collection[str]) -> Iterator[Finding]:
    """A part holds the samples that the ledger states; only headers are read."""
    if not part.is_file():
        yield Finding("ledger", f"{part}: missing, and nobody removed it with --drop-parts; copy it back")
        return
    try:
        found = {extent.key for extent in extents(part)}
    except (ShardError, OSError) as error:
        yield Finding("ledger", with_path(part, error))
        return
    yield from (Finding("ledger", f"{part}: lacks {key}") for key in sorted(set(sampled) - found))
    yield from (
        Finding("ledger", f"{part}: holds {key}, unknown to the ledger") for key in sorted(found - set(sampled))
    )


def same(one: Any, other: Any) -> bool:
    return one == other if pd.notna(one) and pd.notna(other) else pd.isna(one) and pd.isna(other)


def check_summary(output: Path, tables: Tables) -> Iterator[Finding]:
    """summary.csv counts the clips and frames that clips.parquet has."""
    if tables.clips is None:
        return
    path = output / FOLDER / "summary.csv"
    try:
        written = pd.read_csv(path, keep_default_na=False)
        stated = counts_of(written)
    except (OSError, ValueError, KeyError) as error:
        yield Finding("table", f"{path}: cannot be read ({str(error) or type(error).__name__})")
        return
    counted = counts_of(funnel(tables.clips))
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


def check_files(shards: Path, names: Collection[str]) -> Iterator[Finding]:
    """The tars on the disk are those that the index names."""
    there = {path.name for path in shards.glob("*.tar")}
    for name in sorted(set(names) - there):
        yield Finding("shard", f"{shards / name}: missing, and the index names it")
    for name in sorted(there - set(names)):
        yield Finding("shard", f"{shards / name}: not named by the index")


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
            yield from (Finding("shard", f"{path}: {text}") for text in strays(path, rows))
    except (ShardError, OSError) as error:
        yield Finding("shard", with_path(path, error))


def strays(path: Path, rows: Rows) -> Iterator[str]:
    """What lies in a shard and not in the index."""
    placed = {Extent(row["key"], row["offset"], row["bytes"]) for row in rows}
    found = [extent for extent in extents(path) if extent not in placed]
    yield from (f"{extent.key} lies at byte {extent.offset}, where the index has no such sample" for extent in found)
    if not found:
        yield "does not end after its last sample"


def pieces_of(path: Path, rows: Rows, decoded: frozenset[str], required: frozenset[str]) -> Iterator[Piece]:
    """A shard's rows cut into runs of about `PIECE_BYTES`."""
    first, size = 0, 0
    for i, row in enumerate(rows):
        size += row["bytes"]
        if size >= PIECE_BYTES or i == len(rows) - 1:
            yield Piece(path, rows[first : i + 1], decoded, required)
            first, size = i + 1, 0


def check_piece(piece: Piece) -> list[Finding]:
    """What is wrong with some samples of a shard; each is read once."""
    found = []
    for row in piece.rows:
        try:
            wrong = check_sample(piece.path, row, piece.required, row["key"] in piece.decoded)
        except Exception as error:  # noqa: BLE001  whatever a damaged sample does, the others are still checked
            wrong = [Finding("sample", f"{type(error).__name__}: {error}")]
        found += [Finding(kind, f"{piece.path}: {row['key']}: {text}") for kind, text in wrong]
    return found


def check_sample(path: Path, row: Mapping[str, Any], required: Collection[str], decode: bool) -> list[Finding]:
    """One sample against its row of the index; what is damaged is not decoded."""
    extent = Extent(row["key"], row["offset"], row["bytes"])
    try:
        sample = read_extent(path, extent)
    except ShardError as error:
        return [Finding("sample", without_path(path, error))]
    wrong = misplaced(sample, row)
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
    if wrong or not decode:
        return [Finding("sample", text) for text in wrong]
    return [Finding("decode", text) for text in check_streams(sample)]


def misplaced(sample: Sample, row: Mapping[str, Any]) -> list[str]:
    """Members that do not lie where the index says."""
    found, offset = [], row["offset"]
    for name, data in sample.members.items():
        if name not in MEMBERS:
            found.append(f"has a member {name}, which no sample has")
        elif (row[offset_column(name)], row[size_column(name)]) != (offset + BLOCK, len(data)):
            found.append(f"{name} does not lie where the index says")
        offset += tar_bytes(len(data))
    return found


def check_streams(sample: Sample) -> list[str]:
    """What comes out of the decoders of a sample without other problems, where it is not what its JSON promises."""
    fields = sample.json
    checks = (
        (VIDEO, lambda: check_video(sample.members[VIDEO], fields["frames"], fields.get("size"))),
        (AUDIO, lambda: check_audio(sample.members[AUDIO], fields["frames"])),
    )
    found = []
    for name, check in checks:
        try:
            found += [f"{name}: {text}" for text in check()]
        except (FFmpegError, IndexError, ValueError) as error:
            found.append(f"{name}: does not decode ({error})")
    return found


def check_video(data: bytes, frames: int, size: int | None) -> list[str]:
    """`frames` square pictures, of `size` if it is known, each 1/25 s after the last, and no B-frames."""
    pictures: set[tuple[int, int]] = set()
    count, uneven, predicted = 0, False, 0
    with av.open(io.BytesIO(data), "r", format="mp4") as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {"err_detect": "explode"}
        for frame in container.decode(stream):
            pictures.add((frame.width, frame.height))
            uneven |= frame.pts is None or frame.pts * (frame.time_base or 0) != Fraction(count, FPS)
            predicted += frame.pict_type == PictureType.B
            count += 1
    found = []
    if count != frames:
        found.append(f"{count} frames decode, expected {frames}")
    wanted = {(size, size)} if size else {(width, width) for width, _ in pictures}
    if count and (pictures != wanted or len(pictures) != 1):
        shown = ", ".join(f"{width}x{height}" for width, height in sorted(pictures))
        found.append(f"pictures of {shown}, expected {f'{size}x{size}' if size else 'a square'}")
    if uneven:
        found.append(f"frame times are not multiples of 1/{FPS} s")
    if predicted:
        found.append(f"{predicted} B-frames")
    return found


def check_audio(data: bytes, frames: int) -> list[str]:
    """Sound exactly as long as the frames, whatever its header says."""
    with av.open(io.BytesIO(data), "r", format="flac") as container:
        stream = container.streams.audio[0]
        stream.codec_context.options = {"err_detect": "crccheck+explode"}
        count = sum(frame.samples for frame in container.decode(stream))
    wanted = frames * SAMPLES_PER_FRAME
    return [] if count == wanted else [f"{count} samples decode, expected {wanted}"]


def with_path(path: Path, error: Exception) -> str:
    return f"{path}: {without_path(path, error)}"


def without_path(path: Path, error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).removeprefix(f"{path}: ")


def choose(keys: Iterable[str], count: int | None, seed: int) -> frozenset[str]:
    """Which samples are decoded: all if `count` is None, else so many, the same for the same seed."""
    ordered = sorted(set(keys))
    return frozenset(ordered if count is None else random.Random(seed).sample(ordered, min(count, len(ordered))))


def required_members(rows: Rows) -> frozenset[str]:
    """What every sample must have: a run attaches the others to all of its samples or to none."""
    attached = {name for name in MEMBERS if any(pd.notna(row[offset_column(name)]) for row in rows)}
    return frozenset({VIDEO, AUDIO, BOXES, JSON} | attached)


def check_shards(
    shards: Path, tables: Tables, decoded: frozenset[str], workers: int, advance: Callable[[int], None]
) -> Iterator[Finding]:
    """What is wrong with the files in `shards/`; `advance` is told the bytes of each piece that is done."""
    if tables.index is None:
        return
    of_shard: dict[str, Rows] = defaultdict(list)
    for row in sorted(tables.samples, key=lambda row: (row["shard"], row["offset"])):
        of_shard[row["shard"]].append(row)
    yield from check_files(shards, of_shard.keys())
    there = {shards / name: rows for name, rows in of_shard.items() if (shards / name).is_file()}
    for path, rows in there.items():
        yield from check_layout(path, rows)
    required = required_members(tables.samples)
    pieces = [piece for path, rows in there.items() for piece in pieces_of(path, rows, decoded, required)]
    try:
        for piece, findings in each(pieces, max(1, min(workers, len(pieces)))):
            yield from findings
            advance(sum(row["bytes"] for row in piece.rows))
    except BrokenProcessPool:
        text = "stopped: a worker process died, most likely for want of memory; try fewer --workers"
        yield Finding("shard", f"{shards}: {text}")


def each(pieces: Sequence[Piece], workers: int) -> Iterator[tuple[Piece, list[Finding]]]:
    """Every piece with its findings, in order; with more than one worker in processes of their own."""
    if workers == 1:
        yield from ((piece, check_piece(piece)) for piece in pieces)
        return
    running: deque[tuple[Piece, Future[list[Finding]]]] = deque()
    context = multiprocessing.get_context("spawn")  # forked, a thread of pyarrow's or rich's may hold a lock for ever
    with ProcessPoolExecutor(workers, context) as pool:
        for piece in pieces:
            running.append((piece, pool.submit(check_piece, piece)))
            if len(running) > 2 * workers:
                yield finished(running)
        while running:
            yield finished(running)


def finished(running: deque[tuple[Piece, Future[list[Finding]]]]) -> tuple[Piece, list[Finding]]:
    piece, future = running.popleft()
    return piece, future.result()


def verify(output: Path, sample: int | None = None, workers: int = 1) -> list[Finding]:
    """Everything that is wrong with an output folder; `sample` samples are decoded, all if it is None."""
    tables, findings = read_tables(output)
    decoded = choose((row["key"] for row in tables.samples), sample, seed=0)
    return [*findings, *check(output, tables, decoded, workers)]


def check(
    output: Path,
    tables: Tables,
    decoded: frozenset[str],
    workers: int,
    advance: Callable[[int], None] = lambda _: None,
) -> Iterator[Finding]:
    """What is wrong in and between the tables and the shards, what takes no time first."""
    yield from check_manifests(tables)
    yield from check_places(tables)
    yield from check_summary(output, tables)
    yield from check_ledger(output, tables)
    yield from check_shards(output / "shards", tables, decoded, workers, advance)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    if not any((options.output / sign).exists() for sign in OUTPUT_SIGNS):
        print(f"{printable(str(options.output))}: not the output folder of a curation run", file=sys.stderr)
        return 2
    tables, findings = read_tables(options.output)
    decoded = choose((row["key"] for row in tables.samples), None if options.all else options.sample, options.seed)
    size = sum(row["bytes"] for row in tables.samples)
    console, kinds, began = Console(soft_wrap=True, highlight=False, markup=False), Counter[str](), time.monotonic()
    with Progress(
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(),
        console=console, disable=not console.is_terminal, transient=True,
    ) as bar:  # fmt: skip
        task = bar.add_task("reading shards", total=size)
        for kind, text in chain(
            findings, check(options.output, tables, decoded, options.workers, lambda n: bar.advance(task, n))
        ):
            kinds[kind] += 1
            if kinds[kind] <= SHOWN:
                console.print(f"{kind}: {printable(text)}")
    for kind, count in kinds.items():
        if count > SHOWN:
            console.print(f"{kind}: and {count - SHOWN} more")
    seen = f"{summed(tables)}, {len(decoded)} decoded; {size / 1e6:.1f} MB in {time.monotonic() - began:.1f} s"
    if not kinds:
        console.print(f"all is well: {seen}")
        return 0
    counted = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    console.print(f"SOMETHING IS WRONG: {counted} ({seen})")
    return 1


def summed(tables: Tables) -> str:
    """`12 sources, 34 samples in 2 shards`, as far as the tables are there."""
    index, sources = tables.index, tables.sources
    shown = "sources unknown" if sources is None else f"{len(sources)} sources"
    return shown + ("" if index is None else f", {len(index)} samples in {index['shard'].nunique()} shards")


def printable(text: str) -> str:
    """Text on one line: names of files may hold line ends and bytes that are no text."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def parser() -> argparse.ArgumentParser:
    head, _, rest = (__doc__ or "").partition("\n\n")
    found = argparse.ArgumentParser(
        prog="python -m shards.verify",
        description=head,
        epilog=rest.partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument("output", type=Path, metavar="OUT", help="output folder of curation/run.py")
    found.add_argument("--all", action="store_true", help="decode the video and sound of every sample")
    found.add_argument(
        "--sample", type=natural, default=SAMPLE, metavar="N", help=f"decode N samples (default {SAMPLE})"
    )
    found.add_argument("--seed", type=int, default=0, metavar="N", help="which samples are decoded (default 0)")
    found.add_argument(
        "--workers", type=positive, default=os.cpu_count() or 1, metavar="N", help="processes (default: one per core)"
    )
    return found


def natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of samples")
    return int(text)


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of processes")
    return int(text)


if __name__ == "__main__":
    raise SystemExit(main())
