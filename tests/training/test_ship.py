"""training/ship.py: a run's export, halved and without a trace of the machine."""

import torch
import yaml

from tests.training.toys import FACTOR, make_base, make_network
from training import ship
from training.checkpoint import SETTINGS, export
from training.distributed import Ranks
from training.latents import LatentCodec
from training.linear_codec import fit_codec
from training.network import SayAnything

ALONE = Ranks(rank=0, world=1, device=torch.device("cpu"))


def make_export(folder, codec: LatentCodec):
    network = make_network(make_base(folder / "svd"))
    settings = {"model": {"base": str(folder / "svd"), "fusion": "paper"}, "init": {"sha256": "0"}}
    weights = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    export(network, weights, codec, folder / "export", ALONE, settings)
    return folder / "export"


def test_what_is_shipped_says_nearly_what_the_run_says_in_half_the_bytes(tmp_path):
    codec = LatentCodec(fit_codec(torch.rand(8, 3, 16, 16), FACTOR, channels=4))
    found = make_export(tmp_path, codec)
    assert ship.main(["--run", str(found), "--to", str(tmp_path / "shipped")]) == 0
    single, half = (dict(SayAnything.load(folder).named_parameters()) for folder in (found, tmp_path / "shipped"))
    for name, value in single.items():
        torch.testing.assert_close(half[name], value, rtol=1e-3, atol=1e-4)
    assert all(torch.equal(half[name], value) for name, value in single.items() if name.startswith("audio."))
    size = (found / "unet" / "diffusion_pytorch_model.safetensors").stat().st_size
    assert (tmp_path / "shipped" / "unet" / "diffusion_pytorch_model.safetensors").stat().st_size < 0.55 * size


def test_what_is_shipped_names_no_folder_of_the_machine_and_keeps_its_card(tmp_path):
    codec = LatentCodec(fit_codec(torch.rand(8, 3, 16, 16), FACTOR, channels=4))
    folder = tmp_path / "shipped"
    folder.mkdir()
    (folder / "README.md").write_text("a card")
    ship.ship(make_export(tmp_path, codec), folder)
    text = "".join(path.read_text() for path in (*folder.rglob("*.json"), folder / SETTINGS))
    assert str(tmp_path) not in text
    assert "init" not in yaml.safe_load((folder / SETTINGS).read_text())
    assert (folder / "README.md").read_text() == "a card"


def test_a_vae_is_not_shipped(tmp_path, capsys):
    make_base(tmp_path / "svd")
    vae = LatentCodec.load(tmp_path / "svd", ALONE.device, torch.float32)
    found = make_export(tmp_path, vae)
    assert ship.main(["--run", str(found), "--to", str(tmp_path / "shipped")]) == 2
    assert "its codec is a VAE of its owner" in capsys.readouterr().err
