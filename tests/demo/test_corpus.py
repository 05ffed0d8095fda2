"""The table says what the issue asked for, and what is built is what the table says."""

import hashlib
import json
from collections import Counter
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from pydantic import ValidationError
from rich.console import Console

import weights
from demo import faces, recordings, speech
from demo.corpus import (
    GRID_FPS,
    VERSION,
    Expectation,
    Job,
    Video,
    build_corpus,
    build_video,
    close_talkers,
    frame_times,
    is_built,
    main,
    plain_talkers,
    plan,
    play_music,
    read_table,
    recorded_talkers,
    shift_sound,
)
from demo.speech import SAMPLE_RATE
from tests.demo.drawn import drawn_identity

TABLE = {video.name: video for video in read_table()}
GOOD = [video for video in TABLE.values() if video.name.startswith("talker_")]


def only(reason: str) -> list[Video]:
    return [v for v in TABLE.values() if [e.reason for e in v.expect] == [reason]]


def test_names_are_unique():
    assert len(TABLE) == len(read_table())


def test_good_talkers_are_enough_and_differ():
    assert len(GOOD) >= 8
    assert len({video.face for video in GOOD}) >= 6
    assert all(10 <= video.seconds <= 15 for video in GOOD)
    assert {(v.width, v.height) for v in GOOD} == {(1280, 720), (1920, 1080)}
    assert {v.fps for v in GOOD} == {"25", "30", "30000/1001"}
    assert all(e.verdict == "keep" and e.offset_frames == 0 for v in GOOD for e in v.expect)


def test_everybody_in_the_table_was_looked_at():
    assert {person for video in TABLE.values() for person in video.people} <= set(faces.VETTED)
    assert len(faces.VETTED) >= 12
    assert 9 not in faces.VETTED  # looks like a child


@pytest.mark.parametrize("video", TABLE.values(), ids=TABLE)
def test_expectations_cover_the_video_without_gaps(video: Video):
    if video.kept_share < 1:
        return  # its length cannot be known
    edges = [0.0]
    for part in video.expect:
        assert part.start_s == edges[-1]
        edges.append(part.end_s)
    assert edges[-1] == video.seconds
    assert all(2 <= e.end_s - e.start_s <= 20 for e in video.expect if e.verdict == "keep")


SPECIAL = {
    "face below 228 px": lambda: any(v.side * 0.6 < 228 for v in only("face_size")),
    "strong blur": lambda: any(v.blur_sigma >= 5 for v in only("blur")),
    "low bit rate": lambda: any(v.crf >= 40 for v in TABLE.values()),
    "box jump": lambda: any(c.face is None for v in TABLE.values() for c in v.cuts),
    "shot cut": lambda: any(c.face not in (None, v.face) for v in TABLE.values() for c in v.cuts),
    "5 frames without a face": lambda: any(c.frames == 5 for v in only("keep") for c in v.covered),
    "15 frames without a face": lambda: any(c.frames == 15 for v in TABLE.values() for c in v.covered),
    "12 frames late": lambda: any(v.delay_frames == 12 for v in only("lip_audio:offset")),
    "8 frames early": lambda: any(v.delay_frames == -8 for v in only("lip_audio:offset")),
    "another voice": lambda: any(v.dubbed_by for v in only("lip_audio:confidence")),
    "voice over a closed mouth": lambda: any(v.mouth == "closed" for v in only("lip_audio:confidence")),
    "music": lambda: any(v.sound == "music" for v in only("no_speech")),
    "silence": lambda: any(v.sound == "silence" for v in only("silent")),
    "no audio stream": lambda: any(v.sound == "none" for v in only("no_audio")),
    "two people": lambda: any(v.inset is not None for v in only("keep")),
    "4 s pause": lambda: any(v.pause and v.pause.seconds == 4 for v in only("keep")),
    "truncated file": lambda: any(v.kept_share < 1 for v in only("error:probe")),
    "variable rate, rotated": lambda: any(v.variable_rate and v.rotation for v in only("keep")),
    "5.1 sound": lambda: any(v.audio_layout == "5.1" for v in only("keep")),
    "portrait": lambda: any((v.width, v.height) == (1080, 1920) for v in only("keep")),
}  # fmt: skip


