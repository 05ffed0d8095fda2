from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from manifests.reader import ManifestError, read_clips, read_run_notes, read_sources
from manifests.schema import CLIPS, REASONS, SOURCES
from manifests.writer import write_manifests
from storage.table import VERSION
from tests.manifests.conftest import REASONS as FILTER_REASONS
from tests.manifests.conftest import SCORES, STAGES

Rows = list[dict[str, Any]]


@pytest.fixture
def output(tmp_path: Path, clips: Rows, sources: Rows) -> Path:
    write_manifests(tmp_path, clips, sources, scores=SCORES, reasons=FILTER_REASONS, stages=STAGES)
    return tmp_path


def test_clips_come_back_sorted_with_their_dtypes(output: Path, clips: Rows) -> None:
    table = read_clips(output)
    assert list(table.columns) == [*(column.name for column in CLIPS), *SCORES]
    assert {c.name: str(table[c.name].dtype) for c in CLIPS} == {c.name: c.dtype for c in CLIPS}
    assert list(table["start_frame"]) == [0, 60, 250, 0, 0, 0]
    assert list(table["source"]) == sorted(row["source"] for row in clips)
    first = table.iloc[0]
    assert (first["key"], first["duration_s"], first["audio_shift_frames"]) == ("anna-0-60", 2.4, -2)
    assert np.isnan(table["syncnet_confidence"].iloc[1])
    assert list(table["shard"].isna()) == [False, True, True, True, True, True]


def test_sources_come_back_with_their_timings(output: Path) -> None:
    table = read_sources(output).set_index("path")
    dtypes = {column.name: column.dtype for column in SOURCES if column.name != "path"}
    assert {name: str(table[name].dtype) for name in dtypes} == dtypes
    assert table.loc["/raw/anna.mp4", "cpu_s_faces"] == 2.0
    assert table.loc["/raw/anna.mp4", "worker"] == "w1"
    assert list(table["clips_kept"]) == [1, 0, 0, 0]
    assert list(table["kept_s"]) == [2.4, 0, 0, 0]
    assert table.loc["/raw/cleo.mp4"].isna()["frames"]


def test_plain_pandas_reads_the_same(output: Path) -> None:
    pd.testing.assert_frame_equal(pd.read_parquet(output / "manifests" / "clips.parquet"), read_clips(output))


def test_meanings_travel_with_the_file(output: Path) -> None:
    schema = pq.read_schema(output / "manifests" / "clips.parquet")
    assert schema.field("niqe_score").metadata[b"meaning"].decode() == SCORES["niqe_score"]
    assert schema.field("start_frame").metadata[b"meaning"].decode().endswith("[frames]")
    notes = read_run_notes(output)
    assert list(notes.reasons.items()) == list((REASONS | FILTER_REASONS).items())
    assert (notes.scores, notes.stages) == (SCORES, STAGES)


def test_another_folder_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"no manifests/clips\.parquet; not an output folder"):
        read_clips(tmp_path)


def test_another_table_or_no_table_is_an_error(output: Path) -> None:
    path = output / "manifests" / "clips.parquet"
    path.write_bytes((output / "manifests" / "sources.parquet").read_bytes())
    with pytest.raises(ManifestError, match=r"not a manifests\.clips table \(manifests\.sources\)"):
        read_clips(output)
    pd.DataFrame({"a": [1]}).to_parquet(path)
    with pytest.raises(ManifestError, match="nothing in it says what it is"):
        read_clips(output)
    path.write_bytes(b"PAR1 cut off")
    with pytest.raises(ManifestError, match=r"clips\.parquet: not a parquet file"):
        read_clips(output)


def test_another_schema_version_is_an_error_with_both_numbers(output: Path) -> None:
    path = output / "manifests" / "clips.parquet"
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, VERSION: b"2"}), path)
    with pytest.raises(ManifestError, match="has schema 2, this code reads 1; curate again"):
        read_clips(output)


def test_a_run_without_sources_has_empty_tables_of_the_same_dtypes(tmp_path: Path) -> None:
    write_manifests(tmp_path, [], [], scores=SCORES, reasons=FILTER_REASONS)
    assert {c.name: str(read_clips(tmp_path)[c.name].dtype) for c in CLIPS} == {c.name: c.dtype for c in CLIPS}
    assert len(read_sources(tmp_path)) == 0
