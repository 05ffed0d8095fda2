"""The maps of the house are true and whole: docs/architecture.md, and those at the top of `__init__` files."""

import ast
import re
from pathlib import Path

import pytest

from tests.test_imports import ROOMS, ROOT, files

TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
MAP = TEXT.partition("\n```\n")[2].partition("\n```")[0].splitlines()
CELL = re.compile(r"[a-z0-9_.]+/?( [a-z0-9_.]+/?)*")
INITS = [path for room in ROOMS for path in files(room) if path.name == "__init__.py"]


def sections() -> dict[str, list[str]]:
    """The lines of the map by room: one that begins at the margin, and what is indented below it."""
    found: dict[str, list[str]] = {}
    room = ""
    for line in MAP:
        room = room if line.startswith(" ") else line.split()[0].rstrip("/")
        found.setdefault(room, []).append(line)
    return found


def names_in(line: str) -> list[str]:
    """The files and folders that a line of a map is about: its columns up to the first that is prose."""
    found: list[str] = []
    for cell in re.split(r"\s{2,}", line.strip()):
        if not CELL.fullmatch(cell) or (found and not exist(cell.split(), line)):
            break
        found += cell.split()
    return found


def exist(names: list[str], line: str) -> bool:
    folders = [ROOT, *(ROOT / room for room in ROOMS), *ROOT.glob("*/*/")]
    return all(any((f / name).exists() or (f / f"{name}.py").exists() for f in folders) for name in names)


def test_the_map_has_a_section_for_each_room() -> None:
    assert {name for name in ROOMS if (ROOT / name).is_dir()} <= {*sections(), "storage"}
    text = "\n".join(MAP)
    assert all(f"{name}.py" in text for name in ROOMS if (ROOT / f"{name}.py").is_file())


@pytest.mark.parametrize("room", [name for name in ROOMS if (ROOT / name).is_dir() and name not in ("storage", "demo")])
def test_every_file_of_a_room_is_in_the_map(room: str) -> None:
    words = set(re.findall(r"[a-z0-9_]+", "\n".join(sections()[room])))
    missing = [path for path in files(room) if path.stem not in words and path.name != "__init__.py"]
    listed = [path for path in missing if f"{path.parent.name}/" not in "\n".join(sections()[room])]
    assert not listed, f"not in the map of docs/architecture.md: {', '.join(map(str, listed))}"


@pytest.mark.parametrize("line", MAP)
def test_what_the_map_names_is_there(line: str) -> None:
    names = names_in(line)
    assert names and exist(names, line), f"{names} of {line!r}"


@pytest.mark.parametrize("path", INITS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_map_of_a_package_names_its_files_and_nothing_else(path: Path) -> None:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    rows = [match[1] for match in re.finditer(r"^([a-z0-9_, /]+?)\s{2,}\S", text, re.M)]
    rows += [match[1] for match in re.finditer(r"^([a-z0-9_]+/?) \S", text, re.M) if rows]
    named = {name.strip() for row in rows for name in row.split(",")}
    there = {each.stem for each in path.parent.glob("[!_]*.py")} | {
        f"{each.name}/" for each in path.parent.glob("[!_]*/")
    }
    words = set(re.findall(r"[a-z0-9_]+/?", text))
    if rows:
        assert named <= there | {"verify", "review"}, f"{path}: names {named - there}"
        assert there <= words | {"pycache"}, f"{path}: its map lacks {there - words}"
