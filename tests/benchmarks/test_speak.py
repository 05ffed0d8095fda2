import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import speak
from benchmarks.speak import Talker, choose_other, closure_of, correlate, read_lips, read_talkers, spread_of, summarize
from media.frames import scan
from media.probe import probe
from tests.training.toys import make_checkpoint
from training.checkpoint import SHIPPED

NAMES = ("talker_a", "talker_b", "silence")


@pytest.fixture(scope="module")
def folder(talkers, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two good talkers and one without a voice, as `demo.corpus` leaves them."""
    source, folder = talkers(*NAMES), tmp_path_factory.mktemp("talkers")
    truths = {name: json.loads((source / "truth" / f"{name}.json").read_text(encoding="utf-8")) for name in NAMES}
    for name in NAMES:
        (folder / f"{name}.mp4").symlink_to(source / f"{name}.mp4")
    (folder / "truth.json").write_text(json.dumps(truths), encoding="utf-8")
    return folder


def talker(name: str, *sentences: str, people: tuple[int, ...] = (0,)) -> Talker:
    return Talker(Path(f"{name}.mp4"), people, frozenset(sentences), np.zeros(3), np.zeros(3))


def test_what_is_read_off_a_real_mouth_is_its_truth_and_not_anothers(folder):
    a, b = read_talkers(folder)
    lips = read_lips(a.video, 200)
    assert len(lips.opening) == 200 and not lips.failed_frames
    assert correlate(lips.opening, a.opening) > 0.94
    assert correlate(lips.width, a.width) > 0.8
    assert abs(correlate(lips.opening, b.opening)) < 0.3
    assert abs(correlate(np.roll(lips.opening, 12), a.opening)) < 0.3
    assert closure_of(lips.opening, a.opening) > 0.8
    assert closure_of(-lips.opening, a.opening) < 0.1


def test_frames_without_a_face_are_counted_and_left_out(talkers):
    lips = read_lips(talkers("gap_15") / "gap_15.mp4", 150)
    assert 10 <= lips.failed_frames <= 20  # 15 frames behind a card
    assert np.isnan(lips.opening[125]) and np.isfinite(lips.opening[100])
    assert math.isfinite(correlate(lips.opening, np.arange(150.0)))


def test_only_good_talkers_are_taken_and_many_people_first(folder, tmp_path):
    assert [t.video.stem for t in read_talkers(folder)] == ["talker_a", "talker_b"]
    truths = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    for name, people in (("one", [0]), ("three", [0]), ("two", [5])):
        (tmp_path / f"{name}.mp4").touch()
        truths[name] = {**truths["talker_a"], "people": people}
    (tmp_path / "truth.json").write_text(json.dumps(truths), encoding="utf-8")
    assert [t.video.stem for t in read_talkers(tmp_path)] == ["one", "two", "three"]
    (tmp_path / "two.mp4").unlink()
    (tmp_path / "three.mp4").unlink()
    with pytest.raises(ValueError, match="1 good talkers"):
        read_talkers(tmp_path)


def test_the_other_says_other_words():
    three = [talker("a", "one", "two"), talker("b", "two", "three"), talker("c", "four")]
    assert [choose_other(three, i).video.stem for i in range(3)] == ["c", "c", "a"]
    with pytest.raises(ValueError, match="every other talker"):
        choose_other(three[:2], 0)


def test_correlation_leaves_out_what_is_missing_and_gives_a_still_mouth_nothing():
    truth = np.sin(np.arange(40.0))
    read = 3 * truth + 1
    read[5:9] = np.nan
    assert correlate(read, truth) == pytest.approx(1)
    assert correlate(-read[:30], truth) == pytest.approx(-1)
    assert correlate(np.full(40, 0.3), truth) == 0
    assert correlate(read[:9], truth) == 0  # too few
    assert spread_of(read, truth) == pytest.approx(3, rel=0.1)
    assert math.isnan(spread_of(read * np.nan, truth))


def test_intervals_are_students():
    found = summarize([1.0, 2.0, 3.0, float("nan")])
    assert found["mean"] == 2 and found["clips"] == 3
    assert found["interval"] == pytest.approx([2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5], abs=1e-3)
    assert summarize([0.5]) == {"mean": 0.5, "interval": None, "clips": 1}
    assert summarize([float("nan")])["mean"] is None


def test_the_speaker_that_comes_with_the_code_follows_a_sound_and_deaf_it_does_not(folder, tmp_path):
    torch.set_num_threads(1)
    followed = {}
    for control in ((), ("--deaf",)):
        report = tmp_path / f"speak{''.join(control)}.json"
        given = ["--run", str(SHIPPED["speaker"]), "--unseen", str(folder), "--seconds", "2", "--json", str(report)]
        assert speak.main([*given, *control]) == 0
        measured = json.loads(report.read_text(encoding="utf-8"))["unseen"]
        followed[control] = (measured["own"]["mean"] + measured["other_audio"]["mean"]) / 2
    assert followed[()] > 0.6
    assert followed[("--deaf",)] < 0.3


def test_a_deaf_network_makes_the_same_of_every_sound(folder, tmp_path, capsys):
    run, keep, report = make_checkpoint(tmp_path / "run"), tmp_path / "keep", tmp_path / "deep" / "speak.json"
    given = ["--run", str(run), "--unseen", str(folder), "--json", str(report), "--keep", str(keep)]
    torch.set_num_threads(1)
    quick = ["--seconds", "0.64", "--clips", "1", "--steps", "1", "--guidance", "1"]
    assert speak.main([*given, *quick, "--deaf"]) == 0
    found = json.loads(report.read_text(encoding="utf-8"))
    assert found["deaf"] and list(found["unseen"]["own"]) == ["mean", "interval", "clips"]
    assert found["unseen"]["frames"] == 32 and found["unseen"]["mask_error"]["mean"] > 1
    assert found["unseen"]["cpu_s_per_s"]["mean"] > 0
    videos = [keep / "unseen" / "talker_a" / f"{name}.mp4" for name in ("own", "other")]
    frames = [np.stack([frame for _, frame in scan(path, probe(path), 640)]) for path in videos]
    assert len(frames[0]) == 16 and np.array_equal(frames[0], frames[1])
    assert report.with_suffix(".unseen.png").stat().st_size > 1000
    assert "other_audio" in capsys.readouterr().out


def test_what_cannot_be_measured_is_told(folder, tmp_path, capsys):
    report = ["--json", str(tmp_path / "speak.json")]
    assert speak.main(["--run", str(tmp_path), *report]) == 2
    assert "--seen or --unseen" in capsys.readouterr().err
    assert speak.main(["--run", str(tmp_path), "--seen", str(tmp_path), *report]) == 2
    assert "truth.json: no such file" in capsys.readouterr().err
    assert speak.main(["--run", str(tmp_path), "--seen", str(folder), *report]) == 2
    assert "neither a training run" in capsys.readouterr().err
