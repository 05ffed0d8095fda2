"""Every damage that was thought of, planted one at a time in a finished output: `verify` names it, and nothing else.

A damage is named if a finding of its kind holds the name of what was damaged; nothing else is named if every finding
holds one of the names that are given for it.
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from curation.ledger_files import ATTEMPTS, append_to_log, part_path
from curation.verify.command import verify
from curation.verify.tables import records
from media.encode import encode_mp4
from shards.index import INDEX_NAME, offset_column, read_index, size_column
from shards.reader import iterate, read_sample
from shards.sample import MEMBERS, Sample, encode_json, encode_npy
from shards.writer import write_tar
from tests.curation.finished import (
    SIZE,
    build,
    changed,
    edit_index,
    edit_table,
    ends_of,
    lying_flac,
    of_key,
    pictures,
    place_of,
    places_of,
    record,
    repack,
    sample_of,
    sound,
    with_b_frames,
    write_ledger,
    write_recipe,
    write_shards,
)

SHARDS = ("shard-000000.tar", "shard-000001.tar")
ANNA, BERTA = "/raw/anna.mp4", "/raw/berta.mp4"


@dataclass(frozen=True)
class Damage:
    """What is done to an output, and what of it has to be named: a kind of finding, and texts that it may hold."""

    plant: Callable[[Path], object]
    kind: str
    names: tuple[str, ...] = field(default=("anna",))


def flip(path: Path, offset: int, bit: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= bit
    path.write_bytes(data)


def in_sample(key: str, member: str, share: float = 0.5) -> Callable[[Path], object]:
    def plant(output: Path) -> None:
        row = place_of(output, key)
        place = row[offset_column(member)] + int(row[size_column(member)] * share)
        flip(output / "shards" / row["shard"], place)

    return plant


def in_header(at: int) -> Callable[[Path], object]:
    def plant(output: Path) -> None:
        row = place_of(output, "anna-1")
        flip(output / "shards" / row["shard"], row["offset"] + at)

    return plant


def cut(name: str, keep: Callable[[int], int]) -> Callable[[Path], object]:
    return lambda output: os.truncate(output / name, keep((output / name).stat().st_size))


def remove(name: str) -> Callable[[Path], object]:
    return lambda output: (output / name).unlink()


def put(name: str, instead: Callable[[Path, Path], object]) -> Callable[[Path], object]:
    """Something else in the place of a file."""

    def plant(output: Path) -> None:
        (output / name).unlink()
        instead(output, output / name)

    return plant


def swap(output: Path, one: Path, other: Path) -> None:
    kept = output / "kept"
    one.rename(kept)
    other.rename(one)
    kept.rename(other)


def swap_shards(output: Path) -> None:
    swap(output, *(output / "shards" / name for name in SHARDS))


def swap_parts(output: Path) -> None:
    swap(output, part_of(output, "anna"), part_of(output, "berta"))


def append(name: str, data: bytes) -> Callable[[Path], object]:
    return lambda output: (output / name).write_bytes((output / name).read_bytes() + data)


def copy_sample(output: Path) -> None:
    row = place_of(output, "anna-0")
    other = output / "shards" / next(name for name in SHARDS if name != row["shard"])
    write_tar(other, [*iterate(other), read_sample(output / "shards", row)])


def sample_twice(output: Path) -> None:
    places = places_of(output)
    write_shards(output, [*places, ("shard-000002.tar", next(s for _, s in places if s.key == "anna-0"))])


def lose_sample(output: Path) -> None:
    """Shard and index without a clip that is kept."""
    write_shards(output, [(shard, sample) for shard, sample in places_of(output) if sample.key != "anna-0"])


def member(name: str, data: bytes) -> Callable[[Path], object]:
    """Another member in a sample, and an index that is true to it."""
    return lambda output: repack(output, of_key("anna-1", **{name: data}))


def without_member(output: Path) -> None:
    def edit(sample: Sample) -> Sample:
        left = {name: data for name, data in sample.members.items() if name != "landmarks.npy"}
        return replace(sample, members=left) if sample.key == "anna-1" else sample

    repack(output, edit)


def fields(**values: Any) -> Callable[[Path], object]:
    return member("json", encode_json({**sample_of("anna", 1).json, **values}))


def put_cell(table: str, key: str, column: str, value: Any) -> Callable[[Path], object]:
    """One cell of a manifest changed; `key` is a clip's key or a source's path."""
    by = "key" if table == "clips" else "path"

    def edit(rows: Any) -> Any:
        if str(rows[column].dtype) == "category":
            rows[column] = rows[column].astype("str")
        rows.loc[rows[by] == key, column] = value
        return rows

    return lambda output: edit_table(output, table, edit)


def drop_row(table: str, key: str) -> Callable[[Path], object]:
    by = "key" if table == "clips" else "path"
    return lambda output: edit_table(output, table, lambda rows: rows[rows[by] != key])


def double_row(table: str, key: str) -> Callable[[Path], object]:
    by = "key" if table == "clips" else "path"
    return lambda output: edit_table(output, table, lambda rows: pd.concat([rows, rows[rows[by] == key]]))


def index_cell(column: str, value: Any) -> Callable[[Path], object]:
    def edit(index: Any) -> Any:
        index.loc[index["key"] == "anna-1", column] = value
        return index

    return lambda output: edit_index(output, edit)


def in_summary(old: str, new: str) -> Callable[[Path], object]:
    def plant(output: Path) -> None:
        path = output / "manifests" / "summary.csv"
        text = path.read_text()
        assert old in text, text
        path.write_text(text.replace(old, new, 1))

    return plant


def in_recipe(output: Path) -> None:
    path = output / "recipe.yaml"
    recipe = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**recipe, "profile": {"seed": 1}}))


def in_ledger(path: str, **values: Any) -> Callable[[Path], object]:
    """A row of the ledger changed; `clip`, `source` and `sampled` are changes inside of its JSON."""

    def plant(output: Path) -> None:
        ends = ends_of(output)
        curated = json.loads(next(row["curated"] for row in ends if row["path"] == path))
        curated["clips"][0] |= values.pop("clip", {})
        curated["source"] |= values.pop("source", {})
        curated["sampled"] |= values.pop("sampled", {})
        rows = changed(ends, path, curated=json.dumps(curated), **values)
        write_ledger(output, rows[:1], rows[1:])

    return plant


def without_end(output: Path) -> None:
    ends = ends_of(output)
    write_ledger(output, ends[:1], ends[2:])


def part_of(output: Path, name: str) -> Path:
    return part_path(output, name * 8)


def in_part(member: str) -> Callable[[Path], object]:
    def plant(output: Path) -> None:
        path = part_of(output, "anna")
        data = path.read_bytes()
        content = next(sample.members[member] for sample in iterate(path) if sample.key == "anna-1")
        flip(path, data.rindex(content) + len(content) // 2)

    return plant


def part(edit: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda output: edit(part_of(output, "anna"))


def stray(name: str) -> Callable[[Path], object]:
    def plant(output: Path) -> None:
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).write_bytes(b"?")

    return plant


INDEX = f"shards/{INDEX_NAME}"
SHARD = f"shards/{SHARDS[0]}"
SAMPLE = ("anna-1: ",)
ROW = ("anna",)
CLIPS, SOURCES, TIMINGS, SUMMARY = (
    f"manifests/{name}" for name in ("clips.parquet", "sources.parquet", "timings.parquet", "summary.csv")
)

DAMAGES: dict[str, Damage] = {
    # the bytes of a shard
    **{f"a bit of {name} in a shard": Damage(in_sample("anna-1", name), "sample", SAMPLE) for name in MEMBERS},
    **{f"the first bit of {name}": Damage(in_sample("anna-1", name, 0.0), "sample", SAMPLE) for name in MEMBERS},
    "a tar header's name": Damage(in_header(3), "sample", ("anna-1",)),
    "a tar header's size": Damage(in_header(128), "sample", ("anna-1",)),
    "a tar header's checksum": Damage(in_header(150), "sample", ("anna-1",)),
    "a shard without its last byte": Damage(cut(SHARD, lambda size: size - 9217), "shard", (SHARDS[0],)),
    "a shard cut in half": Damage(cut(SHARD, lambda size: size // 2), "shard", (SHARDS[0],)),
    "an empty shard": Damage(cut(SHARD, lambda _: 0), "shard", (SHARDS[0],)),
    "no shard": Damage(remove(SHARD), "shard", (SHARDS[0],)),
    "a shard under another name": Damage(
        lambda out: (out / SHARD).rename(out / "shards/shard-000009.tar"), "shard", (SHARDS[0], "shard-000009.tar")
    ),
    "a dangling link instead of a shard": Damage(
        put(SHARD, lambda _, path: path.symlink_to("/nowhere")), "shard", (SHARDS[0],)
    ),
    "a folder instead of a shard": Damage(put(SHARD, lambda _, path: path.mkdir()), "shard", (SHARDS[0],)),
    "another shard instead of a shard": Damage(
        put(SHARD, lambda out, path: shutil.copyfile(out / "shards" / SHARDS[1], path)), "shard", (SHARDS[0],)
    ),
    "two shards that changed places": Damage(swap_shards, "sample", SHARDS),
    "a shard too many": Damage(stray("shards/shard-000007.tar"), "shard", ("shard-000007.tar",)),
    "a file among the shards": Damage(stray("shards/notes.txt"), "stray", ("notes.txt",)),
    "zeros behind a shard": Damage(append(SHARD, bytes(20_000)), "shard", (SHARDS[0],)),
    "bytes behind a shard": Damage(append(SHARD, b"?" * 512), "shard", (SHARDS[0],)),
    "a sample in two shards": Damage(copy_sample, "shard", ("anna-0",)),
    "a sample twice in the index": Damage(sample_twice, "clip", ("anna-0",)),
    "a sample lost from shard and index": Damage(lose_sample, "clip", ("anna-0",)),
    # samples whose index is true to them
    "a video with a frame less": Damage(member("mp4", pictures(4)), "decode", SAMPLE),
    "a video with a frame more": Damage(member("mp4", pictures(6)), "decode", SAMPLE),
    "a video of another size": Damage(member("mp4", pictures(5, 32)), "decode", SAMPLE),
    "a video of another rate": Damage(
        member("mp4", encode_mp4(np.zeros((5, SIZE, SIZE, 3), np.uint8), fps=24)), "decode", SAMPLE
    ),
    "a video with B-frames": Damage(member("mp4", with_b_frames(5)), "decode", SAMPLE),
    "a video cut off": Damage(member("mp4", pictures(5)[:200]), "decode", SAMPLE),
    "sound that is a frame short": Damage(member("flac", sound(4 * 640)), "sample", SAMPLE),
    "sound whose header lies": Damage(member("flac", lying_flac(5)), "decode", SAMPLE),
    "features that are a row short": Damage(
        member("whisper.npy", encode_npy(np.zeros((9, 3, 4), np.float16))), "sample", SAMPLE
    ),
    "landmarks that are a frame short": Damage(
        member("landmarks.npy", encode_npy(np.zeros((4, 7, 2), np.float16))), "sample", SAMPLE
    ),
    "boxes of another shape": Damage(
        member("boxes.npy", encode_npy(np.zeros((5, 3), np.float32))), "sample", SAMPLE
    ),
    "a sample without landmarks": Damage(without_member, "sample", SAMPLE),
    "a sample whose JSON is none": Damage(member("json", b"{"), "sample", SAMPLE),
    "a sample of another source": Damage(fields(source_id="c" * 32), "sample", SAMPLE),
    "a sample of another place": Damage(fields(start_frame=11, end_frame=16), "sample", SAMPLE),
    "a sample with another score": Damage(fields(scores={"blur": 0.9}), "sample", SAMPLE),
    "a sample with a score that no table has": Damage(fields(scores={"beauty": 0.9}), "sample", SAMPLE),
    "a sample with its sound moved": Damage(fields(audio_shift_frames=3), "sample", SAMPLE),
    # the index
    "no index": Damage(remove(INDEX), "table", (INDEX_NAME,)),
    "an index cut off": Damage(cut(INDEX, lambda size: size // 2), "table", (INDEX_NAME,)),
    "another table instead of the index": Damage(
        put(INDEX, lambda out, path: shutil.copyfile(out / CLIPS, path)), "table", (INDEX_NAME,)
    ),
    "an index without a row": Damage(
        lambda out: edit_index(out, lambda index: index[index["key"] != "anna-1"]), "clip", ROW
    ),
    "an index with a row twice": Damage(
        lambda out: edit_index(out, lambda index: pd.concat([index, index[index["key"] == "anna-1"]])), "clip", ROW
    ),
    "an index with another offset": Damage(index_cell("offset", 512), "sample", ROW),
    "an index with another size": Damage(index_cell("bytes", 512), "sample", ROW),
    "an index with another sha256": Damage(index_cell("sha256", "0" * 64), "sample", SAMPLE),
    "an index with another source": Damage(index_cell("source_id", "c" * 32), "clip", ROW),
    "an index with another length": Damage(index_cell("frames", 6), "clip", ROW),
    "an index with another start": Damage(index_cell("start_frame", 9), "clip", ROW),
    "an index with another place of a member": Damage(index_cell(offset_column("flac"), 512), "sample", SAMPLE),
    "an index with another size of a member": Damage(index_cell(size_column("flac"), 512), "sample", SAMPLE),
    "an index with another shard": Damage(index_cell("shard", "shard-000005.tar"), "clip", ("anna-1", "000005")),
    # clips.parquet
    "no clips": Damage(remove(CLIPS), "table", ("clips.parquet",)),
    "clips cut off": Damage(cut(CLIPS, lambda size: size - 9), "table", ("clips.parquet",)),
    "a bit of the clips": Damage(lambda out: flip(out / CLIPS, 60), "table", ("clips.parquet",)),
    "a kept clip without its row": Damage(drop_row("clips", "anna-1"), "timeline", (*ROW, "summary.csv")),
    "a dropped clip without its row": Damage(drop_row("clips", "anna-1-x"), "timeline", (*ROW, "summary.csv")),
    "a clip with two rows": Damage(double_row("clips", "anna-1"), "clip", (*ROW, "summary.csv")),
    "a kept clip that is called dropped": Damage(
        put_cell("clips", "anna-1", "kept", False), "clip", (*ROW, "summary.csv")
    ),
    "a dropped clip that is called kept": Damage(
        put_cell("clips", "anna-1-x", "kept", True), "clip", (*ROW, "summary.csv")
    ),
    "a clip with another reason": Damage(
        put_cell("clips", "anna-1-x", "reason", "short"), "value", (*ROW, "summary.csv")
    ),
    "a clip that another stage dropped": Damage(
        put_cell("clips", "anna-1-x", "stage", "filters/blur"), "value", (*ROW, "summary.csv")
    ),
    "a clip that begins earlier": Damage(
        put_cell("clips", "anna-1-x", "start_frame", 14), "timeline", (*ROW, "summary.csv")
    ),
    "a clip that ends later": Damage(
        put_cell("clips", "anna-1-x", "end_frame", 21), "timeline", (*ROW, "summary.csv")
    ),
    "a clip of another file": Damage(put_cell("clips", "anna-1-x", "source_id", "c" * 32), "source", ROW),
    "a clip of another path": Damage(put_cell("clips", "anna-1-x", "source", BERTA), "timeline", ("anna", "berta")),
    "a clip in another shard": Damage(put_cell("clips", "anna-1", "shard", "x.tar"), "clip", ROW),
    "a dropped clip in a shard": Damage(put_cell("clips", "anna-1-x", "shard", SHARDS[0]), "clip", ROW),
    "a clip under another name": Damage(put_cell("clips", "anna-1", "key", "anna-9"), "clip", ROW),
    "a clip with another score": Damage(put_cell("clips", "anna-1", "blur", 0.9), "value", ROW),
    "a clip without its score": Damage(put_cell("clips", "anna-1", "blur", np.nan), "value", ROW),
    "a clip whose sound was moved otherwise": Damage(
        put_cell("clips", "anna-1", "audio_shift_frames", 4), "sample", ROW
    ),
    "a clip that says another duration": Damage(put_cell("clips", "anna-1", "duration_s", 9.0), "clip", ROW),
    "a clip that says another second": Damage(put_cell("clips", "anna-1", "start_s", 9.0), "clip", ROW),
    # sources.parquet, timings.parquet
    "no sources": Damage(remove(SOURCES), "table", ("sources.parquet",)),
    "sources cut off": Damage(cut(SOURCES, lambda size: size // 2), "table", ("sources.parquet",)),
    "a source without its row": Damage(drop_row("sources", ANNA), "source", (*ROW, "copy")),
    "a source with two rows": Damage(double_row("sources", ANNA), "source", ROW),
    "a source in another state": Damage(put_cell("sources", ANNA, "status", "dropped"), "source", ROW),
    "a source in no state": Damage(put_cell("sources", ANNA, "status", "lost"), "source", ROW),
    "a source with another reason": Damage(put_cell("sources", ANNA, "reason", "short"), "ledger", ROW),
    "a source of another length": Damage(put_cell("sources", ANNA, "frames", 31), "timeline", ROW),
    "a source with another sum": Damage(put_cell("sources", ANNA, "kept_s", 9.0), "count", ROW),
    "a source with another count": Damage(put_cell("sources", ANNA, "clips_kept", 2), "count", ROW),
    "a source with another sha256": Damage(put_cell("sources", ANNA, "source_id", "c" * 32), "source", (*ROW, "copy")),
    "a source under another path": Damage(
        put_cell("sources", ANNA, "path", "/raw/x.mp4"), "source", (*ROW, "copy", "x.mp4")
    ),
    "a copy of another source": Damage(
        put_cell("sources", "/raw/copy.mp4", "duplicate_of", BERTA), "source", ("copy",)
    ),
    "no timings": Damage(remove(TIMINGS), "table", ("timings.parquet",)),
    "another time": Damage(put_cell("timings", ANNA, "cpu_s_crop", 9.0), "value", ROW),
    "a time without its row": Damage(drop_row("timings", ANNA), "source", ROW),
    # summary.csv
    "no summary": Damage(remove(SUMMARY), "table", ("summary.csv",)),
    "a summary with another count": Damage(in_summary("no_face,6,", "no_face,5,"), "count", ("summary.csv",)),
    "a summary with other hours": Damage(in_summary("0.000", "0.009"), "count", ("summary.csv",)),
    "a summary without its end": Damage(
        cut(SUMMARY, lambda size: size - 20), "count", ("summary.csv",)
    ),
    # recipe.yaml
    "no recipe": Damage(remove("recipe.yaml"), "recipe", ("recipe.yaml",)),
    "a recipe that is none": Damage(lambda out: (out / "recipe.yaml").write_text("[1"), "recipe", ("recipe.yaml",)),
    "a recipe with another setting": Damage(in_recipe, "recipe", ("recipe.yaml",)),
    "a recipe with another hash": Damage(lambda out: write_recipe(out, hash="0" * 64), "recipe", ("recipe.yaml",)),
    "an earlier recipe under another name": Damage(
        lambda out: write_recipe(out, "recipe-0badcafe.yaml"), "recipe", ("recipe-0badcafe.yaml",)
    ),
    # the ledger
    "a ledger without a segment": Damage(remove("ledger/000000.parquet"), "ledger", ROW),
    "a segment cut off": Damage(cut("ledger/000001.parquet", lambda size: size // 2), "table", ("000001.parquet",)),
    "a bit of a segment": Damage(lambda out: flip(out / "ledger/000001.parquet", 60), "table", ("000001.parquet",)),
    "a ledger without the end of a source": Damage(without_end, "ledger", ("berta",)),
    "a source that was begun and has no end": Damage(
        lambda out: append_to_log(out / "ledger" / ATTEMPTS, ["/raw/cleo.mp4"]), "unfinished", ("cleo",)
    ),
    "a ledger with another state": Damage(in_ledger(ANNA, status="dropped", reason="short"), "ledger", ROW),
    "a ledger with another score": Damage(in_ledger(ANNA, clip={"blur": 0.9}), "value", ROW),
    "a ledger with another verdict": Damage(in_ledger(ANNA, clip={"kept": False}), "value", ROW),
    "a ledger with another span": Damage(in_ledger(ANNA, clip={"end_frame": 4}), "ledger", ROW),
    "a ledger with another length": Damage(in_ledger(ANNA, source={"frames": 31}), "value", ROW),
    "a ledger with another sha256 of a sample": Damage(in_ledger(ANNA, sampled={"anna-1": "0" * 64}), "ledger", ROW),
    "a ledger with a sample more": Damage(in_ledger(ANNA, sampled={"anna-7": "0" * 64}), "ledger", ROW),
    # parts
    **{f"a bit of {name} in a part": Damage(in_part(name), "ledger", ROW) for name in MEMBERS},
    "no part": Damage(part(lambda path: path.unlink()), "ledger", ROW),
    "a part cut off": Damage(part(lambda path: os.truncate(path, 2000)), "ledger", ROW),
    "a part without a sample": Damage(
        part(lambda path: write_tar(path, [sample_of("anna", n) for n in (0, 1)])), "ledger", ROW
    ),
    "a part with another sample": Damage(
        part(lambda path: write_tar(path, [sample_of("anna", n) for n in (0, 1, 2, 7)])), "ledger", ROW
    ),
    "a dangling link instead of a part": Damage(
        part(lambda path: (path.unlink(), path.symlink_to("/nowhere"))), "ledger", ROW
    ),
    "two parts that changed places": Damage(swap_parts, "ledger", ("anna", "berta")),
    "a part too many": Damage(stray(f"parts/zo/{'zoe' * 8}.tar"), "stray", ("zoezoe",)),
    "a file among the parts": Damage(stray("parts/notes.txt"), "stray", ("notes.txt",)),
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("whole") / "out"
    output.mkdir()
    build(output)
    record(output)
    return output


def test_an_output_without_damage_has_no_findings(whole: Path, tmp_path: Path) -> None:
    assert verify(whole) == []
    assert verify(Path(shutil.copytree(whole, tmp_path / "copy"))) == []  # a copy is as good
    assert len(DAMAGES) >= 100 and len(records(read_index(whole / "shards"))) == 6


@pytest.mark.parametrize("name", DAMAGES)
def test_a_planted_damage_is_named_and_nothing_else(name: str, whole: Path, tmp_path: Path) -> None:
    damage, output = DAMAGES[name], Path(shutil.copytree(whole, tmp_path / "o"))
    damage.plant(output)
    found = [(finding.kind, finding.text.replace(str(output), "OUT")) for finding in verify(output)]
    assert any(kind == damage.kind and any(part in text for part in damage.names) for kind, text in found), found
    assert [text for _, text in found if not any(part in text for part in damage.names)] == []
