import os
from pathlib import Path

import pytest

from curation.ledger_files import append_to_log, read_log


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
