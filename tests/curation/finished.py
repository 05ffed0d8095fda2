"""A finished output of two sources, made up in a second, and the ways in which tests break it."""

import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import yaml

from curation.ledger_files import ATTEMPTS, LEDGER, append_to_log, part_path
from curation.ledger_files import MEANINGS as LEDGER_MEANINGS
from curation.verify.tables import records
from manifests.summary import write_summary
from manifests.writer import write_manifests
from media.encode import encode_flac, encode_mp4
from pipelines import recipe_hash
from shards.index import INDEX, INDEX_NAME, MEANINGS, index_frame, offset_column, read_index, size_column, write_index
from shards.packer import pack
from shards.reader import iterate, read_sample
from shards.sample import Sample, encode_json, encode_npy, sample_sha256
from shards.writer import ShardWriter, tar_bytes, write_tar
from storage.table import TableFormat, read_notes, write_table

Edit = Callable[[Sample], Sample]
EditTable = Callable[[Any], Any]  # of DataFrames; pandas' stubs take a selection of rows for a Series
SIZE = 64
PLACE = ("frames", "start_frame", "end_frame")
SOURCES = {"anna": 3, "berta": 3}  # name -> clips kept


@cache
def pictures(frames: int, size: int = SIZE) -> bytes:
    return encode_mp4(np.full((size, size, 3), 9 * i, np.uint8) for i in range(frames))


@cache
def sound(samples: int) -> bytes:
    return encode_flac(0.3 * np.sin(np.arange(samples) * 0.1))


def sample_of(source: str, number: int, frames: int = 5) -> Sample:
    place = {"source_id": source * 8, "start_frame": 10 * number, "end_frame": 10 * number + frames}
    members = {
        "mp4": pictures(frames),
        "flac": sound(640 * frames),
        "json": encode_json(
            {**place, "frames": frames, "size": SIZE, "audio_shift_frames": 0, "scores": {"blur": number / 8}}
        ),
        "boxes.npy": encode_npy(np.tile(np.array([10, 12, 50, 52], np.float32), (frames, 1))),
        "landmarks.npy": encode_npy(np.zeros((frames, 7, 2), np.float16)),
        "whisper.npy": encode_npy(np.zeros((2 * frames, 3, 4), np.float16)),
    }
    return Sample(f"{source}-{number}", members)


def rows_of(source: str, kept: int) -> Iterator[dict[str, Any]]:
    """Kept, dropped, kept, dropped, ...: five frames each."""
    common = {"source": f"/raw/{source}.mp4", "source_id": source * 8, "audio_shift_frames": 0}
    for n in range(kept):
        first = 10 * n
        yield {
            **common,
            "key": f"{source}-{n}",
            "start_frame": first,
            "end_frame": first + 5,
            "kept": True,
            "reason": "kept",
            "blur": n / 8,
        }
        yield {
            **common, "key": f"{source}-{n}-x", "start_frame": first + 5, "end_frame": first + 10, "kept": False,
            "reason": "no_face", "stage": "steps/stable_spans",
        }  # fmt: skip


def build(output: Path) -> None:
    """Write the output of a small run: two sources with clips, a copy of one, a file that is no video; two shards."""
    parts = {}
    for source, kept in SOURCES.items():
        path = output / "parts" / f"{source}.tar"
        path.parent.mkdir(exist_ok=True)
        write_tar(path, (sample_of(source, n) for n in range(kept)))
        parts |= {f"{source}-{n}": path for n in range(kept)}
    size = sum(tar_bytes(len(data)) for data in sample_of("anna", 0).members.values())
    index = pack(parts, output / "shards", shard_bytes=4 * size)
    shards = dict(zip(index["key"], index["shard"], strict=True))
    clips = [{**row, "shard": shards.get(row["key"])} for name, kept in SOURCES.items() for row in rows_of(name, kept)]
    copy = {"source": "/raw/copy.mp4", "source_id": "anna" * 8, "start_frame": 0, "end_frame": 30, "kept": False}
    error = {"source": "/raw/text.mp4", "start_frame": 0, "end_frame": 0, "kept": False}
    clips += [{**copy, "key": "copy", "reason": "duplicate"}, {**error, "key": "text", "reason": "error:probe"}]
    sources: list[dict[str, Any]] = [
        {"path": f"/raw/{name}.mp4", "source_id": name * 8, "frames": 30, "status": "kept", "reason": "kept"}
        for name in SOURCES
    ]
    sources.append(
        {"path": "/raw/copy.mp4", "source_id": "anna" * 8, "frames": 30, "status": "duplicate", "reason": "duplicate",
         "duplicate_of": "/raw/anna.mp4"}
    )  # fmt: skip
    sources.append({"path": "/raw/text.mp4", "status": "error", "reason": "error:probe"})
    for source in sources:
        source["cpu_s_crop"] = 1.5
    write_manifests(output, clips, sources, scores={"blur": ""}, reasons={}, stages=["steps/stable_spans"])
    write_summary(output)
    write_recipe(output)


