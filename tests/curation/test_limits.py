"""What filters compare, and how far a clip is from another verdict."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import pipelines
from curation.limits import Threshold, limits_of, nearest_limits, read_recipe, run_folder, stages_of
from manifests.reader import ManifestError, read_clips
from tests.curation.outputs import GOOD, made_output, made_rows

FILTERS = sorted(f"filters/{path.stem}" for path in (pipelines.ROOT / "curation" / "filters").glob("[!_]*.py"))
GOOD_ELSEWHERE = {
    "lip_motion": 0.1,
    "hyperiqa": 0.9,
    "sync_confidence": 9.0,
    "sync_offset_frames": 0.0,
    "sync_min_distance": 6.0,
    "camera_motion": 0.05,
    "turned_deg": 10.0,
    "lip_redness": 5.0,
    "mouth_light": 120.0,
    "mouth_contrast": 80.0,
    "mouth_clipped": 0.0,
    "bandwidth_hz": 7500.0,
    "picture_change": 3.0,
    "own_sync_confidence": 0.6,
    "own_sync_offset_frames": 0.0,
    "own_sync_threshold": 0.3,
    "own_sync_window_confidence": 0.6,
    "own_sync_window_threshold": 0.4,
    "own_sync_window_agreement": 1.0,
}
STAGES: Any = [pipelines.stage_class(name)() for name in FILTERS]


def clips_of(*rows: dict[str, Any]) -> pd.DataFrame:
    base = {"kept": True, "stage": None, "duration_s": 9.0, **GOOD, **GOOD_ELSEWHERE}
    return pd.DataFrame([{**base, **row} for row in rows]).astype({"duration_s": float})


def nearest(clips: pd.DataFrame) -> list[tuple[str, float]]:
    limits = limits_of(STAGES, clips)
    found: Any = nearest_limits(clips, STAGES)
    return [
        (str(limits[place]).split(" (")[0] if place >= 0 else "", round(room, 3))
        for place, room in zip(found["limit"], found["headroom"], strict=True)
    ]


@pytest.mark.parametrize("stage", STAGES, ids=FILTERS)
def test_a_clip_inside_all_limits_is_kept_and_beyond_all_of_them_dropped(stage: Any) -> None:
    row: dict[str, Any] = clips_of({}).to_dict("records")[0]
    assert stage.decide(row).keep
    for limit in [limit for limit in limits_of(STAGES, clips_of({})) if limit.stage == stage.name]:
        row = limit.other_side(row, inside=False)
    assert not stage.decide(row).keep


def test_headroom_is_a_share_of_the_threshold_on_both_sides_of_it() -> None:
    clips = clips_of({"blur": 0.612}, {"blur": 0.748}, {"lip_offset_frames": -9.0})
    by_score = {limit.score: limit for limit in limits_of(STAGES, clips)}
    assert by_score["blur"].headroom(clips).round(3).tolist()[:2] == [0.1, -0.1]
    assert by_score["|lip_offset_frames|"].headroom(clips).tolist() == [1.0, 1.0, -0.5]


def test_a_threshold_below_zero_counts_by_its_size_and_one_of_zero_not_at_all() -> None:
    clips = clips_of({"loudness_db": -49.5})
    assert Threshold("s", "loudness_db", ">=", "min_loudness_db", -55.0).headroom(clips).iloc[0] == pytest.approx(0.1)
    assert Threshold("s", "loudness_db", "<=", "max", 0.0).headroom(clips).isna().all()


def test_the_nearest_limit_of_a_kept_clip_is_the_one_that_would_drop_it_first() -> None:
    assert nearest(clips_of({"blur": 0.65, "niqe": 9.9})) == [("niqe <= max_niqe", 0.01)]


def test_a_limit_whose_crossing_changes_nothing_does_not_count() -> None:
    """Either is enough: seconds of speech, or their share."""
    short = {"source_speech_s": 2.9, "source_speech_share": 0.31, "speech_share": 0.9}
    assert nearest(clips_of(short)) == [("source_speech_share >= min_share", 0.033)]
    both = {"source_speech_s": 3.1, "source_speech_share": 0.31, "speech_share": 0.9}
    assert nearest(clips_of(both))[0][0] not in ("source_speech_s >= min_speech_s", "source_speech_share >= min_share")


def test_a_dropped_clip_counts_for_the_filter_that_dropped_it_and_the_shortest_way_back() -> None:
    blurred = {"kept": False, "stage": "filters/blur", "blur": 0.714, "niqe": 30.0}
    assert nearest(clips_of(blurred)) == [("blur <= max_blur", -0.05)]
    silent = {"kept": False, "stage": "filters/source_speech", "source_speech_s": 1.5, "source_speech_share": 0.27}
    assert nearest(clips_of(silent)) == [("source_speech_share >= min_share", -0.1)]


def test_of_several_limits_crossed_at_once_the_furthest_counts() -> None:
    foreign = {"kept": False, "stage": "filters/lip_audio", "lip_confidence": 0.15}
    assert nearest(clips_of(foreign)) == [("lip_confidence >= lip_threshold", -0.5)]


def test_a_clip_that_no_number_can_save_has_no_nearest_limit() -> None:
    mute = {"kept": False, "stage": "filters/source_speech", "source_loudness_db": float("nan"), "source_speech_s": 0.0}
    assert nearest(clips_of(mute | {"source_speech_share": 0.0}))[0][0] == ""


def test_a_clip_that_no_filter_judged_has_no_nearest_limit() -> None:
    cut_off = {"kept": False, "stage": "steps/stable_spans"}
    assert nearest(clips_of(cut_off))[0][0] == ""
    assert nearest(clips_of({"kept": False, "stage": None}))[0][0] == ""


@pytest.mark.parametrize(
    ("limit", "loosened"),
    [
        (Threshold("filters/blur", "blur", "<=", "max_blur", 0.68), "filters/blur.max_blur=0.748"),
        (Threshold("filters/quiet", "l", ">=", "min_loudness_db", -55.0), "filters/quiet.min_loudness_db=-60.5"),
        (Threshold("filters/face_size", "f", ">", "min_px", 228.0, whole=True), "filters/face_size.min_px=205"),
        (Threshold("filters/syncnet", "|o|", "<=", "max_offset", 6.0, whole=True), "filters/syncnet.max_offset=7"),
    ],
)  # fmt: skip
def test_a_loosened_setting_can_be_given_to_the_command_line(limit: Threshold, loosened: str) -> None:
    assert limit.loosen() == loosened


def test_thresholds_are_those_of_the_recipe(tmp_path: Path) -> None:
    output = made_output(tmp_path)
    recipe = read_recipe(output, ["filters/blur.max_blur=0.5"])
    limits = limits_of(stages_of(recipe), read_clips(output))
    assert next(limit.value for limit in limits if limit.score == "blur") == 0.5
    assert run_folder(output, recipe) == output
    assert {limit.column for limit in limits} <= {*made_rows(tmp_path)[0]}


def test_a_folder_without_a_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"recipe\.yaml"):
        read_recipe(tmp_path)
