"""What decides a result, and what an earlier run lacks of it."""

from pathlib import Path

import pytest
import yaml

from training import recipe
from training.recipe import check_recipe, complete, decisive
from training.settings import load_settings


@pytest.fixture(autouse=True)
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take for a setting that came later one that is there in any case."""
    monkeypatch.setattr(recipe, "LATER", {("loss", "outside"): 1.0})


def written(run: Path, *settings: str) -> Path:
    run.mkdir(exist_ok=True)
    (run / "settings.yaml").write_text(
        yaml.safe_dump(decisive("sayanything", load_settings("sayanything", settings), {}))
    )
    return run


def test_a_later_setting_is_written_only_where_it_is_used(tmp_path: Path):
    assert "outside" not in decisive("sayanything", load_settings("sayanything"), {})["loss"]
    used = decisive("sayanything", load_settings("sayanything", ["loss.outside=0.5"]), {})
    assert used["loss"] == {"outside": 0.5}
    assert complete({"loss": {}})["loss"] == complete({})["loss"] == {"outside": 1.0}


def test_a_run_goes_on_with_the_value_that_it_had_and_no_other(tmp_path: Path):
    plain = decisive("sayanything", load_settings("sayanything"), {})
    other = decisive("sayanything", load_settings("sayanything", ["loss.outside=0.5"]), {})
    check_recipe(written(tmp_path / "plain"), plain)
    check_recipe(written(tmp_path / "other", "loss.outside=0.5"), other)
    check_recipe(tmp_path / "new", other)
    with pytest.raises(ValueError, match=r"loss\.outside: 1\.0 -> 0\.5"):
        check_recipe(tmp_path / "plain", other)
    with pytest.raises(ValueError, match=r"loss\.outside: 0\.5 -> 1\.0"):
        check_recipe(tmp_path / "other", plain)
