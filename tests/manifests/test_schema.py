import subprocess
import sys

import pytest

from manifests.schema import CLIPS, DTYPES, REASONS, SOURCES, SchemaError, declared_reasons, markdown, score_columns


def test_every_column_has_a_dtype_and_a_meaning() -> None:
    for column in (*CLIPS, *SOURCES):
        assert column.dtype in DTYPES
        assert column.meaning


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
