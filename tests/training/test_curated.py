import logging
from pathlib import Path

import pytest
import yaml

import pipelines
from training.curated import deciding, read_curated


def write_recipe(folder: Path, name: str = "recipe.yaml", **crop: object) -> Path:
    """A recipe as curation/run.py writes it, with other settings of the crop."""
    stages = [(stage, dict(values)) for stage, values in pipelines.load("embedded").stages]
    dict(stages)["steps/crop"].update(crop)
    content = {"profile": {"name": "embedded", "stages": [{stage: values} for stage, values in stages]}}
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(yaml.safe_dump(content))
    return folder


def test_what_decides_comes_from_the_recipe_beside_the_shards_and_not_from_todays_profile(tmp_path: Path):
    output = write_recipe(tmp_path / "out", expansion=2.5)
    (output / "shards").mkdir()
    found = read_curated(output, "embedded")
    assert found["steps/crop"]["expansion"] == 2.5
    assert found["steps/whisper"] == {"weights": "whisper_tiny_en"}
    assert "filters/niqe" not in found and "stride" not in found["steps/faces"], "they decide no picture"
    assert read_curated(output / "shards", "embedded") == found


def test_shards_without_a_recipe_are_taken_as_of_the_profile_and_that_is_said(tmp_path: Path, caplog):
    with caplog.at_level(logging.WARNING, "training"):
        found = read_curated(tmp_path, "embedded")
    assert found == deciding(pipelines.load("embedded").stages)
    assert "no recipe.yaml" in caplog.text


def test_clips_of_two_kinds_in_one_folder_are_refused_with_both_values(tmp_path: Path):
    output = write_recipe(tmp_path / "out", expansion=2.0)
    write_recipe(output, "recipe-0badcafe.yaml", expansion=1.7)
    with pytest.raises(ValueError, match=r"two kinds.*steps/crop.expansion: 1.7 -> 2.0 \(recipe-0badcafe.yaml\)"):
        read_curated(output, "embedded")


def test_an_earlier_recipe_that_differs_in_thresholds_only_is_no_other_kind(tmp_path: Path):
    output = write_recipe(tmp_path / "out")
    write_recipe(output, "recipe-0badcafe.yaml")
    stages = yaml.safe_load((output / "recipe.yaml").read_text())
    next(s for s in stages["profile"]["stages"] if "filters/niqe" in s)["filters/niqe"]["max_niqe"] = 1.0
    (output / "recipe.yaml").write_text(yaml.safe_dump(stages))
    assert read_curated(output, "embedded")["steps/crop"]["expansion"] == 1.7


@pytest.mark.parametrize("text", ["", "[1, 2", "profile: 3", "profile: {stages: [steps/crop]}"])
def test_a_recipe_that_is_none_is_named(tmp_path: Path, text: str):
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"recipe.yaml: not a recipe"):
        read_curated(tmp_path, "embedded")
