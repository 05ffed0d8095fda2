from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from media.audio import read_audio, read_sound
from media.frames import GridReader, read_pictures
from media.probe import probe
from media.writer import VideoWriter
from tests.videos import Pictures, Sound, write_video

SECONDS = 2
LAG_SAMPLES = 1600  # looked at to both sides, of 16 kHz


def noise(rate: int) -> np.ndarray:
    """[1, N] float32 noise of up to 3 kHz, in which every moment is like no other."""
    steps = np.random.default_rng(0).normal(size=SECONDS * 6000)
    at = np.arange(SECONDS * rate) * (6000 / rate)
    return 0.1 * np.interp(at, np.arange(len(steps)), steps).astype(np.float32)[None]


def delay_ms(heard: np.ndarray, played: np.ndarray) -> float:
    """How much later the second is than the first: the lag of the largest correlation, at 16 kHz."""
    middle = heard[4800:24000]
    lags = range(-LAG_SAMPLES, LAG_SAMPLES + 1)
    products = [float(middle @ played[4800 + lag : 24000 + lag]) for lag in lags]
    return 1000 * lags[int(np.argmax(products))] / 16000


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [
        ("a.mp4", "aac", 48000),
        ("a.mp4", "aac", 16000),
        ("a.m4a", "aac", 44100),
        ("a.mkv", "aac", 16000),
        ("a.aac", "aac", 44100),
        ("a.mp3", "libmp3lame", 44100),
        ("a.mkv", "libmp3lame", 48000),
        ("a.opus", "libopus", 48000),
        ("a.mkv", "libopus", 48000),
        ("a.flac", "flac", 16000),
        ("a.wav", "pcm_s16le", 16000),
        ("a.mov", "pcm_s16le", 48000),
    ],
)
def test_the_sound_of_a_generated_video_is_played_when_the_network_heard_it(
    tmp_path: Path, name: str, codec: str, rate: int
) -> None:
    source = write_video(tmp_path / name, None, [Sound(noise(rate), rate=rate, codec=codec)])
    film = write_video(tmp_path / "film.mp4", Pictures(SECONDS * 25))
    with closing(GridReader(film, probe(film))) as reader:
        pictures = read_pictures(reader, 0, SECONDS * 25)
    with VideoWriter(tmp_path / "made.mp4", pictures[0], source) as writer:
        for picture in pictures:
            writer.write(picture.planes)
    heard = read_sound(source)[: SECONDS * 16000]
    played = on_the_clock_of_the_pictures(tmp_path / "made.mp4")
    assert abs(delay_ms(heard, played)) <= 1


def on_the_clock_of_the_pictures(video: Path) -> np.ndarray:
    found = read_audio(video, probe(video))
    assert found is not None
    return np.pad(found[: SECONDS * 16000], (0, LAG_SAMPLES))
