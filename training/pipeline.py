"""An exported model as a folder like those of diffusers, and what loads it.

    python -m training.pipeline RUN FOLDER

    from training.pipeline import SayAnythingPipeline

    pipeline = SayAnythingPipeline.from_pretrained("FOLDER")
    pipeline("talk.mp4", "speech.wav", "out.mp4", guidance=2.0)

FOLDER/model_index.json names the class of every part, each of which loads by itself as diffusers' models do. What
generation does beside them is `training/generator.py` with FOLDER/settings.yaml; scheduler/ says the same noise levels
to other programs, and is not read here. Not in the folder: the face finder and Whisper (`python weights.py fetch`).
`--by-reference` leaves the VAE where it is, for one that its owner's licence does not let you pass on.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import diffusers
import torch
import yaml

from storage.atomic_write import atomic_folder
from training.checkpoint import SETTINGS, codec_folder, export_of
from training.generator import Generator, Job, Options
from training.linear_codec import LinearCodec
from training.network import PARTS
from training.settings import SamplingSettings
from training.ship import forget_places

INDEX = "model_index.json"
CLASSES = {
    "unet": ("training.unet", "SayAnythingUNet"),
    "id_guider": ("training.id_guider", "IDGuider"),
    "audio": ("training.audio", "AudioTokens"),
    "scheduler": ("diffusers", "EulerDiscreteScheduler"),
}
SVD_SCHEDULER = {  # beside the noise levels, which are the checkpoint's
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "timestep_type": "continuous",
    "timestep_spacing": "leading",
    "steps_offset": 1,
    "use_karras_sigmas": True,
}


class SayAnythingPipeline:
    """A model loaded once, for any number of videos."""

    def __init__(self, generator: Generator) -> None:
        self.generator = generator

    @classmethod
    def from_pretrained(cls, folder: str | Path, device: str | None = None) -> Self:
        """Load what `write_pipeline` wrote, onto CUDA if there is one. Raises ValueError if it is something else."""
        index = Path(folder) / INDEX
        if not index.is_file():
            raise ValueError(f"{folder}: no {INDEX}; python -m training.pipeline RUN FOLDER makes such a folder")
        kind = json.loads(index.read_text(encoding="utf-8")).get("_class_name")
        if kind != cls.__name__:
            raise ValueError(f"{index}: a {kind}, not a {cls.__name__}")
        place = device or ("cuda" if torch.cuda.is_available() else "cpu")
        return cls(Generator(Path(folder), torch.device(place)))

    def __call__(self, video: str | Path, audio: str | Path, output: str | Path, **options: Any) -> Path:
        """Lip-sync a video to a sound, write an MP4 and return its path. `options` are those of `generator.Options`.

        Raises ValueError (MediaError among them) for what cannot be generated, TypeError for an option of no such name.
        """
        self.generator.generate(Job(Path(video), Path(audio), Path(output)), Options(**options))
        return Path(output)


def write_pipeline(export: Path, folder: Path, copy_vae: bool = True) -> None:
    """Write an exported model to a new folder, which appears when it is whole. Raises ValueError if it is there.

    With `copy_vae` False the folder names the place of the VAE instead, and works on machines that have it there.
    """
    if folder.exists():
        raise ValueError(f"{folder}: is there already; name a new folder")
    settings = yaml.safe_load((export / SETTINGS).read_text(encoding="utf-8"))
    codec = codec_folder(export, settings["model"]["base"])
    if not (codec / "vae" / "config.json").is_file():
        raise ValueError(f"{codec / 'vae'}: no VAE (config.json is missing); {export / SETTINGS} says that it is there")
    settings["model"]["base"] = "." if copy_vae else str(codec.resolve())
    settings.pop("init", None)
    sampling = SamplingSettings(**settings.get("sampling", {}))
    with atomic_folder(folder) as made:
        for part in PARTS:
            shutil.copytree(export / part, made / part)
        if copy_vae:
            shutil.copytree(codec / "vae", made / "vae")
        forget_places(made)
        (made / SETTINGS).write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
        write_json(made / "scheduler" / "scheduler_config.json", scheduler_config(sampling))
        write_json(made / INDEX, index_of(vae_class(codec) if copy_vae else (None, None), sampling))


def vae_class(codec: Path) -> tuple[str, str]:
    """Return the module and the class of a codec."""
    name = json.loads((codec / "vae" / "config.json").read_text(encoding="utf-8"))["_class_name"]
    return ("training.linear_codec" if name == LinearCodec.__name__ else "diffusers"), name


def scheduler_config(sampling: SamplingSettings) -> dict[str, Any]:
    """Return SVD's scheduler with the noise levels of a checkpoint, as diffusers writes it."""
    levels = {"sigma_min": sampling.sigma_min, "sigma_max": sampling.sigma_max}
    return {"_class_name": CLASSES["scheduler"][1], **version(), **SVD_SCHEDULER, **levels}


def index_of(vae: tuple[str | None, str | None], sampling: SamplingSettings) -> dict[str, Any]:
    """Return the class of every part, and how it generates where a call does not say otherwise."""
    parts = {name: list(found) for name, found in {**CLASSES, "vae": vae}.items()}
    return {"_class_name": SayAnythingPipeline.__name__, **version(), **parts, "sampling": asdict(sampling)}


def version() -> dict[str, str]:
    return {"_diffusers_version": diffusers.__version__}


def write_json(file: Path, content: dict[str, Any]) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.pipeline", description=(__doc__ or "").partition("\n\n")[0]
    )
    parser.add_argument("run", type=Path, help="a run of training/train.py, its folder export, or speaker")
    parser.add_argument("folder", type=Path, help="the new folder")
    parser.add_argument("--by-reference", action="store_true", help="name the place of the VAE instead of copying it")
    options = parser.parse_args(arguments)
    try:
        write_pipeline(export_of(options.run), options.folder, not options.by_reference)
    except (ValueError, OSError) as error:
        print(f"refused: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
