from pathlib import Path

import numpy as np
import pytest

from clock import SAMPLE_RATE
from media.audio import AudioTrack, cut, read_audio, read_sound
from media.errors import MediaError
from media.probe import Limits, probe
from tests.videos import Pictures, Sound, click, tone, truncate, write_video

MS = SAMPLE_RATE // 1000


def heard(path: Path) -> np.ndarray:
    audio = read_audio(path, probe(path))
    assert audio is not None
    return audio[:]


def click_s(path: Path) -> float:
    return float(np.abs(heard(path)).argmax()) / SAMPLE_RATE


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mov", "pcm_s16le"),
        ("a.avi", "pcm_s16le"),
        ("a.mkv", "flac"),
        ("a.mp4", "aac"),
        ("a.ts", "aac"),
        ("a.mp4", "libmp3lame"),
        ("a.mkv", "ac3"),
        ("a.mpg", "mp2"),
    ],
)
def test_a_click_lands_where_it_was_made(tmp_path: Path, name: str, codec: str) -> None:
    video = "mpeg2video" if name.endswith("mpg") else "libx264"
    path = write_video(tmp_path / name, Pictures(50, codec=video), [Sound(click(2, 1.0), codec=codec)])
    assert click_s(path) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000, 96000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_every_rate_and_layout_comes_to_16_khz_mono(tmp_path: Path, rate: int, channels: int) -> None:
    path = write_video(tmp_path / "a.mkv", Pictures(50), [Sound(click(2, 1.0, rate, channels), rate)])
    assert click_s(path) == pytest.approx(1.0, abs=1e-3)
    assert abs(len(heard(path)) - 2 * SAMPLE_RATE) <= 1


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_the_mix_of_many_channels_does_not_clip(tmp_path: Path, channels: int) -> None:
    path = write_video(tmp_path / "a.mkv", Pictures(50), [Sound(4 * 0.95 * tone(2, channels=channels), codec="flac")])
    assert np.abs(heard(path)).max() == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
@pytest.mark.parametrize(("pictures_s", "sound_s"), [(0.0, 0.7), (0.3, 0.0), (0.5, 0.5), (0.26, 0.53)])
def test_late_and_early_tracks_keep_their_place(tmp_path: Path, name: str, pictures_s: float, sound_s: float) -> None:
    codec = "aac" if name.endswith("mp4") else "pcm_s16le"
    sound = Sound(click(1.5, 0.6), codec=codec, start_s=sound_s)
    path = write_video(tmp_path / name, Pictures(50, start_s=pictures_s), [sound])
    assert click_s(path) == pytest.approx(sound_s + 0.6 - pictures_s, abs=1e-3)


def test_b_frames_do_not_move_the_sound(tmp_path: Path) -> None:
    for name in ("a.mp4", "a.mkv", "a.avi", "a.ts"):
        codec = "aac" if name.endswith(("mp4", "ts")) else "pcm_s16le"
        pictures = Pictures(50, options={"preset": "veryfast", "bf": "3"})
        path = write_video(tmp_path / name, pictures, [Sound(click(2, 1.0), codec=codec)])
        assert click_s(path) == pytest.approx(1.0, abs=1e-3), name


@pytest.mark.parametrize(("pictures_s", "sound_s"), [(-0.2, 0.0), (0.0, -0.3)])
def test_an_edit_list_cuts_both_tracks_at_its_start(tmp_path: Path, pictures_s: float, sound_s: float) -> None:
    sound = Sound(click(2, 1.0), codec="aac", start_s=sound_s)
    options = {"avoid_negative_ts": "disabled", "use_editlist": "1"}
    path = write_video(tmp_path / "a.mp4", Pictures(60, start_s=pictures_s), [sound], options=options)
    assert click_s(path) == pytest.approx(1.0 + sound_s, abs=1e-3)


def test_a_late_start_and_a_gap_are_silence(tmp_path: Path) -> None:
    sound = Sound(tone(1.0), start_s=0.2, gaps=((0.5, 0.3),))
    audio = heard(write_video(tmp_path / "a.mkv", Pictures(50), [sound]))
    level = np.abs(audio[: 1500 * MS].reshape(-1, 10 * MS)).max(axis=1)
    silent = np.flatnonzero(level < 0.01).tolist()
    assert silent == [*range(20), *range(70, 100)]


