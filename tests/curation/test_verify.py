import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from curation.ledger_files import ATTEMPTS, DROPPED_PARTS, append_to_log, part_path
from curation.verify.command import SHOWN, main, verify
from curation.verify.shards import choose, cut_sections
from curation.verify.tables import Finding, records
from manifests.summary import write_summary
from manifests.writer import write_manifests
from media.encode import encode_mp4
from shards.index import offset_column, read_index, size_column
from shards.packer import pack
from shards.reader import iterate, read_sample, walk
from shards.sample import MEMBERS, Sample, encode_json
from shards.writer import write_tar
from tests.curation.finished import (
    SIZE,
    SOURCES,
    EditTable,
    build,
    changed,
    edit_index,
    edit_table,
    ends_of,
    lying_flac,
    of_key,
    overwrite,
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


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("built")
    build(output)
    return output


@pytest.fixture
def output(built: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(built, tmp_path / "out"))


def findings(output: Path, kind: str) -> list[str]:
    """What is found; all of it must be of one kind."""
    found = verify(output)
    assert {finding.kind for finding in found} == {kind}, found
    return [finding.text for finding in found]


def test_an_untouched_output_is_well(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(built) == []
    assert main([str(built), "--workers", "1", "--sample", "2"]) == 0
    assert capsys.readouterr().out.startswith("all is well: 4 sources, 6 samples in 2 shards, 2 decoded; 0.")


def test_workers_find_the_same_in_the_same_order(output: Path) -> None:
    for key in ("anna-0", "anna-1", "berta-2"):
        row = place_of(output, key)
        overwrite(output / "shards" / row["shard"], row["mp4_offset"] + 100, b"\xff\xff")
    assert len(verify(output)) == 3
    assert verify(output, workers=2) == verify(output)


@pytest.mark.parametrize("member", ["mp4", "flac", "json", "boxes.npy", "landmarks.npy", "whisper.npy"])
def test_one_flipped_bit_of_a_member_names_shard_and_key(output: Path, member: str) -> None:
    row = place_of(output, "anna-1")
    path = output / "shards" / row["shard"]
    offset = row[offset_column(member)] + row[size_column(member)] // 2
    overwrite(path, offset, bytes([path.read_bytes()[offset] ^ 1]))
    assert findings(output, "sample") == [
        f"{path}: anna-1: its sha256 is not that of the index: the bytes have changed"
    ]


def test_a_damaged_tar_header_is_a_finding_and_hides_no_other_sample(output: Path) -> None:
    first, last = (records(read_index(output / "shards"))[i] for i in (0, -1))
    overwrite(output / "shards" / first["shard"], first["offset"] + 10, b"?")
    overwrite(output / "shards" / last["shard"], last["mp4_offset"], b"?")
    header, changed = findings(output, "sample")
    assert header.endswith(f"{first['key']}: byte {first['offset']}: damaged tar header")
    assert f"{last['key']}: its sha256" in changed


@pytest.mark.parametrize("lost", [1, 2000, 60_000, 10**9])
def test_a_shard_cut_off_anywhere_is_a_finding(output: Path, lost: int) -> None:
    path = output / "shards" / "shard-000000.tar"
    row = [row for row in records(read_index(output / "shards")) if row["shard"] == path.name][-1]
    end = row["offset"] + row["bytes"]
    path.write_bytes(path.read_bytes()[: max(0, end + 1024 - lost)])
    found = verify(output)
    assert found[0] == Finding(
        "shard", f"{path}: cut off: {max(0, end + 1024 - lost)} bytes, at least {end + 1024} expected"
    )
    torn = {f.text.split(": ")[1] for f in found[1:]}
    assert (row["key"] in torn) == (lost > 1024)


def test_a_deleted_row_leaves_a_hole_in_the_timeline(output: Path) -> None:
    edit_table(output, "clips", lambda clips: clips[clips["key"] != "anna-1-x"])
    assert Finding("timeline", "/raw/anna.mp4: frames 15 to 20 belong to no row") in verify(output)


def test_rows_that_overlap_are_a_finding(output: Path) -> None:
    edit_table(
        output, "clips", lambda clips: clips.assign(start_frame=clips["start_frame"] - (clips["key"] == "berta-0-x"))
    )
    texts = [finding.text for finding in verify(output) if finding.kind == "timeline"]
    assert texts == ["/raw/berta.mp4: frames 4 to 5 belong to two rows, berta-0 and berta-0-x"]


def test_a_deleted_kept_row_leaves_a_sample_that_nobody_kept(output: Path) -> None:
    edit_table(output, "clips", lambda clips: clips[clips["key"] != "anna-1"])
    found = verify(output)
    shard = place_of(output, "anna-1")["shard"]
    assert Finding("clip", f"anna-1: not a kept clip, and the index has it in {shard}") in found
    assert any(
        finding.kind == "count" and finding.text.startswith("/raw/anna.mp4: sources.parquet says 3")
        for finding in found
    )
    assert any(finding.kind == "count" and "summary.csv: kept: 6 clips, 30 frames" in finding.text for finding in found)


def test_a_clip_is_kept_once_and_for_no_reason(output: Path) -> None:
    edit_table(output, "clips", lambda clips: pd.concat([clips, clips[clips["key"] == "anna-0"]]))
    assert Finding("clip", "anna-0: has 2 kept rows in clips.parquet") in verify(output)
    blamed = lambda clips: clips["reason"].astype("str").where(clips["key"] != "anna-1", "no_face")  # noqa: E731
    edit_table(output, "clips", lambda clips: clips.assign(reason=blamed(clips)))
    assert Finding("clip", "anna-1: kept is True, its reason is no_face") in verify(output)


def test_clips_bear_the_sha256_of_their_source(output: Path) -> None:
    other = lambda clips: clips["source_id"].where(clips["key"] != "berta-0-x", "c" * 64)  # noqa: E731
    edit_table(output, "clips", lambda clips: clips.assign(source_id=other(clips)))
    assert findings(output, "source") == ["/raw/berta.mp4: its clips bear the sha256 of another file"]


def test_a_dropped_clip_has_no_sample(output: Path) -> None:
    edit_table(output, "clips", lambda clips: clips.assign(shard=clips["shard"].fillna("shard-000000.tar")))
    assert "anna-0-x: dropped, and clips.parquet places it in shard-000000.tar" in findings(output, "clip")


def test_a_kept_clip_without_a_sample_is_lost(output: Path) -> None:
    edit_index(output, lambda index: index[index["key"] != "berta-0"])
    found = [finding for finding in verify(output) if finding.kind == "clip"]
    assert found == [Finding("clip", "berta-0 of /raw/berta.mp4: kept, and in no shard")]


@pytest.mark.parametrize("place", [0, -1], ids=["before another", "after all others"])
def test_a_sample_that_the_index_does_not_name_is_found_in_the_tar(output: Path, place: int) -> None:
    path = output / "shards" / "shard-000000.tar"
    row = [row for row in records(read_index(output / "shards")) if row["shard"] == path.name][place]
    edit_index(output, lambda index: index[index["key"] != row["key"]])
    found = [finding.text for finding in verify(output) if finding.kind == "shard"]
    assert found == [f"{path}: {row['key']} lies at byte {row['offset']}, where the index has no such sample"]


def test_an_index_whose_samples_overlap_is_a_finding(output: Path) -> None:
    first, second = records(read_index(output / "shards"))[:2]
    moved = first["bytes"] - 512
    edit_index(output, lambda index: index.assign(bytes=index["bytes"].where(index["key"] != first["key"], moved)))
    edit_index(
        output, lambda index: index.assign(offset=index["offset"].where(index["key"] != second["key"], moved - 512))
    )
    path = output / "shards" / first["shard"]
    overlap = f"{path}: {second['key']}: the index lets it overlap with the sample before"
    assert Finding("shard", overlap) in verify(output)


def test_an_index_that_misplaces_a_member_is_a_finding(output: Path) -> None:
    edit_index(output, lambda index: index.assign(flac_offset=index["flac_offset"] + (index["key"] == "anna-0")))
    (text,) = findings(output, "sample")
    assert text.endswith("anna-0: flac does not lie where the index says")


def test_a_sample_copied_into_another_shard_is_found_there(output: Path) -> None:
    row = place_of(output, "anna-0")
    other = output / "shards" / ({"shard-000000.tar", "shard-000001.tar"} - {row["shard"]}).pop()
    samples = [*iterate(other), read_sample(output / "shards", row)]
    write_tar(other, samples)
    (text,) = findings(output, "shard")
    assert text.startswith(f"{other}: anna-0 lies at byte ")


def test_a_sample_that_the_index_has_twice_is_a_finding(output: Path) -> None:
    places = places_of(output)
    (twin,) = (sample for _, sample in places if sample.key == "anna-0")
    write_shards(output, [*places, ("shard-000002.tar", twin)])
    (text,) = findings(output, "clip")
    assert text == f"anna-0: 2 times in the index: {place_of(output, 'anna-0')['shard']}, shard-000002.tar"


def test_a_missing_shard_and_one_too_many_are_findings(output: Path) -> None:
    shards = output / "shards"
    (shards / "shard-000001.tar").rename(shards / "shard-000007.tar")
    assert findings(output, "shard") == [
        f"{shards / 'shard-000001.tar'}: missing, and the index names it",
        f"{shards / 'shard-000007.tar'}: not named by the index",
    ]


def test_bytes_after_the_last_sample_are_a_finding(output: Path) -> None:
    path = output / "shards" / "shard-000000.tar"
    path.write_bytes(path.read_bytes() + bytes(20_000))
    assert findings(output, "shard") == [f"{path}: does not end after its last sample"]


def test_an_index_that_disagrees_with_the_clips_is_a_finding(output: Path) -> None:
    edit_table(
        output, "clips", lambda clips: clips.assign(shard=clips["shard"].where(clips["key"] != "anna-0", "x.tar"))
    )
    shard = place_of(output, "anna-0")["shard"]
    assert findings(output, "clip") == [f"anna-0: shard is x.tar in clips.parquet, {shard} in the index"]


def test_json_that_disagrees_with_the_index_is_a_finding(output: Path) -> None:
    fields = sample_of("anna", 0).json | {"start_frame": 100, "end_frame": 105}
    repack(output, of_key("anna-0", json=encode_json(fields)))
    (first, second) = findings(output, "sample")
    assert first.endswith("anna-0: json: start_frame is 100, the index says 0")
    assert second.endswith("anna-0: json: end_frame is 105, the index says 5")


def test_members_must_fit_the_frames_and_each_other(output: Path) -> None:
    def edit(sample: Sample) -> Sample:
        sample = of_key("anna-0", flac=sound(4 * 640))(sample)  # sound that is a frame short
        if sample.key == "anna-1":
            sample = replace(sample, members={n: d for n, d in sample.members.items() if n != "landmarks.npy"})
        return sample

    repack(output, edit)
    texts = findings(output, "sample")
    assert sorted(text.partition(": ")[2] for text in texts) == [
        "anna-0: flac: 2560 samples for 5 frames, expected 3200",
        "anna-1: has no member landmarks.npy",
    ]


def test_samples_without_landmarks_are_well_if_none_has_any(output: Path) -> None:
    repack(output, lambda s: replace(s, members={n: d for n, d in s.members.items() if n != "landmarks.npy"}))
    assert verify(output) == []


@pytest.mark.parametrize(
    ("member", "data", "text"),
    [
        ("mp4", pictures(4), "mp4: 4 frames decode, expected 5"),
        ("mp4", pictures(6), "mp4: 6 frames decode, expected 5"),
        ("mp4", pictures(5, 32), "mp4: pictures of 32x32, expected 64x64"),
        (
            "mp4",
            encode_mp4(np.zeros((5, SIZE, SIZE, 3), np.uint8), fps=24),
            "mp4: frame times are not multiples of 1/25 s",
        ),
        ("mp4", with_b_frames(5), "mp4: 2 B-frames"),
        ("mp4", pictures(5)[:200], "mp4: does not decode"),
        ("flac", lying_flac(5), "flac: 2560 samples decode, expected 3200"),
    ],
    ids=["short", "long", "size", "rate", "b-frames", "torn", "flac"],
)
def test_what_decodes_must_be_what_the_frames_promise(output: Path, member: str, data: bytes, text: str) -> None:
    repack(output, of_key("anna-2", **{member: data}))
    path = output / "shards" / place_of(output, "anna-2")["shard"]
    (found,) = findings(output, "decode")
    assert found.startswith(f"{path}: anna-2: {text}")
    assert verify(output, sample=0) == []  # only decoding sees it


def test_the_samples_decoded_depend_on_the_seed_alone() -> None:
    keys = [f"k{i}" for i in range(100)]
    assert choose(keys, 10, 0) == choose(reversed(keys), 10, 0) != choose(keys, 10, 1)
    assert (len(choose(keys, 10, 0)), choose(keys, None, 0), choose(keys[:3], 10, 0)) == (10, set(keys), set(keys[:3]))


def test_sections_hold_every_row_once() -> None:
    rows = [{"key": str(i), "bytes": size} for i, size in enumerate([10_000_000] * 7 + [80_000_000, 1])]
    pieces = list(cut_sections(Path("a.tar"), rows, frozenset(), frozenset()))
    assert [len(piece.rows) for piece in pieces] == [4, 4, 1]
    assert [row for piece in pieces for row in piece.rows] == rows


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (lambda t: pd.concat([t, t[t["path"] == "/raw/text.mp4"]]), "/raw/text.mp4: has 2 rows in sources.parquet"),
        (
            lambda t: t.assign(status=t["status"].astype("str").where(t["path"] != "/raw/anna.mp4", "dropped")),
            "/raw/anna.mp4: state dropped, 3 clips kept",
        ),
        (
            lambda t: t.assign(status=t["status"].astype("str").where(t["path"] != "/raw/text.mp4", "lost")),
            "/raw/text.mp4: state lost is not one of kept, dropped, error, duplicate",
        ),
        (
            lambda t: t.assign(duplicate_of=t["duplicate_of"].replace("/raw/anna.mp4", "/raw/berta.mp4")),
            "/raw/copy.mp4: a duplicate of /raw/berta.mp4, which is no source with the same bytes",
        ),
    ],
    ids=["twice", "contradicted", "unknown", "copy of another"],
)
def test_every_source_has_one_state_that_its_clips_bear_out(output: Path, edit: EditTable, text: str) -> None:
    edit_table(output, "sources", edit)
    assert findings(output, "source") == [text]


