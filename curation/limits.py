"""What the stages of a run compare with what, and how far every clip is from another verdict.

Settings come from the run's recipe.yaml, the comparisons from the filters' own LIMITS, the last word from `judge`: a
limit counts for a clip only if crossing it changes its verdict.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from curation.stage import Filter, Stage, build_stages, filters_of
from curation.verdicts import judge
from manifests.reader import ManifestError
from manifests.schema import KEPT
from pipelines import ProfileError, load_recipe

NEAR = 0.1  # of the threshold
ORIGIN = "refiltered_from"  # in a recipe.yaml that curation/refilter.py wrote
STEP_OVER = 1e-6  # of the threshold: as far beyond it as makes a difference


@dataclass(frozen=True)
class Threshold:
    """One limit of a run's filter, with its value: `blur <= max_blur (0.68)`; or `lip_confidence >= lip_threshold`."""

    stage: str
    score: str  # `|score|` where only its size counts
    sign: str
    bound: str  # setting of the stage, or a score
    value: float | None  # of the setting; None for a score
    whole: bool = False  # whether the setting is a whole number

    @property
    def column(self) -> str:
        return self.score.strip("|")

    @property
    def rising(self) -> bool:
        """Whether larger is better."""
        return self.sign in (">", ">=")

    def values(self, clips: pd.DataFrame) -> pd.Series:
        column: Any = clips[self.column]
        return column.abs() if self.score != self.column else column

    def bounds(self, clips: pd.DataFrame) -> pd.Series:
        column: Any = clips[self.bound] if self.value is None else pd.Series(self.value, clips.index)
        return column

    def headroom(self, clips: pd.DataFrame) -> pd.Series:
        """How far each clip is on the good side, as a share of the threshold: 0.05 is 5 %, -0.05 as much beyond it."""
        bounds = self.bounds(clips)
        room = (self.values(clips) - bounds) / bounds.abs().where(bounds != 0)
        return room if self.rising else -room

    def other_side(self, row: Mapping[str, float], inside: bool) -> dict[str, float]:
        """Return a clip's scores with this one moved just beyond the threshold, or just inside."""
        bound = float(row[self.bound] if self.value is None else self.value)
        step = STEP_OVER * max(abs(bound), STEP_OVER)
        value = bound + (step if inside == self.rising else -step)
        return {**row, self.column: -value if self.score != self.column and row[self.column] < 0 else value}

    def loosen(self, share: float = NEAR) -> str:
        """Return the setting with its value loosened by a share of it: `filters/blur.max_blur=0.748`."""
        assert self.value is not None
        moved = self.value + (-1 if self.rising else 1) * share * abs(self.value)
        value = (math.floor(moved) if self.rising else math.ceil(moved)) if self.whole else float(f"{moved:.4g}")
        return f"{self.stage}.{self.bound}={value}"

    def __str__(self) -> str:
        return f"{self.score} {self.sign} {self.bound}{'' if self.value is None else f' ({self.value:g})'}"


def read_recipe(output: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The recipe of an output folder, with `--set` overrides. Raises ManifestError."""
    try:
        return load_recipe(output / "recipe.yaml", overrides)
    except (ProfileError, OSError) as error:
        raise ManifestError(f"{output}: {error}") from error


def run_folder(output: Path, recipe: Mapping[str, Any]) -> Path:
    """Return the folder of the run that measured, which has the parts; a refiltered output names it in its recipe."""
    return Path(recipe.get(ORIGIN, output.absolute()))


def stages_of(recipe: Mapping[str, Any]) -> list[Stage]:
    """The stages of a recipe, with their settings; no network is loaded."""
    return build_stages(pair for stage in recipe["profile"]["stages"] for pair in stage.items())


def limits_of(stages: Sequence[Stage], clips: pd.DataFrame) -> list[Threshold]:
    """Return every limit of the run whose numbers are in the table."""
    found = []
    for stage in filters_of(stages):
        for limit in stage.LIMITS:
            value = getattr(stage, limit.setting, None)
            number = None if value is None else float(value)
            if {limit.column, *([limit.setting] if value is None else [])} <= set(clips):
                whole = isinstance(value, int)
                found.append(Threshold(stage.name, limit.score, limit.sign, limit.setting, number, whole))
    return found


def numbers(clips: pd.DataFrame) -> list[dict[str, float]]:
    """What each clip is judged by: its scores and its `duration_s`."""
    columns = [name for name in clips if clips[name].dtype == np.float64 and name not in ("start_s", "end_s")]
    table: Any = clips[columns]
    return table.to_dict("records")


def nearest_limits(clips: pd.DataFrame, stages: Sequence[Stage]) -> pd.DataFrame:
    """Return for each clip the limit whose crossing would change its verdict with the smallest step.

    Columns: limit (index into `limits_of`, -1 if no single number changes anything), headroom (positive for a kept
    clip, negative for one that a filter dropped, NaN with -1). Of a dropped clip only the filter that dropped it
    counts; where several limits of it are crossed at once, the one crossed furthest.
    """
    limits = limits_of(stages, clips)
    found = pd.DataFrame({"limit": -1, "headroom": np.nan}, index=clips.index)
    if not limits or clips.empty:
        return found
    rooms = np.stack([limit.headroom(clips).to_numpy(float) for limit in limits], axis=1)
    filters = {each.name: each for each in filters_of(stages)}
    stage_names = clips["stage"].astype("str").to_numpy()
    chosen = [
        _nearest(row, room, limits, filters, KEPT if kept else stage)
        for row, room, kept, stage in zip(numbers(clips), rooms, clips["kept"], stage_names, strict=True)
    ]
    found["limit"] = chosen
    found["headroom"] = [room[place] if place >= 0 else np.nan for room, place in zip(rooms, chosen, strict=True)]
    return found


def _nearest(
    row: dict[str, float], room: np.ndarray, limits: Sequence[Threshold], filters: Mapping[str, Filter], stage: str
) -> int:
    """Place of the limit in `limits`, or -1; `stage` is the filter that dropped the clip, or 'kept'."""

    def flips(*places: int) -> bool:
        moved = row
        for place in places:
            moved = limits[place].other_side(moved, inside=stage != KEPT)
        return judge(moved, [filters[limits[places[0]].stage]]).keep == (stage != KEPT)

    if stage == KEPT:
        return next((place for place in np.argsort(room) if room[place] >= 0 and flips(place)), -1)
    crossed = [place for place in np.argsort(-room) if room[place] <= 0 and limits[place].stage == stage]
    alone = next((place for place in crossed if flips(place)), None)
    if alone is not None:
        return alone
    return crossed[-1] if crossed and flips(*crossed) else -1
