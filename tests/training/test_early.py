"""Wrong arguments are refused before torch is loaded."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines import ROOT
from training.checkpoint import SHIPPED
from training.early import SHIPPED as NAMES
from training.early import refuse_early

TRAIN = ("--profile", "embedded", "--run", "RUN")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*TRAIN, "--data", "/nowhere"), "--data /nowhere: there is no such folder"),
        ((*TRAIN, "--data", "/nowhere=0.5"), "--data /nowhere: there is no such folder"),
        ((*TRAIN, "--data", ".", "--set", "optimizer.stepps=3"), "did you mean 'optimizer.steps'?"),
        ((*TRAIN, "--data", ".", "--init", "/nowhere"), "--init /nowhere: there is no such folder"),
        (("--checkpoint", "speeker", "--video", "."), "--checkpoint speeker: there is no such folder"),
        (("--checkpoint", "speaker", "--video", "/nowhere.mp4"), "--video /nowhere.mp4: there is no such file"),
    ],
)
def test_what_is_wrong_is_named(arguments: tuple[str, ...], message: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as end:
        refuse_early(arguments)
    assert end.value.code == 2 and message in capsys.readouterr().err


def test_what_is_right_is_left_to_the_program() -> None:
    refuse_early([*TRAIN, "--data", str(ROOT), "s3://bucket/out=2", "--dry-run"])
    refuse_early(["--checkpoint", "speaker", "--video", str(ROOT / "README.md"), "--face", "left"])
    assert set(NAMES) == SHIPPED.keys()


@pytest.mark.parametrize("program", ["training/train.py", "training/generate.py"])
def test_a_program_refuses_without_loading_torch(program: str, tmp_path: Path) -> None:
    words = ["--profile", "embedded", "--data", "/nowhere", "--run", str(tmp_path), "--checkpoint", "/nowhere"]
    code = f"import sys, runpy; sys.argv = {[program, *words]!r}; runpy.run_path({program!r}, run_name='__main__')"
    ask = f"try:\n    {code.partition('; ')[0]}; {code.partition('; ')[2]}\nexcept SystemExit as end:\n"
    ask += "    print(end.code, 'torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", ask], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["2", "False"] and "there is no such folder" in found.stderr