@pytest.mark.parametrize("case", SPECIAL)
def test_special_case_is_in_the_table(case: str):
    assert SPECIAL[case]()


def test_wrong_rows_are_refused_by_field():
    row = TABLE["music"].model_dump()
    with pytest.raises(ValidationError, match="colour"):
        Video.model_validate({**row, "colour": "red"})
    with pytest.raises(ValidationError, match="sound"):
        Video.model_validate({**row, "sound": "noise"})
    with pytest.raises(ValidationError, match="recording"):
        Video.model_validate({**row, "recording": "nist_f3"})


def test_plan_depends_on_table_and_seed_only():
    assert plan(read_table(), 0) == plan(read_table(), 0)
    assert plan(read_table(), 0) != plan(read_table(), 1)


def test_nobody_is_dubbed_with_his_own_words():
    job = next(job for job in plan(read_table(), 0) if job.video.dubbed_by)
    own, dub = job.texts
    assert not set(own) & set(dub)


def test_any_number_of_talkers():
    talkers = plain_talkers(30, 60.0, seed=0)
    assert len({t.name for t in talkers}) == 30
    assert len({t.face for t in talkers}) == min(30, len(faces.VETTED))
    assert Counter(t.seconds for t in talkers) == {60.0: 30}
    assert all(t.side >= t.height for t in talkers)


def test_plans_of_earlier_versions_have_not_moved():
    """The recipes of the described corpus and of plain talkers, from before there were scripts and close talkers."""
    jobs = [*plan(read_table(), 0), *plan(plain_talkers(8, 12.0, 0), 0)]
    recipes = " ".join(job.recipe for job in jobs)
    assert hashlib.sha256(recipes.encode()).hexdigest()[:16] == "466aba021eeb694f"  # with version 3 of the faces


def test_close_talkers_vary_in_voice_and_framing_and_fill_their_small_frames():
    people = {0: "high", 11: "low"}
    talkers = close_talkers(40, 10.0, seed=0, people=people, size=640)
    assert talkers == close_talkers(40, 10.0, seed=0, people=people, size=640)
    assert talkers != close_talkers(40, 10.0, seed=1, people=people, size=640)
    assert [talker.face for talker in talkers[:4]] == [0, 11, 0, 11]
    assert {(t.width, t.height, t.fps) for t in talkers} == {(640, 640, "25")}
    assert all(700 <= t.side <= 760 for t in talkers)
    low = [t.voice[0] for t in talkers if t.face == 11]
    high = [t.voice[0] for t in talkers if t.face == 0]
    assert 0.88 <= min(low) < max(low) <= 1.06 < 1.1 <= min(high) < max(high) <= 1.36
    paces = [t.voice[1] for t in talkers]
    assert 0.85 <= min(paces) < 0.9 < 1.15 < max(paces) <= 1.2


