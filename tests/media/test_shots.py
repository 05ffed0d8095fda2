"""Cuts as both halves of the house find them; `tests/curation/steps/test_shots.py` has the step of curation."""

from pathlib import Path

import numpy as np

from media.frames import scan
from media.probe import probe
from media.shots import CutDetector, shots_of
from tests.videos import Pictures, write_video

SCENES = [
    np.random.default_rng(seed).integers(0, 250, (4, 6, 3), np.uint8).repeat(24, 0).repeat(24, 1) for seed in (1, 2)
]


def test_pictures_pass_and_cuts_are_found_though_frames_are_held(tmp_path: Path) -> None:
    drawn = Pictures(40, fps=12, draw=lambda i: SCENES[i >= 20] + np.uint8(i % 4))
    path = write_video(tmp_path / "a.mp4", drawn)
    cuts = CutDetector()
    passed = [i for i, _ in cuts.watch(scan(path, probe(path)))]
    assert passed == list(range(len(passed))) and len(passed) == probe(path).frames
    assert cuts.cuts == [42]  # 20 / 12 s


def test_the_frame_of_a_cut_belongs_to_the_new_shot() -> None:
    assert shots_of([3, 5], 7).tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert shots_of([], 2).tolist() == [0, 0]
