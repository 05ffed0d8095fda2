"""A drawn person whose pixels tell which mouth is shown, and files that say what was put into them."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from demo.render import Encoding, Framing, Grain, Motion, Stage, make_motion, write_video
from demo.speech import SAMPLE_RATE
from tests.demo.drawn import MOUTH_BOX, drawn_identity

SIDE = 512
FRAMING = Framing(640, 480, SIDE)


@pytest.fixture(scope="module")
def stage() -> Stage:
    return Stage(drawn_identity(), FRAMING)


def still(frames: int = 1, eyelid: float = 0.0) -> Motion:
    flat, pairs = np.zeros(frames), np.zeros((frames, 2))
    return Motion(pairs, flat, flat, pairs, pairs, np.full(frames, eyelid))


def mouth_colour(frame: np.ndarray) -> np.ndarray:
    x0, y0, x1, y1 = MOUTH_BOX
    middle = np.array([(x0 + x1) / 2, (y0 + y1) / 2]) * SIDE / 1024
    left, top = (FRAMING.width - SIDE) // 2, min(0, max(FRAMING.height - SIDE, round(240 - 0.53 * SIDE)))
    x, y = (middle + np.array([left, top])).astype(int)
    return frame[y - 5 : y + 5, x - 5 : x + 5].mean((0, 1))


@pytest.mark.parametrize("opening", [0, 0.02, 0.3, 0.7, 1])
@pytest.mark.parametrize("width", [-1, -0.2, 0.8])
def test_shown_mouth_is_the_mix_of_its_neighbours(stage, opening, width):
    red, green, _ = mouth_colour(stage.draw(opening, width, still(), 0))
    assert red == pytest.approx(40 + 100 * opening, abs=1.5)
    assert green == pytest.approx(100 + 50 * width, abs=1.5)


def test_without_motion_only_the_mouth_differs(stage):
    closed, opened = stage.draw(0, 0, still(), 0), stage.draw(1, 0, still(), 0)
    changed = np.flatnonzero((closed != opened).any(2).any(1))
    _, y0, _, y1 = (np.array(MOUTH_BOX) * SIDE / 1024).round().astype(int)
    top = min(0, max(FRAMING.height - SIDE, round(240 - 0.53 * SIDE)))
    assert abs(changed.min() - (y0 + top)) <= 1
    assert abs(changed.max() - (y1 + top - 1)) <= 1


def test_eyelid_falls(stage):
    def eye(eyelid: float) -> float:
        x, y = (np.array([512, 480]) * SIDE / 1024 + [(FRAMING.width - SIDE) / 2, -31]).astype(int)
        return float(stage.draw(0, 0, still(eyelid=eyelid), 0)[y, x].mean())

    assert [eye(lid) for lid in (0.0, 1 / 3, 2 / 3, 1.0)] == pytest.approx([170, 120, 60, 0], abs=1.5)


def test_head_moves_and_the_wall_stands(stage):
    motion = still()
    motion.shift[0] = 0.1, 0
    before, after = stage.draw(0, 0, still(), 0).astype(int), stage.draw(0, 0, motion, 0).astype(int)
    assert np.abs(after - before)[200:300, 100:500].max() > 40
    np.testing.assert_array_equal(after[:, :40], before[:, :40])


def test_motion_is_seeded_and_of_the_promised_size():
    times = np.arange(500) / 25
    once, again = (make_motion(times, (), np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(once.shift, again.shift)
    assert 0.003 < once.shift[:, 0].std() < 0.03
    assert np.abs(np.diff(once.shift[:, 0])).max() < 0.01
    blinks = np.flatnonzero(np.diff((once.eyelid > 0.5).astype(int)) == 1)
    assert 4 <= len(blinks) <= 12  # in 20 s


def test_grain_is_noise_around_the_frame():
    frame = np.full((48, 64, 3), 128, np.uint8)
    noisy = Grain(64, 48, np.random.default_rng(0)).add(frame).astype(float)
    assert noisy.mean() == pytest.approx(128, abs=0.3)
    assert noisy.std() == pytest.approx(2.2, abs=0.3)


def moving_bar(frames: int, height: int = 64, width: int = 96) -> list[np.ndarray]:
    pictures = np.zeros((frames, height, width, 3), np.uint8)
    for t in range(frames):
        pictures[t, :, t % width] = 255
    return list(pictures)


def click(seconds: float, at_s: float) -> np.ndarray:
    """Silence with a tone that starts at a known time."""
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return np.where(time >= at_s, 0.5 * np.sin(2 * np.pi * 1000 * time), 0).astype(np.float32)


def regular(frames: int, fps: Fraction) -> list[Fraction]:
    return [i / fps for i in range(frames)]


@pytest.mark.parametrize("fps", [Fraction(25), Fraction(30), Fraction(30000, 1001)])
def test_frames_are_shown_when_they_should_be(tmp_path: Path, fps: Fraction):
    path, times = tmp_path / "a.mp4", regular(40, fps)
    write_video(path, moving_bar(40), times, click(1.5, 0.5), Encoding(fps))
    with av.open(str(path)) as container:
        shown = [f.time for f in container.decode(video=0)]
    np.testing.assert_allclose(shown, [float(t) for t in times], atol=1e-4)


def test_sound_is_in_place_to_a_hundredth_of_a_second(tmp_path: Path):
    path = tmp_path / "a.mp4"
    write_video(path, moving_bar(50), regular(50, Fraction(25)), click(2.0, 1.0), Encoding())
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
    assert frames[0].pts == 0
    sound = np.concatenate([f.to_ndarray()[0] for f in frames])
    assert np.flatnonzero(np.abs(sound) > 0.2)[0] / SAMPLE_RATE == pytest.approx(1.0, abs=0.01)


def test_equal_input_gives_equal_bytes_whatever_the_memory_held_before(tmp_path: Path):
    rng = np.random.default_rng(0)
    grain = Grain(160, 120, rng)
    frames = [grain.add(np.full((120, 160, 3), 100, np.uint8)) for _ in range(30)]
    files = set()
    for _ in range(8):
        junk = [np.frombuffer(rng.bytes(int(n)), np.uint8).copy() for n in rng.integers(1000, 2_000_000, 20)]
        del junk
        write_video(tmp_path / "a.mp4", frames, regular(30, Fraction(25)), click(1.2, 0.3), Encoding())
        files.add((tmp_path / "a.mp4").read_bytes())
    assert len(files) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_streams_are_as_asked(tmp_path: Path):
    path = tmp_path / "a.mp4"
    write_video(path, moving_bar(10), regular(10, Fraction(25)), click(0.4, 0.1), Encoding(audio_layout="5.1"))
    with av.open(str(path)) as container:
        assert container.streams.audio[0].layout.name == "5.1"
        assert container.streams.audio[0].rate == 48_000
        sound = np.concatenate([f.to_ndarray() for f in container.decode(audio=0)], axis=1)
    loudness = dict(zip(("FL", "FR", "FC", "LFE", "BL", "BR"), sound.std(1), strict=True))
    assert max(loudness, key=lambda name: loudness[name]) == "FC"
    write_video(path, moving_bar(10), regular(10, Fraction(25)), click(0.4, 0.1), Encoding(audio_layout=None))
    with av.open(str(path)) as container:
        assert not container.streams.audio


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotated_file_is_upright_when_a_player_turns_it(tmp_path: Path, rotation: int):
    path, upright = tmp_path / "a.mp4", np.zeros((64, 96, 3), np.uint8)
    upright[:16, :24] = 255  # the upper left corner is white
    write_video(path, [upright] * 5, regular(5, Fraction(25)), click(0.2, 0.1), Encoding(rotation=rotation))
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    stored = frame.to_ndarray(format="rgb24")
    # PyAV tells the counter-clockwise angle of the matrix, which is what a player has to apply.
    shown = np.rot90(stored, frame.rotation // 90)
    assert shown.shape == upright.shape
    assert shown[4:12, 4:20].min() > 200
    assert shown[30:, 40:].max() < 50
    assert frame.rotation % 360 == (-rotation) % 360
