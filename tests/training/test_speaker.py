"""The speaker that comes with the code: small, and without a trace of a machine.

That it follows a sound is claimed in tests/benchmarks/test_speak.py.
"""

from pathlib import Path

import yaml

from training.checkpoint import SETTINGS, export_of

FOLDER = export_of(Path("speaker"))


def test_it_is_small_and_its_card_says_what_it_was_trained_on_and_may_be_used_for() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 15e6
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert "generated faces only" in card and "Non-commercial research" in card


def test_it_names_no_folder_of_the_machine_that_trained_it() -> None:
    texts = [path.read_text(encoding="utf-8") for path in FOLDER.rglob("*") if path.suffix in (".json", ".yaml")]
    assert not [text for text in texts if "/" in text.replace("steps/", "")]
    assert yaml.safe_load((FOLDER / SETTINGS).read_text(encoding="utf-8"))["model"]["base"] == "."
