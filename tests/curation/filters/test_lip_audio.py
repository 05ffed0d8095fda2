"""The verdicts of the lip probe, one clip at a time; the probe itself is tested in tests/models."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import pipelines
import weights
from curation.clip import Clip
from curation.filters import _lips
from curation.filters.lip_audio import LipAudio
from curation.ledger import recipe_of
from models.lip_probe import WHISPER_LAYER, LipProbe, LipRecord
from models.lip_probe_fit import fit_probe
from models.mouth import CHANNELS
from shards.sample import Sample, encode_json, encode_npy
from tests.clips import clip_of

NOTHING = float("nan")


def scores(confidence: float, offset: float = 0.0, threshold: float = 0.3, **more: float) -> dict[str, float]:
    """Of a clip of 6 s, unless said."""
    windows = {"lip_window_confidence": NOTHING, "lip_window_threshold": 0.36, "lip_window_agreement": NOTHING}
    measured = {"lip_confidence": confidence, "lip_offset_frames": offset, "lip_threshold": threshold}
    return {**measured, **windows, "duration_s": 6.0, **more}


@pytest.mark.parametrize(
    ("measured", "reason"),
    [
        (scores(0.5), "kept"),
        (scores(0.35, threshold=0.1), "kept"),
        (scores(0.349, threshold=0.1), "lip_audio:confidence"),
        (scores(0.2, duration_s=4.0), "lip_audio:confidence"),
        (scores(0.2, duration_s=3.96), "lip_audio:unknown"),
        (scores(0.5, lip_window_confidence=0.35, lip_window_agreement=1.0), "lip_audio:confidence"),
        (scores(0.5, lip_window_confidence=0.36, lip_window_agreement=0.7), "kept"),
        (scores(0.5, lip_window_confidence=0.36, lip_window_agreement=0.69), "lip_audio:confidence"),
        (scores(0.5, threshold=0.51), "lip_audio:confidence"),
        (scores(0.5, offset=6), "kept"),
        (scores(0.5, offset=-6), "kept"),
        (scores(0.5, offset=7), "lip_audio:offset"),
        (scores(0.5, offset=-7), "lip_audio:offset"),
        (scores(NOTHING, NOTHING, NOTHING), "lip_audio:unknown"),
    ],
)
def test_a_clip_needs_more_than_a_foreign_voice_reaches_and_an_offset_that_can_be_repaired(measured, reason):
    assert LipAudio(min_confidence=0.35, max_offset_frames=6).decide(measured).reason == reason


def test_unknown_is_kept_only_if_asked():
    assert LipAudio(keep_unknown=True).decide(scores(NOTHING, NOTHING, NOTHING)).keep
    assert not LipAudio(keep_unknown=False).decide(scores(NOTHING, NOTHING, NOTHING)).keep


def test_late_sound_is_taken_from_later_in_the_track():
    assert LipAudio().shift_frames(scores(0.5, offset=4)) == 4
    assert LipAudio().shift_frames(scores(0.5, offset=-2)) == -2
    assert LipAudio().shift_frames(scores(0.5, offset=1)) == 1  # or clips that read 1 would stay beside repaired ones
    assert LipAudio(min_repair_frames=2).shift_frames(scores(0.5, offset=1)) == 0
    assert LipAudio().shift_frames(scores(NOTHING, NOTHING)) == 0


FRAMES, MARGIN = 120, 15


def speech_of(number: int) -> np.ndarray:
    """A smooth signal at 50 Hz, with margins: [2 * (FRAMES + 2 * MARGIN), 10]."""
    noise = np.random.default_rng(number).normal(size=(2 * (FRAMES + 2 * MARGIN) + 6, 10))
    return np.stack([np.convolve(column, np.ones(7) / np.sqrt(7), "valid") for column in noise.T], 1)


def rows_of(number: int) -> np.ndarray:
    return (speech_of(number) @ np.random.default_rng(7).normal(size=(10, 384))).astype(np.float16)


def mouth_of(number: int) -> np.ndarray:
    mouth = speech_of(number).reshape(-1, 2, 10).mean(1)[MARGIN : MARGIN + FRAMES]
    return (mouth @ np.random.default_rng(8).normal(size=(10, CHANNELS))).astype(np.float32)


def clip(lips: int, voice: int) -> Clip:
    """A clip of synthetic speech: a smooth signal in the Whisper rows moves the mouth, its own or another's."""
    whisper = np.zeros((2 * (FRAMES + 2 * MARGIN), WHISPER_LAYER + 1, 384), np.float16)
    whisper[:, WHISPER_LAYER] = rows_of(voice)
    mesh: Any = SimpleNamespace(points=mouth_of(lips), blendshapes=None)
    return clip_of(FRAMES, np.zeros(FRAMES * 640, np.float32), whisper=whisper, margin_frames=MARGIN, mesh=mesh)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pool = [LipRecord(f"clip{i}", f"source{i % 8}", mouth_of(i), rows_of(i), MARGIN) for i in range(24)]
    fit = fit_probe(lambda: iter(pool), aligned=True)
    assert fit is not None
    path = tmp_path_factory.mktemp("probe") / "probe.npz"
    fit.probe.save(path)
    return path


