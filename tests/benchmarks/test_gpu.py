"""The acceptance for a GPU, run on a CPU."""

import ast
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import gpu
from benchmarks.gpu import Chosen, Row

PARTS_IMPORT = ["benchmarks.train_step", "models.hyperiqa", "models.syncnet", "models.whisper_encoder",
                "tests.training.numbered", "training.chunk", "training.distributed"]  # fmt: skip
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


def outside(module: str, seen: set[str]) -> set[str]:
    """Packages that importing a module of ours needs."""
    path = gpu.ROOT / f"{module.replace('.', '/')}.py"
    if not path.is_file():
        top = module.partition(".")[0]
        return set() if (gpu.ROOT / top).is_dir() or top in sys.stdlib_module_names else {top}
    if module in seen:
        return set()
    seen.add(module)
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found.update(*(outside(alias.name, seen) for alias in node.names))
        elif isinstance(node, ast.ImportFrom):
            found |= outside(str(node.module), seen)
    return found


def test_what_the_parts_import_is_there_or_carried() -> None:
    carried = {name.partition("==")[0].replace("openai-", "").replace("-", "_") for name, _ in gpu.WHEELS}
    needed = set[str]().union(*(outside(module, set()) for module in PARTS_IMPORT))
    assert {"torch", "av"} <= needed <= {*gpu.BARE, *gpu.OPTIONAL, *carried}