def test_a_source_without_a_row_is_missed_by_its_clips_and_by_its_timings(output: Path) -> None:
    edit_table(output, "sources", lambda t: t[t["path"] != "/raw/text.mp4"])
    found = findings(output, "source")
    assert found[0] == "/raw/text.mp4: has clips and no row in sources.parquet"
    assert found[1:] == ["/raw/text.mp4: is in one of sources.parquet and timings.parquet alone"]


def test_counts_must_follow_from_the_clips(output: Path) -> None:
    summary = output / "manifests" / "summary.csv"
    summary.write_text(summary.read_text().replace("no_face,6,", "no_face,5,"))
    edit_table(output, "sources", lambda table: table.assign(kept_s=table["kept_s"] + 1))
    texts = findings(output, "count")
    assert "/raw/anna.mp4: sources.parquet says 3 clips, 1.60 s kept, its clips say 3 clips, 0.60 s" in texts
    assert (
        texts[-1] == f"{summary}: steps/stable_spans no_face: 5 clips, 30 frames; clips.parquet has 6 clips, 30 frames"
    )


@pytest.mark.parametrize(
    "name", ["manifests/clips.parquet", "manifests/sources.parquet", "manifests/summary.csv", "shards/index.parquet"]
)
def test_a_table_that_is_gone_or_damaged_is_a_finding(output: Path, name: str) -> None:
    (output / name).write_bytes((output / name).read_bytes()[:20])
    (damaged,) = findings(output, "table")
    (output / name).unlink()
    (gone,) = findings(output, "table")
    assert Path(name).name in damaged and Path(name).name in gone


