from pathlib import Path

import pandas as pd
import pytest

from curation import plan
from curation.plan import Plan, draw, forecast, print_forecast, scale_up
from tests.talkers import run_curation


def test_the_sample_is_seeded_and_takes_from_every_duration(monkeypatch):
    videos = [Path(f"/v/{i:04d}.mp4") for i in range(3000)]
    monkeypatch.setattr(plan, "duration_s", lambda path: float(int(path.stem) % 600))
    drawn = draw(videos, seed=0)
    assert len(drawn.drawn) == 30  # 1 %
    assert draw(videos, seed=0).drawn == drawn.drawn != draw(videos, seed=1).drawn
    counts = pd.Series([drawn.layers[path] for path in drawn.drawn]).value_counts()
    assert counts.to_dict() == dict.fromkeys(range(5), 6)
    assert len(draw(videos[:100], seed=0).drawn) == 20
    assert len(draw(videos[:7], seed=0).drawn) == 7


def test_a_layers_sample_stands_for_its_duration():
    rows = [pd.DataFrame({"source_s": [10.0, 30.0], "kept": [4.0, 16.0]}), pd.DataFrame({"source_s": [], "kept": []})]
    assert scale_up(rows, [400.0, 0.0]).to_dict() == {"kept": 200.0}


def test_times_are_said_in_hours_minutes_and_seconds(capsys):
    sources = Plan({Path("/v/a.mp4"): 5400.0}, {Path("/v/a.mp4"): 0}, [Path("/v/a.mp4")])
    row = dict.fromkeys(plan.COLUMNS, 1.2575)
    print_forecast(sources, pd.DataFrame([row] * 3, ["kept", "shards_gb", "worker_hours"]), workers=2, gpus=0.0)
    shown = capsys.readouterr().out
    assert "1 sources, 1:30:00" in shown and shown.count("1:15:27") == 6
    assert "1.26 GB" in shown and "0:37:44" in shown


def test_a_sample_of_everything_forecasts_what_is_there(talkers, tmp_path, capsys):
    """Two sources, both drawn: the expectation is the run itself."""
    folder = talkers("talker_a", "silence")
    videos = [folder / "talker_a.mp4", folder / "silence.mp4"]
    done = run_curation("--profile", "embedded", "--videos", *videos, "--output", tmp_path, "--plan", "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert "from 2 of them" in done.stdout and "worker_hours" in done.stdout
    drawn = draw(videos, 0)
    found = forecast(drawn, tmp_path / "plan")
    clips = pd.read_parquet(tmp_path / "plan" / "manifests" / "clips.parquet")
    expected = found["expected"].to_dict()
    assert expected["kept"] * 3600 == pytest.approx(float(clips[clips.kept].duration_s.sum()), rel=0.02)
    hours = sum(expected.values()) - sum(expected[name] for name in plan.MEASURES)
    assert hours * 3600 == pytest.approx(float(clips.duration_s.sum()), rel=0.02)
    assert all(low <= most + 1e-9 for low, most in zip(found["low"], found["expected"], strict=True))
    assert isinstance(drawn, Plan)
    assert expected["kept"] > 0  # one talker is judged as well as a thousand
