"""New thresholds on stored scores: equal to a fresh run, or refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import pipelines
import weights
from curation.refilter import RefilterError, main, refilter
from curation.verify.command import main as verify
from manifests.reader import read_clips
from shards.reader import iterate
from tests.curation.outputs import GOOD, made_output, made_rows

SAME = ("manifests/clips.parquet", "manifests/sources.parquet", "manifests/summary.csv", "shards/index.parquet")


def reasons(output: Path) -> list[str]:
    return read_clips(output)["reason"].tolist()


def test_a_stricter_threshold_drops_and_the_old_one_brings_everything_back(tmp_path: Path) -> None:
    output = made_output(tmp_path)
    refilter(output, ["filters/blur.max_blur=0.6"], tmp_path / "strict")
    assert reasons(tmp_path / "strict").count("blur") == 2 and reasons(tmp_path / "strict").count("kept") == 1
    assert verify([str(tmp_path / "strict")]) == 0
    refilter(tmp_path / "strict", ["filters/blur.max_blur=0.68"], tmp_path / "back")
    for name in SAME:
        assert (tmp_path / "back" / name).read_bytes() == (output / name).read_bytes(), name


def test_a_looser_threshold_takes_what_was_dropped_from_the_parts_with_its_sound_moved(tmp_path: Path) -> None:
    rows = made_rows(tmp_path)
    rows[2]["lip_offset_frames"] = -3.0
    output = made_output(tmp_path, rows=rows)
    refilter(output, ["filters/blur.max_blur=0.75"], tmp_path / "loose")
    clips = read_clips(tmp_path / "loose").set_index("key")
    assert clips.loc[rows[2]["key"], ["kept", "audio_shift_frames"]].tolist() == [True, -3]
    assert clips.loc[rows[3]["key"], "audio_shift_frames"] == 2
    assert verify([str(tmp_path / "loose"), "--all"]) == 0
    recipe = pipelines.load_recipe(tmp_path / "loose" / "recipe.yaml")
    for sample in iterate(tmp_path / "loose" / "shards" / "shard-000000.tar"):
        assert sample.json["recipe"] == recipe["hash"]
        assert sample.json["scores"]["blur"] == clips.loc[sample.key, "blur"]


def test_what_a_step_cut_off_takes_its_own_reason_when_the_filter_before_lets_it_pass(tmp_path: Path) -> None:
    output = made_output(tmp_path)
    refilter(output, ["filters/source_speech.min_speech_s=1.0"], tmp_path / "loose")
    clips: Any = read_clips(tmp_path / "loose")
    berta = clips[clips["source"].str.contains("berta")]
    assert berta[["reason", "stage"]].astype("str").to_numpy().tolist()[1] == ["short", "steps/stable_spans"]
    assert berta["kept"].tolist() == [True, False]
    assert berta["remainder"].isna().all()


def test_errors_and_duplicates_stay_what_they_are(tmp_path: Path) -> None:
    output = made_output(tmp_path)
    refilter(output, ["filters/blur.max_blur=0.6", "filters/source_speech.min_speech_s=0.0"], tmp_path / "new")
    clips: Any = read_clips(tmp_path / "new")
    assert clips[clips["source"].str.contains("cleo")]["reason"].tolist() == ["error:worker_crash"]
    assert clips[clips["source"].str.contains("copy")]["reason"].tolist() == ["duplicate"]


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("filters/blur.frames=9", "filters/blur.frames: changes what is measured"),
        ("steps/stable_spans.min_s=3.0", "steps/stable_spans.min_s: changes how sources are cut"),
        ("filters/lip_audio.min_repair_frames=3", "changes what is measured"),
        ("device=cuda", "device: changes more than verdicts"),
        ("filters/blur.max_blurr=0.6", "did you mean 'max_blur'"),
    ],
)
def test_settings_that_stored_scores_cannot_decide_are_refused(
    setting: str, told: str, tmp_path: Path, capsys: Any
) -> None:
    output = made_output(tmp_path)
    assert main([str(output), "--set", setting, "--to", str(tmp_path / "new")]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def without_later_scores(row: dict[str, Any], last: str) -> dict[str, Any]:
    """A row as a run leaves it that stops measuring when a clip is dropped."""
    names = list(GOOD)
    return {name: value for name, value in row.items() if name not in names[names.index(last) + 1 :]}


def test_loosening_a_gate_that_stopped_measuring_is_refused_with_the_rows(tmp_path: Path) -> None:
    rows = made_rows(tmp_path)
    rows[2] = without_later_scores(rows[2], "blur")
    rows[4:6] = [without_later_scores(rows[4], "source_speech_share") | {"end_frame": 75}]
    output = made_output(tmp_path, score_only=False, rows=rows)
    with pytest.raises(RefilterError, match=r"1 rows .* would now pass") as caught:
        refilter(output, ["filters/blur.max_blur=0.75"], tmp_path / "loose")
    assert "anna.mp4 3.00-5.60 s (blur): no filters/niqe" in str(caught.value)
    listed = pd.read_csv(tmp_path / "loose.recompute.csv")
    assert listed["path"].tolist() == [str(tmp_path / "videos" / "anna.mp4")]
    assert not (tmp_path / "loose").exists()


def test_thresholds_of_the_lip_probe_move_like_any_other_and_bring_back_what_they_dropped(tmp_path: Path) -> None:
    rows = made_rows(tmp_path)
    rows[2] = without_later_scores(rows[2], "blur")
    output = made_output(tmp_path, score_only=False, rows=rows)
    refilter(output, ["filters/lip_audio.max_offset_frames=1", "filters/blur.max_blur=0.67"], tmp_path / "strict")
    assert reasons(tmp_path / "strict").count("lip_audio:offset") == 1
    refilter(
        tmp_path / "strict", ["filters/lip_audio.max_offset_frames=6", "filters/blur.max_blur=0.68"], tmp_path / "back"
    )
    for name in SAME:
        assert (tmp_path / "back" / name).read_bytes() == (output / name).read_bytes(), name


def test_verdicts_that_the_scores_do_not_give_are_refused(tmp_path: Path) -> None:
    rows = made_rows(tmp_path)
    rows[0]["blur"] = 0.9  # kept all the same: by other code, or with --fork by another recipe
    output = made_output(tmp_path, rows=rows)
    with pytest.raises(RefilterError, match=r"anna.mp4 0.00 s: is kept .* say blur \(filters/blur\)"):
        refilter(output, ["filters/niqe.max_niqe=9.0"], tmp_path / "new")


def test_a_clip_whose_sample_was_not_stored_is_refused(tmp_path: Path) -> None:
    output = made_output(tmp_path)
    for part in (output / "parts").rglob("*.tar"):
        part.unlink()
    refilter(output, ["filters/blur.max_blur=0.6"], tmp_path / "strict")  # all of it lies in the shards
    with pytest.raises(RefilterError, match="no sample of it"):
        refilter(output, ["filters/blur.max_blur=0.75"], tmp_path / "loose")
    assert not (tmp_path / "loose").exists()


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    output = made_output(tmp_path)
    with pytest.raises(RefilterError, match="not empty"):
        refilter(output, ["filters/blur.max_blur=0.6"], output)


# Against fresh runs, with the real networks on the synthetic talkers.

NEEDED = ("yolov8n_face", "face_landmarker", "whisper_tiny_en", "niqe")
BASE = ("steps/faces.size=320",)


def run(videos: list[Path], output: Path, overrides: tuple[str, ...], score_only: bool) -> Path:
    """A fresh run in this process: everything of curation/run.py but Ray."""
    from curation.corpus import finish
    from curation.ledger import Ledger, recipe_of
    from curation.source import curate, identify
    from curation.stage import build_stages
    from media.probe import Limits

    profile = pipelines.load("embedded", [*BASE, *overrides])
    recipe, stages = recipe_of(profile, score_only), build_stages(profile.stages)
    output.mkdir()
    ledger = Ledger(output, recipe)
    for video in videos:
        identity = identify(video, Limits())
        ledger.add(identity, curate(identity, stages, output, Limits(), recipe["hash"], score_only))
    ledger.flush()
    finish(output, profile, stages, ledger, say=lambda _: None)
    return output


@pytest.fixture(scope="module")
def videos(talkers: Callable[..., Path]) -> list[Path]:
    missing = [name for name in NEEDED if weights.find(name) is None]
    if missing:
        pytest.skip(f"not in the cache: {', '.join(missing)}; make test fetches them")
    names = ("gap_15", "blurred")
    folder = talkers(*names)
    return [folder / f"{name}.mp4" for name in names]


@pytest.fixture(scope="module")
def between(videos: list[Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run that measured everything, and a share of speech between those of its two kept clips."""
    output = run(videos, tmp_path_factory.mktemp("runs") / "all", (), score_only=True)
    shares = read_clips(output).query("kept")["speech_share"]
    assert len(shares) == 2
    return output, f"filters/clip_speech.min_share={shares.mean()}"


