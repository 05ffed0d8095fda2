"""Who imports whom: the rules of the rooms, read from the source text."""

import ast
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS: dict[str, set[str]] = {  # room -> the rooms that it may import: those above it in this list, and never all
    "clock": set(),
    "command": set(),
    "renamed": set(),
    "storage": set(),
    "pipelines": {"renamed"},  # stages are found by their names
    "weights": {"pipelines"},  # `python weights.py fetch --profile NAME` asks which files a profile names
    "media": {"clock"},
    "models": {"clock", "media", "storage", "weights"},
    "shards": {"clock", "storage"},
    "manifests": {"clock", "command", "renamed", "storage", "media", "shards"},
}
LEAVES = {*ROOMS}
ROOMS |= {"curation": LEAVES, "training": LEAVES - {"renamed"}, "demo": LEAVES - {"renamed"} | {"training"}}


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
    return {module.split(".")[0] for module, _ in imported(path)} & ROOMS.keys()


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_rooms_below_it(room: str) -> None:
    names = list(ROOMS)
    assert ROOMS[room] <= set(names[: names.index(room)])
    assert files(room)
    for path in files(room):
        assert rooms_of(path) - {room} <= ROOMS[room], path


def test_no_module_imports_itself_over_others() -> None:
    """Imports inside functions and for types count as well."""
    modules = {module_of(path): path for room in ROOMS for path in files(room)}
    graph = {name: {m for m, _ in imported(path) if m in modules} for name, path in modules.items()}
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join([*way[way.index(name) :], name])
        if name not in done:
            for other in sorted(graph[name]):
                visit(other, (*way, name))
            done.add(name)

    for name in graph:
        visit(name, ())


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
        numpy_only = {f"models.{name}" for name in ("head_pose", "lip_probe", "lip_probe_fit", "mask", "mouth", "sync")}
        assert module_level <= numpy_only, path


def test_stages_know_nothing_of_the_run() -> None:
    outer = {"curation.run", "curation.worker", "curation.corpus", "curation.ledger", "curation.source"}
    for path in [*files("curation/steps"), *files("curation/filters"), ROOT / "curation/stage.py"]:
        assert not {module for module, _ in imported(path)} & outer, path


def test_a_run_does_not_need_what_looks_at_finished_ones() -> None:
    for path in files("curation"):
        if path.parent.name not in ("review", "page"):
            assert not [module for module, _ in imported(path) if module.startswith("curation.review")], path


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
