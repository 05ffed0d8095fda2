"""Whole programs on an object store: from s3:// to shards to a mirror, and from a mirror to a training step."""

import shutil
import sys
import threading
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from curation import run
from shards.remote import folder_name
from tests.chaos import build_house, build_videos, difference_of_runs, end_of, start
from tests.stores import put_folder, running_store
from tests.training.conftest import CLIPS
from tests.training.numbered import write_shards
from tests.training.toys import make_base
from training import train

SMALL = ["data.size=32", "data.frames=4", "optimizer.global_batch=4", "optimizer.micro_batch=2", "data.workers=0",
         "optimizer.warmup_steps=2", "run.threads=1", "run.validation_windows=2", "run.validation_steps=2",
         "run.validate_every=100", "run.save_every=2", "run.log_every=1", "data.cache=none", "optimizer.steps=2",
         "data.validation_share=0.0", "optimizer.decay_share=0.0", "model.audio_numbers=0"]  # fmt: skip
PATIENCE_S = 600.0


@pytest.mark.slow
def test_a_run_from_a_faulty_store_that_is_restarted_has_the_bytes_of_a_local_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("moto")
    house, videos = build_house(tmp_path / "house", PATIENCE_S), tmp_path / "videos"
    videos.mkdir()
    build_videos(videos)
    assert end_of(start(house, videos, tmp_path / "here"), PATIENCE_S)[0] == "finished"
    with running_store(drop=20, stall=60, stall_s=2.0) as store:
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        objects = put_folder(store, videos, "raw")

        def restart() -> None:
            while not list((tmp_path / "there").glob("parts/*/*.tar")):
                time.sleep(0.05)
            store.restart(objects, down_s=2.0)

        threading.Thread(target=restart, daemon=True).start()
        scratch = tmp_path / "scratch"
        more = ("--scratch", str(scratch), "--mirror", "s3://videos/out")
        outcome, told = end_of(start(house, "s3://videos/raw", tmp_path / "there", *more), PATIENCE_S)
        assert outcome == "finished", told
        assert difference_of_runs(tmp_path / "here", tmp_path / "there") == ""
        assert [path for path in scratch.rglob("*") if path.is_file() and path.name != ".lock"] == []
        for shard in (tmp_path / "there" / "shards").glob("*"):
            assert store.get(f"out/shards/{shard.name}") == shard.read_bytes()
        assert store.proxy.counts["dropped"] > 3


@pytest.mark.slow
def test_training_steps_on_a_mirror_are_those_on_the_folder(store, tmp_path: Path) -> None:
    here = write_shards(tmp_path / "here", CLIPS)
    put_folder(store, here, "trained")
    base = make_base(tmp_path / "base")
    sets = [word for setting in [f"model.base={base}", *SMALL] for word in ("--set", setting)]
    store.proxy.drop = 10
    for name, data in (("folder", str(here)), ("mirror", "s3://videos/trained")):
        given = ["--profile", "embedded", "--data", data, "--run", str(tmp_path / name), *sets]
        assert train.main(given) == 0
    folder, mirror = (
        {file.name: load_file(file) for file in sorted((tmp_path / name / "export").rglob("*.safetensors"))}
        for name in ("folder", "mirror")
    )
    assert folder.keys() == mirror.keys() and folder
    assert all(bool((value == mirror[f][n]).all()) for f, each in folder.items() for n, value in each.items())
    brought = tmp_path / "mirror" / "data" / folder_name("s3://videos/trained")
    assert brought.is_dir() and not list(brought.rglob("*.tar"))
    shutil.rmtree(brought)


def test_a_missing_driver_and_a_missing_bucket_are_refused_before_the_run(
    store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    common = ["--profile", "embedded", "--output", str(tmp_path / "out"), "--videos"]
    with pytest.raises(SystemExit) as raised:
        run.main([*common, "gs://bucket/raw"])
    assert raised.value.code == 2
    assert "gs://bucket/raw: gs:// needs gcsfs, which is not installed: pip install gcsfs" in capsys.readouterr().err
    assert run.main([*common, "s3://nobody-has-this/raw"]) == 2
    assert "s3://nobody-has-this/raw: not there" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
