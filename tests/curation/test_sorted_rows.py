"""The ledger in order of path, block by block."""

from pathlib import Path

import pytest

from curation.ledger import Ledger
from curation.sorted_rows import SortedRows
from curation.source import Curated, Identity

RECIPE = {"profile": {"stages": []}, "hash": "aaa"}
NAMES = [f"/v/{'ü' if n % 2 else 'a'}{n * 7 % 30:02d}.mp4" for n in range(30)]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Thirty sources in six segments, and one of them curated again."""
    ledger = Ledger(tmp_path / "out", RECIPE)
    for n, name in enumerate([*NAMES, NAMES[3]]):
        source = {"path": name, "status": "dropped", "reason": "no_face", "detail": f"line\n{n}"}
        ledger.add(Identity(Path(name), None, None, None, None), Curated(source, [{"key": name}], {}))
        if n % 5 == 4:
            ledger.flush()
    ledger.flush()
    return ledger


@pytest.mark.parametrize("block_sources", [1, 4, 29, 30, 31])
def test_blocks_are_what_all_at_once_would_be(ledger: Ledger, block_sources: int) -> None:
    with SortedRows(ledger, block_sources) as rows:
        for _ in range(2):
            blocks = list(rows)
            assert [each for block in blocks for each in block] == ledger.read_curated()
            assert max(map(len, blocks)) <= block_sources
            assert all(len(block) == block_sources for block in blocks[:-1])
    assert not list(ledger.folder.glob(".sorted"))


def test_of_two_rows_of_a_source_the_later_counts(ledger: Ledger) -> None:
    with SortedRows(ledger, 4) as rows:
        (found,) = [each for block in rows for each in block if each.source["path"] == NAMES[3]]
    assert found.source["detail"] == "line\n30"


def test_what_a_killed_run_left_is_not_read(ledger: Ledger) -> None:
    left = ledger.folder / ".sorted"
    left.mkdir()
    (left / "000000.jsonl").write_text("torn")
    with SortedRows(ledger, 4) as rows:
        assert [each for block in rows for each in block] == ledger.read_curated()


def test_an_empty_ledger_has_no_blocks(tmp_path: Path) -> None:
    with SortedRows(Ledger(tmp_path / "out", RECIPE)) as rows:
        assert list(rows) == []
