import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from pipelines import ROOT
from tests.training.toys import make_base
from training import loss, train
from training.network import SayAnything

pytestmark = pytest.mark.slow  # every test trains

SMALL = ["data.size=32", "data.frames=4", "optimizer.global_batch=4", "optimizer.micro_batch=2", "data.workers=0",
         "optimizer.warmup_steps=2", "run.threads=1", "run.validation_windows=2", "run.validation_steps=2",
         "run.validate_every=100", "run.save_every=2", "run.log_every=1", "data.cache=none",
         "data.validation_share=0.0", "optimizer.decay_share=0.0", "model.audio_numbers=0"]  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base") / "svd")


@pytest.fixture
def command(base: Path, shards: Path):
    """`python training/train.py ...` as a user types it, or with `ranks` under torchrun, at a size for tests."""

    def build(run: Path, *settings: str, ranks: int = 1, options: tuple[str, ...] = ()) -> list[str]:
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
        chosen = [f"model.base={base}", *SMALL, *settings]
        sets = [word for setting in chosen for word in ("--set", setting)]
        script = str(ROOT / "training" / "train.py")
        where = ["--profile", "embedded", "--data", str(shards), "--output" if ranks > 1 else "--run", str(run)]
        return [sys.executable, *launcher, script, *where, *sets, *options]

    return build


def start(command: list[str]) -> tuple[int, str]:
    """(exit code, all it said) of a command in a process, or processes, of its own."""
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=600, env=environment(), check=False)
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    return done.returncode, done.stdout + done.stderr


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """The same in this process: importing torch takes longer than these runs."""
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)

    def here(command: list[str], code: int = 0) -> str:
        found = train.main(command[2:])
        said = capsys.readouterr()
        assert found == code, said
        return said.out + said.err

    return here


def losses(folder: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (folder / "train.log").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def exported(folder: Path) -> dict[str, torch.Tensor]:
    parts = ("unet", "id_guider", "audio")
    files = {part: load_file(folder / "export" / part / "diffusion_pytorch_model.safetensors") for part in parts}
    return {f"{part}.{name}": value for part, values in files.items() for name, value in values.items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_same_command_goes_on_where_it_stopped_bit_for_bit(command, run, tmp_path):
    run(command(tmp_path / "whole", "optimizer.steps=6"))
    run(command(tmp_path / "cut", "optimizer.steps=3"))
    run(command(tmp_path / "cut", "optimizer.steps=6", "data.workers=2"))
    assert losses(tmp_path / "whole") == losses(tmp_path / "cut")
    assert same(exported(tmp_path / "whole"), exported(tmp_path / "cut"))
    said = (tmp_path / "cut" / "train.log").read_text()
    assert '"continued at step 3"' in said


def test_two_ranks_learn_what_one_learns_with_ddp_and_with_fsdp(command, run, tmp_path):
    """The same global batches, gradients averaged: equal but for the order of sums."""
    settings = ("optimizer.steps=3", "optimizer.micro_batch=2")
    run(command(tmp_path / "one", *settings))
    assert start(command(tmp_path / "ddp", *settings, ranks=2))[0] == 0
    assert start(command(tmp_path / "fsdp", *settings, "run.fsdp=true", ranks=2))[0] == 0
    one = losses(tmp_path / "one")
    for other in ("ddp", "fsdp"):
        found = losses(tmp_path / other)
        assert found.keys() == one.keys()
        np.testing.assert_allclose(list(found.values()), list(one.values()), rtol=2e-4)
        assert exported(tmp_path / other).keys() == exported(tmp_path / "one").keys()


def test_sigterm_saves_first_and_the_run_can_go_on(command, run, tmp_path):
    process = subprocess.Popen(
        command(tmp_path / "run", "optimizer.steps=1000", "run.save_every=1000", "data.workers=1"),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    log = tmp_path / "run" / "train.log"
    while not (log.is_file() and '"loss"' in log.read_text()):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGTERM)  # as Ctrl-C and cluster managers do: the loader's workers get it too
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "the same command goes on from there" in output
    last = max(losses(tmp_path / "run"))
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == [f"step-{last:08d}"]
    code, said = start(command(tmp_path / "run", f"optimizer.steps={last + 1}"))
    assert code == 0, said
    assert max(losses(tmp_path / "run")) == last + 1


def test_a_step_whose_gradients_are_not_finite_is_skipped_and_counted(command, run, tmp_path):
    run(command(tmp_path / "run", "optimizer.steps=2", "noise.P_mean=1000.0"))  # sigma overflows
    lines = [json.loads(line) for line in (tmp_path / "run" / "train.log").read_text().splitlines()]
    assert [line["steps_skipped"] for line in lines if "steps_skipped" in line] == [1, 2]
    assert all(torch.isfinite(value).all() for value in exported(tmp_path / "run").values())


def test_a_run_whose_weights_are_no_numbers_stops_and_names_the_last_good_checkpoint(
    command, run, tmp_path, monkeypatch
):
    monkeypatch.setattr(train, "MAX_SKIPPED_IN_A_ROW", 3)
    run(command(tmp_path / "run", "optimizer.steps=2"))
    monkeypatch.setattr(train, "diffusion_loss", lambda *given: loss.diffusion_loss(*given) * torch.nan)
    said = run(command(tmp_path / "run", "optimizer.steps=50", "run.save_every=1"), code=1)
    assert "stopped at step 5: 3 steps in a row" in said
    assert "step-00000002; try a lower optimizer.learning_rate" in said
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()][-1] == "step-00000002"


def test_a_run_may_begin_with_the_weights_of_another_and_is_continued_by_the_same_command(command, run, tmp_path):
    run(command(tmp_path / "first", "optimizer.steps=3", "optimizer.learning_rate=0.01"))
    init = ("--init", str(tmp_path / "first"))
    run(command(tmp_path / "second", "optimizer.steps=1", "optimizer.learning_rate=0.0", options=init))
    before, after = exported(tmp_path / "first"), exported(tmp_path / "second")
    assert all(torch.equal(before[name], after[name]) for name in before)
    run(command(tmp_path / "plain", "optimizer.steps=1", "optimizer.learning_rate=0.0"))
    assert any(not torch.equal(before[name], value) for name, value in exported(tmp_path / "plain").items())
    run(command(tmp_path / "second", "optimizer.steps=2", "optimizer.learning_rate=0.0", options=init))
    said = run(command(tmp_path / "second", "optimizer.steps=3", "optimizer.learning_rate=0.0"), code=2)
    assert "begun with other settings (init.sha256" in said
    run(command(tmp_path / "third", "optimizer.steps=3", "optimizer.learning_rate=0.02"))
    said = run(command(tmp_path / "second", "optimizer.steps=3", "optimizer.learning_rate=0.0",
                       options=("--init", str(tmp_path / "third"))), code=2)  # fmt: skip
    assert "begun with other settings (init.sha256" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--init", "/nowhere"], "neither a training run nor an exported model"),
     (["--init", "FIRST", "--set", "model.audio_joined=false"], "other settings (audio_joined: True -> False)")],
)  # fmt: skip
def test_weights_that_do_not_fit_are_refused(command, run, tmp_path, words, message):
    run(command(tmp_path / "first", "optimizer.steps=1"))
    options = tuple(str(tmp_path / "first") if word == "FIRST" else word for word in words)
    assert message in run(command(tmp_path / "second", "optimizer.steps=1", options=options), code=2)


