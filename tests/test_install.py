"""`pip install .` puts one package into site-packages, and its command starts the programs."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.test_imports import ROOMS, ROOT

PACKAGES = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]


CARRIED = {".py", ".safetensors", ".yaml"}  # of the folders that an installation has


def test_every_folder_of_code_and_weights_is_listed() -> None:
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", *ROOMS], check=True, capture_output=True, text=True)
    folders = {Path(name).parent for name in listed.stdout.splitlines() if Path(name).suffix in CARRIED}
    expected = {".".join(("sayanything", *folder.parts)) for folder in folders if (ROOT / folder).is_dir()}
    assert {*PACKAGES} == expected | {"sayanything"}


@pytest.mark.slow
def test_an_installation_has_one_package_and_a_command_that_works(tmp_path: Path) -> None:
    site = tmp_path / "site"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        str(site),
    ]
    tree = tmp_path / "tree"  # pip builds in the tree that it is given
    subprocess.run(["git", "-C", str(ROOT), "checkout-index", "--all", f"--prefix={tree}/"], check=True)
    subprocess.run([*pip, str(tree)], check=True, capture_output=True, text=True)
    assert {path.name.partition("-")[0] for path in site.iterdir()} == {"bin", "sayanything"}
    environment = {**os.environ, "PYTHONPATH": str(site)}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "sayanything", *words]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    assert run("verify", "--help").stdout.startswith("usage: python -m curation.verify")
    refused = run("curate", "--profile", "embedded", "--videos", "/nowhere", "--output", str(tmp_path / "out"))
    assert refused.returncode == 2 and "/nowhere: does not exist" in refused.stderr
    assert "did you mean curate?" in run("curat").stderr
    assert (site / "sayanything" / "training" / "speaker" / "settings.yaml").is_file()
