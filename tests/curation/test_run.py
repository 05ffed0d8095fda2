"""The command, as a user runs it, on synthetic talkers with known truth."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from curation.run import lasting_folder
from manifests.reader import read_clips, read_sources
from pipelines import ROOT
from tests.talkers import run_curation

pytestmark = pytest.mark.slow  # the whole command, on Ray

FEW = ("late_4", "gap_15", "silence", "no_audio")  # enough to see both kinds of end


def shard_bytes(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((output / "shards").iterdir())}


@pytest.fixture(scope="module")
def few(talkers: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("few")
    for name in FEW:
        shutil.copyfile(talkers(*FEW) / f"{name}.mp4", folder / f"{name}.mp4")
    return folder


@pytest.fixture(scope="module")
def curated_few(few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("curated_few")
    done = run_curation("--profile", "embedded", "--videos", few, "--output", output, "--workers", "1")
    assert done.returncode == 0, done.stderr
    return output


def test_four_videos_alone_keep_what_is_good_with_their_sound_moved_by_the_measured_offset(curated_few):
    clips = read_clips(curated_few)
    kept = clips[clips.kept].assign(name=lambda rows: rows.source.str.rsplit("/", n=1).str[-1])
    assert kept.name.tolist() == ["gap_15.mp4", "gap_15.mp4", "late_4.mp4"]
    assert kept.audio_shift_frames.tolist() == [0, 0, 4]
    assert kept.lip_zero_frames.eq(0).all()


def test_a_run_ends_with_its_report(curated_few):
    assert "late_4.mp4" in (curated_few / "report" / "index.html").read_text(encoding="utf-8")


def test_one_worker_and_two_give_the_same_bytes(few, curated_few, tmp_path):
    done = run_curation("--profile", "embedded", "--videos", few, "--output", tmp_path, "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert shard_bytes(tmp_path) == shard_bytes(curated_few)
    for name in ("clips", "sources"):
        assert (tmp_path / "manifests" / f"{name}.parquet").read_bytes() == (
            curated_few / "manifests" / f"{name}.parquet"
        ).read_bytes()


def test_the_same_command_again_changes_nothing(few, curated_few):
    before = shard_bytes(curated_few)
    done = run_curation("--profile", "embedded", "--videos", few, "--output", curated_few, "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert "late_4.mp4:" not in done.stdout  # nothing was curated again
    assert shard_bytes(curated_few) == before


def test_other_settings_on_the_same_output_are_refused_with_the_difference(few, curated_few):
    done = run_curation(
        "--profile",
        "embedded",
        "--videos",
        few,
        "--output",
        curated_few,
        "--set",
        "filters/blur.max_blur=0.5",
    )
    assert done.returncode == 2
    assert "filters/blur.max_blur: 0.68 -> 0.5" in done.stderr
    refilter = (
        f"python -m curation.refilter {curated_few} --set filters/blur.max_blur=0.5 --to {curated_few}-refiltered"
    )
    assert refilter.format(curated_few) in done.stderr


def test_an_interrupted_run_continues_to_the_same_shards(few, curated_few, tmp_path):
    command = [
        sys.executable,
        ROOT / "curation" / "run.py",
        "--profile",
        "embedded",
        "--videos",
        few,
        "--output",
        tmp_path,
    ]
    process = subprocess.Popen(
        [*map(str, command), "--workers", "1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    # The moment is the run's own: it has noted its first source, and all four take seconds more.
    deadline = time.monotonic() + 120
    begun = tmp_path / "ledger" / "attempts.log"
    while not (begun.exists() and begun.read_text()) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 1
    assert "the same command continues" in errors
    done = run_curation("--profile", "embedded", "--videos", few, "--output", tmp_path, "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert shard_bytes(tmp_path) == shard_bytes(curated_few)


def test_files_that_are_no_video_become_rows_with_a_reason(tmp_path):
    videos = tmp_path / "odd names é"
    videos.mkdir()
    (videos / "empty.mp4").touch()
    (videos / "text 'quoted'.mp4").write_text("no video at all")
    (videos / "-leading dash.mkv").write_bytes(os.urandom(4096))
    listed = tmp_path / "list.csv"
    listed.write_text("path\n" + "\n".join([*map(str, videos.iterdir()), str(videos / "gone.mp4")]))
    done = run_curation("--profile", "embedded", "--videos", listed, "--output", tmp_path / "out", "--workers", "1")
    assert done.returncode == 0, done.stderr
    reasons = read_sources(tmp_path / "out").set_index("path").reason
    assert reasons[str(videos / "gone.mp4")] == "error:io"
    assert (reasons.drop(str(videos / "gone.mp4")) == "error:probe").all()
    assert len(reasons) == 4


def test_equal_files_are_curated_once(few, tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in ("a", "b"):
        shutil.copyfile(few / "silence.mp4", videos / f"{name}.mp4")
    done = run_curation("--profile", "embedded", "--videos", videos, "--output", tmp_path / "out", "--workers", "2")
    assert done.returncode == 0, done.stderr
    sources = read_sources(tmp_path / "out").set_index("path")
    assert sources.status.tolist() == ["dropped", "duplicate"]
    assert sources.duplicate_of.iloc[1] == str(videos / "a.mp4")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--profile", "embeded", "--videos", "."), "did you mean 'embedded'?"),
        (("--profile", "embedded", "--videos", "/no/such/folder"), "/no/such/folder: does not exist"),
        (("--profile", "embedded", "--videos", ".", "--set", "filters/niqe.max_niqe=3e-5"), "3e-5"),
    ],
)
def test_a_run_that_cannot_start_is_refused_with_one_line(arguments, told, tmp_path):
    done = run_curation(*arguments, "--output", tmp_path / "out")
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_relative_output_of_a_submitted_job_is_refused(monkeypatch):
    """It would lie in Ray's temporary folder, and go with it."""
    assert lasting_folder(Path("out")) == Path("out").absolute()
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert lasting_folder(Path("/data/out")) == Path("/data/out")
    with pytest.raises(ValueError, match="--output out is relative"):
        lasting_folder(Path("out"))


