import io
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from manifests.reader import read_clips, read_sources
from manifests.summary import funnel, main, print_summary, show_time, totals, write_summary
from manifests.writer import write_manifests
from tests.manifests.conftest import REASONS, SCORES, STAGES

Rows = list[dict[str, Any]]


@pytest.fixture
def output(tmp_path: Path, clips: Rows, sources: Rows) -> Path:
    write_manifests(tmp_path, clips, sources, scores=SCORES, reasons=REASONS, stages=STAGES)
    return tmp_path


def test_reasons_come_in_the_order_of_the_stages_and_kept_last(output: Path) -> None:
    table = write_summary(output)
    assert list(table["reason"]) == ["error:probe", "duplicate", "short", "no_speech", "niqe", "kept"]
    backwards = funnel(read_clips(output), ["filters/niqe", "filters/clip_speech"])
    assert list(backwards["reason"])[-3:] == ["niqe", "no_speech", "kept"]


def test_kept_dropped_and_error_are_the_input(output: Path) -> None:
    table = write_summary(output)
    parts = totals(table)
    assert parts == {"kept": 60, "dropped": 190 + 1 + 500 + 251, "error": 0, "input": 251 + 500 + 251}
    assert parts["input"] == sum(read_sources(output)["frames"].dropna())
    assert sum(table["share"]) == pytest.approx(1)
    assert sum(table["clips"]) == len(read_clips(output))


def test_hours_of_an_error_count(clips: Rows) -> None:
    failed = {"start_frame": 0, "end_frame": 90_000, "stage": None, "reason": "error:timeout"}
    table = funnel(pd.DataFrame([failed, {**failed, "reason": "kept", "end_frame": 270_000}]))
    assert list(table["hours"]) == [1, 3]
    assert list(table["share"]) == [0.25, 0.75]
    assert totals(table) == {"kept": 270_000, "dropped": 0, "error": 90_000, "input": 360_000}


def test_summary_csv_is_the_funnel_and_the_same_twice(output: Path) -> None:
    table = write_summary(output)
    path = output / "manifests" / "summary.csv"
    first = path.read_bytes()
    pd.testing.assert_frame_equal(pd.read_csv(path, keep_default_na=False), table, check_dtype=False)
    write_summary(output)
    assert path.read_bytes() == first


def test_printed_table_ends_with_the_account(output: Path) -> None:
    text = io.StringIO()
    print_summary(write_summary(output), Console(file=text, width=100))
    assert (
        text.getvalue().strip().splitlines()[-1]
        == "kept 0:00:02.40 + dropped 0:00:37.68 + error 0:00:00.00 = input 0:00:40.08"
    )
    assert "no_speech" in text.getvalue()


def test_printed_times_are_exact() -> None:
    assert show_time(600 * 90_000 + 61 * 25 + 1) == "600:01:01.04"


def test_nothing_curated_is_an_empty_funnel(tmp_path: Path) -> None:
    write_manifests(tmp_path, [], [], scores={}, reasons={})
    table = write_summary(tmp_path)
    assert len(table) == 0
    print_summary(table, Console(file=io.StringIO()))


def test_command_prints_or_says_what_is_wrong(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(output)]) == 0
    assert "niqe" in capsys.readouterr().out
    assert main([str(output / "nowhere")]) == 1
    assert "not an output folder" in capsys.readouterr().err
