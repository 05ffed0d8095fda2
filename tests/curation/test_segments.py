"""What a data set's list names of a source is curated, the rest of the file is a row and is not decoded."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import media.frames
from curation.clip import Clip, Segment
from curation.ledger_files import part_path
from curation.source import Curated, curate, identify
from curation.stage import Stage, Step
from curation.steps.crop import Crop
from curation.steps.faces import faces_inside
from curation.steps.shots import Shots
from manifests.writer import check_partition
from media.audio import read_audio
from media.encode import decode_mp4
from media.frames import keyframes
from media.probe import Limits, probe
from shards.reader import iterate
from shards.sample import VIDEO
from tests.clips import track_of
from tests.videos import Pictures, Sound, click, number_of, numbered, write_video

LIMITS = Limits()
FRAMES = 250
KEYFRAMES = {"g": "10", "keyint_min": "10", "sc_threshold": "0", "bf": "0"}


@dataclass(frozen=True)
class Gaze(Step):
    """Says that one face fills the picture in all frames."""

    def __call__(self, clip: Clip) -> Iterable[Clip]:
        track = track_of(np.ones(len(clip), bool), side=64.0, x=0.0)
        track.boxes[:, 1::2] = (0, 64)
        yield replace(clip, track=track)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds of numbered frames with a keyframe each 10, and a click at 5 s."""
    sound = Sound(click(10.0, 5.0, channels=1), codec="aac")
    pictures = Pictures(FRAMES, draw=lambda i: numbered(i, 64, 64), options=KEYFRAMES)
    return write_video(tmp_path_factory.mktemp("segments") / "a.mp4", pictures, [sound])


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by the number of every frame that is decoded."""
    seen: list[int] = []
    original = media.frames.decode

    def counting(*arguments: Any) -> Iterator[Any]:
        for frame in original(*arguments):
            seen.append(round(media.frames.frame_time_s(frame) * 25))
            yield frame

    monkeypatch.setattr(media.frames, "decode", counting)
    return seen


def work(path: Path, output: Path, segments: list[Segment], *stages: Stage) -> Curated:
    identity = replace(identify(path, LIMITS), segments=tuple(segments))
    curated = curate(identity, stages, output, LIMITS, "recipe")
    check_partition(curated.clips, curated.source)
    return curated


def spans(curated: Curated) -> list[tuple[int, int, str]]:
    return [(clip["start_frame"], clip["end_frame"], clip["reason"]) for clip in curated.clips]


STAGES = (Shots(), Gaze(), Crop(size=64, expansion=1.0))


def test_each_second_of_the_file_is_in_one_row_and_only_the_segments_are_curated(video: Path, tmp_path: Path) -> None:
    curated = work(video, tmp_path, [Segment(60, 120), Segment(170, 230)], *STAGES)
    assert spans(curated) == [
        (0, 60, "outside_segments"),
        (60, 120, "kept"),
        (120, 170, "outside_segments"),
        (170, 230, "kept"),
        (230, 250, "outside_segments"),
    ]
    for sample, first in zip(iterate(part_path(tmp_path, curated.source["source_id"])), (60, 170), strict=True):
        assert [number_of(f) for f in decode_mp4(sample.members[VIDEO])] == list(range(first, first + 60))


def test_what_lies_outside_is_not_decoded_beyond_what_seeking_needs(
    video: Path, tmp_path: Path, decoded: list[int]
) -> None:
    work(video, tmp_path, [Segment(155, 225)], *STAGES)
    assert min(decoded) >= 140 and max(decoded) <= 227


def test_without_segments_all_is_decoded_which_the_test_above_would_notice(
    video: Path, tmp_path: Path, decoded: list[int]
) -> None:
    assert spans(work(video, tmp_path, [], *STAGES)) == [(0, FRAMES, "kept")]
    assert set(decoded) == set(range(FRAMES))


@pytest.mark.parametrize(
    ("segments", "expected"),
    [
        ([Segment(200, 400)], [(0, 200, "outside_segments"), (200, 250, "kept")]),
        ([Segment(300, 400)], [(0, 250, "outside_segments")]),
        ([Segment(0, 100), Segment(50, 250)], [(0, 100, "kept"), (100, 250, "kept")]),
    ],
)
def test_segments_that_overlap_or_pass_the_end_still_cover_each_frame_once(
    video: Path, tmp_path: Path, segments: list[Segment], expected: list[tuple[int, int, str]]
) -> None:
    assert spans(work(video, tmp_path, segments, *STAGES)) == expected


def test_the_sound_of_a_part_lies_where_that_of_the_whole_track_does(video: Path) -> None:
    header = probe(video)
    whole, part = read_audio(video, header), read_audio(video, header, (100, 150))
    assert whole is not None and part is not None
    place = int(np.abs(whole[0 : len(whole)]).argmax())
    assert abs(place - 80_000) <= 2
    assert abs(int(np.abs(part[0 : len(part)]).argmax()) - place) <= 2
    np.testing.assert_allclose(part[79_000:81_000], whole[79_000:81_000], atol=0.1)  # up to half a sample apart
    early = read_audio(video, header, (0, 50))
    assert early is not None and len(early) <= 50 * 640 + 16_000 and np.abs(early[0 : len(early)]).max() < 0.05


def test_the_keyframes_of_a_part_begin_with_the_one_that_its_first_frame_needs(video: Path) -> None:
    found = [i for i, _ in keyframes(video, probe(video), 64, 1, (155, 190))]
    assert found == [150, 160, 170, 180]
    assert len([*keyframes(video, probe(video), 64, 1)]) == FRAMES // 10


def test_faces_beside_the_crop_of_the_list_do_not_count() -> None:
    faces = np.array([[0, 0, 100, 100, 0.9], [200, 0, 260, 60, 0.8]], np.float32)
    assert faces_inside(faces, Segment(0, 10, (190.0, 0.0, 300.0, 100.0))).tolist() == faces[1:].tolist()
    assert len(faces_inside(faces, Segment(0, 10))) == len(faces_inside(faces, None)) == 2
