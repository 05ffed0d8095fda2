import os
import runpy
import sys
from pathlib import Path

import pytest

from demo import run
from pipelines import ROOT


@pytest.mark.parametrize("from_nothing", [False, True])
def test_what_is_measured_is_never_trained_on(from_nothing: bool, tmp_path: Path):
    parts = {part.what: part.command for part in run.plan(tmp_path, from_nothing)}
    drawn = [command for command in parts.values() if "demo.corpus" in command and "--script" in command]
    scripts = {value_of(command, "--script"): value_of(command, "--output") for command in drawn}
    assert set(scripts) == {"train", "test"}
    curated = next(command for command in parts.values() if "curation/run.py" in command)
    assert scripts["train"] in curated and scripts["test"] not in curated
    measured = next(command for command in parts.values() if "benchmarks.speak" in command)
    assert value_of(measured, "--seen") == scripts["test"]


def value_of(command: tuple[str, ...], option: str) -> str:
    return command[command.index(option) + 1]


@pytest.mark.parametrize(("from_nothing", "number"), [*((False, n) for n in range(8)), (True, 4), (True, 5)])
def test_every_command_of_the_demo_is_one_that_exists(
    from_nothing: bool, number: int, tmp_path: Path, monkeypatch, capsys
):
    """With --help in place of its work; an unknown option is an error of argparse before that."""
    words = run.plan(tmp_path, from_nothing)[number].command[1:]
    if "torch.distributed.run" in words:
        words = words[words.index("training/train.py") :]
    monkeypatch.chdir(ROOT)
    monkeypatch.delitem(sys.modules, words[1], raising=False)  # runpy warns of a module that a test has imported
    monkeypatch.setattr(
        sys, "argv", [words[0] if words[0] != "-m" else words[1], *words[1 + (words[0] == "-m") :], "--help"]
    )
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(words[1], run_name="__main__") if words[0] == "-m" else runpy.run_path(
            words[0], run_name="__main__"
        )
    assert ended.value.code == 0, capsys.readouterr().err


def test_what_was_made_of_an_older_checkpoint_is_made_again(tmp_path: Path):
    last = run.plan(tmp_path)[-1]
    assert last.makes is not None and last.of is not None and not last.is_done
    (last.of / "step-00000100").mkdir(parents=True)
    last.makes.write_text("{}")
    os.utime(last.of / "step-00000100", (100, 100))
    assert last.is_done
    (last.of / "step-00000200").mkdir()
    os.utime(last.makes, (100, 100))
    assert not last.is_done


def test_the_last_line_says_how_far_mouths_followed():
    seen = {
        name: {"mean": value, "clips": 24}
        for name, value in (("own", 0.86), ("other_audio", 0.9), ("other_video", -0.3))
    }
    assert "24 clips: correlation 0.86" in run.summarize({"seen": seen})
    assert "0.90" in run.summarize({"seen": seen}) and "-0.30" in run.summarize({"seen": seen})
