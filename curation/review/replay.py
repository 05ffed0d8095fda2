"""What the page of a run needs to judge its clips anew when a threshold is moved: verdicts, and what turns them.

The page knows no rule. It is told the verdict of each filter on each clip, and for each limit on which clips the
verdict turns when that limit alone is crossed; both come from the filters' own `decide`. So one limit of a filter can
be moved at a time, and limits of different filters together.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from curation.limits import Threshold, numbers
from curation.refilter import left_aside, records
from curation.stage import Filter, Stage
from curation.verdicts import SIGNS, Limit

DROPS, KEEPS, NEVER_MEASURED = "0", "1", "2"

Table = Any  # a DataFrame


def replay_data(clips: Table, stages: Sequence[Stage], limits: Sequence[Threshold], score_only: bool) -> dict[str, Any]:
    """Return what the page replays.

    filters: name, place among the stages and one code for each clip; turns: for each limit one digit for each clip, 1
    where crossing it turns the filter's verdict; left: place of the step that cut the clip off, -1 if none did; fixed:
    numbers of the rows that no filter saw.
    """
    rows = numbers(clips)
    places = {stage.name: place for place, stage in enumerate(stages)}
    filters, turns = [], [""] * len(limits)
    for stage in stages:
        own = {place: limit for place, limit in enumerate(limits) if limit.stage == stage.name}
        if not isinstance(stage, Filter) or not own:
            continue
        keep, turned = judge_all(stage, clips, rows, own)
        known = np.ones(len(clips), bool) if score_only else measured(clips, stage, places)
        codes = np.where(known, np.where(keep, KEEPS, DROPS), NEVER_MEASURED)
        filters.append({"name": stage.name, "place": places[stage.name], "codes": "".join(codes)})
        for place, flags in turned.items():
            turns[place] = "".join(np.where(flags, "1", "0"))
    cut = [left_aside(row).stage for row in records(clips[["kept", "stage", "reason", "detail", "remainder"]])]
    unseen = ~clips["kept"].to_numpy(bool) & clips["stage"].isna().to_numpy(bool)
    return {
        "filters": filters,
        "turns": turns,
        "left": [places.get(name, -1) for name in cut],
        "fixed": np.flatnonzero(unseen).tolist(),
        "stages": [stage.name for stage in stages],
    }


def judge_all(
    stage: Filter, clips: Table, rows: Sequence[Mapping[str, float]], limits: Mapping[int, Threshold]
) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Return whether a filter keeps each clip [N], and by limit with a setting where crossing it turns that."""
    movable = {place: limit for place, limit in limits.items() if limit.value is not None}
    if type(stage).decide is Filter.decide:  # all limits must hold: no need to ask for each clip
        holds = {(limit.score, limit.setting): hold(limit, stage, clips) for limit in stage.LIMITS}
        keep = np.logical_and.reduce([*holds.values()])
        everywhere = np.ones(len(clips), bool)
        return keep, {
            place: np.logical_and.reduce(
                [everywhere, *(held for name, held in holds.items() if name != (limit.score, limit.bound))]
            )
            for place, limit in movable.items()
        }
    keep = np.array([stage.decide(row).keep for row in rows], bool)
    turned = {}
    for place, limit in movable.items():
        room = limit.headroom(clips).to_numpy(float)
        turned[place] = np.array(
            [
                r == r and stage.decide(limit.other_side(row, inside=r < 0)).keep != kept
                for row, r, kept in zip(rows, room, keep, strict=True)
            ],
            bool,
        )
    return keep, turned


def hold(limit: Limit, stage: Filter, clips: Table) -> np.ndarray:
    """Return whether each clip is inside a limit, as `Limit.holds` says it of one."""
    value = clips[limit.column].to_numpy(float)
    value = np.abs(value) if limit.score != limit.column else value
    own = getattr(stage, limit.setting, None)
    bound = clips[limit.setting].to_numpy(float) if own is None else np.full(len(value), float(own))
    return SIGNS[limit.sign](value, bound) | (limit.optional & (np.isnan(value) | np.isnan(bound)))


def measured(clips: Table, stage: Filter, places: Mapping[str, int]) -> np.ndarray:
    """Return which clips a filter has measured, as `refilter.was_measured` says it of one."""
    reached = clips["stage"].astype("str").map(places).fillna(-1).to_numpy(int) >= places[stage.name]
    scores = [name for name in stage.SCORES if name in clips]
    return clips["kept"].to_numpy(bool) | reached | clips[scores].notna().any(axis=1).to_numpy(bool)
