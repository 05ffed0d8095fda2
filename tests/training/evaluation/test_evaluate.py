"""The command as a user types it: videos matched by name, a row for each, errors that say what to do."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import weights
from pipelines import ROOT
from tests.videos import Pictures, Sound, numbered, tone, write_video
from training.evaluation import evaluate
from training.evaluation.metrics import FaceCrop

SHARED = Path(__file__).resolve().parents[4] / "shared" / "media"
SCRIPT = ROOT / "training" / "evaluate.py"


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Three references, and as many generated videos that are equal to them."""
    generated, reference = tmp_path / "generated", tmp_path / "reference"
    generated.mkdir()
    reference.mkdir()
    for k in range(3):
        pictures = Pictures(16, draw=lambda i, k=k: numbered(i + 40 * k))
        shutil.copy(write_video(reference / f"{k}.mp4", pictures), generated)
    return generated, reference


def run(folders: tuple[Path, Path], *arguments: str) -> tuple[int, dict]:
    """The exit code, and the report if there is one."""
    generated, reference = folders
    output = generated.parent / "output"
    command = ["--generated", str(generated), "--reference", str(reference), "--output", str(output)]
    code = evaluate.main([*command, "--region", "frame", *arguments])
    report = output / "metrics.json"
    return code, json.loads(report.read_text()) if report.exists() else {}


