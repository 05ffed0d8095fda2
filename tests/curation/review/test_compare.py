"""Two runs beside each other: what one keeps and the other does not, in seconds and by reason."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from curation.refilter import main as refilter_main
from curation.review.compare import changed_spans, compare_runs
from curation.review.report import main
from tests.curation.outputs import made_output


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run, and the same with one clip more and one less."""
    folder = tmp_path_factory.mktemp("compared")
    output, other = made_output(folder), folder / "other"
    settings = ["--set", "filters/blur.max_blur=0.75", "--set", "filters/lip_audio.max_offset_frames=1"]
    assert refilter_main([str(output), *settings, "--to", str(other)]) == 0
    return output, other


def test_what_was_gained_and_lost_is_named_with_its_reason(runs: tuple[Path, Path]) -> None:
    before, after = runs
    found = compare_runs(after, before)
    assert (found["gained"]["reasons"], found["lost"]["reasons"]) == ([("blur", 2.6)], [("lip_audio:offset", 2.4)])
    assert found["both"] == 2.4
    assert [(span["start_s"], span["end_s"]) for span in found["gained"]["spans"]] == [(3.0, 5.6)]
    changed = {name: (old, new) for name, old, new in found["settings"]}
    assert changed == {"filters/blur.max_blur": (0.68, 0.75), "filters/lip_audio.max_offset_frames": (6, 1)}


def test_a_run_beside_itself_gained_and_lost_nothing(runs: tuple[Path, Path]) -> None:
    found = compare_runs(runs[0], runs[0])
    assert (found["gained"]["seconds"], found["lost"]["seconds"], found["settings"]) == (0, 0, [])


def test_clips_that_are_cut_elsewhere_are_compared_second_by_second() -> None:
    def table(*rows: tuple[int, int, str]) -> Any:
        return pd.DataFrame(rows, columns=["start_frame", "end_frame", "reason"]).assign(source="a")  # type: ignore[arg-type]

    found = changed_spans(table((0, 50, "kept"), (50, 100, "blur")), table((0, 30, "niqe"), (30, 100, "kept")))
    assert found.to_numpy().tolist() == [
        ["a", 0, 30, "kept", "niqe"],
        ["a", 30, 50, "kept", "kept"],
        ["a", 50, 100, "blur", "kept"],
    ]


def test_the_page_has_the_comparison(runs: tuple[Path, Path], tmp_path: Path, capsys: Any) -> None:
    assert main([str(runs[1]), "--against", str(runs[0])]) == 0
    text = (
        (runs[1] / "report" / "index.html")
        .read_text(encoding="utf-8")
        .split('id="comparison"')[1]
        .split("</section>")[0]
    )
    assert "<b>0:00:02.60</b> gained" in text and "<b>0:00:02.40</b> lost" in text
    assert main([str(runs[1]), "--against", str(tmp_path)]) == 1
    assert "not an output folder" in capsys.readouterr().err
