"""Synthetic speakers: a smooth hidden signal is heard in Whisper rows and seen on the mouth, some frames apart."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

import weights
from media.frames import scan
from media.probe import probe
from models import lip_probe
from models.face_landmarks import BLENDSHAPES, FaceLandmarks
from models.lip_probe import LipFit, LipProbe, LipRecord, motion, mouth_channels
from shards.sample import Sample, encode_json, encode_npy
from shards.writer import write_tar

MEDIA = Path(__file__).resolve().parents[3] / "shared" / "media"
FRAMES = 120
MARGIN = 20
SPOKEN = 10  # dimensions of the hidden signal
LAGS = {f"clip{i:02d}": (i * 5) % 8 - 2 for i in range(24)}  # -2..5: late on the whole, as real corpora are
WORLD = np.random.default_rng(7)
TO_ROWS = WORLD.normal(size=(SPOKEN, 384))
TO_MOUTH = WORLD.normal(size=(SPOKEN, lip_probe.CHANNELS))


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
    fitted = LipProbe.fit(lambda: iter(POOL))
    assert fitted is not None
    return fitted


def foreign(record: LipRecord, seed: int) -> LipRecord:
    return replace(record, rows=rows_of(speak(seed, len(record.channels)), seed))


def test_offsets_are_exact_and_their_zero_is_absolute(fit: LipFit) -> None:
    assert {key: score.offset_frames for key, score in fit.scores.items()} == LAGS


@pytest.mark.parametrize("delay", [-4, 4])
def test_a_delay_common_to_all_clips_is_seen(delay: int) -> None:
    fitted = LipProbe.fit(lambda: (replace(record, margin=MARGIN - delay) for record in POOL))
    assert fitted is not None
    assert {key: score.offset_frames - delay for key, score in fitted.scores.items()} == LAGS


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
    fitted = LipProbe.fit(lambda: iter(pool))
    assert fitted is not None
    confidence = [fitted.scores[record.key].confidence for record in pool]
    assert max(confidence[0::3]) < min(confidence[1::3] + confidence[2::3])
    good = [record.key for i, record in enumerate(pool) if i % 3]
    assert [fitted.scores[key].offset_frames for key in good] == [LAGS[key] for key in good]


def test_the_order_of_the_records_does_not_change_a_byte(fit: LipFit, tmp_path: Path) -> None:
    again = LipProbe.fit(lambda: (POOL[i] for i in np.random.default_rng(0).permutation(len(POOL))))
    assert again is not None
    fit.probe.save(tmp_path / "a.npz")
    again.probe.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    for key, score in fit.scores.items():
        np.testing.assert_array_equal(score.curve, again.scores[key].curve)


def test_sums_clip_by_clip_give_the_ridge_of_all_clips_at_once() -> None:
    rng = np.random.default_rng(3)
    sums, xs, us = lip_probe._Sums(folds=2), [], []
    for i, frames in enumerate((400, 600, 500)):
        x = rng.normal(size=(frames, lip_probe.REGRESSORS)).astype(np.float32)
        u = (x[:, : lip_probe.MOTIONS] + rng.normal(size=(frames, lip_probe.MOTIONS))).astype(np.float32)
        sums.add(lip_probe._Clip(replace(POOL[0], margin=0), i % 2, u, x), shift=0)
        xs.append(x - x.mean(0, dtype=np.float64))
        us.append(u - u.mean(0, dtype=np.float64))
    x, u = np.concatenate(xs), np.concatenate(us)
    expected = np.linalg.solve(x.T @ x + lip_probe.RIDGE * np.eye(x.shape[1]), x.T @ u)
    np.testing.assert_allclose(sums.solve().ridge, expected, atol=1e-6)
    # Fold 0 (clips 0 and 2) is predicted by the ridge of clip 1 alone.
    alone = np.linalg.solve(xs[1].T @ xs[1] + lip_probe.RIDGE * np.eye(x.shape[1]), xs[1].T @ us[1])
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
    assert LipProbe.fit(lambda: iter(pool)) is None


def test_fit_command_says_what_a_probe_takes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="20 clips of 2 s"):
        lip_probe.fit_command(lambda: iter(POOL[:3]), tmp_path / "probe.npz")
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


def face(opening: float) -> tuple[np.ndarray, np.ndarray]:
    """One frame of a face like the reference, eye corners 1 apart, lips 13 and 14 `opening` apart."""
    points = np.random.default_rng(5).normal(scale=0.3, size=(1, 478, 3))
    points[0, list(lip_probe.RIGID)] = lip_probe.REFERENCE
    points[0, 13], points[0, 14] = (0.0, 0.8, -0.4), (0.0, 0.8 + opening, -0.4)
    points[0, 17] = (0.0, 1.2, -0.4)
    return points, np.linspace(0, 1, 52)[None]


def test_channels_measure_the_mouth_in_eye_distances_wherever_the_head_is() -> None:
    points, shapes = face(opening=0.25)
    expected = mouth_channels(points, shapes)
    assert expected[0, [0, 7, 10]] == pytest.approx([0.25, 1.2, -0.4], abs=1e-4)  # opening; y and z of the lower lip
    tilt, turn = 0.4, -0.6
    rotation = np.array([[np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0], [0, 0, 1]]) @ np.array(
        [[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]]
    )
    moved = 87.0 * points @ rotation.T + (160, 150, -20)
    np.testing.assert_allclose(mouth_channels(moved, shapes), expected, atol=1e-5)


def test_frames_without_a_face_are_nan_in_channels_and_bridged_in_motion() -> None:
    pairs = [face(0.2 + 0.1 * np.sin(i / 3)) for i in range(60)]
    points, shapes = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    points[20:23] = np.nan
    channels = mouth_channels(points, shapes)
    assert np.flatnonzero(np.isnan(channels).any(1)).tolist() == [20, 21, 22]
    assert lip_probe.valid_share(channels) == pytest.approx(57 / 60)
    moving = motion(channels)
    assert moving.shape == (60, 56) and np.isfinite(moving).all()
    np.testing.assert_allclose(moving[:, [0, 28]].std(0), 1, atol=1e-3)
    assert not moving[:, 14].any()  # jawOpen, the same in every frame


def test_blendshape_columns_are_those_of_the_names() -> None:
    names = [BLENDSHAPES[column] for column in lip_probe.BLENDSHAPES]
    single = ("jawOpen", "Close", "Funnel", "Pucker", "RollLower", "RollUpper", "ShrugLower", "ShrugUpper")
    assert [name.removeprefix("mouth") for name in names] == list(single)
    pairs = [(BLENDSHAPES[left], BLENDSHAPES[right]) for left, right in lip_probe.BLENDSHAPE_PAIRS]
    kinds = ("Stretch", "LowerDown", "UpperUp", "Press", "Smile", "Dimple")
    assert pairs == [(f"mouth{kind}Left", f"mouth{kind}Right") for kind in kinds]


def test_importing_it_costs_numpy_only() -> None:
    code = "import sys, models.lip_probe; print({'torch', 'mediapipe', 'cv2', 'scipy'} & set(sys.modules))"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.skipif(not (MEDIA / "labels.csv").exists(), reason="real clips not here")
def test_a_real_speakers_mouth_measures_the_same_when_the_picture_is_tilted() -> None:
    landmarker = weights.find("face_landmarker")
    if landmarker is None:
        pytest.skip("face_landmarker is not fetched")
    path = MEDIA / "real__hdtf_RD_Radio2_000.mp4"
    pictures = np.stack([picture for _, picture in scan(path, probe(path), end_frame=75)])
    turn = cv2.getRotationMatrix2D((256, 256), 15, 1.0)
    tilted = np.stack([cv2.warpAffine(picture, turn, (512, 512)) for picture in pictures])
    model = FaceLandmarks(landmarker)
    upright, turned = (motion(mouth_channels(*vars(model.measure(p)).values())) for p in (pictures, tilted))
    correlations = [np.corrcoef(a, b)[0, 1] for a, b in zip(upright.T[:14], turned.T[:14], strict=True)]
    assert np.median(correlations) > 0.9


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
    assert lip_probe.main(["fit", "--clips", str(tmp_path / "out"), "--output", str(found)]) == 0
    assert f"fitted on {len(POOL)} clips" in capsys.readouterr().out
    assert np.array_equal(LipProbe.load(found).ridge, fit.probe.ridge)