def test_missing_official_networks_are_all_named_within_five_seconds(tmp_path, monkeypatch):
    monkeypatch.setenv("SAYANYTHING_CACHE", str(tmp_path / "empty"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    (tmp_path / "a.mp4").touch()
    began = time.monotonic()
    done = run_curation(
        "--profile", "sayanything", "--videos", tmp_path / "a.mp4", "--output", tmp_path / "out",
        "--set", "steps/faces.weights=syncnet_v2", "--set", "steps/landmarks.weights=hyperiqa",
    )  # fmt: skip
    assert time.monotonic() - began < 5
    assert done.returncode == 2
    assert "syncnet_v2.model" in done.stderr
    assert "HyperIQA" in done.stderr


def test_the_official_profile_runs_through_with_random_networks_of_the_official_layout(few, tmp_path):
    import torch

    from models.hyperiqa import build_network
    from models.syncnet import SyncNetModel

    torch.manual_seed(0)
    torch.save({"params": build_network().state_dict()}, tmp_path / "hyperiqa.pth")
    torch.save(SyncNetModel().state_dict(), tmp_path / "syncnet_v2.model")
    networks = {"filters/hyperiqa": "hyperiqa.pth", "filters/syncnet": "syncnet_v2.model"}
    settings = [f"{stage}.weights={tmp_path / name}" for stage, name in networks.items()]
    settings += ["steps/faces.weights=yolov8n_face", "steps/faces.batch=1", "steps/whisper.weights=whisper_tiny_en"]
    settings += ["filters/hyperiqa.min_quality=0.0", "filters/syncnet.min_confidence=-1.0", "device=cpu"]
    settings += ["filters/syncnet.max_offset_frames=15"]
    done = run_curation(
        "--profile", "sayanything", "--videos", few / "late_4.mp4", "--output", tmp_path / "out",
        *(part for setting in settings for part in ("--set", setting)),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    clips = read_clips(tmp_path / "out")
    assert clips.kept.all()
    assert clips[["hyperiqa", "sync_confidence", "sync_offset_frames"]].notna().to_numpy().all()
    assert (clips.audio_shift_frames == clips.sync_offset_frames).all()


def test_a_submitted_ray_job_curates_from_another_folder(few, curated_few, tmp_path):
    """A real head of its own; Ray 2.60 asks for a token."""
    ray = Path(sys.executable).parent / "ray"
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
    environment.pop("RAY_ADDRESS", None)
    (tmp_path / "token").write_text("0123456789abcdef" * 4)
    ports = {
        "port": 26379,
        "dashboard-port": 28265,
        "dashboard-agent-listen-port": 28365,
        "ray-client-server-port": 20001,
    }
    temporary = Path("/tmp") / f"ray-test-{os.getpid()}"
    head = subprocess.Popen(
        [ray, "start", "--head", "--block", "--num-cpus=2", "--disable-usage-stats", f"--temp-dir={temporary}"]
        + [f"--{name}={port}" for name, port in ports.items()],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        job = [ray, "job", "submit", "--address", "http://127.0.0.1:28265", "--working-dir", ROOT, "--"]
        run = [
            sys.executable,
            "curation/run.py",
            "--profile",
            "embedded",
            "--videos",
            few,
            "--output",
            tmp_path / "out",
        ]
        for _ in range(30):  # the head needs a few seconds
            done = subprocess.run(
                [*map(str, job), *map(str, run)],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
            )
            if done.returncode == 0 or "Failed to connect" not in done.stdout + done.stderr:
                break
            time.sleep(1)
        assert done.returncode == 0, done.stdout + done.stderr
        assert shard_bytes(tmp_path / "out") == shard_bytes(curated_few)
    finally:
        head.send_signal(signal.SIGTERM)
        head.wait(30)
        shutil.rmtree(temporary, ignore_errors=True)