def test_many_small_gaps_do_not_add_up(tmp_path: Path) -> None:
    lost = tuple((0.1 * k, 0.03) for k in range(1, 9))  # as packets lost in a call
    path = write_video(tmp_path / "a.mkv", Pictures(60), [Sound(click(2, 1.0), gaps=lost)])
    assert click_s(path) == pytest.approx(1.0 + 8 * 0.03, abs=1e-3)


def test_jitter_of_time_stamps_tears_nothing(tmp_path: Path) -> None:
    jitter = tuple((0.1 * k, 0.002 * (-1) ** k) for k in range(1, 18))
    audio = heard(write_video(tmp_path / "a.mkv", Pictures(50), [Sound(tone(2), gaps=jitter)]))
    steps = np.abs(np.diff(audio))[2 * MS : -2 * MS]
    assert steps.max() < 1.05 * 0.25 * 2 * np.pi * 440 / SAMPLE_RATE


def test_the_default_track_of_several_is_heard(tmp_path: Path) -> None:
    tracks = [Sound(tone(2)), Sound(click(2, 1.0), default=True)]
    assert click_s(write_video(tmp_path / "a.mkv", Pictures(50), tracks)) == pytest.approx(1.0, abs=1e-3)


def test_no_track_is_none(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", Pictures(5))
    assert read_audio(path, probe(path)) is None


def test_a_track_of_which_nothing_decodes_is_an_error(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", Pictures(50), [Sound(tone(2), codec="ac3")])
    path.write_bytes(path.read_bytes().replace(b"\x0b\x77", b"\x00\x00"))  # AC-3's sync word
    with pytest.raises(MediaError) as caught:
        read_audio(path, probe(path))
    assert caught.value.reason == "error:decode"


def test_a_torn_file_has_the_sound_of_its_first_part(tmp_path: Path) -> None:
    path = truncate(write_video(tmp_path / "a.mkv", Pictures(100), [Sound(tone(4))]), 0.5)
    assert 1 < len(heard(path)) / SAMPLE_RATE < 3


def test_sound_ends_a_second_after_the_pictures(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", Pictures(25), [Sound(tone(5), codec="aac")])
    assert len(heard(path)) == 2 * SAMPLE_RATE


def test_a_track_is_kept_in_two_bytes_a_sample_and_read_as_float(tmp_path: Path) -> None:
    loudest = np.array([-32768, -1, 0, 16384, 32767], np.int16)
    track = AudioTrack(loudest)
    assert (len(track), track[1:4].dtype) == (5, np.float32)
    assert track[:].tolist() == [-1.0, -1 / 32768, 0.0, 0.5, 32767 / 32768]
    assert cut(track, 3, 4).tolist() == [0.5, 32767 / 32768, 0.0, 0.0]
    path = write_video(tmp_path / "a.mkv", Pictures(50), [Sound(tone(2))])
    audio = read_audio(path, probe(path))
    assert audio is not None and audio.samples.itemsize == 2


def test_a_cut_outside_the_track_is_silence() -> None:
    track = np.arange(1, 6, dtype=np.float32)
    assert cut(track, -2, 4).tolist() == [0, 0, 1, 2]
    assert cut(track, 3, 4).tolist() == [4, 5, 0, 0]
    assert cut(track, 9, 2).tolist() == cut(track, -9, 2).tolist() == [0, 0]
    assert cut(track, 0, 5).tolist() == track.tolist()


def test_sound_past_the_limit_is_refused_by_its_samples_and_by_its_gaps(tmp_path: Path) -> None:
    long = write_video(tmp_path / "long.mkv", None, [Sound(tone(3.0))])
    gap = write_video(tmp_path / "gap.mkv", None, [Sound(tone(1.0), gaps=((0.5, 1000.0),))])
    for path in (long, gap):
        with pytest.raises(MediaError) as caught:
            read_sound(path, Limits(max_duration_s=2.0))
        assert caught.value.reason == "error:limits"
    assert len(read_sound(long, Limits(max_duration_s=4.0))) == pytest.approx(48000, abs=100)
