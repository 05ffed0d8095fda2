import os
import random
from pathlib import Path

import pandas as pd
import pytest

from curation.ledger_files import FOLDER, HEADS, LEDGER, MEANINGS, append_to_log, read_in_order, read_log
from storage.table import write_table


def test_what_was_noted_is_on_the_disk_in_one_line_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    append_to_log(tmp_path / "log", ["/raw/a.mp4", "/raw/line\nend \\udce9.mp4"])
    append_to_log(tmp_path / "log", ["/raw/b.mp4"])
    assert read_log(tmp_path / "log") == {"/raw/a.mp4", "/raw/line\nend \\udce9.mp4", "/raw/b.mp4"}
    assert len((tmp_path / "log").read_text().splitlines()) == 3
    assert len(synced) == 2


def test_a_log_that_does_not_exist_holds_nothing(tmp_path: Path) -> None:
    assert read_log(tmp_path / "log") == set()


@pytest.mark.parametrize("kept", range(1, 14))
def test_a_torn_line_is_nothing_and_spoils_nothing_after_it(tmp_path: Path, kept: int) -> None:
    append_to_log(tmp_path / "log", ["/raw/a.mp4", "/raw/b.mp4"])
    whole = (tmp_path / "log").read_bytes()
    (tmp_path / "log").write_bytes(whole[: len(whole) // 2 + kept - 1])
    append_to_log(tmp_path / "log", ["/raw/c.mp4"])
    found = read_log(tmp_path / "log")
    assert {"/raw/a.mp4", "/raw/c.mp4"} <= found <= {"/raw/a.mp4", "/raw/b.mp4", "/raw/c.mp4"}


@pytest.mark.parametrize("at_once", [1, 7, 100])
def test_sources_come_in_order_of_path_however_few_are_held(tmp_path: Path, at_once: int) -> None:
    """Each once, with the row of the later segment, and nothing is left on the disk."""
    (tmp_path / FOLDER).mkdir()
    names = [f"/raw/{n:02d} \u00e9\n.mp4" for n in range(40)]
    random.Random(0).shuffle(names)
    for segment, paths in enumerate((names[:25], names[20:])):
        rows = [{**dict.fromkeys(HEADS, ""), "path": path, "bytes": 1, "mtime_ns": segment} for path in paths]
        frame = pd.DataFrame([{**row, "curated": f'{{"of": {segment}}}'} for row in rows])
        write_table(tmp_path / FOLDER / f"{segment:06d}.parquet", frame, LEDGER, MEANINGS)
    found = list(read_in_order(tmp_path, at_once))
    assert [row["path"] for row in found] == sorted(names)
    assert {row["path"] for row in found if row["mtime_ns"] == 1} == set(names[20:])
    assert all(row["curated"] == f'{{"of": {row["mtime_ns"]}}}' for row in found)
    assert sorted(path.name for path in (tmp_path / FOLDER).iterdir()) == ["000000.parquet", "000001.parquet"]
