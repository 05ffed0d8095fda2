"""The verdicts of the sync network's filter; the network itself is tested in tests/models and tests/training."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from curation.filters import _lips
from curation.filters.sync import Sync
from models.lip_probe import WHISPER_LAYER
from models.mouth import CHANNELS
from tests.clips import clip_of

NOTHING = float("nan")


def scores(confidence: float, offset: float = 0.0, threshold: float = 0.3, **more: float) -> dict[str, float]:
    """Of a clip of 6 s, unless said."""
    windows = {"window_confidence": NOTHING, "window_threshold": 0.36, "window_agreement": NOTHING}
    measured = {"confidence": confidence, "offset_frames": offset, "threshold": threshold, **windows, **more}
    return {**{f"own_sync_{name}": value for name, value in measured.items()}, "duration_s": 6.0}


@pytest.mark.parametrize(
    ("measured", "reason"),
    [
        (scores(0.5), "kept"),
        (scores(0.299), "sync:confidence"),
        (scores(0.199, threshold=0.1), "sync:confidence"),
        ({**scores(0.2), "duration_s": 3.96}, "sync:unknown"),
        (scores(0.5, window_confidence=0.35), "sync:confidence"),
        (scores(0.5, window_agreement=0.69), "sync:confidence"),
        (scores(0.5, offset=6), "kept"),
        (scores(0.5, offset=-7), "sync:offset"),
        (scores(NOTHING, NOTHING, NOTHING), "sync:unknown"),
    ],
)
def test_a_clip_needs_more_than_a_foreign_voice_reaches_and_an_offset_that_can_be_repaired(measured, reason):
    assert Sync().decide(measured).reason == reason


def test_late_sound_is_moved_once():
    assert Sync().shift_frames(scores(0.5, offset=4)) == 4
    assert Sync().shift_frames({**scores(0.5, offset=4), "lip_offset_frames": 4.0}) == 0
    assert Sync().shift_frames(scores(NOTHING, NOTHING)) == 0


def test_one_clip_is_measured_and_its_mouth_is_left_in_the_part(monkeypatch):
    monkeypatch.setattr(_lips, "mouth_channels", lambda points, _: points)
    random = np.random.default_rng(0)
    whisper = np.zeros((2 * 130, WHISPER_LAYER + 1, 384), np.float16)
    whisper[:, WHISPER_LAYER] = random.normal(size=(260, 384))
    mesh: Any = SimpleNamespace(points=random.normal(size=(100, CHANNELS)), blendshapes=None)
    (found,) = Sync()(clip_of(100, np.zeros(64000, np.float32), whisper=whisper, margin_frames=15, mesh=mesh))
    assert Sync.SCORES.keys() <= found.scores.keys()
    assert found.verdict.reason == "sync:confidence"  # noise beside noise
    assert found.collected[_lips.MOUTH].shape == (100, CHANNELS)
