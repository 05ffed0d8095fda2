"""README and docs are true: their links lead somewhere, and every command in them is one that its program takes.

Nothing is run or imported: a program's options are read from its source.
"""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_imports import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "training" / "README.md"])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCED = re.compile(r"^```(?:bash|sh)?\n(.*?)^```", re.M | re.S)
INLINE = re.compile(r"`((?:[A-Z_]+=\S+ )?(?:python|torchrun|make|ray) [^`]+)`")
OTHERS = {"pytest", "tensorboard"}  # modules and programs that are not ours


def links() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        yield from ((str(page.relative_to(ROOT)), link) for link in LINK.findall(page.read_text(encoding="utf-8")))


def commands() -> Iterator[tuple[str, str, bool]]:
    """(page, command, whether it is whole: a line of a block, with all that it needs)."""
    for page in PAGES:
        text, name = page.read_text(encoding="utf-8"), str(page.relative_to(ROOT))
        for block in FENCED.findall(text):
            for line in re.sub(r"\\\n\s*", " ", block).splitlines():
                if re.match(r"(python|torchrun|make|ray|sayanything) ", line):
                    yield name, line, True
        yield from (
            (name, found, False)
            for found in INLINE.findall(re.sub(r"^```.*?^```", "", text, flags=re.M | re.S).replace("\n", " "))
        )


def words_of(command: str) -> list[str]:
    words = shlex.split(command, comments=True)
    return [word for word in words if not re.fullmatch(r"[A-Z_]+=\S*", word) or word.startswith("-")]


def program_of(words: list[str]) -> tuple[Path | None, list[str]]:
    """The file of a command and its arguments; None for programs of others. Raises ValueError if there is none."""
    if words[0] == "ray":
        return program_of(words[words.index("--") + 1 :]) if "--" in words else (None, [])
    if words[0] == "torchrun":
        place = next(i for i, word in enumerate(words) if word.endswith(".py"))
        return find_file(words[place]), words[place + 1 :]
    if words[0] != "python":
        return None, []
    if words[1] == "-m":
        return (None, []) if words[2] in OTHERS else (find_file(words[2].replace(".", "/")), words[3:])
    return find_file(words[1]), words[2:]


def find_file(name: str) -> Path:
    for path in (ROOT / name, ROOT / f"{name}.py", ROOT / name / "__main__.py"):
        if path.is_file():
            return path
    raise ValueError(f"there is no {name}")


def options_of(path: Path) -> dict[str, bool]:
    """The options of a program, or of what it imports from its own package: name -> whether it must be given."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: dict[str, bool] = {"--help": False}
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "add_argument":
            names = [str(word.value) for word in call.args if isinstance(word, ast.Constant)]
            needed = any(k.arg == "required" and getattr(k.value, "value", False) for k in call.keywords)
            found |= {name: needed and name == names[0] for name in names if name.startswith("-")}
    if len(found) > 1:
        return found
    modules = [n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module]
    ours = [ROOT / f"{module.replace('.', '/')}.py" for module in modules]
    return found | {k: v for path in ours if path.is_file() for k, v in options_of(path).items()}


def wrong_with(command: str, whole: bool) -> str:
    """What is wrong with a command; empty if nothing is."""
    words = words_of(command)
    if words[0] == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
        return "" if set(words[1:2]) <= {*targets} else f"no target {words[1]}"
    try:
        path, arguments = program_of(words)
    except ValueError as error:
        return str(error)
    if path is None:
        return ""
    known = options_of(path)
    given = {word.split("=")[0] for word in arguments if word.startswith("-") and len(word) > 1}
    unknown = given - known.keys()
    missing = {name for name, needed in known.items() if needed} - given if whole else set()
    either = {frozenset(("--run", "--output")), frozenset(("-o", "--output"))}
    missing -= {name for pair in either if pair & given for name in pair}
    return f"{path.name} has no {unknown} and needs {missing}" if unknown or missing else ""


@pytest.mark.parametrize(("page", "link"), [*links()])
def test_a_link_leads_to_a_file(page: str, link: str) -> None:
    if link.startswith(("http://", "https://", "mailto:", "#")):
        return
    assert ((ROOT / page).parent / link.partition("#")[0]).exists()


@pytest.mark.parametrize(("page", "command", "whole"), [*commands()])
def test_a_command_is_one_that_its_program_takes(page: str, command: str, whole: bool) -> None:
    assert not wrong_with(command, whole), page


def test_wrong_commands_are_found() -> None:
    assert "has no {'--profil'}" in wrong_with("python curation/run.py --profil embedded", False)
    assert "--videos" in wrong_with("python curation/run.py --profile embedded --output OUT", True)
    assert wrong_with("python -m curation.nothing OUT", False) == "there is no curation/nothing"
    assert wrong_with("make nothing", True) == "no target nothing"
    assert not wrong_with("python curation/run.py --profile embedded --videos IN --output OUT", True)


def test_every_page_of_docs_can_be_found_from_the_first() -> None:
    first = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert {path.name for path in ROOT.glob("docs/*.md")} - {"index.md"} <= set(LINK.findall(first))
