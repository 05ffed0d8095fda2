import time
from pathlib import Path

import pytest

import pipelines
from curation import doctor
from curation.doctor import CheckResult, examine, main


def by_name(findings: list[CheckResult]) -> dict[str, CheckResult]:
    return {finding.check: finding for finding in findings}


def test_this_machine_is_fit_for_the_embedded_profile_and_told_so_within_seconds(tmp_path, capsys):
    began = time.perf_counter()
    findings = by_name(examine(pipelines.load("embedded"), tmp_path, 1))
    assert time.perf_counter() - began < 5
    assert {"codecs", "networks", "GPU", "Ray", "memory", "open files", "output"} <= findings.keys()
    assert findings["codecs"].state == "ok"
    assert findings["output"].state != "failure"
    assert list(tmp_path.iterdir()) == []


def test_what_would_make_the_run_fail_is_exit_2_with_what_to_do(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "cuda_devices", lambda: "")
    assert main(["--profile", "sayanything"]) == 2
    said = capsys.readouterr().out
    assert "no CUDA driver" in said and "--set device=cpu" in said
    assert "weights.py fetch --profile sayanything" in said
    assert main(["--profile", "embeded"]) == 2
    assert "did you mean" in capsys.readouterr().err


def test_missing_networks_are_named(monkeypatch):
    monkeypatch.setattr(doctor.weights, "find", lambda name: None)
    (found,) = doctor.networks(pipelines.load("embedded"))
    assert found.state == "failure" and "yolov8n_face" in found.found


def test_an_output_that_cannot_be_written_is_a_failure(tmp_path, monkeypatch):
    def full(folder: Path) -> float:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(doctor, "written_mb_s", full)
    (found,) = doctor.disk(tmp_path / "not" / "yet")
    assert found.state == "failure" and "No space left" in found.found and str(tmp_path) in found.found


def test_little_space_is_a_warning_and_nothing_is_written_to_measure_it(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "MIN_FREE_GB", 1e9)
    monkeypatch.delattr(doctor, "written_mb_s")
    (found,) = doctor.disk(tmp_path)
    assert found.state == "warning" and "GB free" in found.found


def test_too_little_memory_and_too_few_files_are_warnings(monkeypatch):
    (found,) = doctor.memory(100_000)
    assert found.state == "warning" and "--workers" in found.remedy
    monkeypatch.setattr(doctor.resource, "getrlimit", lambda kind: (256, 1024))
    (found,) = doctor.limits()
    assert found.state == "warning" and "ulimit -n" in found.remedy


def test_on_a_cluster_this_machines_memory_and_gpu_do_not_count(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    assert not {"GPU", "memory"} & by_name(examine(pipelines.load("sayanything"), None)).keys()


@pytest.mark.gpu
@pytest.mark.skipif(not Path("/dev/nvidia0").exists(), reason="no NVIDIA device on this machine")
def test_a_gpu_is_named():
    assert "CUDA" in doctor.cuda_devices()
