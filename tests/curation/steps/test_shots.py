from pathlib import Path

import numpy as np
import pytest

from curation.clip import Clip, Source
from curation.steps.shots import Shots
from media.probe import probe
from tests.videos import Pictures, write_video

SCENES = [
    np.random.default_rng(seed).integers(0, 250, (4, 6, 3), np.uint8).repeat(24, 0).repeat(24, 1) for seed in (1, 2, 3)
]


def cuts(path: Path, **settings: float) -> tuple[int, ...]:
    source = Source("ab" * 32, path, probe(path))
    (seen,) = Shots(**settings)(Clip(source, 0, source.probe.frames))  # type: ignore[arg-type]
    assert seen.scores["shot_cuts"] == len(seen.cuts)
    return seen.cuts


def shots(*lengths: int):
    """Draws one scene after another; each flickers a little, so that no two frames are equal."""
    scene = np.repeat(np.arange(len(lengths)), lengths)
    return Pictures(sum(lengths), draw=lambda i: SCENES[scene[i] % 3] + np.uint8(i % 4))


def test_a_cut_is_the_first_frame_of_the_new_shot(tmp_path: Path) -> None:
    assert cuts(write_video(tmp_path / "a.mp4", shots(40, 30, 50))) == (40, 70)


def test_one_shot_has_no_cut(tmp_path: Path) -> None:
    assert cuts(write_video(tmp_path / "a.mp4", shots(80))) == ()


@pytest.mark.parametrize(("length", "found"), [(20, 2), (10, 1)])
def test_shots_shorter_than_the_minimum_are_not_told_apart(tmp_path: Path, length: int, found: int) -> None:
    path = write_video(tmp_path / "a.mp4", shots(40, length, 40))
    assert len(cuts(path, min_shot_s=0.6)) == found


def test_frames_that_are_held_hide_no_cut(tmp_path: Path) -> None:
    pictures = shots(20, 20)
    path = write_video(tmp_path / "a.mp4", Pictures(40, fps=12, draw=pictures.draw))
    assert cuts(path) == (42,)  # 20 / 12 s
