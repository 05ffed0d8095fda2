"""What starts the programs elsewhere: its commands are ours, its versions are those that were tested."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from curation.run import parser as curation_parser
from pipelines import ROOT
from training.train import parser as training_parser

DEPLOY = ROOT / "deploy"
JOB = {
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NODELIST": "n[1-2]",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_CPUS_ON_NODE": "180",
    "SLURM_GPUS_ON_NODE": "8",
}
GIVEN = ["--profile", "embedded", "--output", "/data/with a space"]


def ask_slurm(script: str, tmp_path: Path) -> list[str]:
    """Return the words that a script gives to srun on two nodes."""
    for name, does in (
        ("ray", "exit 0"),
        ("scontrol", "printf 'n1\\nn2\\n'"),
        ("srun", 'for word; do printf "%s\\0" "$word"; done'),
    ):
        (tmp_path / name).write_text(f"#!/bin/bash\n{does}\n")
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, **JOB, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", DEPLOY / script, *GIVEN], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.split("\0")[:-1]


def test_slurm_curates_on_a_ray_of_all_nodes(tmp_path: Path) -> None:
    words = ask_slurm("curate.slurm", tmp_path)
    place = words.index("--")
    assert words[:place] == shlex.split("ray symmetric-run --address n1:6379 --min-nodes 2 --num-cpus 180")
    assert words[place + 1 : place + 5] == ["env", "RAY_ADDRESS=n1:6379", "python", "curation/run.py"]
    assert words[place + 5 :] == GIVEN


def test_slurm_trains_with_one_torchrun_a_node(tmp_path: Path) -> None:
    words = ask_slurm("train.slurm", tmp_path)
    place = words.index("training/train.py")
    said = "torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint n1:29500 --rdzv-id 7"
    assert words[:place] == shlex.split(f"{said} --shutdown-timeout 110")
    assert words[place + 1 :] == GIVEN


def test_a_training_job_is_told_to_save_before_slurm_and_torchrun_lose_patience() -> None:
    text = (DEPLOY / "train.slurm").read_text()
    asked, waited = re.search(r"--signal=TERM@(\d+)", text), re.search(r"--shutdown-timeout (\d+)", text)
    assert asked and waited and int(waited[1]) < int(asked[1])


@pytest.mark.parametrize(("script", "parse"), [("curate.slurm", curation_parser), ("train.slurm", training_parser)])
def test_the_command_in_the_head_of_a_script_is_one_of_ours(script: str, parse) -> None:
    (line,) = re.findall(rf"#   sbatch .*deploy/{script} (.*)", (DEPLOY / script).read_text())
    assert parse().parse_args(shlex.split(line)).profile == "sayanything"


def test_a_rayjob_runs_our_command_on_one_image_with_the_ray_that_was_tested() -> None:
    job = yaml.safe_load((DEPLOY / "rayjob.yaml").read_text())["spec"]
    words = shlex.split(job["entrypoint"])
    assert words[:2] == ["python", "/opt/sayanything/curation/run.py"]
    assert "WORKDIR /opt/sayanything" in (DEPLOY / "Dockerfile").read_text()
    options = curation_parser().parse_args(words[2:])
    cluster = job["rayClusterSpec"]
    assert f"ray=={cluster['rayVersion']}" in (ROOT / "constraints.txt").read_text().splitlines()
    pods = [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    containers = [container for pod in pods for container in pod["containers"]]
    assert len({container["image"] for container in containers}) == 1
    mounted = [mount["mountPath"] for container in containers for mount in container["volumeMounts"]]
    assert mounted == ["/data"] * len(containers)
    assert all(str(path).startswith("/data/") for path in (*options.videos, options.output))


def test_the_image_installs_what_was_tested_for_every_extra_it_names() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    assert text.count("pip install") == text.count("-c constraints.txt") == 2
    (extras,) = re.findall(r'"\.\[(.*)\]"', text)
    known = re.findall(
        r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text().split("[project.optional-dependencies]")[1], re.M
    )
    assert set(extras.split(",")) <= set(known)