@pytest.fixture
def judge(fitted: Path, monkeypatch: pytest.MonkeyPatch) -> LipAudio:
    monkeypatch.setattr(_lips, "mouth_channels", lambda points, _: points)
    return LipAudio(weights=str(fitted))


def test_one_clip_of_one_source_is_judged_at_once(judge: LipAudio) -> None:
    (own,), (dubbed,) = judge(clip(100, 100)), judge(clip(100, 101))
    assert own.verdict.keep and own.scores["lip_offset_frames"] == 0
    assert dubbed.verdict.reason == "lip_audio:confidence"
    assert own.scores.keys() == dubbed.scores.keys() == LipAudio.SCORES.keys()
    assert own.scores["lip_confidence"] > own.scores["lip_threshold"] > dubbed.scores["lip_confidence"]


def test_with_shuffled_sound_the_clip_goes(judge: LipAudio) -> None:
    whole = clip(100, 100)
    assert whole.whisper is not None
    order = np.random.default_rng(0).permutation(len(whole.whisper))
    (shuffled,) = judge(replace(whole, whisper=whole.whisper[order]))
    assert shuffled.verdict.reason == "lip_audio:confidence"


def test_what_it_drops_stays_in_the_part_with_its_mouth_so_that_another_threshold_can_keep_it(judge: LipAudio) -> None:
    for voice in (100, 101):
        (judged,) = judge(clip(100, voice))
        assert np.array_equal(judged.collected["mouth"], mouth_of(100))


def test_a_source_without_sound_that_is_only_scored_has_no_numbers(judge: LipAudio) -> None:
    silent = clip_of(FRAMES, None)
    (scored,) = judge(silent)
    assert scored.collected == {} and np.isnan(scored.scores["lip_confidence"])
    assert scored.verdict.reason == "lip_audio:unknown"


def test_the_report_shows_the_curve_of_what_lies_in_a_part(judge: LipAudio, fitted: Path) -> None:
    (own,) = judge(clip(100, 100))
    assert own.whisper is not None
    place = {"source_id": "a", "start_frame": 0, "end_frame": FRAMES, "frames": FRAMES, "margin_frames": MARGIN}
    members = {"json": encode_json(place), "whisper.npy": encode_npy(own.whisper)}
    assert judge.curve(Sample("a", members)) is None
    curve = judge.curve(Sample("a", {**members, "mouth.npy": encode_npy(own.collected["mouth"])}))
    assert curve is not None and int(np.argmax(curve)) == 15
    fitted_elsewhere = replace(judge, weights=str(fitted.with_name("gone.npz")))
    assert fitted_elsewhere.curve(Sample("a", {**members, "mouth.npy": encode_npy(own.collected["mouth"])})) is None


def test_the_shipped_probe_is_small_bears_its_sha256_and_stands_in_the_recipe() -> None:
    path = weights.require("lip_probe")["lip_probe"]
    assert path == pipelines.ROOT / "models" / "lip_probe.npz"
    assert path.stat().st_size <= 300_000
    probe = LipProbe.load(path)
    assert (probe.clips, probe.sources) >= (40, 30) and np.isfinite(probe.null_thresholds).all()
    recipe = recipe_of(pipelines.load("embedded"), score_only=False)
    assert recipe["weights"]["lip_probe"] == weights.sha256_of("lip_probe")


def test_a_changed_shipped_probe_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = pipelines.ROOT / "models" / "lip_probe.npz"
    table = weights.TABLE_PATH.read_text(encoding="utf-8")
    (tmp_path / "models").mkdir()
    (tmp_path / "weights.yaml").write_text(table, encoding="utf-8")
    monkeypatch.setattr(weights, "TABLE_PATH", tmp_path / "weights.yaml")
    damaged = bytearray(shipped.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "models" / "lip_probe.npz").write_bytes(damaged)
    with pytest.raises(weights.WeightsError, match="lip_probe.npz has sha256"):
        weights.require("lip_probe")
    assert not list((tmp_path / "models").glob("*.verified"))
