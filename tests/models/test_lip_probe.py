"""Synthetic speakers: a smooth hidden signal is heard in Whisper rows and seen on the mouth, some frames apart."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models import lip_probe, lip_probe_fit
from models.lip_probe import LipProbe, LipRecord
from models.lip_probe_fit import LipFit, fit_probe
from models.mouth import CHANNELS, MOTIONS
from shards.sample import Sample, encode_json, encode_npy
from shards.writer import write_tar

FRAMES = 120
MARGIN = 20
SPOKEN = 10  # dimensions of the hidden signal
LAGS = {f"clip{i:02d}": (i * 5) % 8 - 2 for i in range(24)}  # -2..5: late on the whole, as real corpora are
WORLD = np.random.default_rng(7)
TO_ROWS = WORLD.normal(size=(SPOKEN, 384))
TO_MOUTH = WORLD.normal(size=(SPOKEN, CHANNELS))


def speak(seed: int, frames: int = FRAMES) -> np.ndarray:
    """A hidden signal at 50 Hz with margins, as smooth as speech is: [2 * (frames + 2 * MARGIN), SPOKEN]."""
    noise = np.random.default_rng(seed).normal(size=(2 * (frames + 2 * MARGIN) + 6, SPOKEN))
    return np.stack([np.convolve(column, np.ones(7) / np.sqrt(7), "valid") for column in noise.T], 1)


def rows_of(speech: np.ndarray, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed + 1000).normal(size=(len(speech), 384))
    return (speech @ TO_ROWS + 0.3 * noise).astype(np.float16)


def mouth_of(speech: np.ndarray, lag: int, seed: int, noise: float = 2.0) -> np.ndarray:
    """Channels of a mouth whose sound comes `lag` frames late: [T, 28]."""
    per_frame = speech.reshape(-1, 2, SPOKEN).mean(1)
    seen = per_frame[MARGIN + lag : len(per_frame) - MARGIN + lag] @ TO_MOUTH
    return (seen + noise * np.random.default_rng(seed + 2000).normal(size=seen.shape)).astype(np.float32)


def clip(key: str, source_id: str, seed: int, lag: int = 0, frames: int = FRAMES) -> LipRecord:
    speech = speak(seed, frames)
    return LipRecord(key, source_id, mouth_of(speech, lag, seed), rows_of(speech, seed), MARGIN)


POOL = [clip(key, f"source{i % 8}", seed=i, lag=lag) for i, (key, lag) in enumerate(LAGS.items())]


@pytest.fixture(scope="module")
def fit() -> LipFit:
    fitted = fit_probe(lambda: iter(POOL))
    assert fitted is not None
    return fitted


def foreign(record: LipRecord, seed: int) -> LipRecord:
    return replace(record, rows=rows_of(speak(seed, len(record.channels)), seed))


def test_offsets_are_exact_and_their_zero_is_absolute(fit: LipFit) -> None:
    assert {key: score.offset_frames for key, score in fit.scores.items()} == LAGS


@pytest.mark.parametrize("delay", [-4, 4])
def test_a_delay_common_to_all_clips_is_seen(delay: int) -> None:
    fitted = fit_probe(lambda: (replace(record, margin=MARGIN - delay) for record in POOL))
    assert fitted is not None
    assert {key: score.offset_frames - delay for key, score in fitted.scores.items()} == LAGS


@pytest.mark.parametrize("error", [-1, 1])
def test_where_nearly_all_clips_read_one_frame_that_is_the_zero_and_others_are_counted_from_it(error: int) -> None:
    lags = {key: error if i else 5 + error for i, key in enumerate(LAGS)}
    pool = [clip(key, f"source{i % 8}", seed=i, lag=lag) for i, (key, lag) in enumerate(lags.items())]
    fitted = fit_probe(lambda: iter(pool))
    assert fitted is not None and fitted.probe.zero_frames == error
    first, *others = (fitted.scores[key] for key in lags)
    assert first.offset_frames == 5 and {score.offset_frames for score in others} == {0}
    assert all(int(np.nanargmax(score.curve)) - lip_probe.MAX_LAG == score.offset_frames for score in (first, *others))
    unseen = pool[1]
    again = fitted.probe.score(unseen.channels, unseen.rows, MARGIN)
    assert again is not None and again.offset_frames == 0


def test_clips_in_sync_pass_the_threshold_that_the_run_sets_itself(fit: LipFit) -> None:
    confidences = [score.confidence for score in fit.scores.values()]
    assert min(confidences) > fit.probe.threshold(FRAMES) > 0.1


def test_offset_is_positive_when_the_sound_is_late(fit: LipFit) -> None:
    unseen = clip("unseen", "unseen", seed=90)
    late = np.concatenate([unseen.rows[:6], unseen.rows[:-6]])
    early = np.concatenate([unseen.rows[6:], unseen.rows[-6:]])
    offsets = [fit.probe.score(unseen.channels, rows, MARGIN) for rows in (early, unseen.rows, late)]
    assert [score and score.offset_frames for score in offsets] == [-3, 0, 3]


def test_a_foreign_voice_stays_below_the_threshold(fit: LipFit) -> None:
    scores = [fit.probe.score(*arguments(foreign(record, seed))) for seed, record in enumerate(POOL, start=100)]
    below = [score is not None and score.confidence < fit.probe.threshold(FRAMES) for score in scores]
    assert np.mean(below) > 0.95


def arguments(record: LipRecord) -> tuple[np.ndarray, np.ndarray, int]:
    return record.channels, record.rows, record.margin


def test_clips_with_a_foreign_voice_do_not_spoil_the_probe() -> None:
    pool = [foreign(record, seed=200 + i) if i % 3 == 0 else record for i, record in enumerate(POOL)]
    fitted = fit_probe(lambda: iter(pool))
    assert fitted is not None
    confidence = [fitted.scores[record.key].confidence for record in pool]
    assert max(confidence[0::3]) < min(confidence[1::3] + confidence[2::3])
    good = [record.key for i, record in enumerate(pool) if i % 3]
    assert [fitted.scores[key].offset_frames for key in good] == [LAGS[key] for key in good]


def test_the_order_of_the_records_does_not_change_a_byte(fit: LipFit, tmp_path: Path) -> None:
    again = fit_probe(lambda: (POOL[i] for i in np.random.default_rng(0).permutation(len(POOL))))
    assert again is not None
    fit.probe.save(tmp_path / "a.npz")
    again.probe.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    for key, score in fit.scores.items():
        np.testing.assert_array_equal(score.curve, again.scores[key].curve)


def test_sums_clip_by_clip_give_the_ridge_of_all_clips_at_once() -> None:
    rng = np.random.default_rng(3)
    sums, xs, us = lip_probe_fit._Sums(folds=2), [], []
    for i, frames in enumerate((400, 600, 500)):
        x = rng.normal(size=(frames, lip_probe.REGRESSORS)).astype(np.float32)
        u = (x[:, :MOTIONS] + rng.normal(size=(frames, MOTIONS))).astype(np.float32)
        sums.add(lip_probe_fit._FitClip(replace(POOL[0], margin=0), i % 2, u, x), shift=0)
        xs.append(x - x.mean(0, dtype=np.float64))
        us.append(u - u.mean(0, dtype=np.float64))
    x, u = np.concatenate(xs), np.concatenate(us)
    expected = np.linalg.solve(x.T @ x + lip_probe_fit.RIDGE * np.eye(x.shape[1]), x.T @ u)
    np.testing.assert_allclose(sums.solve().ridge, expected, atol=1e-6)
    # Fold 0 (clips 0 and 2) is predicted by the ridge of clip 1 alone.
    alone = np.linalg.solve(xs[1].T @ xs[1] + lip_probe_fit.RIDGE * np.eye(x.shape[1]), xs[1].T @ us[1])
    np.testing.assert_allclose(sums.solve().held_out[0], alone, atol=1e-6)


@pytest.mark.parametrize(
    "pool",
    [
        POOL[:19],
        [replace(record, source_id=f"source{i % 5}") for i, record in enumerate(POOL)],
        [foreign(record, seed=300 + i) for i, record in enumerate(POOL)],
        [replace(record, channels=np.full_like(record.channels, np.nan)) for record in POOL],
    ],
    ids=["19 clips", "5 sources", "only foreign voices", "no faces"],
)
def test_too_little_to_learn_from_gives_no_probe(pool: list[LipRecord], tmp_path: Path) -> None:
    assert fit_probe(lambda: iter(pool)) is None


def test_fit_command_says_what_a_probe_takes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="20 clips of 2 s"):
        lip_probe_fit.fit_command(lambda: iter(POOL[:3]), tmp_path / "probe.npz")
    assert not (tmp_path / "probe.npz").exists()


def test_a_saved_probe_scores_as_before_and_is_small(fit: LipFit, tmp_path: Path) -> None:
    fit.probe.save(tmp_path / "probe.npz")
    loaded = LipProbe.load(tmp_path / "probe.npz")
    assert (loaded.clips, loaded.sources, loaded.voters) == (24, 8, 24)
    assert (tmp_path / "probe.npz").stat().st_size < 300_000
    before, after = fit.probe.score(*arguments(POOL[3])), loaded.score(*arguments(POOL[3]))
    assert before is not None and after is not None
    np.testing.assert_array_equal(before.curve, after.curve)


def test_another_file_is_refused_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", basis=np.zeros(3))
    (tmp_path / "text.npz").write_text("not an archive")
    for name in ("other.npz", "text.npz"):
        with pytest.raises(ValueError, match=rf"{name}: not a lip probe"):
            LipProbe.load(tmp_path / name)


def test_threshold_falls_with_length_and_is_unknown_below_two_seconds(fit: LipFit) -> None:
    measured = replace(fit.probe, null_thresholds=np.array([0.5, np.nan, 0.36, np.nan, np.nan]))
    assert np.isnan(measured.threshold(49))
    assert measured.threshold(50) == pytest.approx(0.5)
    assert measured.threshold(75) == pytest.approx((0.5 * 50**0.5 + 0.36 * 10) / 2 / 75**0.5)
    assert measured.threshold(200) == pytest.approx(0.36 * (100 / 200) ** 0.5)
    assert measured.threshold(1000) == measured.threshold(200)


def test_windows_tell_when_the_voice_changes_hands(fit: LipFit) -> None:
    whole = clip("whole", "unseen", seed=91, frames=400)
    half = foreign(whole, seed=92).rows.copy()
    half[: len(half) // 2] = whole.rows[: len(half) // 2]
    own, mixed = fit.probe.score(*arguments(whole)), fit.probe.score(whole.channels, half, MARGIN)
    assert own is not None and mixed is not None
    assert own.window_agreement == 1.0
    assert mixed.window_agreement < 0.7
    assert mixed.window_confidence < own.window_confidence
    short = fit.probe.score(*arguments(POOL[0]))
    assert short is not None and np.isnan(short.window_confidence)


def test_without_margin_the_offset_is_the_same(fit: LipFit) -> None:
    record = POOL[3]
    bare = record.rows[2 * MARGIN : 2 * (MARGIN + FRAMES)]
    score = fit.probe.score(record.channels, bare)
    assert score is not None and score.offset_frames == LAGS[record.key]


def test_half_the_frames_without_a_face_or_less_than_two_seconds_is_unknown(fit: LipFit) -> None:
    channels, rows, margin = arguments(POOL[0])
    hidden = channels.copy()
    hidden[: FRAMES // 2 + 1] = np.nan
    assert fit.probe.score(hidden, rows, margin) is None
    assert fit.probe.score(channels[:49], rows, margin) is None
    hidden[FRAMES // 2 - 5 :] = channels[FRAMES // 2 - 5 :]
    score = fit.probe.score(hidden, rows, margin)
    assert score is not None and score.valid_share == pytest.approx(65 / 120)


def test_rows_that_do_not_cover_the_clip_are_refused(fit: LipFit) -> None:
    with pytest.raises(ValueError, match=r"2 Whisper rows; needed are .* \(280\)"):
        fit.probe.score(POOL[0].channels, POOL[0].rows[:2], MARGIN)
    with pytest.raises(ValueError, match="not numbers"):
        fit.probe.score(POOL[0].channels, POOL[0].rows * np.float16(np.nan), MARGIN)


def test_importing_it_costs_numpy_only() -> None:
    code = "import sys, models.lip_probe; print({'torch', 'mediapipe', 'cv2', 'scipy'} & set(sys.modules))"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_command_fits_what_a_curation_left_in_its_parts(
    fit: LipFit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for record in POOL:
        part = tmp_path / "out" / "parts" / "aa" / f"{record.key}.tar"
        part.parent.mkdir(parents=True, exist_ok=True)
        rows = np.zeros((len(record.rows), 5, record.rows.shape[1]), np.float16)
        rows[:, lip_probe.WHISPER_LAYER] = record.rows
        fields = {"source_id": record.source_id, "start_frame": 0, "end_frame": 1, "frames": 1, "margin_frames": MARGIN}
        members = {
            "json": encode_json(fields),
            "mouth.npy": encode_npy(record.channels),
            "whisper.npy": encode_npy(rows),
        }
        write_tar(part, [Sample(record.key, members)])
    found = tmp_path / "probe.npz"
    assert lip_probe_fit.main(["--clips", str(tmp_path / "out"), "--output", str(found)]) == 0
    assert f"fitted on {len(POOL)} clips" in capsys.readouterr().out
    assert np.array_equal(LipProbe.load(found).ridge, fit.probe.ridge)
