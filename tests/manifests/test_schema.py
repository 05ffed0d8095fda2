import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import pipelines
from manifests.schema import (
    CLIPS,
    DTYPES,
    REASONS,
    SOURCES,
    TIMINGS,
    UNITS,
    SchemaError,
    declared_reasons,
    main,
    markdown,
    score_columns,
)
from manifests.writer import write_manifests


def test_every_column_has_a_dtype_and_a_meaning() -> None:
    for column in (*CLIPS, *SOURCES, *TIMINGS):
        assert column.dtype in DTYPES
        assert column.meaning


def test_a_column_whose_name_ends_in_a_unit_states_it() -> None:
    scores = {name: text for stage in stages_of_every_profile() for name, text in stage.SCORES.items()}
    for column in (*CLIPS, *SOURCES, *TIMINGS, *score_columns(scores)):
        assert column.unit == UNITS.get(column.name.rpartition("_")[2], column.unit), column.name
        assert column.dtype not in ("int64", "Int64") or column.unit or column.name.startswith(("audio_", "clips_"))
        assert column.meaning


def stages_of_every_profile() -> list[type[Any]]:
    return [pipelines.stage_class(name) for profile in pipelines.names() for name, _ in pipelines.load(profile).stages]


def test_reasons_of_filters_join_the_list() -> None:
    assert declared_reasons({"niqe": "poor"}) == REASONS | {"niqe": "poor"}


@pytest.mark.parametrize("reason", ["kept", "Niqe", "sync net", "a:b:c", ""])
def test_reasons_that_are_not_words_are_refused(reason: str) -> None:
    with pytest.raises(SchemaError, match="reason"):
        declared_reasons({reason: "something"})


def test_a_reason_cannot_mean_two_things() -> None:
    with pytest.raises(SchemaError, match="silent is declared twice"):
        declared_reasons({"silent": "another meaning"})
    assert declared_reasons({"silent": REASONS["silent"]}) == REASONS


@pytest.mark.parametrize("name", ["key", "duration_s", "niqe score", ""])
def test_scores_cannot_take_the_name_of_a_column(name: str) -> None:
    with pytest.raises(SchemaError, match="score"):
        score_columns({name: "something"})


def test_documentation_names_every_column_and_reason() -> None:
    printed = subprocess.run([sys.executable, "-m", "manifests.schema"], capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == markdown()
    for name in [*(column.name for column in (*CLIPS, *SOURCES)), *REASONS]:
        assert f"| {name} |" in printed.stdout


def test_documentation_of_a_run_has_its_scores_and_reasons(tmp_path: Path, capsys: Any) -> None:
    write_manifests(tmp_path, [], [], scores={"face_px": "how large"}, reasons={"niqe": "too poor"})
    assert main([str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "| face_px | float64 | px | how large |" in text and "| niqe | too poor |" in text
    assert main([str(tmp_path / "gone")]) == 1