def test_equal_videos_are_perfect(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    missing = [name for name in ("inception_fid", "i3d_kinetics400", "lpips_alex") if weights.find(name) is None]
    if missing:
        pytest.skip(f"not in the cache: python weights.py fetch {' '.join(missing)}")
    code, report = run(folders, "--metrics", "fid", "fvd", "ssim", "psnr", "lpips")
    together = report["together"]
    assert code == 0
    assert together["psnr"] == {"value": "inf", "interval": None, "videos": 3}
    assert together["ssim"]["value"] == pytest.approx(1)
    assert together["lpips"]["value"] == 0
    assert together["fid"]["value"] == pytest.approx(0, abs=1e-3)
    assert together["fvd"]["value"] == pytest.approx(0, abs=1e-3)
    assert (together["fid"]["n"], together["fvd"]["n"]) == (48, 3)
    assert [row["clips"] for row in report["videos"]] == [1, 1, 1]
    assert len(report["warnings"]) == 2, "too few frames and too few clips"
    assert report["settings"]["weights"].keys() == {"inception_fid", "i3d_kinetics400", "lpips_alex"}
    table = capsys.readouterr().out
    assert "| FVD |" in table
    assert "48 frames of 3 videos" in table
    assert not list((folders[0].parent / "output").glob(".features-*"))


def test_bad_videos_are_rows_and_the_rest_is_measured(folders: tuple[Path, Path]) -> None:
    generated, reference = folders
    (generated / "1.mp4").write_text("<html>")
    write_video(generated / "extra.mp4", Pictures(20))
    write_video(reference / "wanted.mp4", Pictures(20))
    code, report = run(folders, "--metrics", "psnr")
    errors = {row["name"]: row["error"] for row in report["videos"]}
    assert code == 1
    assert errors["0"] is None
    assert "cannot be opened as a video" in errors["1"]
    assert errors["extra"] == "there is no reference of that name"
    assert report["together"]["psnr"]["videos"] == 2
    assert report["warnings"] == [
        "2 of 4 videos are not in these numbers: 1, extra",
        "nothing was generated for 1 of the references: wanted",
    ]
    assert "cannot be opened" in (generated.parent / "output" / "metrics.md").read_text()


def test_videos_match_by_name_whatever_the_suffix(folders: tuple[Path, Path]) -> None:
    (folders[0] / "0.mp4").rename(folders[0] / "0.mov")
    assert run(folders, "--metrics", "psnr")[0] == 0


def test_intervals_are_the_same_for_the_same_seed(folders: tuple[Path, Path]) -> None:
    for k in range(3):
        pictures = Pictures(16, draw=lambda i, k=k: numbered(i + 40 * k), options={"crf": str(20 + 8 * k)})
        write_video(folders[0] / f"{k}.mp4", pictures)
    first, again, other = (run(folders, "--metrics", "ssim", "--seed", seed)[1]["together"] for seed in ("0", "0", "1"))
    assert first == again
    assert first["ssim"]["interval"] != other["ssim"]["interval"]
    assert run(folders, "--metrics", "ssim", "--resamples", "0")[1]["together"]["ssim"]["interval"] is None
    low, high = first["ssim"]["interval"]
    assert low < first["ssim"]["value"] < high


def test_faces_are_cut_as_the_shards_of_the_checkpoint_were(tmp_path: Path) -> None:
    export = tmp_path / "run" / "export"
    export.mkdir(parents=True)
    crop = {"size": 96, "expansion": 2.0, "smooth_frames": 1.0}
    (export / "settings.yaml").write_text(yaml.safe_dump({"curated": {"steps/crop": crop}}))
    assert evaluate.crop_of(tmp_path / "run") == FaceCrop(**crop)
    assert evaluate.crop_of(None) == FaceCrop(320, 1.7, 5.0), "pipelines.yaml, sayanything"


def test_a_checkpoint_that_does_not_say_how_faces_were_cut_is_refused(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump({"model": {}}))
    assert run(folders, "--metrics", "psnr", "--checkpoint", str(tmp_path)) == (2, {})
    assert "does not say how its faces were cut" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda generated: shutil.rmtree(generated), "generated: not a folder"),
        (lambda generated: [path.rename(path.with_stem(f"{path.stem}_out")) for path in generated.iterdir()], "0_out"),
        (lambda generated: shutil.copy(generated / "0.mp4", generated / "0.mov"), "have one name"),
    ],
)
def test_folders_that_do_not_fit_are_refused(
    folders: tuple[Path, Path], prepare, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(folders[0])
    assert run(folders, "--metrics", "psnr") == (2, {})
    assert message in capsys.readouterr().err


def test_missing_syncnet_is_told_with_how_to_get_it(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if weights.find("syncnet_v2") is not None:
        pytest.skip("SyncNet is here")
    monkeypatch.setattr(evaluate, "METRICS", ("psnr", "sync"))
    code, report = run(folders)
    assert code == 0
    assert "python weights.py fetch syncnet_v2" in report["absent"]["sync"]
    assert "python weights.py fetch syncnet_v2" in capsys.readouterr().out


def test_syncnet_asked_for_by_name_must_be_there(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if weights.find("syncnet_v2") is not None:
        pytest.skip("SyncNet is here")
    monkeypatch.setattr(weights, "ensure", weights.require)  # no downloads in tests
    assert run(folders, "--metrics", "sync") == (2, {})
    assert "syncnet_v2 (54.6 MB) is missing" in capsys.readouterr().err


def test_file_that_is_no_lip_probe_is_refused(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if any(weights.find(name) is None for name in (*evaluate.LIP_WEIGHTS, evaluate.FACES)):
        pytest.skip("the lip probe's networks are not in the cache")
    (tmp_path / "probe.npz").write_text("<html>")
    assert run(folders, "--metrics", "psnr", "--lip-probe", str(tmp_path / "probe.npz")) == (2, {})
    assert "probe.npz: not a lip probe" in capsys.readouterr().err


def test_script_runs_from_any_folder(folders: tuple[Path, Path], tmp_path: Path) -> None:
    arguments = ["--generated", folders[0], "--reference", folders[1], "--output", tmp_path / "out"]
    command = [sys.executable, "-W", "error", SCRIPT, *arguments, "--region", "frame", "--metrics", "psnr", "ssim"]
    result = subprocess.run(list(map(str, command)), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "| PSNR | inf | - | 3 videos |" in result.stdout


def test_real_talker_re_encoded_scores_as_re_encodings_do(tmp_path: Path) -> None:
    """The face crop of a real talker: a bad copy is worse than a good one in every number that compares pixels."""
    path = SHARED / "real__hdtf_RD_Radio2_000.mp4"
    if not path.exists() or any(weights.find(name) is None for name in ("lpips_alex", evaluate.FACES)):
        pytest.skip("no ../shared/media here, or no networks")
    from media.frames import scan
    from media.probe import probe

    film = [picture for _, picture in scan(path, probe(path), 512, end_frame=5)]
    values = {}
    for crf in (20, 35):
        folders = tmp_path / f"generated{crf}", tmp_path / f"reference{crf}"
        for folder, quality in zip(folders, (crf, 1), strict=True):
            folder.mkdir()
            write_video(folder / "radio.mp4", Pictures(5, draw=film.__getitem__, options={"crf": str(quality)}))
        arguments = ["--generated", folders[0], "--reference", folders[1], "--output", tmp_path / f"out{crf}"]
        assert evaluate.main([*map(str, arguments), "--metrics", "psnr", "ssim", "lpips"]) == 0
        together = json.loads((tmp_path / f"out{crf}" / "metrics.json").read_text())["together"]
        values[crf] = {name: each["value"] for name, each in together.items()}
    assert 25 < values[35]["psnr"] < values[20]["psnr"] < 60
    assert 0.5 < values[35]["ssim"] < values[20]["ssim"] < 1
    assert 0.5 > values[35]["lpips"] > values[20]["lpips"] > 0


@pytest.mark.weights
def test_published_example_has_its_published_sync(tmp_path: Path) -> None:
    """joonson/syncnet_python prints for its example.avi: AV offset 3, min dist 5.353, confidence 10.021."""
    path = SHARED / "real__syncnet_example.avi"
    if not path.exists() or weights.find("syncnet_v2") is None or weights.find(evaluate.FACES) is None:
        pytest.skip("no ../shared/media here, or no SyncNet")
    for name in ("generated", "reference"):
        (tmp_path / name).mkdir()
        shutil.copy(path, tmp_path / name / "example.avi")
    arguments = [f"--{name}={tmp_path / name}" for name in ("generated", "reference")]
    assert evaluate.main([*arguments, f"--output={tmp_path / 'out'}", "--metrics", "sync"]) == 0
    row = json.loads((tmp_path / "out" / "metrics.json").read_text())["videos"][0]
    assert row["sync_offset_frames"] == -3
    assert row["sync_c"] == pytest.approx(10.021, abs=1.0)  # another detector, and no XVID and JPEG on the way
    assert row["sync_d"] == pytest.approx(5.353, abs=1.0)


def test_sound_alone_does_not_make_a_video_comparable(tmp_path: Path) -> None:
    write_video(tmp_path / "sound.mp4", None, [Sound(tone(1.0), codec="aac")])
    assert evaluate.videos_by_name(tmp_path).keys() == {"sound"}
    with pytest.raises(ValueError, match="no video in"):
        evaluate.pair_videos(tmp_path, tmp_path / "..")
