"""Who imports whom: the rules of the rooms, read from the source text."""

import ast
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LEAVES: dict[str, set[str]] = {  # room -> the other rooms that it may import
    "pipelines": {"curation"},  # by name only, when a profile names a stage
    "weights": {"pipelines"},  # `python weights.py fetch --profile NAME` asks which files a profile names
    "media": set(),
    "models": {"weights", "media"},
    "shards": set(),
    "manifests": {"shards"},
}
ALLOWED = {
    "shards/verify.py": {"manifests"},  # the one file that compares what both folders of an output say
    "shards/margin.py": {"media"},  # the sound of a sample is cut where a part becomes a shard
    "manifests/limits.py": {"pipelines"},  # what a run's stages compare, found by their names in its recipe
    "manifests/pictures.py": {"media", "training"},  # what a row looks and sounds like; the mask it is trained with
}
WITH_SAMPLES = {"manifests/pictures.py", "manifests/refilter.py"}  # the others read tables only
HALVES = {"curation", "training"}
ROOMS = LEAVES.keys() | HALVES | {"demo"}


def files(room: str) -> list[Path]:
    return [ROOT / f"{room}.py"] if (ROOT / f"{room}.py").is_file() else sorted((ROOT / room).rglob("*.py"))


def imported(path: Path) -> Iterator[tuple[str, bool]]:
    """(module, whether at the top of the file) of every import, those inside functions and for types included."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node in tree.body) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            assert node.module is not None
            yield node.module, node in tree.body


def rooms_of(path: Path) -> set[str]:
    return {module.split(".")[0] for module, _ in imported(path)} & ROOMS


@pytest.mark.parametrize("room", LEAVES)
def test_leaves_import_no_other_room(room: str) -> None:
    assert files(room)
    for path in files(room):
        assert rooms_of(path) - {room} <= LEAVES[room] | ALLOWED.get(str(path.relative_to(ROOT)), set()), path


def test_manifests_read_only_the_tables_of_the_shards() -> None:
    tables = [path for path in files("manifests") if str(path.relative_to(ROOT)) not in WITH_SAMPLES]
    modules = {m for path in tables for m, _ in imported(path) if m.startswith("shards")}
    assert modules <= {"shards.index", "shards.table", "shards.whole_file"}


@pytest.mark.parametrize(("half", "other"), [("curation", "training"), ("training", "curation")])
def test_the_halves_never_import_each_other(half: str, other: str) -> None:
    for path in files(half):
        assert not rooms_of(path) & {other, "demo"}, path


def test_only_the_pool_imports_ray() -> None:
    users = [path for room in ROOMS for path in files(room) if any(m.split(".")[0] == "ray" for m, _ in imported(path))]
    assert [str(path.relative_to(ROOT)) for path in users] == ["curation/pool.py"]


def test_networks_are_imported_by_their_models_only() -> None:
    heavy = {"torch", "torchvision", "ultralytics", "mediapipe", "whisper", "pyiqa", "onnxruntime", "silero_vad"}
    for room in ("pipelines", "weights", "media", "shards", "manifests", "curation"):
        for path in files(room):
            found = {module.split(".")[0] for module, _ in imported(path)} & heavy
            assert not found, path


def test_models_are_imported_when_a_stage_runs_not_before() -> None:
    """`pipelines` imports every stage that a profile names to check its settings: that must take no second."""
    for path in files("curation"):
        module_level = {module for module, top in imported(path) if top and module.startswith("models")}
        assert module_level <= {"models.lip_probe"}, path  # numpy only


def test_stages_know_nothing_of_the_run() -> None:
    outer = {"curation.run", "curation.worker", "curation.corpus", "curation.ledger", "curation.source"}
    for path in [*files("curation/steps"), *files("curation/filters"), ROOT / "curation/stage.py"]:
        assert not {module for module, _ in imported(path)} & outer, path


def test_every_package_in_use_is_declared() -> None:
    import re
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = [
        *project["dependencies"],
        *(line for lines in project["optional-dependencies"].values() for line in lines),
    ]
    declared = {re.split(r"[\[<>=]", line)[0].lower().replace("_", "-") for line in listed}
    owners = packages_distributions()
    for room in ROOMS:
        for path in files(room):
            for module, _ in imported(path):
                top = module.split(".")[0]
                if top in sys.stdlib_module_names or top in ROOMS:
                    continue
                found = {owner.lower().replace("_", "-") for owner in owners.get(top, [])}
                assert found & declared, f"{path.relative_to(ROOT)}: {top} comes from {found}, not in pyproject.toml"
