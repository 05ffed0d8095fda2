import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines import ROOT
from tests.training.toys import make_base, make_network
from training.checkpoint import SHIPPED, Checkpoints, State, codec_folder, export, export_of
from training.distributed import Ranks
from training.latents import LatentCodec
from training.linear_codec import fit_codec
from training.network import SayAnything

ALONE = Ranks(rank=0, world=1, device=torch.device("cpu"))


def make_state(base) -> State[SayAnything]:
    network = make_network(base)
    averaged = {name: parameter.detach() + 1 for name, parameter in network.named_parameters()}
    return State(network, torch.optim.AdamW(network.parameters()), averaged)


def test_what_is_exported_is_the_average(tmp_path):
    state = make_state(make_base(tmp_path / "svd"))
    codec = LatentCodec.load(tmp_path / "svd", ALONE.device, torch.float32)
    export(state.network, state.ema, codec, tmp_path / "export", ALONE, {})
    export(state.network, state.ema, codec, tmp_path / "export", ALONE, {})  # over an older one
    loaded = dict(SayAnything.load(tmp_path / "export").named_parameters())
    assert loaded.keys() == state.ema.keys()
    assert all(torch.equal(loaded[name], value) for name, value in state.ema.items())
    assert [path.name for path in tmp_path.glob("*export*")] == ["export"]


def test_a_linear_codec_goes_with_what_is_exported_and_a_vae_stays_where_it_is(tmp_path):
    state = make_state(make_base(tmp_path / "svd"))
    vae = LatentCodec.load(tmp_path / "svd", ALONE.device, torch.float32)
    export(state.network, state.ema, vae, tmp_path / "vae", ALONE, {})
    assert codec_folder(tmp_path / "vae", tmp_path / "svd") == tmp_path / "svd"
    linear = LatentCodec(fit_codec(torch.rand(8, 3, 16, 16), factor=4, channels=4))
    export(state.network, state.ema, linear, tmp_path / "linear", ALONE, {})
    found = LatentCodec.load(codec_folder(tmp_path / "linear", "nowhere"), ALONE.device, torch.float32)
    pictures = torch.rand(2, 3, 16, 16)
    assert torch.equal(found.condition(pictures), linear.condition(pictures))


def test_half_precision_is_read_as_single(tmp_path):
    """What is shipped is stored in halves."""
    state = make_state(make_base(tmp_path / "svd"))
    state.network.half().save(tmp_path / "halves")
    assert {p.dtype for p in SayAnything.load(tmp_path / "halves").parameters()} == {torch.float32}


def test_what_comes_with_the_code_has_a_name_unless_a_folder_has_it(tmp_path, monkeypatch):
    state = make_state(make_base(tmp_path / "svd"))
    codec = LatentCodec.load(tmp_path / "svd", ALONE.device, torch.float32)
    export(state.network, state.ema, codec, tmp_path / "shipped", ALONE, {})
    monkeypatch.setitem(SHIPPED, "speaker", tmp_path / "shipped")
    monkeypatch.chdir(tmp_path)
    assert export_of(Path("speaker")) == tmp_path / "shipped"
    (tmp_path / "speaker").mkdir()
    with pytest.raises(ValueError, match="neither a training run"):
        export_of(Path("speaker"))


def test_what_is_saved_is_found_again(tmp_path):
    state, checkpoints = make_state(make_base(tmp_path / "svd")), Checkpoints(tmp_path / "run", 2, ALONE)
    assert not checkpoints.load_newest(state)
    for p in state.network.parameters():
        p.grad = torch.ones_like(p)
    state.optimizer.step()
    state.step, state.samples, state.skipped, state.replaced = 7, 112, 1, 3
    checkpoints.save(state)
    random = torch.get_rng_state()
    other = make_state(tmp_path / "svd")
    torch.rand(1)
    assert checkpoints.load_newest(other)
    assert (other.step, other.samples, other.skipped, other.replaced) == (7, 112, 1, 3)
    assert torch.equal(torch.get_rng_state(), random)
    pairs = zip(state.network.parameters(), other.network.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    moments = [s.optimizer.state[next(s.network.parameters())]["exp_avg"] for s in (state, other)]
    assert torch.equal(*moments) and moments[0].abs().sum() > 0


class Code:
    """What a pickle of it does when it is opened: it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("place", ["contents", "value"])
def test_a_checkpoint_that_holds_code_is_refused_and_the_code_does_not_run(place, tmp_path, monkeypatch):
    state, checkpoints = make_state(make_base(tmp_path / "svd")), Checkpoints(tmp_path / "run", 2, ALONE)
    for p in state.network.parameters():
        p.grad = torch.ones_like(p)
    state.optimizer.step()
    if place == "value":
        whole = state.as_dict()
        monkeypatch.setattr(State, "as_dict", lambda _: {**whole, "extra": Code(tmp_path / "ran")})
    checkpoints.save(state)
    if place == "contents":
        path = checkpoints.list_whole()[0] / ".metadata"
        path.write_bytes(pickle.dumps((pickle.loads(path.read_bytes()), Code(tmp_path / "ran"))))
    with pytest.raises(ValueError, match=r"(?s)step-00000000: cannot be resumed: .*mkdir"):
        checkpoints.load_newest(state)
    assert not (tmp_path / "ran").exists()


def test_the_newest_are_kept(tmp_path):
    state, checkpoints = make_state(make_base(tmp_path / "svd")), Checkpoints(tmp_path / "run", 2, ALONE)
    for step in (9, 10, 100):
        state.step = step
        checkpoints.save(state)
    assert [path.name for path in checkpoints.list_whole()] == ["step-00000010", "step-00000100"]


def test_ema_weights_are_in_the_network_for_a_while_and_nothing_has_changed_afterwards(tmp_path):
    state = make_state(make_base(tmp_path / "svd"))
    raw = {name: parameter.detach().clone() for name, parameter in state.network.named_parameters()}
    averaged = {name: value.clone() for name, value in state.ema.items()}
    with pytest.raises(RuntimeError), state.ema_weights():
        assert all(torch.equal(p, averaged[name]) for name, p in state.network.named_parameters())
        raise RuntimeError
    assert all(torch.equal(p, raw[name]) for name, p in state.network.named_parameters())
    assert all(torch.equal(value, averaged[name]) for name, value in state.ema.items())


SLOW_DISK = """
import sys, time
from pathlib import Path

import torch.distributed as dist
from torch.distributed.checkpoint.filesystem import FileSystemWriter

from tests.training.test_checkpoint import make_state
from training.checkpoint import Checkpoints
from training.distributed import join_ranks

write = FileSystemWriter.write_data

def write_slowly(self, *given):
    time.sleep(1 + dist.get_rank())
    return write(self, *given)

FileSystemWriter.write_data = write_slowly
base, run = map(Path, sys.argv[1:])
with join_ranks("cpu") as ranks:
    state, checkpoints = make_state(base), Checkpoints(run, 3, ranks, beside_training=True)
    for state.step in (1, 2):
        checkpoints.save(state)
        for _ in range(20):  # steps of training, and the barrier of an export
            ranks.sum(1.0)
            ranks.wait()
    checkpoints.finish()
"""


@pytest.mark.slow
def test_training_goes_on_and_meets_while_a_checkpoint_is_written_slowly(tmp_path):
    make_base(tmp_path / "svd")
    (tmp_path / "slow.py").write_text(SLOW_DISK)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = [str(tmp_path / name) for name in ("slow.py", "svd", "run")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(  # a hang is ended by the deadline
        [*launcher, *words], env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == [
        "step-00000001",
        "step-00000002",
    ]
