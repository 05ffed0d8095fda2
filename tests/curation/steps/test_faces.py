import cv2
import numpy as np
import pytest
from av.video.frame import VideoFrame

import weights
from curation.stage import Watcher
from curation.steps.faces import Faces, face_track
from tests.clips import clip_of
from tests.photograph import photograph


class Bright:
    """A detector that finds one box, as wide as the picture's first pixel is bright, and counts its calls."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def detect(self, pictures: list[np.ndarray]) -> list[np.ndarray]:
        self.batches.append(len(pictures))
        widths = [float(picture[0, 0, 0]) for picture in pictures]
        return [np.array([[10, 20, 10 + w, 60, 0.9]] if w else np.zeros((0, 5)), np.float32) for w in widths]


def watcher(batch: int, stride: int = 1) -> tuple[Watcher, Bright]:
    step, detector = Faces(batch=batch, stride=stride, still=0.1), Bright()
    step.__dict__["model"] = detector
    return step.watch(clip_of(7)), detector


@pytest.mark.parametrize("batch", [1, 2, 3, 16])
def test_boxes_come_back_in_order_in_source_pixels_whatever_the_batch(batch: int) -> None:
    looking, detector = watcher(batch)
    pictures = [np.full((180, 320, 3), w, np.uint8) for w in (30, 0, 50, 60, 70)]
    shown = [0, 1, 1, 2, 3, 3, 4]  # some are held for two grid frames
    for i, k in enumerate(shown):
        looking.see(i, frame(), pictures[k], repeated=i > 0 and shown[i - 1] == k)
    track = looking.finish(clip_of(7)).track
    assert track is not None
    assert (track.boxes[:, 2] - track.boxes[:, 0]).tolist() == [60, 0, 0, 100, 120, 120, 140]  # 640 over 320
    assert track.boxes[0].tolist() == [20, 40, 80, 120]
    assert track.found.tolist() == [True, False, False, True, True, True, True]
    assert sum(detector.batches) == 5 and max(detector.batches) <= batch


def frame() -> VideoFrame:
    """A decoded frame of the source that `clip_of` invents."""
    return VideoFrame.from_ndarray(np.zeros((540, 640), np.uint8), "yuv420p")


def seen(widths: list[int], batch: int = 1, stride: int = 5) -> tuple[list[float], int]:
    """Widths of the track in source pixels, twice those of the pictures, and how many pictures the detector saw."""
    looking, detector = watcher(batch, stride)
    for i, width in enumerate(widths):
        looking.see(i, frame(), np.full((180, 320, 3), width, np.uint8), repeated=False)
    track = looking.finish(clip_of(len(widths))).track
    assert track is not None
    return (track.boxes[:, 2] - track.boxes[:, 0]).tolist(), sum(detector.batches)


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_a_face_that_hardly_changes_is_looked_at_in_every_fifth_frame(batch: int) -> None:
    widths = [100] * 21 + [101, 102, 103, 104, 105] + [105] * 5
    assert seen(widths, batch) == ([2.0 * width for width in widths], 7)  # frames 0, 5, ... 30


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_where_a_face_moves_comes_or_goes_every_frame_is_looked_at(batch: int) -> None:
    moves, goes = [100, 100, 100, 100, 100, 130, 140, 150, 160, 170, 180], [100] * 12 + [0] * 11
    assert seen(moves, batch) == ([2.0 * width for width in moves], 11)
    assert seen(goes, batch) == ([2.0 * width for width in goes], 6 + 4)
    assert seen([0] * 26, batch) == ([0.0] * 26, 6)


def test_pictures_that_are_shown_long_are_all_looked_at() -> None:
    looking, detector = watcher(1, stride=5)
    for i in range(40):
        looking.see(i, frame(), np.full((180, 320, 3), 100, np.uint8), repeated=i % 8 > 0)
    looking.finish(clip_of(40))
    assert sum(detector.batches) == 5


@pytest.mark.parametrize(("stride", "batch"), [(1, 1), (5, 1), (5, 3)])
@pytest.mark.parametrize("keep_mb", [0.0, 1.0, 100.0])
def test_what_lies_around_the_face_is_kept_while_there_is_room(stride: int, batch: int, keep_mb: float) -> None:
    clip = clip_of(40)
    step = Faces(batch=batch, stride=stride, keep_mb=keep_mb, keep_sides=2.0)  # type: ignore[arg-type]
    step.__dict__["model"] = Bright()
    looking = step.watch(clip)
    for i in range(40):  # 20 pictures, a face in 15 of them
        looking.see(i, frame(), np.full((180, 320, 3), 50 if i < 30 else 0, np.uint8), repeated=i % 2 == 1)
        assert clip.source.regions.bytes <= keep_mb * 1e6
    looking.finish(clip)
    square = np.tile(np.array([0, 0, 100, 100], np.float32), (40, 1))
    kept = clip.source.regions.crops(0, square, clip.source.probe, np.empty((40, 32, 32, 3), np.uint8))
    assert kept == {0.0: 0, 100.0: 40}.get(keep_mb, kept)
    assert keep_mb != 1.0 or 0 < kept < 40


def test_the_largest_face_is_tracked_and_the_second_is_measured() -> None:
    two = np.array([[0, 0, 50, 80, 0.7], [100, 100, 140, 130, 0.9]], np.float32)
    track = face_track([two, two[:1], two[:0]])
    assert track.boxes.tolist() == [[0, 0, 50, 80], [0, 0, 50, 80], [0, 0, 0, 0]]
    assert track.score.tolist() == pytest.approx([0.7, 0.7, 0])
    assert track.found.tolist() == [True, True, False]
    assert track.count.tolist() == [2, 1, 0]
    assert track.second.tolist() == [30, 0, 0]


def test_crowds_do_not_overflow() -> None:
    crowd = np.tile(np.array([0, 0, 5, 5, 0.5], np.float32), (300, 1))
    assert face_track([crowd]).count.tolist() == [255]


def test_no_frames_are_an_empty_track() -> None:
    assert len(face_track([])) == 0


def test_a_real_face_is_found_in_source_pixels() -> None:
    if weights.find("yolov8n_face") is None:
        pytest.skip("python weights.py fetch yolov8n_face")
    scaled = cv2.resize(photograph(), (320, 180), interpolation=cv2.INTER_AREA)  # of a source of 640 x 360
    looking = Faces(size=320).watch(clip_of(1))
    looking.see(0, frame(), scaled, repeated=False)
    track = looking.finish(clip_of(1)).track
    assert track is not None
    np.testing.assert_allclose(track.boxes[0], np.array([913, 97, 1055, 278]) / 2, atol=8)
    assert track.count[0] == 2
