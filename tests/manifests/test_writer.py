import random
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests import writer
from manifests.reader import read_clips, read_sources
from manifests.schema import SchemaError
from manifests.writer import PartitionError, check_partition, write_manifests
from tests.manifests.conftest import REASONS, SCORES, STAGES

Rows = list[dict[str, Any]]
SOURCE = {"path": "/raw/a.mp4", "frames": 100}


def write(output: Path, clips: Rows, sources: Rows) -> None:
    write_manifests(output, clips, sources, scores=SCORES, reasons=REASONS, stages=STAGES)


def spans(*frames: tuple[int, int], kept: bool = False) -> Rows:
    return [{"key": f"a-{start}", "start_frame": start, "end_frame": end, "kept": kept} for start, end in frames]


def test_equal_rows_in_any_order_give_equal_bytes(tmp_path: Path, clips: Rows, sources: Rows) -> None:
    write(tmp_path / "a", clips, sources)
    write(tmp_path / "b", random.Random(0).sample(clips, len(clips)), sources[::-1])
    for name in ("clips", "sources", "timings"):
        paths = [tmp_path / run / "manifests" / f"{name}.parquet" for run in "ab"]
        assert paths[0].read_bytes() == paths[1].read_bytes()


def test_timings_do_not_change_the_other_tables(tmp_path: Path, clips: Rows, sources: Rows) -> None:
    write(tmp_path / "a", clips, sources)
    write(tmp_path / "b", clips, [{**row, "wall_s": 99.0, "worker": "w9", "cpu_s_new": 1.0} for row in sources])
    same = {
        name: (tmp_path / "a/manifests" / name).read_bytes() == (tmp_path / "b/manifests" / name).read_bytes()
        for name in ("clips.parquet", "sources.parquet", "timings.parquet")
    }
    assert same == {"clips.parquet": True, "sources.parquet": True, "timings.parquet": False}


def test_rows_given_are_not_changed(tmp_path: Path, clips: Rows, sources: Rows) -> None:
    before = [dict(row) for row in (*clips, *sources)]
    write(tmp_path, clips, sources)
    assert [*clips, *sources] == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"reason": "nique"}, r"undeclared reason 'nique' \(did you mean niqe\?\)"),
        ({"nique_score": 1.0}, r"undeclared column 'nique_score' \(did you mean niqe_score\?\)"),
        ({"niqe_score": "9.5"}, "niqe_score is '9.5', expected float64"),
        ({"start_frame": 60.0}, "start_frame and end_frame must be integers"),
        ({"audio_shift_frames": 1.5}, "audio_shift_frames is 1.5, expected Int64"),
        ({"source": None}, "source is None, expected str"),
        ({"kept": 0}, "kept is 0, expected bool"),
        ({"kept": True}, "kept is True, reason is 'niqe'"),
        ({"duration_s": 9.0}, "duration_s is 9.0, the frames say 7.6"),
        ({"end_frame": 249}, r"anna\.mp4: frames 249 to 250 belong to no row"),
        ({"source": "/raw/dora.mp4"}, r"dora\.mp4: clips of a source that has no row in sources"),
    ],
)
def test_a_wrong_clip_is_named_and_nothing_is_written(
    tmp_path: Path, clips: Rows, sources: Rows, change: dict[str, Any], said: str
) -> None:
    clips[0] |= change
    with pytest.raises((SchemaError, PartitionError), match=said):
        write(tmp_path, clips, sources)
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"status": "good"}, "status 'good' is not one of kept, dropped"),
        ({"status": "dropped"}, "status dropped, reason kept, 1 clips kept"),
        ({"reason": "whatever"}, "undeclared reason 'whatever'"),
        ({"clips_kept": 2}, "clips_kept is 2, its rows say 1"),
        ({"frames": 252}, "frames 251 to 252 belong to no row"),
        ({"path": "/raw/berta.mp4"}, r"berta\.mp4: two rows in sources"),
        ({"cpu_s_faces": "2"}, "cpu_s_faces is '2', expected float64"),
        ({"cpus_faces": 2.0}, "undeclared column 'cpus_faces'"),
    ],
)
def test_a_wrong_source_is_named(tmp_path: Path, clips: Rows, sources: Rows, change: dict[str, Any], said: str) -> None:
    sources[0] |= change
    with pytest.raises((SchemaError, PartitionError), match=said):
        write(tmp_path, clips, sources)


