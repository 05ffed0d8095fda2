from pathlib import Path

import pytest

from benchmarks.fine_tune import take_minutes
from shards.index import read_index
from tests.training.numbered import write_shards
from training.data import loader, open_data
from training.settings import load_settings


def test_the_first_minutes_are_taken_and_can_be_trained_on(tmp_path: Path) -> None:
    data = write_shards(tmp_path / "all", [("anna", 40), ("anna", 25), ("bela", 33), ("dora", 70)])
    (data / "recipe.yaml").write_text("{}", encoding="utf-8")
    whole = read_index(data / "shards")
    frames = whole["frames"].tolist()
    wanted = (frames[0] + 1) / 25 / 60
    held = take_minutes(data, wanted, tmp_path / "part")
    assert held == pytest.approx(sum(frames[:2]) / 25 / 60)
    assert read_index(tmp_path / "part" / "shards")["key"].tolist() == whole["key"][:2].tolist()
    settings = load_settings("embedded", ["data.cache=none", "data.validation_share=0.0", "data.size=32"])
    batch = next(loader(open_data(tmp_path / "part", settings.data, settings.mask), 2, workers=0))
    assert not batch.quarantined and set(batch.keys) <= {*whole["key"][:2]}


def test_more_minutes_than_there_are_are_refused(tmp_path: Path) -> None:
    data = write_shards(tmp_path / "all", [("anna", 40)])
    with pytest.raises(ValueError, match=r"0\.0 minutes of clips, 5 were asked for"):
        take_minutes(data, 5, tmp_path / "part")
