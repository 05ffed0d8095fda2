"""The acceptance for a GPU, run on a CPU."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import gpu
from benchmarks.gpu import Chosen, Row

ON_CPU = ["--device", "cpu", "--tiny"]


def rows_of(file: Path) -> list[Row]:
    return gpu.read_rows(file)


@pytest.mark.slow
def test_every_part_runs_small_on_a_cpu(tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    assert gpu.main([*ON_CPU, "--json", str(file), "--minutes", "30"]) == 0
    found = rows_of(file)
    assert [*dict.fromkeys(row.part for row in found)] == [*gpu.PARTS]
    assert {row.part for row in found if row.value is not None} == {*gpu.PARTS}
    assert all(math.isfinite(row.value) for row in found if row.value is not None)
    assert all(row.value == 0.0 for row in found if row.part == "parity")  # a CPU beside itself
    errors = [abs(row.value or 0) for row in found if row.part == "precision"]
    assert all(error > 0 for error in errors) and max(errors[:-1]) < 0.1  # the last is in grey levels


def test_a_part_that_fails_or_lacks_a_package_is_a_row_and_the_others_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def lacks(chosen: Chosen) -> Iterator[Row]:
        yield Row("lacks", "before", 1.0, "ms")
        import no_such_package  # noqa: F401  # pyright: ignore[reportMissingImports]

    def fails(chosen: Chosen) -> Iterator[Row]:
        raise RuntimeError("CUDA error")
        yield

    def works(chosen: Chosen) -> Iterator[Row]:
        yield Row("works", "step", 2.0, "ms")

    monkeypatch.setattr(gpu, "PARTS", {"lacks": lacks, "fails": fails, "works": works})
    file = tmp_path / "gpu.json"
    assert gpu.main([*ON_CPU, "--json", str(file)]) == 1
    by_part = {part: [row for row in rows_of(file) if row.part == part] for part in gpu.PARTS}
    assert [row.unit for row in by_part["lacks"]] == ["ms", "skipped: no module no_such_package"]
    assert "CUDA error" in by_part["fails"][0].unit
    assert by_part["works"][0].value == 2.0


def test_a_part_in_its_own_process_is_stopped_in_time(tmp_path: Path) -> None:
    options = gpu.parser().parse_args([*ON_CPU, "--json", str(tmp_path / "gpu.json")])
    [row] = gpu.run_apart("step", options, 0.3)
    assert row.unit == "stopped after 0 s"


def test_no_part_is_begun_without_time(tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    assert gpu.main([*ON_CPU, "--json", str(file), "--minutes", "0"]) == 0
    assert {row.unit for row in rows_of(file)} == {"skipped: no time left"}
    assert json.loads(file.read_text())["about"]["torch"]


def test_what_is_carried_fits() -> None:
    assert sum(megabytes for _, megabytes in gpu.WHEELS) <= 60