def test_a_source_without_rows_is_named(tmp_path: Path, clips: Rows, sources: Rows) -> None:
    with pytest.raises(PartitionError, match=r"cleo\.mp4: no rows"):
        write(tmp_path, [row for row in clips if "cleo" not in row["source"]], sources)


def test_a_key_is_kept_once(tmp_path: Path, clips: Rows, sources: Rows) -> None:
    clips[3] |= {"key": clips[1]["key"], "kept": True, "reason": "kept", "stage": None}
    sources[2] |= {"status": "kept", "reason": "kept"}
    with pytest.raises(SchemaError, match="1 keys are kept twice"):
        write(tmp_path, clips, sources)


def test_row_groups_change_how_tables_are_stored_and_not_what_is_read(
    tmp_path: Path, clips: Rows, sources: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "one", clips, sources)
    monkeypatch.setattr(writer, "ROW_GROUP", 2)
    write(tmp_path / "some", clips, sources)
    assert pq.ParquetFile(tmp_path / "some/manifests/clips.parquet").num_row_groups > 2
    for read in (read_clips, read_sources):
        one, some = read(tmp_path / "one"), read(tmp_path / "some")
        pd.testing.assert_frame_equal(one.astype(object), some.astype(object))
        assert all(isinstance(kind, pd.CategoricalDtype) for kind in some.dtypes[one.dtypes == "category"])


def test_a_file_name_that_is_not_utf8_can_be_written(tmp_path: Path, clips: Rows, sources: Rows) -> None:
    path = b"/raw/caf\xe9\n.mp4".decode("utf-8", "surrogateescape")
    rename = {"/raw/berta.mp4": path}
    for row in clips:
        row["source"] = rename.get(row["source"], row["source"])
    for row in sources:
        row["path"] = rename.get(row["path"], row["path"])
    write(tmp_path, clips, sources)
    assert "/raw/caf\\udce9\n.mp4" in set(read_clips(tmp_path)["source"])


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (spans((0, 40), (50, 100)), "frames 40 to 50 belong to no row"),
        (spans((0, 60), (50, 100)), "frames 50 to 60 belong to two rows, a-0 and a-50"),
        (spans((0, 100), (20, 30)), "frames 20 to 30 belong to two rows, a-0 and a-20"),
        (spans((0, 99)), "frames 99 to 100 belong to no row"),
        (spans((1, 100)), "frames 0 to 1 belong to no row"),
        (spans((0, 101)), "row a-0 ends at frame 101, the source at 100"),
        (spans((0, 50), (50, 50), (50, 100)), r"row a-50 is \[50, 50\)"),
        ([], "no rows"),
    ],
)
def test_rows_that_do_not_partition_the_source_are_an_error(rows: Rows, said: str) -> None:
    with pytest.raises(PartitionError, match=said):
        check_partition(rows, SOURCE)


def test_a_source_of_unknown_length_is_one_dropped_row_of_no_frames() -> None:
    for frames in (None, 0):
        check_partition(spans((0, 0)), {"path": "a", "frames": frames})
        for rows in (spans((0, 0), (0, 0)), spans((0, 0), kept=True), spans((0, 5))):
            with pytest.raises(PartitionError, match="one dropped row"):
                check_partition(rows, {"path": "a", "frames": frames})


@given(st.integers(2, 500), st.sets(st.integers(1, 499), max_size=8), st.randoms())
def test_every_partition_passes_and_no_damaged_one_does(frames: int, cuts: set[int], rng: random.Random) -> None:
    edges = [0, *sorted(cut for cut in cuts if cut < frames), frames]
    rows = spans(*zip(edges, edges[1:], strict=False))
    rng.shuffle(rows)
    source = {"path": "a", "frames": frames}
    check_partition(rows, source)

    damaged = [dict(row) for row in rows]
    which, edge = rng.randrange(len(rows)), rng.choice(["start_frame", "end_frame"])
    damaged[which][edge] += rng.choice([-1, 1])
    for wrong in (damaged, rows[1:], [*rows, rows[0]]):
        with pytest.raises(PartitionError):
            check_partition(wrong, source)