def test_an_unfinished_run_is_not_well_and_says_so(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe.yaml").touch()
    assert main([str(tmp_path)]) == 1
    assert "its run has not ended yet" in capsys.readouterr().out


def test_findings_are_one_line_each_and_few_of_a_kind(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(SHOWN + 3):
        (output / "shards" / f"new\nline-{i:02d}.tar").touch()
    assert main([str(output), "--workers", "1"]) == 1
    *lines, rest, verdict = capsys.readouterr().out.splitlines()
    assert len(lines) == SHOWN
    assert lines[0] == f"shard: {output / 'shards'}/new\\nline-00.tar: not named by the index"
    assert rest == "shard: and 3 more"
    assert verdict.startswith("SOMETHING IS WRONG: 23 shard (4 sources, 6 samples in 2 shards, 6 decoded; ")


def test_what_is_no_output_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        assert main([str(folder)]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("not the output folder of a curation run") == 2


def test_an_output_in_which_nothing_was_kept_is_well(tmp_path: Path) -> None:
    pack({}, tmp_path / "shards")
    clip = {"source": "/raw/a.mp4", "key": "a", "start_frame": 0, "end_frame": 0, "kept": False, "reason": "error:io"}
    source = {"path": "/raw/a.mp4", "status": "error", "reason": "error:io"}
    write_manifests(tmp_path, [clip], [source], scores={}, reasons={})
    write_summary(tmp_path)
    write_recipe(tmp_path)
    assert verify(tmp_path) == []


@pytest.fixture
def recorded(output: Path) -> Path:
    """A copy to break, with the ledger and the parts of its run."""
    record(output)
    return output


def test_a_ledger_that_says_the_same_is_well(recorded: Path) -> None:
    assert verify(recorded) == []


def test_a_source_begun_without_end_is_unfinished(recorded: Path) -> None:
    append_to_log(recorded / "ledger" / ATTEMPTS, ["/raw/cleo.mp4"])
    with (recorded / "ledger" / ATTEMPTS).open("a") as log:
        log.write('"/raw/torn')
    assert findings(recorded, "unfinished") == ["/raw/cleo.mp4: begun, and it has no end; run the same command again"]
    for name in ("clips", "sources"):  # as after a run that was stopped before the corpus
        (recorded / "manifests" / f"{name}.parquet").unlink()
    assert [finding.text for finding in verify(recorded) if finding.kind == "unfinished"] == [
        "/raw/cleo.mp4: begun, and it has no end; run the same command again"
    ]


def test_a_source_that_is_finished_and_in_no_manifest_is_unfinished(recorded: Path) -> None:
    ends = ends_of(recorded)
    write_ledger(recorded, [*ends, {**ends[-1], "path": "/raw/new.mp4"}])
    (recorded / "ledger" / "000001.parquet").unlink()
    assert findings(recorded, "unfinished") == [
        "/raw/new.mp4: finished, and not in sources.parquet yet; run the same command again"
    ]


def test_a_source_without_an_end_in_the_ledger_or_with_two_is_a_finding(recorded: Path) -> None:
    ends = ends_of(recorded)
    write_ledger(recorded, ends[:1], [*ends[1:], ends[1]])
    assert findings(recorded, "ledger") == [f"{recorded}/ledger/000001.parquet: has two ends of {ends[1]['path']}"]
    write_ledger(recorded, ends[:1], ends[2:])
    append_to_log(recorded / "ledger" / ATTEMPTS, [])
    told = [finding.text for finding in verify(recorded) if finding.kind == "ledger"]
    assert told == [f"{ends[1]['path']}: in sources.parquet, and the ledger has no end of it"]


def test_the_later_end_of_a_source_counts(recorded: Path) -> None:
    ends = ends_of(recorded)
    write_ledger(recorded, changed(ends, "/raw/anna.mp4", status="error", reason="error:timeout"), ends[:1])
    assert ends[0]["path"] == "/raw/anna.mp4"
    assert verify(recorded) == []


def test_another_state_or_other_rows_in_the_manifests_are_a_finding(recorded: Path) -> None:
    ends = ends_of(recorded)
    write_ledger(recorded, changed(ends, "/raw/text.mp4", reason="error:decode"), [])
    (recorded / "ledger" / "000001.parquet").unlink()
    assert findings(recorded, "ledger") == [
        "/raw/text.mp4: error (error:decode) in the ledger, error (error:probe) in sources.parquet; "
        "run the same command again"
    ]
    curated = json.loads(ends[0]["curated"])
    curated["clips"][0] |= {"end_frame": 4}
    write_ledger(recorded, changed(ends, "/raw/anna.mp4", curated=json.dumps(curated)))
    assert findings(recorded, "ledger") == [
        "/raw/anna.mp4: clip anna-0 [0, 4) is in the ledger alone; run the same command again",
        "/raw/anna.mp4: clip anna-0 [0, 5) is in clips.parquet alone; run the same command again",
    ]


@pytest.mark.parametrize(("row", "told"), [(0, "kept is True, False"), (1, "kept is False, True")])
def test_a_verdict_that_is_not_the_ledgers_is_a_finding(recorded: Path, row: int, told: str) -> None:
    ends = ends_of(recorded)
    curated = json.loads(ends[0]["curated"])
    curated["clips"][row]["kept"] ^= True
    write_ledger(recorded, changed(ends, "/raw/anna.mp4", curated=json.dumps(curated)), [])
    (recorded / "ledger" / "000001.parquet").unlink()
    key = curated["clips"][row]["key"]
    assert findings(recorded, "value") == [f"/raw/anna.mp4: clip {key}: {told} in the ledger"]


def test_a_part_that_is_gone_or_holds_other_samples_is_a_finding(recorded: Path) -> None:
    anna, berta = (part_path(recorded, name * 8) for name in SOURCES)
    anna.unlink()
    write_tar(berta, [sample_of("berta", n) for n in (0, 1, 7)])
    assert findings(recorded, "ledger") == [
        f"{anna}: missing, and nobody removed it with --drop-parts; copy it back",
        f"{berta}: lacks berta-2",
        f"{berta}: holds berta-7, unknown to the ledger",
    ]
    berta.write_bytes(b"?" * 2048)
    append_to_log(recorded / "ledger" / DROPPED_PARTS, ["anna" * 8])
    assert findings(recorded, "ledger") == [f"{berta}: byte 0: damaged tar header"]


@pytest.mark.parametrize("member", MEMBERS)
def test_a_bit_that_turned_in_a_part_is_a_finding_when_parts_are_read(recorded: Path, member: str) -> None:
    part = part_path(recorded, "anna" * 8)
    place = next(entry for entry in walk(part) if (entry.key, entry.member) == ("anna-1", member))
    data = bytearray(part.read_bytes())
    data[place.offset + place.size // 2] ^= 1
    part.write_bytes(data)
    (text,) = findings(recorded, "ledger")
    assert text.startswith(f"{part}: anna-1: damaged since it was written")
    assert verify(recorded, sample=0) == [], "only names are compared then"


@pytest.mark.parametrize("put", [lambda p: p.symlink_to("/nowhere/shard.tar"), lambda p: p.mkdir()])
def test_a_dangling_link_or_a_folder_in_the_place_of_a_shard_is_a_finding(output: Path, put: Any) -> None:
    path = output / "shards" / "shard-000001.tar"
    path.unlink()
    put(path)
    assert findings(output, "shard") == [f"{path}: no file, and the index names it"]


def test_a_score_in_the_manifest_that_is_not_the_samples_or_the_ledgers_is_a_finding(recorded: Path) -> None:
    def edit(clips: Any) -> Any:
        clips.loc[clips["key"] == "anna-1", "blur"] = 0.5
        return clips

    edit_table(recorded, "clips", edit)
    found = [f"{finding.kind}: {finding.text}" for finding in verify(recorded)]
    assert found == [
        "value: /raw/anna.mp4: clip anna-1: blur is 0.5, 0.125 in the ledger",
        f"sample: {recorded}/shards/{places_by_key(recorded)['anna-1']}: anna-1: json: blur is 0.125, clips.parquet "
        "says 0.5",
    ]


def places_by_key(output: Path) -> dict[str, str]:
    return {row["key"]: row["shard"] for row in records(read_index(output / "shards"))}


@pytest.mark.parametrize(
    ("table", "column", "value", "text"),
    [
        ("sources", "frames", 31, "frames is 31, 30 in the ledger"),
        ("timings", "cpu_s_crop", 9.0, "cpu_s_crop is 9.0, 1.5 in the ledger"),
    ],
)
def test_a_number_of_a_source_that_is_not_the_ledgers_is_a_finding(
    recorded: Path, table: str, column: str, value: float, text: str
) -> None:
    def edit(rows: Any) -> Any:
        rows.loc[rows["path"] == "/raw/berta.mp4", column] = value
        return rows

    edit_table(recorded, table, edit)
    assert f"/raw/berta.mp4: {text}" in [finding.text for finding in verify(recorded) if finding.kind == "value"]


def test_what_nothing_names_is_a_finding_and_what_a_killed_writer_left_is_none(recorded: Path) -> None:
    strays = [recorded / "parts" / "zz" / f"{'zoe' * 8}.tar", recorded / "shards" / "notes.txt"]
    for path in (*strays, recorded / "shards" / ".tmp-shard-000003.tar-00"):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert findings(recorded, "stray") == [
        f"{strays[0]}: the part of no source of this run",
        f"{strays[1]}: not named by the index",
    ]


def test_the_part_of_a_source_that_was_replaced_since_is_no_stray(recorded: Path) -> None:
    ends = ends_of(recorded)
    part_path(recorded, "old" * 8).parent.mkdir()
    part_path(recorded, "old" * 8).touch()
    write_ledger(recorded, changed(ends, "/raw/anna.mp4", source_id="old" * 8), ends[:1])
    assert verify(recorded) == []


@pytest.mark.parametrize(
    ("break_it", "text"),
    [
        (lambda out: (out / "recipe.yaml").unlink(), "missing; nobody can tell"),
        (lambda out: (out / "recipe.yaml").write_text("[1"), "cannot be read"),
        (lambda out: (out / "recipe.yaml").write_text("hash: abc"), "cannot be read"),
        (lambda out: write_recipe(out, code="1" * 64), "was changed since it was written"),
        (lambda out: write_recipe(out, "recipe-0badcafe.yaml"), "its name says another"),
    ],
)
def test_a_recipe_that_is_not_what_it_says_is_a_finding(output: Path, break_it: Any, text: str) -> None:
    break_it(output)
    (found,) = findings(output, "recipe")
    assert text in found and str(output) in found


def test_a_segment_that_cannot_be_read_is_a_finding(recorded: Path) -> None:
    (recorded / "ledger" / "000001.parquet").write_bytes(b"PAR1")
    (told,) = findings(recorded, "table")
    assert told.startswith(f"{recorded}/ledger/000001.parquet: not a parquet file")
