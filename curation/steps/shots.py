"""Shot boundaries by PySceneDetect, on the scaled frames that face detection looks at anyway: no decode of its own."""

from dataclasses import dataclass, field, replace
from typing import Annotated

import cv2
import numpy as np
from av.video.frame import VideoFrame
from pydantic import Field, NonNegativeFloat

from clock import FPS
from curation.clip import Clip
from curation.stage import Scan, Watcher

LOOK_WIDTH = 256  # PySceneDetect's own working width


@dataclass(frozen=True)
class Shots(Scan):
    """Marks the first frame of each new shot; `steps/stable_spans` cuts there."""

    threshold: float = 3.5  # adaptive ratio; with the next two the best of PySceneDetect's own benchmark sweep
    window_frames: Annotated[int, Field(ge=2)] = 3
    min_shot_s: NonNegativeFloat = 0.6
    min_content: float = 15.0  # PySceneDetect's default: a change must also be this large in itself

    SCORES = {"shot_cuts": "shot boundaries found in the whole source"}

    @property
    def look_px(self) -> int:
        return LOOK_WIDTH

    def watch(self, clip: Clip) -> Watcher:
        return ShotWatcher(self)


@dataclass
class ShotWatcher(Watcher):
    settings: Shots
    cuts: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        from scenedetect.detectors import AdaptiveDetector

        self.detector = AdaptiveDetector(
            adaptive_threshold=self.settings.threshold,
            window_width=self.settings.window_frames,
            min_scene_len=self.settings.min_shot_s,  # seconds
            min_content_val=self.settings.min_content,
        )

    def see(self, i: int, frame: VideoFrame, picture: np.ndarray, repeated: bool) -> None:
        from scenedetect.common import FrameTimecode

        if repeated:  # a frame held by a slow or variable rate would halve the average that a cut is measured against
            return
        scale = min(1.0, LOOK_WIDTH / picture.shape[1])
        width, height = round(picture.shape[1] * scale), max(1, round(picture.shape[0] * scale))
        small = cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)
        bgr = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
        self.cuts += [cut.frame_num for cut in self.detector.process_frame(FrameTimecode(i, float(FPS)), bgr)]

    def finish(self, clip: Clip) -> Clip:
        return replace(clip, cuts=tuple(self.cuts)).add_scores({"shot_cuts": float(len(self.cuts))})
