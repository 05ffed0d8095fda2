import cv2
import numpy as np
import pytest
from scipy.signal import lfilter

from curation.duplicates import Pair, Print, best_shift, choose_kept, compare, find_pairs, print_of
from media.encode import decode_mp4, encode_mp4

FRAMES, SIZE = 75, 96


def pictures(seed: int) -> np.ndarray:
    """[T, SIZE, SIZE, 3] a lopsided ground with a blob that wanders."""
    random = np.random.default_rng(seed)
    ground = cv2.GaussianBlur(random.integers(0, 255, (SIZE, SIZE, 3)).astype(np.float32), (0, 0), 9)
    ground = (ground - ground.min()) / np.ptp(ground) * 200
    path = 48 + 24 * np.sin(np.arange(FRAMES)[:, None] / random.uniform(6, 16, 2) + random.uniform(0, 6, 2))
    return np.stack([cv2.circle(ground.copy(), (int(x), int(y)), 16, (240, 200, 180), -1) for x, y in path]).astype(
        "u1"
    )


def sound(seed: int) -> np.ndarray:
    """Three seconds of noise through a changing resonance, as a voice has them."""
    random = np.random.default_rng(seed)
    parts = []
    for _ in range(30):
        radius, angle = 0.97, 2 * np.pi * random.uniform(300, 2500) / 16_000
        parts.append(lfilter([1.0], [1, -2 * radius * np.cos(angle), radius**2], random.normal(size=1600)))
    return (0.02 * np.concatenate(parts)).astype(np.float32)


def print_number(seed: int) -> Print:
    return print_of(f"clip-{seed}", pictures(seed), sound(seed))


@pytest.fixture(scope="module")
def original() -> Print:
    return print_number(0)


def encoded_again(frames: np.ndarray) -> np.ndarray:
    smaller = np.stack([cv2.resize(frame, (64, 64)) for frame in frames])
    return decode_mp4(encode_mp4(smaller, crf=32))


def quieter_with_noise(audio: np.ndarray) -> np.ndarray:
    return 0.3 * audio + np.random.default_rng(9).normal(0, 0.002, len(audio)).astype(np.float32)


def test_a_copy_encoded_again_is_found_by_both(original: Print) -> None:
    pair = compare(original, print_of("copy", encoded_again(pictures(0)), quieter_with_noise(sound(0))))
    assert pair is not None and pair.by == "picture sound" and not pair.mirrored
    assert max(pair.picture, pair.sound) < 0.15


def test_a_mirrored_copy_with_another_voice_is_found_by_its_picture(original: Print) -> None:
    pair = compare(original, print_of("copy", pictures(0)[:, :, ::-1], sound(5)))
    assert pair is not None and (pair.by, pair.mirrored) == ("picture", True)


def test_the_same_voice_over_other_pictures_is_found_by_its_sound_and_when_it_begins(original: Print) -> None:
    later = np.concatenate([sound(6)[:8192], sound(0)])[:48_000]
    pair = compare(original, print_of("copy", pictures(7), later))
    assert pair is not None and (pair.by, pair.shift_s) == ("sound", pytest.approx(-0.51, abs=0.01))


def test_other_recordings_are_no_pairs() -> None:
    """The control of the tests above: 45 pairs of different clips, none found, none near."""
    prints = [print_number(seed) for seed in range(10)]
    assert find_pairs(prints) == []
    shares = [best_shift(a.sound, b.sound, 60)[0] for a in prints for b in prints if a.key < b.key]
    assert min(shares) > 0.36


def test_the_shift_is_that_of_the_best_agreement() -> None:
    bits = np.random.default_rng(1).random((60, 16)) > 0.5
    assert best_shift(bits, bits[20:50], 5) == (pytest.approx(0.0, abs=1e-9), 20)
    assert best_shift(bits[20:50], bits, 5) == (pytest.approx(0.0, abs=1e-9), -20)
    assert best_shift(bits[:3], bits, 5) == (1.0, 0)


def test_of_a_group_the_longest_stays() -> None:
    def pair(first: str, second: str) -> Pair:
        return Pair(first, second, "sound", False, 0.0, 1.0, 0.0)

    seconds = {"a": 2.0, "b": 5.0, "c": 3.0, "d": 4.0}
    assert choose_kept([pair("a", "b"), pair("b", "c")], seconds) == {"a": "b", "c": "b"}
    assert choose_kept([], seconds) == {}
