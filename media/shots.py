"""Where a source cuts to another shot, by PySceneDetect, on scaled pictures that others look at anyway.

Curation and generation cut with the same numbers: no clip and no generated run goes over a cut.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import cv2
import numpy as np

from clock import FPS

LOOK_WIDTH = 256  # PySceneDetect's own working width


@dataclass
class CutDetector:
    """The first frames of new shots, as far as pictures were seen; the numbers are in frames of the 25 fps grid."""

    threshold: float = 3.5  # adaptive ratio; with the next two the best of PySceneDetect's own benchmark sweep
    window_frames: int = 3
    min_shot_s: float = 0.6
    min_content: float = 15.0  # PySceneDetect's default: a change must also be this large in itself
    cuts: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        from scenedetect.detectors import AdaptiveDetector

        self._detector: Any = AdaptiveDetector(
            adaptive_threshold=self.threshold,
            window_width=self.window_frames,
            min_scene_len=self.min_shot_s,  # seconds
            min_content_val=self.min_content,
        )

    def see(self, i: int, picture: np.ndarray) -> None:
        """Look at grid frame i, [H, W, 3] uint8 RGB; `window_frames` later a cut in it is known.

        A frame that is held, by a slow or variable rate, is to be left out: it would halve the average that a cut is
        measured against.
        """
        from scenedetect.common import FrameTimecode

        scale = min(1.0, LOOK_WIDTH / picture.shape[1])
        width, height = round(picture.shape[1] * scale), max(1, round(picture.shape[0] * scale))
        small = cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)
        bgr = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
        self.cuts += [cut.frame_num for cut in self._detector.process_frame(FrameTimecode(i, float(FPS)), bgr)]

    def watch(self, pictures: Iterable[tuple[int, np.ndarray]]) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the pictures of `media.frames.scan` as they come, and look at each that is not held."""
        last = None
        for i, picture in pictures:
            if picture is not last:
                self.see(i, picture)
            last = picture
            yield i, picture


def shots_of(cuts: Iterable[int], frames: int) -> np.ndarray:
    """Return the number of the shot that each of so many frames belongs to, [frames] int, from 0 on."""
    return np.searchsorted(np.array(sorted(cuts), int), np.arange(frames), side="right")


def split_shots(shot: np.ndarray) -> list[slice]:
    """Return where each shot lies in frames whose shots are numbered [n], in order; of no frames one empty slice."""
    edges = [0, *(np.flatnonzero(np.diff(shot)) + 1).tolist(), len(shot)]
    return [slice(start, end) for start, end in pairwise(edges)]
