"""How the faces and the sound in some shards were made: what generation has to make likewise.

`curation/run.py` leaves its profile beside the shards (`OUT/recipe.yaml`); the few settings of it that decide what a
network sees and hears go into the run and its export, so that neither asks today's `pipelines.yaml`.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

import pipelines

DECIDING = {
    "steps/faces": ("weights", "size", "min_score"),
    "steps/crop": ("size", "expansion", "smooth_frames"),
    "steps/landmarks": ("weights",),
    "steps/whisper": ("weights",),
}
Curated = dict[str, dict[str, Any]]  # {step: {setting: value}}
log = logging.getLogger("training")


def read_curated(data: Path, profile: str) -> Curated:
    """The deciding settings of a curated output or its folder of shards.

    Shards without a recipe beside them are taken as made by the profile of this name, with a warning. Raises ValueError
    if the output was continued with other settings (`--fork`), which makes clips of two kinds.
    """
    folder = data.parent if data.name == "shards" else data
    files = [folder / "recipe.yaml", *sorted(folder.glob("recipe-*.yaml"))]
    if not files[0].is_file():
        log.warning("%s: no recipe.yaml; taken as curated with the profile %s of today", folder, profile)
        return deciding(pipelines.load(profile).stages)
    newest, *others = (read_recipe(file) for file in files)
    for file, other in zip(files[1:], others, strict=True):
        if other != newest:
            raise ValueError(f"{folder} holds clips of two kinds, made with {differences(other, newest)} ({file.name})")
    return newest


def read_all_curated(folders: Sequence[Path], profile: str) -> Curated:
    """The deciding settings of several outputs. Raises ValueError, with both values, if they are not the same."""
    first, *others = (read_curated(folder, profile) for folder in folders)
    for folder, other in zip(folders[1:], others, strict=True):
        if other != first:
            raise ValueError(
                f"{folders[0]} and {folder} hold clips of two kinds: {differences(first, other)}; train on one of "
                "them, or curate both alike"
            )
    return first


def curated_in(settings: Mapping[str, Any], checkpoint: Path) -> Curated:
    """Return the deciding settings in the `settings.yaml` of a checkpoint. Raises ValueError if they are not there."""
    if "curated" not in settings:
        raise ValueError(f"{checkpoint}: does not say how its faces were cut; it comes from older code: train again")
    return settings["curated"]


def read_recipe(file: Path) -> Curated:
    try:
        stages = yaml.safe_load(file.read_text(encoding="utf-8"))["profile"]["stages"]
        return deciding(next(iter(stage.items())) for stage in stages)
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise ValueError(f"{file}: not a recipe of curation/run.py ({error!r})") from error


def deciding(stages: Iterable[tuple[str, Mapping[str, Any]]]) -> Curated:
    """Of all stages with their settings, what decides."""
    given = dict(stages)
    return {step: {name: given[step][name] for name in names} for step, names in DECIDING.items() if step in given}


def differences(before: Curated, after: Curated) -> str:
    """`steps/crop.expansion: 1.7 -> 2.0` for every setting that is not the same."""
    return "; ".join(
        f"{step}.{name}: {before.get(step, {}).get(name)} -> {after.get(step, {}).get(name)}"
        for step, names in DECIDING.items()
        for name in names
        if before.get(step, {}).get(name) != after.get(step, {}).get(name)
    )
