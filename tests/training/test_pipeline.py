"""A folder that others can load: part by part, whole, and on another machine."""

import importlib
import inspect
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler

from media.encode import encode_flac
from media.probe import probe
from tests.training.toys import make_checkpoint
from training import pipeline
from training.generator import Generator, Job, Options
from training.network import SayAnything
from training.pipeline import SayAnythingPipeline
from training.sampler import karras_sigmas

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # as test_sampler
CLIP = Path(__file__).parents[3] / "shared" / "media" / "real__voxceleb2_00473.mp4"


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run, and its folder for others after base and run have gone."""
    place = tmp_path_factory.mktemp("machine")
    run = make_checkpoint(place / "run")
    assert pipeline.main([str(run), str(place / "model")]) == 0
    return run, shutil.copytree(place / "model", tmp_path_factory.mktemp("other") / "model")


def test_every_part_loads_by_the_class_that_the_index_names(moved: tuple[Path, Path]):
    run, folder = moved
    index = json.loads((folder / "model_index.json").read_text())
    assert index["_class_name"] == "SayAnythingPipeline"
    loaded = {}
    for name, (library, kind) in ((n, v) for n, v in index.items() if isinstance(v, list)):
        assert (folder / name).is_dir()
        loaded[name] = getattr(importlib.import_module(library), kind).from_pretrained(folder / name)
    assert loaded.keys() == {"unet", "id_guider", "audio", "vae", "scheduler"}
    network = SayAnything.load(run / "export")
    for part in ("unet", "id_guider", "audio"):
        for name, value in getattr(network, part).state_dict().items():
            assert torch.equal(loaded[part].state_dict()[name], value)


def test_the_scheduler_has_the_noise_levels_of_the_checkpoint(moved: tuple[Path, Path]):
    scheduler: Any = EulerDiscreteScheduler.from_pretrained(moved[1] / "scheduler")
    scheduler.set_timesteps(3)
    sampling = json.loads((moved[1] / "model_index.json").read_text())["sampling"]
    expected = karras_sigmas(3, sampling["sigma_min"], sampling["sigma_max"])
    assert scheduler.sigmas.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_nothing_in_it_names_the_machine_unless_the_vae_stays_where_it_is(moved: tuple[Path, Path], tmp_path: Path):
    run, folder = moved
    texts = [path.read_text() for path in folder.rglob("*") if path.suffix in (".json", ".yaml")]
    assert len(texts) == 7 and str(run.parent) not in "".join(texts)
    assert pipeline.main([str(run), str(tmp_path / "model"), "--by-reference"]) == 0
    assert not (tmp_path / "model" / "vae").exists()
    assert str(run / "base") in (tmp_path / "model" / "settings.yaml").read_text()
    assert json.loads((tmp_path / "model" / "model_index.json").read_text())["vae"] == [None, None]


def test_a_call_is_a_job_of_the_generator(moved: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch):
    given: list[object] = []
    monkeypatch.setattr(Generator, "generate", lambda self, *job: given.extend(job))
    loaded = SayAnythingPipeline.from_pretrained(moved[1], "cpu")
    assert loaded("talk.mp4", "speech.wav", "out.mp4", guidance=2.0, seed=3) == Path("out.mp4")
    assert given == [Job(Path("talk.mp4"), Path("speech.wav"), Path("out.mp4")), Options(guidance=2.0, seed=3)]
    with pytest.raises(TypeError, match="guidence"):
        loaded("talk.mp4", "speech.wav", "out.mp4", guidence=2.0)


@pytest.mark.skipif(not CLIP.is_file(), reason="no ../shared/media")
def test_a_video_is_lip_synced(moved: tuple[Path, Path], tmp_path: Path):
    (tmp_path / "sound.flac").write_bytes(encode_flac(0.3 * np.sin(np.arange(2560) * 0.05).astype(np.float32)))
    loaded = SayAnythingPipeline.from_pretrained(moved[1], "cpu")
    made = loaded(CLIP, tmp_path / "sound.flac", tmp_path / "out.mp4", steps=1, guidance=1.0)
    assert probe(made).frames == 4


def test_what_is_no_such_folder_is_refused(moved: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture):
    run, folder = moved
    with pytest.raises(ValueError, match=r"no model_index\.json; python -m training\.pipeline"):
        SayAnythingPipeline.from_pretrained(run)
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableVideoDiffusionPipeline"}')
    with pytest.raises(ValueError, match="a StableVideoDiffusionPipeline, not a SayAnythingPipeline"):
        SayAnythingPipeline.from_pretrained(tmp_path)
    assert pipeline.main([str(run), str(folder)]) == 2
    assert "is there already" in capsys.readouterr().err
    lost = shutil.copytree(run / "export", tmp_path / "lost")
    (lost / "settings.yaml").write_text("model: {base: /nowhere, fusion: paper}")
    assert pipeline.main([str(lost), str(tmp_path / "new")]) == 2
    assert "no VAE" in capsys.readouterr().err and not (tmp_path / "new").exists()
    assert inspect.signature(SayAnythingPipeline.from_pretrained).parameters["device"].default is None
