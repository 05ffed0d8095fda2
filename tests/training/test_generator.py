"""What the generator shows the network, without a network. `test_generate.py` has whole videos."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from media.frames import GridReader
from media.probe import probe
from tests.training.photograph import HEIGHT, HERS, HIS, WIDTH, film, portrait
from training.faces import FollowedFace
from training.generator import Film, Generator, Options, Take

FRAMES, CUT = 8, 4
SQUARE = np.array([WIDTH / 2 - 80, HEIGHT / 2 - 80, WIDTH / 2 + 80, HEIGHT / 2 + 80], np.float32)
MASK = np.array([40, 80, 120, 140], np.float32)


@pytest.fixture
def two_shots(tmp_path: Path) -> Film:
    """Two people of a photograph one after the other; of the second one the face is found from the fifth frame on."""
    path = film(tmp_path / "a.mp4", FRAMES, lambda i: portrait(HERS if i < CUT else HIS))
    there = np.array([True] * CUT + [False] + [True] * (FRAMES - CUT - 1))
    boxes, masks = (np.tile(box, (FRAMES, 1)) for box in (SQUARE, MASK))
    track = FollowedFace(there, boxes, boxes, masks, np.repeat([0, 1], [CUT, FRAMES - CUT]))
    return Film(GridReader(path, probe(path)), track, np.arange(FRAMES))


@pytest.mark.parametrize("seed", range(4))
def test_the_reference_of_a_shot_is_of_the_person_in_it(two_shots: Film, seed: int) -> None:
    generator: Any = SimpleNamespace(faces=SimpleNamespace(size=160))
    x0, y0, x1, y1 = SQUARE.astype(int)
    for shot, middle in enumerate((HERS, HIS)):
        crop, mask = Generator.choose_reference(generator, two_shots, Options(seed=seed), shot)
        apart = [np.abs(crop - portrait(who)[y0:y1, x0:x1].astype(float)).mean() for who in (middle, HERS, HIS)]
        assert apart[0] < 10 < max(apart)
        np.testing.assert_array_equal(mask, MASK)


@pytest.mark.parametrize(("given", "references"), [(None, [0, 1, 0]), (Path("a.png"), [0, 0, 0])])
def test_each_run_has_the_reference_of_its_shot_unless_one_is_given(
    two_shots: Film, given: Any, references: Any
) -> None:
    generator: Any = SimpleNamespace(choose_reference=lambda film, options, shot: (shot, MASK))
    back = replace(two_shots, shown=np.array([2, 3, 4, 5, 6, 5, 4, 3]))
    options = Options(reference=given)
    take = Take(back, None, 0, MASK, options)  # pyright: ignore[reportArgumentType]
    found = [(run.start, run.end, in_shot.reference) for run, in_shot in Generator.runs_of(generator, take)]
    assert found == [(start, end, k) for (start, end), k in zip([(0, 2), (3, 6), (7, 8)], references, strict=True)]