def test_refilter_equals_a_fresh_run_that_measures_everything_both_ways(
    videos: list[Path], between: tuple[Path, str], tmp_path: Path
) -> None:
    """One clip of two goes, and a blurred one comes in."""
    output, stricter = between
    new = (stricter, "filters/blur.max_blur=1.0", "filters/niqe.max_niqe=20.0")
    old = ("filters/clip_speech.min_share=0.3", "filters/blur.max_blur=0.68", "filters/niqe.max_niqe=10.0")
    fresh = run(videos, tmp_path / "fresh", new, score_only=True)
    assert reasons(fresh) == ["kept", "kept", "no_face", "no_speech"]
    assert reasons(output) == ["blur", "kept", "no_face", "kept"]
    refilter(output, new, tmp_path / "there")
    refilter(fresh, old, tmp_path / "back")
    for made, real in ((tmp_path / "there", fresh), (tmp_path / "back", output)):
        for name in (*SAME, "shards/shard-000000.tar"):
            assert (made / name).read_bytes() == (real / name).read_bytes(), name
        hashes = [pipelines.load_recipe(folder / "recipe.yaml")["hash"] for folder in (made, real)]
        assert hashes[0] == hashes[1]


def test_refilter_equals_a_fresh_run_that_drops_at_once_when_it_is_stricter(
    videos: list[Path], between: tuple[Path, str], tmp_path: Path
) -> None:
    """Its shards to the byte, its verdicts second by second; scores that a fresh run would not measure are kept."""
    stricter = between[1]
    plain = run(videos, tmp_path / "plain", (), score_only=False)
    fresh = run(videos, tmp_path / "fresh", (stricter,), score_only=False)
    refilter(plain, [stricter], tmp_path / "there")
    for name in ("shards/index.parquet", "shards/shard-000000.tar", "manifests/summary.csv"):
        assert (tmp_path / "there" / name).read_bytes() == (fresh / name).read_bytes(), name
    columns = ["key", "source", "start_frame", "end_frame", "kept", "reason", "stage", "shard", "audio_shift_frames"]
    there, real = read_clips(tmp_path / "there"), read_clips(fresh)
    assert there[columns].to_csv() == real[columns].to_csv()
    with pytest.raises(RefilterError, match="blurred.mp4 0.00-6.00 s .blur.: no filters/niqe"):
        refilter(plain, ["filters/blur.max_blur=1.0"], tmp_path / "loose")


def test_summary_of_the_recipe_is_json_of_everything_that_decides() -> None:
    recipe = {"profile": {"a": 1}, "score_only": False, "weights": {}, "code": "0"}
    assert pipelines.recipe_hash({**recipe, "hash": "x", "refiltered_from": "y"}) == pipelines.recipe_hash(recipe)
    assert pipelines.recipe_hash({**recipe, "score_only": True}) != pipelines.recipe_hash(
        json.loads(json.dumps(recipe))
    )
