"""Commands keep their earlier names."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("name", ["shards.verify", "manifests.report", "manifests.explain", "manifests.refilter"])
def test_an_earlier_name_runs_the_command_that_has_moved(name: str) -> None:
    done = subprocess.run([sys.executable, "-m", name, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("usage: python -m curation."), done.stderr
