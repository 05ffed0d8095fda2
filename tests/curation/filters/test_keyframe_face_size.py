from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from curation.clip import Clip, Source
from curation.filters.keyframe_face_size import KeyframeFaceSize
from media.probe import probe
from tests.videos import Pictures, number_of, numbered, write_video

SHOWS_A_FACE = range(60, 90)  # of the pictures by their numbers


class Numbered:
    """A detector that sees a face of 50 x 40 pixels in some of the numbered pictures."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def detect(self, pictures: list[np.ndarray]) -> list[np.ndarray]:
        self.seen += [number_of(picture) for picture in pictures]
        faces = [[(5, 5, 55, 45, 0.9)] if number_of(picture) in SHOWS_A_FACE else [] for picture in pictures]
        return [np.array(found, np.float32).reshape(-1, 5) for found in faces]


def measured(path: Path, gop: int, stage: KeyframeFaceSize, frames: int = 120) -> tuple[dict[str, float], list[int]]:
    options = {"g": str(gop), "keyint_min": str(gop), "sc_threshold": "0"}
    write_video(path, Pictures(frames, draw=lambda k: numbered(k, 160, 90), options=options))
    stage.__dict__["model"] = detector = Numbered()
    header = probe(path)
    return stage.measure(Clip(Source("ab", path, header), 0, header.frames)), detector.seen


def test_only_keyframes_are_looked_at_and_a_face_is_measured_in_source_pixels(tmp_path: Path) -> None:
    stage = KeyframeFaceSize(size=80, apart_s=1.0)
    scores, seen = measured(tmp_path / "a.mp4", 25, stage)
    assert seen == [0, 25, 50, 75, 100]
    assert scores == {"keyframe_face_max_px": 80.0, "keyframe_gap_s": 1.0}  # 40 pixels at half the size


@pytest.mark.parametrize(
    ("min_px", "max_gap_s", "gop", "reason"),
    [
        (79, 12.0, 25, "kept"),
        (80, 12.0, 25, "face_size"),
        (80, 0.5, 25, "kept"),  # too little was seen to tell
        (10, 12.0, 100, "no_face"),  # frames 0 and 100 show none
    ],
)
def test_a_source_is_dropped_if_enough_was_seen_and_no_face_is_large(
    tmp_path: Path, min_px: int, max_gap_s: float, gop: int, reason: str
) -> None:
    stage = replace(KeyframeFaceSize(size=80, apart_s=1.0), min_px=min_px, max_gap_s=max_gap_s)
    scores, _ = measured(tmp_path / "a.mp4", gop, stage)
    assert stage.decide(scores).reason == reason
