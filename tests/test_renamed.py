"""Profiles and outputs of earlier versions are read, by whatever name a stage or column had then."""

import json
from pathlib import Path

import pandas as pd
import pytest

import pipelines
import renamed
from curation.ledger_files import parse_curated
from curation.limits import limits_of, stages_of
from curation.refilter import read_recipe, records, refilter
from manifests.reader import read_clips, read_run_notes, read_sources
from manifests.writer import write_manifests
from tests.curation.outputs import made_output

BEFORE = {new: old for old, new in {**renamed.STAGES, **renamed.COLUMNS}.items()}
COUNTED = ("clips_kept", "kept_s")  # by the writer


def test_every_name_of_today_is_a_stage_or_a_score_and_no_earlier_one_is() -> None:
    stages = pipelines.stage_names()
    scores = {score for name in stages for score in pipelines.stage_class(name).SCORES}
    assert set(renamed.STAGES.values()) <= set(stages) and not set(renamed.STAGES) & set(stages)
    assert set(renamed.SCORES.values()) <= scores and not set(renamed.SCORES) & scores


@pytest.fixture
def old_pipelines(tmp_path: Path) -> Path:
    """`pipelines.yaml` with the earlier names."""
    path = tmp_path / "pipelines.yaml"
    path.write_text(written_before(pipelines.PIPELINES.read_text(encoding="utf-8")), encoding="utf-8")
    return path


def written_before(text: str) -> str:
    for new, old in BEFORE.items():
        text = text.replace(new, old)
    return text


def test_an_old_profile_is_the_profile_of_today(old_pipelines: Path) -> None:
    text = old_pipelines.read_text(encoding="utf-8")
    assert all(old in text for old in renamed.STAGES)
    assert pipelines.load("embedded", path=old_pipelines) == pipelines.load("embedded")


def test_a_setting_is_found_by_the_earlier_name_of_its_stage() -> None:
    settings = dict(pipelines.load("embedded", ["filters/audible.min_speech_s=4.5"]).stages)
    assert settings["filters/source_speech"]["min_speech_s"] == 4.5


def test_a_mistake_in_an_old_profile_is_told_with_its_line(old_pipelines: Path) -> None:
    lines = old_pipelines.read_text(encoding="utf-8").splitlines()
    place = lines.index("    - filters/glance:")
    lines[place + 1] = "        wieghts: yolo11m_face"
    old_pipelines.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(pipelines.ProfileError, match=rf"pipelines.yaml:{place + 2}: .*did you mean 'weights'"):
        pipelines.load("sayanything", path=old_pipelines)


def make_older(output: Path) -> None:
    """Write recipe and manifests of an output as an earlier version would have."""
    recipe = output / "recipe.yaml"
    recipe.write_text(written_before(recipe.read_text(encoding="utf-8")), encoding="utf-8")
    notes, clips, sources = read_run_notes(output), records(read_clips(output)), records(read_sources(output))
    write_manifests(
        output,
        [{BEFORE.get(name, name): value for name, value in row.items()} | {"stage": before(row)} for row in clips],
        [{BEFORE.get(name, name): row[name] for name in row if name not in COUNTED} for row in sources],
        scores={BEFORE.get(name, name): text for name, text in notes.scores.items()},
        reasons=notes.reasons,
        stages=[BEFORE.get(name, name) for name in notes.stages],
    )


def before(row: dict) -> str | None:
    return BEFORE.get(row["stage"], row["stage"]) if isinstance(row["stage"], str) else None


def test_an_old_output_is_read_with_the_names_of_today(tmp_path: Path) -> None:
    output = made_output(tmp_path)
    clips, notes = read_clips(output), read_run_notes(output)
    make_older(output)
    assert "glance_gap_s" in pd.read_parquet(output / "manifests" / "clips.parquet").columns
    pd.testing.assert_frame_equal(read_clips(output), clips, check_categorical=False)
    assert read_run_notes(output) == notes
    assert {str(each) for each in limits_of(stages_of(read_recipe(output)), read_clips(output))} >= {
        "source_speech_s >= min_speech_s (3)",
        "keyframe_face_max_px > min_px (160)",
    }


def test_an_old_output_is_judged_anew_as_one_of_today(tmp_path: Path) -> None:
    change = ["filters/source_speech.min_speech_s=0.5"]
    output = made_output(tmp_path)
    refilter(output, change, tmp_path / "new")
    make_older(output)
    refilter(output, ["filters/audible.min_speech_s=0.5"], tmp_path / "old")
    pd.testing.assert_frame_equal(read_clips(tmp_path / "old"), read_clips(tmp_path / "new"))
    shards = [sorted((tmp_path / name / "shards").glob("*.tar")) for name in ("old", "new")]
    assert [tar.read_bytes() for tar in shards[0]] == [tar.read_bytes() for tar in shards[1]] != []


def test_an_old_row_of_the_ledger_has_the_names_of_today() -> None:
    clip = {"key": "a", "stage": "filters/glance", "glance_gap_s": 2.0}
    text = json.dumps({"source": {"path": "a", "cpu_s_speech": 1.0}, "clips": [clip], "sampled": {}})
    assert parse_curated({"curated": text}) == {
        "source": {"path": "a", "cpu_s_clip_speech": 1.0},
        "clips": [{"key": "a", "stage": "filters/keyframe_face_size", "keyframe_gap_s": 2.0}],
        "sampled": {},
    }
