import numpy as np
import pytest

from curation.filters.syncnet import Syncnet
from curation.steps.align_audio import AlignAudio
from models.syncnet import SyncScore
from tests.clips import clip_of


class Onset:
    """Measures the offset between the first bright frame and the first sound, in the original's sign."""

    def measure(self, frames: np.ndarray, audio: np.ndarray) -> SyncScore:
        assert frames.shape[1:] == (224, 224, 3)
        seen = int((frames.mean(axis=(1, 2, 3)) > 128).argmax())
        heard = int((np.abs(audio) > 0.5).argmax()) // 640
        return SyncScore(seen - heard, 7.0, 6.5, np.zeros(31, np.float32))


def clip(late_frames: int):
    frames = np.zeros((60, 64, 64, 3), np.uint8)
    frames[30:] = 255
    audio = np.zeros(60 * 640, np.float32)
    audio[(30 + late_frames) * 640 :] = 1.0
    boxes = np.tile(np.array([8, 8, 56, 56], np.float32), (60, 1))
    return clip_of(60, audio, frames=frames, crop_boxes=boxes)


def judged(late_frames: int):
    step = Syncnet()
    step.__dict__["model"] = Onset()
    return next(iter(step(clip(late_frames))))


@pytest.mark.parametrize("late", [-6, -1, 0, 6])
def test_an_offset_is_positive_when_the_sound_comes_late_and_alignment_removes_it(late: int) -> None:
    measured = judged(late)
    assert measured.verdict.keep
    assert measured.scores["sync_offset_frames"] == late
    (aligned,) = AlignAudio()(measured)
    assert int((aligned.audio() > 0.5).argmax()) // 640 == 30


@pytest.mark.parametrize("late", [-7, 7])
def test_what_is_too_far_apart_is_dropped(late: int) -> None:
    assert judged(late).verdict.reason == "syncnet:offset"


def test_the_thresholds_themselves_are_kept() -> None:
    decide = Syncnet(min_confidence=3.0, max_offset_frames=6).decide
    assert decide({"sync_confidence": 3.0, "sync_offset_frames": -6.0}).keep
    assert decide({"sync_confidence": 2.99, "sync_offset_frames": 0.0}).reason == "syncnet:confidence"
    assert decide({"sync_confidence": 3.0, "sync_offset_frames": 7.0}).reason == "syncnet:offset"
    assert decide({"sync_confidence": 1.0, "sync_offset_frames": 9.0}).reason == "syncnet:confidence"
