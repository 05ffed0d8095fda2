"""What decides the result of a run, as plain data: `settings.yaml` of the run and of its export.

A run is not continued with other values. Settings that came later are left out where they have the value that every
earlier run had without them, so that such a run goes on, and an export that does not use them has the same bytes.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from storage.atomic_write import atomic_write
from training.checkpoint import SETTINGS
from training.curated import Curated
from training.distributed import Ranks
from training.settings import TrainingSettings

Recipe = dict[str, dict[str, Any]]  # {group: {setting: value}}
LATER: dict[tuple[str, str], Any] = {  # (group, setting) that came later -> what earlier runs had
    ("data", "flip"): 0.0,
    ("model", "lora_rank"): 0,
    ("sampling", "audio_guidance"): None,
    ("mixture", "weights"): None,  # of several --data
}


def decisive(profile: str, settings: TrainingSettings, curated: Curated, weights: Sequence[float] = (1.0,)) -> Recipe:
    """The settings that change what is learned, as plain data. Longer training is no other training.

    `weights` are those of the outputs that are trained on.
    """
    found = {"profile": {"name": profile}, "curated": curated, **dataclasses.asdict(settings)}
    found["run"] = {"precision": settings.run.precision}
    if len(weights) > 1:
        found["mixture"] = {"weights": list(weights)}
    for name in ("workers", "max_bad_share"):
        del found["data"][name]
    for name in ("steps", "micro_batch"):
        del found["optimizer"][name]
    for (group, name), before in LATER.items():
        if found.get(group, {}).get(name, before) == before:
            found.get(group, {}).pop(name, None)
    return found


def check_recipe(run: Path, recipe: Recipe) -> None:
    """Refuse to continue a run with other settings than those it was begun with, where they change its result."""
    file = run / SETTINGS
    if not file.is_file():
        return
    before, now = complete(yaml.safe_load(file.read_text(encoding="utf-8"))), complete(recipe)
    changed = [
        f"{group}.{name}: {before.get(group, {}).get(name)} -> {value}"
        for group, values in now.items()
        for name, value in values.items()
        if before.get(group, {}).get(name) != value
    ]
    if changed:
        raise ValueError(f"{run} was begun with other settings ({'; '.join(changed)}); use those, or another --run")


def complete(recipe: Recipe) -> Recipe:
    """Return a recipe with the settings that `decisive` left out."""
    found = {group: dict(values) for group, values in recipe.items()}
    for (group, name), before in LATER.items():
        found.setdefault(group, {}).setdefault(name, before)
    return found


def write_recipe(run: Path, recipe: Recipe, ranks: Ranks) -> None:
    """Write `settings.yaml` into a run that has none yet."""
    file = run / SETTINGS
    if ranks.first and not file.is_file():
        run.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as written:
            written.write(yaml.safe_dump(recipe, sort_keys=False).encode())
