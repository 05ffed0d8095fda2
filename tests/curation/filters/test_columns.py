"""The filters that no profile has: what each drops, and what it keeps, on drawn material."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from scipy.signal import butter, sosfilt
from scipy.spatial.transform import Rotation

import pipelines
from curation.clip import Clip
from curation.filters.camera_motion import CameraMotion
from curation.filters.head_pose import HeadPose
from curation.filters.mouth_covered import MouthCovered
from curation.filters.mouth_light import MouthLight
from curation.filters.sound_bandwidth import SoundBandwidth
from curation.filters.stillness import Stillness, blinks
from curation.stage import Filter
from models.face_landmarks import LIPS_INNER, LIPS_OUTER
from models.mouth import REFERENCE, RIGID
from tests.clips import clip_of, track_of

FRAMES, SIZE = 20, 160
MIDDLE = np.array([80.0, 110.0])


def reason(stage: Filter, clip: Clip) -> str:
    return next(iter(stage(clip))).verdict.reason


def face(yaw: float = 0.0) -> np.ndarray:
    """[478, 3] landmarks: the reference face turned by degrees, and elliptic lips."""
    points = np.zeros((478, 3))
    rotation = Rotation.from_rotvec([0, -yaw, 0], degrees=True).as_matrix()
    points[list(RIGID)] = REFERENCE @ rotation.T * 50 + [80, 70, 0]
    for outline, width, height in ((LIPS_OUTER, 24, 10), (LIPS_INNER, 14, 3)):
        angle = np.linspace(np.pi, 3 * np.pi, len(outline), endpoint=False)
        points[list(outline), :2] = MIDDLE + np.stack([width * np.cos(angle), height * np.sin(angle)], 1)
    return points


def drawn() -> np.ndarray:
    """[SIZE, SIZE, 3] a skin with red lips and a dark mouth, on a textured ground."""
    random = np.random.default_rng(3)
    picture = cv2.GaussianBlur(random.integers(0, 255, (SIZE, SIZE, 3)).astype(np.uint8), (0, 0), 2)
    cv2.circle(picture, (80, 80), 60, (200, 160, 140), -1)
    outer, inner = (np.round(face()[list(o), :2]).astype(np.int32) for o in (LIPS_OUTER, LIPS_INNER))
    cv2.fillPoly(picture, [outer], (180, 80, 85))
    return cv2.fillPoly(picture, [inner], (40, 25, 25))


def clip_with(frames: np.ndarray | None = None, points: np.ndarray | None = None, **fields: Any) -> Clip:
    frames = np.repeat(drawn()[None], FRAMES, 0) if frames is None else frames
    points = np.repeat((face() if points is None else points)[None], len(frames), 0)
    shapes = np.zeros((len(frames), 52))
    mesh = SimpleNamespace(points=points, blendshapes=shapes, has_face=np.isfinite(points[:, 0, 0]))
    track = track_of(np.ones(len(frames), bool), side=80.0)
    boxes = np.tile(np.array([40, 40, 120, 120], np.float32), (len(frames), 1))
    return clip_of(len(frames), None, frames=frames, mesh=mesh, track=track, crop_boxes=boxes, **fields)


@pytest.mark.parametrize(("yaw", "expected"), [(0, "kept"), (-44, "kept"), (46, "head_pose"), (-46, "head_pose")])
def test_a_head_turned_far_to_either_side_is_dropped(yaw: float, expected: str) -> None:
    clip = clip_with(points=face(yaw))
    assert reason(HeadPose(), clip) == expected
    assert HeadPose().measure(clip)["yaw_deg"] == pytest.approx(yaw)


def test_a_photograph_is_dropped_and_a_picture_with_grain_kept() -> None:
    grain = np.random.default_rng(1).normal(0, 4, (FRAMES, SIZE, SIZE, 3))
    assert reason(Stillness(), clip_with()) == "still_picture"
    assert reason(Stillness(), clip_with((drawn() + grain).clip(0, 255).astype(np.uint8))) == "kept"


def test_lids_that_shut_twice_are_two_blinks() -> None:
    nan = float("nan")
    assert blinks(np.array([0.1, 0.8, 0.9, 0.4, 0.1, nan, 0.7, 0.1])) == 2
    assert blinks(np.array([0.4, 0.45, 0.4])) == 0


@pytest.mark.parametrize(
    ("scale", "ground", "expected"),
    [
        (1.0, 0, "kept"),
        (0.1, 0, "mouth_light:dark"),
        (0.05, 128, "mouth_light:flat"),
        (3.0, -60, "mouth_light:clipped"),
    ],
)
def test_a_mouth_that_is_dark_flat_or_burnt_out_is_dropped(scale: float, ground: float, expected: str) -> None:
    frames = np.repeat((drawn() * scale + ground).clip(0, 255).astype(np.uint8)[None], FRAMES, 0)
    assert reason(MouthLight(), clip_with(frames)) == expected


def test_a_cover_over_the_lips_is_dropped_and_one_beside_them_kept() -> None:
    covered, beside = drawn(), drawn()
    cv2.circle(covered, (80, 110), 34, (190, 150, 130), -1)
    cv2.circle(beside, (80, 60), 20, (190, 150, 130), -1)
    assert reason(MouthCovered(), clip_with(np.repeat(covered[None], FRAMES, 0))) == "mouth_covered"
    assert reason(MouthCovered(), clip_with(np.repeat(beside[None], FRAMES, 0))) == "kept"


def test_a_head_that_moves_before_a_still_camera_is_kept_and_a_pan_dropped() -> None:
    """Both crops follow the face by 2 pixels a frame: in one the ground moves along, in the other it stays behind."""
    shift = 2.0 * np.arange(FRAMES)
    pan = clip_with()
    assert pan.track is not None
    pan = replace(pan, track=replace(pan.track, boxes=pan.track.boxes + shift[:, None] * [1, 0, 1, 0]))
    frames = np.stack([np.roll(drawn(), -round(by), axis=1) for by in shift])
    assert reason(CameraMotion(), pan) == "camera_motion"
    assert reason(CameraMotion(), replace(pan, frames=frames)) == "kept"
    assert CameraMotion().measure(pan)["camera_motion"] == pytest.approx(2 * 25 / 80, rel=0.02)


@pytest.mark.parametrize(("hertz", "expected"), [(3000, "sound_bandwidth"), (6500, "kept")])
def test_the_bandwidth_of_low_passed_noise_is_that_of_the_filter(hertz: float, expected: str) -> None:
    noise = 0.1 * np.random.default_rng(2).normal(size=32_000)
    sound = np.asarray(sosfilt(butter(20, hertz, fs=16_000, output="sos"), noise)).astype(np.float32)
    clip = clip_of(50, sound)
    assert hertz < SoundBandwidth().measure(clip)["bandwidth_hz"] < 1.45 * hertz
    assert reason(SoundBandwidth(), clip) == expected


def test_a_silent_clip_has_no_bandwidth() -> None:
    assert reason(SoundBandwidth(), clip_of(50, np.zeros(32_000, np.float32))) == "sound_bandwidth"


@pytest.mark.parametrize("profile", ["embedded", "sayanything"])
def test_no_profile_has_them_and_both_take_them_where_the_comment_stands(profile: str) -> None:
    names = ("head_pose", "stillness", "mouth_light", "mouth_covered", "camera_motion", "sound_bandwidth")
    lines = pipelines.PIPELINES.read_text(encoding="utf-8").splitlines()
    assert not {f"filters/{name}" for name in names} & {name for name, _ in pipelines.load(profile).stages}
    assert all(sum(f"# - filters/{name} " in f"{line} " for line in lines) == 2 for name in names)