def test_old_checkpoints_go_and_leftovers_of_a_killed_writer_do_no_harm(command, run, tmp_path):
    leftover = tmp_path / "run" / "checkpoints" / ".tmp-step-00000004"
    leftover.mkdir(parents=True)
    (leftover / "__0_0.distcp").write_bytes(b"cut off")
    run(command(tmp_path / "run", "optimizer.steps=8", "run.keep=2"))
    assert sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir()) == ["step-00000006", "step-00000008"]


@pytest.mark.parametrize("fusion", ["video_fusion", "vae_feature"])
def test_the_papers_ablations_train(command, run, tmp_path, fusion):
    run(
        command(
            tmp_path / "run", "optimizer.steps=1", f"model.fusion={fusion}", "mask.kind=fixed", "noise.drop_audio=0.0"
        )
    )
    assert np.isfinite(losses(tmp_path / "run")[1])


def test_what_cannot_work_is_refused_with_what_to_do(command, run, tmp_path):
    assert "did you mean 'optimizer.steps'" in run(command(tmp_path / "a", "optimizer.stepps=1"), code=2)
    assert "no VAE" in run(command(tmp_path / "a", f"model.base={tmp_path}"), code=2)
    assert "is no multiple of 1 ranks x 2 clips" in run(command(tmp_path / "a", "optimizer.global_batch=3"), code=2)
    if not torch.cuda.is_available():
        assert "sees no CUDA device" in run(command(tmp_path / "a", "run.device=cuda"), code=2)
    assert not (tmp_path / "a").exists()


def test_a_run_is_not_continued_with_other_settings(command, run, tmp_path):
    run(command(tmp_path / "run", "optimizer.steps=1"))
    other = command(tmp_path / "run", "optimizer.steps=2", "optimizer.learning_rate=4.0e-3")
    assert "optimizer.learning_rate: 0.003 -> 0.004" in run(other, code=2)
    saved = yaml.safe_load((tmp_path / "run" / "settings.yaml").read_text())
    assert saved["optimizer"]["global_batch"] == 4


def test_a_dry_run_says_how_much_and_writes_nothing(command, run, tmp_path):
    said = run(command(tmp_path / "run", options=("--dry-run",)))
    assert "M parameters" in said and "windows an epoch" in said and "GiB activations" in said
    assert not (tmp_path / "run").exists()


def test_adapters_are_resumed_bit_for_bit_and_exported_as_plain_weights(command, run, tmp_path, caplog):
    """A run that was cut ends as a whole one does."""
    pytest.importorskip("peft")
    caplog.set_level("INFO", "training")
    run(command(tmp_path / "whole", "optimizer.steps=2", "model.lora_rank=4"))
    assert "parameters (" in caplog.text
    run(command(tmp_path / "cut", "optimizer.steps=1", "model.lora_rank=4"))
    run(command(tmp_path / "cut", "optimizer.steps=2", "model.lora_rank=4"))
    assert losses(tmp_path / "whole") == losses(tmp_path / "cut")
    whole = exported(tmp_path / "whole")
    assert same(whole, exported(tmp_path / "cut"))
    assert not [name for name in whole if "lora" in name or "base_layer" in name]
    SayAnything.load(tmp_path / "whole" / "export")
