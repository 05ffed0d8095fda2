from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from manifests.balance import (
    BalanceError,
    balance,
    groups_of,
    main,
    part_of,
    share_evenly,
    split,
    write_selection,
)
from models.mask import MaskSettings
from shards.index import read_index
from tests.curation.finished import build
from training.curated import read_curated
from training.data import open_data
from training.settings import DataSettings


def corpus() -> pd.DataFrame:
    """200 clips of 36 s: 150 English by ten people, 40 German by four, 10 of nobody knows what."""
    random = np.random.default_rng(4)
    language = ["english"] * 150 + ["german"] * 40 + [None] * 10
    identity = [f"e{i % 10}" for i in range(150)] + [f"g{i % 4}" for i in range(40)] + [None] * 10
    keys = [f"clip-{i:03d}" for i in range(200)]
    table = pd.DataFrame({"key": keys, "duration_s": 36.0, "yaw_deg": random.normal(0, 20, 200)})
    return table.assign(language=language, identity=identity).set_index("key", drop=False)


def hours(clips: pd.DataFrame, column: str) -> dict[str, float]:
    sums: Any = clips.groupby(groups_of(clips, column, {}))["duration_s"].sum()
    return (sums / 3600).round(6).to_dict()


def test_what_one_has_not_goes_to_the_others() -> None:
    assert share_evenly(9, {"a": 1, "b": 10, "c": 10}) == {"a": 1, "b": 4, "c": 4}
    assert share_evenly(100, {"a": 1, "b": 10}) == {"a": 1, "b": 10}


def test_hours_are_shared_evenly_by_language_and_in_each_by_person() -> None:
    chosen = balance(corpus(), ["language", "identity"], 0.7)
    assert hours(chosen, "language") == {"english": 0.3, "german": 0.28, "unknown": 0.1}  # .075 of each German: 7 clips
    assert set(hours(chosen[chosen.language == "german"], "identity").values()) == {0.07}
    assert len(hours(corpus().sample(70, random_state=1), "language")) == 3  # chance would give 0.5 h of English
    assert hours(corpus().sample(70, random_state=1), "language")["english"] > 0.4


def test_a_quota_comes_first_and_a_cap_holds() -> None:
    chosen = balance(corpus(), ["language"], 0.8, quotas={"language": {"german": 0.4}})
    assert hours(chosen, "language") == {"english": 0.3, "german": 0.4, "unknown": 0.1}
    capped = balance(corpus(), [], 9.0, caps={"identity": 0.05})
    assert max(hours(capped, "identity").values()) <= 0.05 and len(hours(capped, "identity")) == 15


def test_the_same_command_gives_the_same_clips_in_any_order_and_more_hours_only_add() -> None:
    shuffled = corpus().sample(frac=1, random_state=2)
    chosen = balance(corpus(), ["language"], 0.5)
    assert sorted(chosen.key) == sorted(balance(shuffled, ["language"], 0.5).key)
    assert set(chosen.key) < set(balance(corpus(), ["language"], 0.8).key)


def test_numbers_fall_into_bins_of_a_width_or_of_equal_numbers() -> None:
    assert groups_of(corpus(), "yaw_deg", {}).value_counts().tolist() == [40] * 5
    clips = corpus().assign(yaw_deg=[-1.0, 16.0, *[float("nan")] * 198])
    assert groups_of(clips, "yaw_deg", {"yaw_deg": 15.0}).tolist()[:3] == ["-15 to 0", "15 to 30", "unknown"]


def test_no_person_is_in_two_splits_and_a_name_has_the_same_split_everywhere() -> None:
    people = pd.DataFrame({"key": [f"k{i}" for i in range(3000)], "identity": [f"p{i % 600}" for i in range(3000)]})
    parts = split(people.assign(duration_s=1.0).set_index("key", drop=False), "identity")
    who = [set(part.identity) for part in parts.values()]
    assert sum(map(len, who)) == len(set.union(*who)) == 600
    assert 500 < len(who[0]) < 570 and min(map(len, who)) > 10
    assert all(part_of(name) == "test" for name in who[2])
    with pytest.raises(BalanceError, match="10 clips have no identity"):
        split(corpus(), "identity")


def test_a_column_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(BalanceError, match="no column or label 'age'; there is key, duration_s"):
        balance(corpus(), ["age"], 1.0)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    build(tmp_path / "out")
    return tmp_path / "out"


def test_training_reads_the_chosen_clips_from_the_shards_where_they_are(output: Path, tmp_path: Path) -> None:
    index = read_index(output / "shards")
    recipe = yaml.safe_load((output / "recipe.yaml").read_text())
    recipe["profile"]["stages"] = [{"steps/crop": {"size": 320, "expansion": 1.7, "smooth_frames": 5.0}}]
    (output / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    clips = pd.DataFrame({"key": index["key"][1:3], "source": "a", "duration_s": 1.0})
    to = tmp_path / "elsewhere" / "out2"
    write_selection(output, clips, to)
    data = open_data(to, DataSettings(frames=2, size=64, validation_share=0.0), MaskSettings())
    (whole,) = [open_data(output, DataSettings(frames=2, size=64, validation_share=0.0), MaskSettings())]
    assert sorted(clip.key for clip in data.clips()) == sorted(clips["key"])  # type: ignore[attr-defined]
    assert len(data) < len(whole)
    for clip in data.clips():  # type: ignore[attr-defined]
        with clip.open() as sample:
            assert sample.path.resolve().is_relative_to(output.resolve())
    assert not list(to.rglob("*.tar"))
    assert read_curated(to, "embedded") == read_curated(output, "embedded")


def test_the_command_says_hours_before_and_after_and_refuses_a_folder_that_exists(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [str(output), "--by", "source", "--to", str(tmp_path / "out2")]
    assert main(command) == 0
    assert "hours before" in capsys.readouterr().out
    assert (tmp_path / "out2" / "shards" / "index.parquet").exists()
    assert main(command) == 2
    assert "exists; give a new folder" in capsys.readouterr().err