@pytest.mark.parametrize("script", speech.SCRIPTS)
def test_talkers_say_sentences_of_their_script_only(script: str):
    jobs = plan(close_talkers(20, 30.0, seed=0, people=faces.STRANGERS, size=640), 0, script)
    assert {text for job in jobs for texts in job.texts for text in texts} <= set(speech.sentences(script))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--talkers", "1", "--size", "320"], "--size 320"),
        (["--talkers", "1", "--people", "9"], "people: 9"),
        (["--size", "640"], "--talkers"),
        (["--people", "strangers"], "--talkers"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_built(arguments, message, tmp_path: Path, capsys):
    with pytest.raises(SystemExit):
        main(["--output", str(tmp_path / "out"), *arguments])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_real_voices_are_further_talkers_who_say_what_was_recorded():
    jobs = plan([*read_table(), *recorded_talkers()], 0)
    assert jobs[: len(TABLE)] == plan(read_table(), 0)
    real = jobs[len(TABLE) :]
    assert [job.video.recording for job in real] == list(recordings.NAMES)
    assert [job.texts for job in real] == [(recordings.RECORDINGS[name].texts,) for name in recordings.NAMES]
    assert {faces.VETTED[job.video.face] for job in real if "_f" in job.video.name} == {"high"}
    assert {faces.VETTED[job.video.face] for job in real if "_m" in job.video.name} == {"low"}


def test_video_without_a_recording_is_described_as_if_there_were_none():
    job = tiny()
    fields = json.loads(job.model_dump_json())
    del fields["video"]["recording"]
    described = f"{VERSION} {faces.CACHE_VERSION} {json.dumps(fields, separators=(',', ':'))}"
    assert job.recipe == hashlib.sha256(described.encode()).hexdigest()[:16]
    assert tiny(recording="nist_f1").recipe != tiny(recording="nist_f2").recipe


@pytest.mark.parametrize(("delay", "starts"), [(12, 12 * 1920), (-8, 0), (0, 0)])
def test_positive_delay_is_late_sound(delay: int, starts: int):
    ramp = np.arange(1, SAMPLE_RATE + 1, dtype=np.float32)
    shifted = shift_sound(ramp, delay)
    assert len(shifted) == len(ramp)
    assert np.flatnonzero(shifted)[0] == starts
    assert shifted[starts] == 1 + max(0, -delay) * SAMPLE_RATE // GRID_FPS


def test_music_is_loud_and_bounded():
    music = play_music(2.0, np.random.default_rng(0))
    assert len(music) == 2 * SAMPLE_RATE
    assert 0.05 < music.std() < np.abs(music).max() <= 0.36


def test_variable_rate_drops_frames_but_not_the_ends():
    video = TABLE["rotated_variable_rate"]
    times = frame_times(video, np.random.default_rng(0))
    steps = {b - a for a, b in pairwise(times)}
    assert len(steps) > 1
    assert times[0] == 0
    assert times[-1] == Fraction(8) - Fraction(1, 30)


@pytest.fixture
def drawn_people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache whose people are drawn; the voice's files are the real ones."""
    pytest.importorskip("piper")
    if any(weights.find(name) is None for name in speech.WEIGHTS):
        pytest.skip("python weights.py fetch piper_joe_voice piper_joe_voice_json")
    folder = tmp_path / "people"
    for person in (0, 7):
        drawn_identity(person).save(folder / f"{person}.npz")
    monkeypatch.setattr(faces, "cache_path", lambda seed: folder / f"{seed}.npz")


def tiny(**changes) -> Job:
    row = {"name": "tiny", "what": "test", "face": 0, "seconds": 3, "width": 160, "height": 120, "side": 128}
    row["expect"] = (Expectation(end_s=3, verdict="keep"),)
    return plan([Video.model_validate(row | changes)], seed=0)[0]


def build(job: Job, folder: Path) -> Path:
    (folder / "truth").mkdir(parents=True)
    build_video(job, folder)
    return folder / f"{job.video.name}.mp4"


def test_two_builds_have_the_same_bytes(drawn_people, tmp_path: Path):
    once, again = (build(tiny(), tmp_path / name) for name in "ab")
    assert once.read_bytes() == again.read_bytes()


def test_truth_tells_cuts_gaps_and_delay_in_frames(drawn_people, tmp_path: Path):
    job = tiny(
        cuts=[{"at_s": 2, "side": 140, "face": 7, "voice": [1.2, 1.0]}],
        covered=[{"at_s": 1.0, "frames": 5}],
        delay_frames=3,
    )
    path = build(job, tmp_path / "a")
    told = json.loads((tmp_path / "a" / "truth" / "tiny.json").read_text())
    assert (told["cuts"], told["gaps"], told["offset_frames"]) == ([50], [[25, 30]], 3)
    assert [(v["from_s"], v["face"]) for v in told["voices"]] == [(0.0, 0), (2, 7)]
    assert len(told["mouth_opening"]) == 75
    with av.open(str(path)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 75


def test_finished_video_is_not_built_again_but_a_changed_one_is(drawn_people, tmp_path: Path):
    output = tmp_path / "corpus"
    job = tiny(sound="silence")
    path = build(job, output)
    written = path.stat().st_mtime_ns
    build_corpus([job], output, workers=1, console=Console(quiet=True))
    assert path.stat().st_mtime_ns == written
    assert list(json.loads((output / "truth.json").read_text())) == ["tiny"]
    assert not is_built(tiny(sound="silence", crf=30), output)
