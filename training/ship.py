"""Make of a run what comes with the code: its export in half precision, small enough for a repository.

    python -m training.ship --run RUN --to training/speaker

Nothing of the machine stays in it: `settings.yaml` names no folder. The card beside it is written by hand.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml

from training.checkpoint import SETTINGS, SHIPPED, codec_folder, export_of
from training.latents import LatentCodec
from training.linear_codec import LinearCodec
from training.network import PARTS, SayAnything

PLACE = "_name_or_path"  # where diffusers found a model
HALVED = ("unet", "id_guider")  # the audio part's whitening spans more than half precision can hold


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.ship", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--run", type=Path, required=True, help="a run of training/train.py, or its folder export")
    parser.add_argument("--to", type=Path, default=SHIPPED["speaker"], help="folder (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        size = ship(export_of(options.run), options.to)
    except (ValueError, OSError) as error:
        print(f"refused: {error}", file=sys.stderr)
        return 2
    print(f"{options.to}: {size / 1e6:.1f} MB")
    return 0


def ship(export: Path, folder: Path) -> int:
    """Write an export with a linear codec to `folder`, halved; return its bytes. Files of other names stay.

    Raises ValueError if the codec is not small enough to go along.
    """
    settings = yaml.safe_load((export / SETTINGS).read_text(encoding="utf-8"))
    codec = LatentCodec.load(codec_folder(export, settings["model"]["base"]), torch.device("cpu"), torch.float32)
    if not isinstance(codec.vae, LinearCodec):
        raise ValueError(f"{export}: its codec is a VAE of its owner, not a linear codec of ours; pass on the export")
    network = SayAnything.load(export)
    for name in (*PARTS, "vae"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in HALVED:
        getattr(network, name).half()
    network.save(folder)
    codec.vae.save_pretrained(folder / "vae")
    forget_places(folder)
    settings["model"]["base"] = "."  # the codec lies in vae/, and nothing else of the base is needed
    settings.pop("init", None)
    (folder / SETTINGS).write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def forget_places(folder: Path) -> None:
    """Take out of the configuration of every part in a folder where it was found."""
    for config in folder.glob("*/config.json"):
        given = {name: value for name, value in json.loads(config.read_text(encoding="utf-8")).items() if name != PLACE}
        config.write_text(json.dumps(given, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