def write_recipe(output: Path, name: str = "recipe.yaml", **changes: Any) -> None:
    recipe = {"profile": {"seed": 0}, "score_only": False, "weights": {}, "code": "0" * 64}
    (output / name).write_text(yaml.safe_dump({**recipe, "hash": recipe_hash(recipe), **changes}))


def edit_table(output: Path, name: str, edit: EditTable) -> None:
    """Changes a manifest behind its writer's back, which would refuse."""
    path = output / "manifests" / f"{name}.parquet"
    form, table = TableFormat(f"manifests.{name}", 1), edit(pd.read_parquet(path))
    write_table(path, table, form, dict.fromkeys(table, ""), read_notes(path, form))


def write_shards(output: Path, places: Sequence[tuple[str, Sample]]) -> None:
    """Shards with these samples, and an index that is true to them; `pack` would refuse some."""
    known = {row["key"]: row for row in records(read_index(output / "shards"))}
    rows = []
    for name in sorted({shard for shard, _ in places}):
        with ShardWriter(output / "shards" / name) as writer:
            for sample in (sample for shard, sample in places if shard == name):
                row = {column: known[sample.key][column] for column in ("key", "source_id", *PLACE)}
                row |= {"shard": name, "offset": writer.bytes, "sha256": sample_sha256(sample.members)}
                for member, (offset, size) in writer.write(sample).items():
                    row[offset_column(member)], row[size_column(member)] = offset, size
                rows.append(row | {"bytes": writer.bytes - row["offset"]})
    write_index(output / "shards", index_frame(rows))


def places_of(output: Path) -> list[tuple[str, Sample]]:
    rows = records(read_index(output / "shards"))
    return [(row["shard"], read_sample(output / "shards", row)) for row in rows]


def repack(output: Path, edit: Edit) -> None:
    """Every sample changed, and the index with it."""
    write_shards(output, [(shard, edit(sample)) for shard, sample in places_of(output)])


def of_key(key: str, **members: bytes) -> Edit:
    """Replaces members of one sample."""
    return lambda sample: replace(sample, members=sample.members | members) if sample.key == key else sample


def edit_index(output: Path, edit: EditTable) -> None:
    table = edit(read_index(output / "shards"))
    write_table(output / "shards" / INDEX_NAME, table, INDEX, MEANINGS)


def place_of(output: Path, key: str) -> dict[str, Any]:
    """A key's row of the index, the first if there are several."""
    return next(row for row in records(read_index(output / "shards")) if row["key"] == key)


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def ends_of(output: Path) -> list[dict[str, Any]]:
    """The ledger's rows of a run whose manifests these are."""
    clips, sources = (pd.read_parquet(output / "manifests" / f"{name}.parquet") for name in ("clips", "sources"))
    rows = []
    for source in records(sources):
        columns = ["key", "start_frame", "end_frame", "kept", "reason", "stage", "blur"]
        of_source = records(clips[clips["source"] == source["path"]][columns])
        source_id = source["source_id"] if pd.notna(source["source_id"]) else ""
        part = part_path(output, source_id)
        kept = {row["key"] for row in of_source if row["kept"]}
        sampled = {each.key: sample_sha256(each.members) for each in iterate(part) if each.key in kept} if kept else {}
        head = {"path": source["path"], "source_id": source_id, "bytes": 1, "mtime_ns": 1}
        stated = {"path": source["path"], "frames": None if pd.isna(source["frames"]) else int(source["frames"])}
        curated = json.dumps({"source": {**stated, "cpu_s_crop": 1.5}, "clips": of_source, "sampled": sampled})
        rows.append({**head, "status": source["status"], "reason": source["reason"], "curated": curated})
    return rows


def write_ledger(output: Path, *segments: Sequence[dict[str, Any]]) -> None:
    for number, rows in enumerate(segments):
        path = output / "ledger" / f"{number:06d}.parquet"
        path.parent.mkdir(exist_ok=True)
        write_table(path, pd.DataFrame(list(rows)), LEDGER, LEDGER_MEANINGS)


def record(output: Path) -> None:
    """Add the ledger and the parts of the run."""
    for name in SOURCES:
        part = part_path(output, name * 8)
        part.parent.mkdir()
        (output / "parts" / f"{name}.tar").rename(part)
    ends = ends_of(output)
    write_ledger(output, ends[:1], ends[1:])
    append_to_log(output / "ledger" / ATTEMPTS, ["/raw/anna.mp4", "/raw/berta.mp4"])


def changed(rows: list[dict[str, Any]], path: str, **values: Any) -> list[dict[str, Any]]:
    return [{**row, **values} if row["path"] == path else row for row in rows]


def with_b_frames(frames: int) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "2", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = SIZE, SIZE, "yuv420p"  # type: ignore[attr-defined]
        for i in range(frames):
            picture = np.full((SIZE, SIZE, 3), 20 * i, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))  # type: ignore[arg-type]
        container.mux(stream.encode())
    return file.getvalue()


def lying_flac(frames: int) -> bytes:
    """A header that promises so many frames before sound that is one shorter."""
    data = bytearray(sound(640 * (frames - 1)))
    data[21:26] = ((data[21] >> 4 << 36) | 640 * frames).to_bytes(5, "big")
    return bytes(data)
