"""Two recordings in one file: where the second begins, and that nothing of it is taken for the first."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from curation.clip import Clip
from curation.source import curate, identify
from curation.stage import Step
from curation.steps.crop import Crop
from curation.steps.shots import Shots
from curation.steps.voice_activity import VoiceActivity
from media.audio import read_audio
from media.frames import GridReader, keyframes, read_crops, scan
from media.joined import Clock, second_header
from media.probe import Limits, probe
from tests.clips import track_of
from tests.videos import Pictures, Sound, number_of, numbered, tone, truncate, write_video

FIRST, SECOND = 60, 100  # frames


@dataclass(frozen=True)
class Kind:
    """How a recording of a container is made."""

    video: str = "libx264"
    audio: str = "aac"
    container: str | None = None
    options: dict[str, str] = field(default_factory=dict)


KINDS = {
    "a.ts": Kind(),
    "a.mpg": Kind("mpeg2video", "mp2"),
    "a.vob": Kind("mpeg2video", "mp2", "vob"),
    "a.mkv": Kind(),
    "live.mkv": Kind(options={"live": "1"}),
    "a.webm": Kind("libvpx-vp9", "libopus"),
    "a.flv": Kind(),
    "a.mp4": Kind(),
    "front.mp4": Kind(options={"movflags": "faststart"}),
    "fragments.mp4": Kind(options={"movflags": "frag_keyframe+empty_moov"}),
    "a.mov": Kind(audio="pcm_s16le"),
    "a.3gp": Kind(),
    "a.avi": Kind("mpeg4", "libmp3lame"),
    "a.nut": Kind(),
}
NUMBERS, HERTZ = (0, 100), (440.0, 3000.0)  # of the first frame, and of the sound, of either recording


def record(path: Path, kind: Kind, which: int, frames: int, sound: bool = True) -> Path:
    options = {"deadline": "realtime", "cpu-used": "8"} if kind.video == "libvpx-vp9" else {"g": "12"}
    pictures = Pictures(frames, codec=kind.video, draw=lambda i: numbered(NUMBERS[which] + i), options=options)
    track = Sound(tone(frames / 25, hertz=HERTZ[which]), codec=kind.audio)
    return write_video(path, pictures, [track] if sound else [], kind.container, kind.options)


def join(path: Path, *parts: Path) -> Path:
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def joined(folder: Path, name: str, sounds: tuple[bool, bool] = (True, True)) -> tuple[Path, int]:
    """A file of two recordings, and the byte at which the second begins."""
    kind = KINDS[name]
    parts = [
        record(folder / f"{which}-{name}", kind, which, frames, sounds[which])
        for which, frames in enumerate((FIRST, SECOND))
    ]
    return join(folder / name, *parts), parts[0].stat().st_size


def hertz(samples: np.ndarray) -> float:
    """The loudest frequency."""
    return float(np.abs(np.fft.rfft(samples)).argmax() * 16000 / len(samples))


@pytest.mark.parametrize("name", KINDS)
def test_a_second_recording_is_found_where_it_begins_and_counted(tmp_path: Path, name: str) -> None:
    path, second = joined(tmp_path, name)
    found = probe(path)
    assert found.end_byte is not None and second <= found.end_byte < second + 2048
    assert abs(found.frames - FIRST) <= 1
    assert abs(found.rest_frames - SECOND) <= 3  # the sound of the last frames is longer by a packet


@pytest.mark.parametrize("name", KINDS)
def test_pictures_and_sound_end_with_the_first_recording(tmp_path: Path, name: str) -> None:
    path, _ = joined(tmp_path, name)
    header = probe(path)
    shown = [number_of(picture) for _, picture in scan(path, header)]
    assert FIRST <= len(shown) <= FIRST + 1
    assert max(shown) == FIRST - 1
    assert max(number_of(picture) for _, picture in keyframes(path, header, 640, 1)) < FIRST
    whole = np.tile(np.array([0, 0, 64, 48], np.float32), (3, 1))
    assert [number_of(crop) for crop in read_crops(GridReader(path, header), 50, whole, 64)] == shown[50:53]
    sound = read_audio(path, header)
    assert sound is not None and abs(len(sound) - FIRST * 640) < 1500
    assert hertz(sound[-8000:]) == pytest.approx(HERTZ[0], abs=5)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("frames", [FIRST, 1])
def test_one_recording_is_one(tmp_path: Path, name: str, frames: int) -> None:
    found = probe(record(tmp_path / name, KINDS[name], 0, frames))
    assert (found.end_byte, found.rest_frames) == (None, 0)


@pytest.mark.parametrize("name", ["a.ts", "a.mpg", "a.mkv"])
def test_the_sound_of_a_second_recording_does_not_become_that_of_a_first_without(tmp_path: Path, name: str) -> None:
    path, second = joined(tmp_path, name, (False, True))
    header = probe(path)
    assert header.end_byte is not None and abs(header.end_byte - second) < 4096
    sound = read_audio(path, header) if header.audio_codec else None
    assert sound is None or len(sound) < 3200  # what was read before the pictures told


@pytest.mark.parametrize("name", ["a.ts", "a.mpg", "a.mkv", "a.flv", "a.mp4"])
def test_every_second_of_three_recordings_has_one_row(tmp_path: Path, name: str) -> None:
    parts = [record(tmp_path / f"{i}-{name}", KINDS[name], i % 2, FIRST + 20 * i) for i in range(3)]
    path = join(tmp_path / name, *parts)

    @dataclass(frozen=True)
    class Gaze(Step):
        def __call__(self, clip: Clip) -> Iterable[Clip]:
            yield replace(clip, track=track_of(np.ones(len(clip), bool), side=20.0, x=4.0))

    curated = curate(
        identify(path, Limits()), (VoiceActivity(), Shots(), Gaze(), Crop(size=32)), tmp_path, Limits(), ""
    )
    (start, end, reason), (after, last, why) = [
        (clip["start_frame"], clip["end_frame"], clip["reason"]) for clip in curated.clips
    ]
    assert (start, reason, why) == (0, "kept", "error:joined")
    assert end == after and abs(end - FIRST) <= 1
    assert abs(last - 240) <= 5
    assert "another recording begins at byte" in curated.clips[1]["detail"]
    assert curated.source["frames"] == last


def test_an_error_over_a_joined_file_covers_all_of_it(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Fail(Step):
        def __call__(self, clip: Clip) -> Iterable[Clip]:
            raise RuntimeError("no")

    path, _ = joined(tmp_path, "a.ts")
    (row,) = curate(identify(path, Limits()), (Fail(),), tmp_path, Limits(), "").clips
    assert row["start_frame"] == 0 and abs(row["end_frame"] - FIRST - SECOND) <= 4


def test_a_second_recording_that_cannot_be_opened_still_has_a_row(tmp_path: Path) -> None:
    path, second = joined(tmp_path, "a.mp4")
    truncate(path, (second + 2000) / path.stat().st_size)
    assert (probe(path).end_byte, probe(path).rest_frames) == (second, 1)


@pytest.mark.parametrize("wrong_s", [0.0, 0.5, 3600.0])
def test_one_wrong_time_stamp_is_no_other_recording(wrong_s: float) -> None:
    clock = Clock()
    for time_s in [*np.arange(0, 5, 0.04), wrong_s, *np.arange(5.04, 10, 0.04)]:
        packet = av.Packet(1)
        packet.pts, packet.time_base, packet.is_keyframe = round(time_s * 1000), Fraction(1, 1000), True
        clock.take(packet)
        assert not clock.restarted
    assert clock.latest_s == pytest.approx(9.92)


def test_segments_of_one_recording_are_one(tmp_path: Path) -> None:
    parts = [
        write_video(tmp_path / f"{i}.ts", Pictures(30, start_s=1.2 * i, draw=lambda k, i=i: numbered(30 * i + k)))
        for i in range(3)
    ]
    found = probe(join(tmp_path / "a.ts", *parts))
    assert found.end_byte is None and abs(found.frames - 90) <= 1


def test_what_follows_that_is_no_recording_changes_nothing(tmp_path: Path) -> None:
    for name in ("a.mp4", "a.mkv", "a.flv", "a.avi"):
        path = record(tmp_path / name, KINDS[name], 0, FIRST)
        path.write_bytes(path.read_bytes() + bytes(1000) + b"something else")
        assert second_header(path) is None
