"""What the page replays is what refilter says: for each limit of the embedded profile, moved both ways."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from curation.limits import read_recipe
from curation.refilter import NotMeasured, by_name, records
from curation.refilter import replay as replay_row
from curation.review.replay import NEVER_MEASURED, replay_data
from curation.review.report import FinishedRun, read_run
from manifests.schema import KEPT
from tests.curation.outputs import GOOD, made_output, made_rows


def many_rows(folder: Path) -> list[dict[str, Any]]:
    """The made run, copies of a kept clip with one number a bit off, one dropped before its lips were seen."""
    rows = made_rows(folder)
    kept = next(row for row in rows if row["kept"])
    copies = [
        kept
        | {"key": f"{name}-{round(10 * share)}", "source": f"{kept['source']}-{name}-{share}", name: GOOD[name] * share}
        for name in ("lip_confidence", "niqe", "source_speech_share", "keyframe_face_max_px")
        for share in (0.5, 1.1)
    ]
    unseen = {name: value for name, value in kept.items() if not name.startswith("lip_")}
    dropped = {"kept": False, "reason": "niqe", "stage": "filters/niqe", "niqe": 11.0}
    return [*rows, *copies, unseen | dropped | {"key": "unseen", "source": f"{kept['source']}-unseen"}]


@pytest.fixture(scope="module", params=[True, False], ids=["score_only", "stops"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    folder = tmp_path_factory.mktemp("replayed")
    rows = made_rows(folder) if request.param else many_rows(folder)
    return read_run(made_output(folder, score_only=request.param, rows=rows))


def judge_again(data: dict[str, Any], row: int, place: int | None, stage: str | None, crossed: bool) -> str:
    """As `judgeAnew` of report.js: kept, the stage that drops it, or never measured."""
    left = data["left"][row]
    for each in data["filters"]:
        if 0 <= left < each["place"]:
            break
        code = each["codes"][row]
        if code == NEVER_MEASURED:
            return "never measured"
        if place is not None and each["name"] == stage and crossed and data["turns"][place][row] == "1":
            code = "10"[int(code)]
        if code == "0":
            return each["name"]
    return data["stages"][left] if left >= 0 else KEPT


def test_replayed_verdicts_are_those_of_refilter_wherever_a_limit_is_moved(run: FinishedRun) -> None:
    score_only = run.recipe["score_only"]
    data = replay_data(run.clips, run.stages, run.limits, score_only)
    rows, checked = records(run.clips), set()
    for place, limit in enumerate(run.limits):
        if limit.value is None:
            continue
        for share in (-0.5, -0.05, 0.0, 0.05, 0.5):
            setting = limit.loosen(share).split("=")
            moved = replace(limit, value=float(setting[1]))
            stages = by_name(read_recipe(run.output, ["=".join(setting)]))
            before, after = (each.headroom(run.clips) for each in (limit, moved))
            for number, row in enumerate(rows):
                if number in data["fixed"]:
                    continue
                inside = [holds(each, row) for each in (limit, moved)]
                try:
                    verdict = replay_row(row, stages, score_only)
                    expected = verdict.stage or KEPT
                except NotMeasured:
                    expected = "never measured"
                found = judge_again(data, number, place, limit.stage, inside[0] != inside[1])
                assert found == expected, (str(moved), row["source"], row["start_s"], before[number], after[number])
                checked.add((limit.stage, expected))
    assert {"filters/blur", "filters/source_speech", KEPT} <= {verdict for _, verdict in checked}
    assert ("never measured" in {verdict for _, verdict in checked}) != score_only


def holds(limit: Any, row: dict[str, Any]) -> bool:
    from curation.verdicts import SIGNS

    value = abs(row[limit.column]) if limit.score != limit.column else row[limit.column]
    return bool(SIGNS[limit.sign](value, limit.value))
