"""What the mouth does is measured in distances of the eyes, wherever the head is."""

from pathlib import Path

import cv2
import numpy as np
import pytest

import weights
from media.frames import scan
from media.probe import probe
from models.face_landmarks import BLENDSHAPES, FaceLandmarks
from models.mouth import BLENDSHAPE_PAIRS, LIP_OPENING, REFERENCE, RIGID, motion, mouth_channels, valid_share
from models.mouth import BLENDSHAPES as COLUMNS

MEDIA = Path(__file__).resolve().parents[3] / "shared" / "media"


def face(opening: float) -> tuple[np.ndarray, np.ndarray]:
    """One frame of a face like the reference, eye corners 1 apart, lips 13 and 14 `opening` apart."""
    points = np.random.default_rng(5).normal(scale=0.3, size=(1, 478, 3))
    points[0, list(RIGID)] = REFERENCE
    points[0, 13], points[0, 14] = (0.0, 0.8, -0.4), (0.0, 0.8 + opening, -0.4)
    points[0, 17] = (0.0, 1.2, -0.4)
    return points, np.linspace(0, 1, 52)[None]


def test_channels_measure_the_mouth_in_eye_distances_wherever_the_head_is() -> None:
    points, shapes = face(opening=0.25)
    expected = mouth_channels(points, shapes)
    assert expected[0, [LIP_OPENING, 7, 10]] == pytest.approx(
        [0.25, 1.2, -0.4], abs=1e-4
    )  # opening; y and z of the lower lip
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
    assert valid_share(channels) == pytest.approx(57 / 60)
    moving = motion(channels)
    assert moving.shape == (60, 56) and np.isfinite(moving).all()
    np.testing.assert_allclose(moving[:, [0, 28]].std(0), 1, atol=1e-3)
    assert not moving[:, 14].any()  # jawOpen, the same in every frame


def test_blendshape_columns_are_those_of_the_names() -> None:
    names = [BLENDSHAPES[column] for column in COLUMNS]
    single = ("jawOpen", "Close", "Funnel", "Pucker", "RollLower", "RollUpper", "ShrugLower", "ShrugUpper")
    assert [name.removeprefix("mouth") for name in names] == list(single)
    pairs = [(BLENDSHAPES[left], BLENDSHAPES[right]) for left, right in BLENDSHAPE_PAIRS]
    kinds = ("Stretch", "LowerDown", "UpperUp", "Press", "Smile", "Dimple")
    assert pairs == [(f"mouth{kind}Left", f"mouth{kind}Right") for kind in kinds]


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
