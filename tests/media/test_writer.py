from contextlib import closing
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from media.audio import read_audio, read_sound
from media.errors import MediaError
from media.frames import GridReader, Picture, read_pictures
from media.probe import probe
from media.writer import VideoWriter
from tests.videos import Pictures, Sound, numbered, write_video

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


@pytest.fixture
def film(tmp_path: Path) -> list[Picture]:
    path = write_video(tmp_path / "film.mp4", Pictures(30, draw=lambda i: numbered(i, 66, 50), options={"crf": "0"}))
    with closing(GridReader(path, probe(path))) as reader:
        return read_pictures(reader, 0, 30)


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    return write_video(tmp_path / "a.flac", None, [Sound(noise(16000), rate=16000, codec="flac")])


def read_planes(path: Path) -> list[tuple[np.ndarray, ...]]:
    with closing(GridReader(path, probe(path))) as reader:
        return [picture.planes for picture in read_pictures(reader, 0, probe(path).frames)]


def test_planes_come_back_byte_for_byte_at_crf_0_with_what_the_container_should_say(
    film: list[Picture], sound: Path, tmp_path: Path
) -> None:
    with VideoWriter(tmp_path / "made.mp4", film[0], sound, crf=0, metadata={"comment": "generated"}) as writer:
        for picture in film:
            writer.write(picture.planes)
    back = read_planes(tmp_path / "made.mp4")
    assert len(back) == 30
    for picture, planes in zip(film, back, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(picture.planes, planes, strict=True))
    with av.open(str(tmp_path / "made.mp4")) as container:
        assert container.metadata["comment"] == "generated" and container.streams.audio[0].codec_context.name == "flac"


def test_a_picture_of_odd_size_loses_its_last_row_and_column(film: list[Picture], sound: Path, tmp_path: Path) -> None:
    odd = replace(film[0], planes=tuple(plane[:-1, :-1] if i == 0 else plane for i, plane in enumerate(film[0].planes)))
    with VideoWriter(tmp_path / "made.mp4", odd, sound, crf=0) as writer:
        writer.write(odd.planes)
    found = probe(tmp_path / "made.mp4")
    assert (found.width, found.height) == (64, 48)


def test_what_fails_leaves_no_file_and_the_one_before_as_it_was(
    film: list[Picture], sound: Path, tmp_path: Path
) -> None:
    (tmp_path / "made.mp4").write_bytes(b"before")
    with pytest.raises(RuntimeError), VideoWriter(tmp_path / "made.mp4", film[0], sound) as writer:
        writer.write(film[0].planes)
        raise RuntimeError
    assert (tmp_path / "made.mp4").read_bytes() == b"before"
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_sound_file_without_sound_is_refused(film: list[Picture], tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"film.mp4: no audio stream"):
        VideoWriter(tmp_path / "made.mp4", film[0], tmp_path / "film.mp4")
