"""Shot boundaries by PySceneDetect, on the scaled frames that face detection looks at anyway: no decode of its own."""

from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from av.video.frame import VideoFrame
from pydantic import Field, NonNegativeFloat

from curation.clip import Clip
from curation.stage import Scan, Watcher
from media.shots import LOOK_WIDTH, CutDetector


@dataclass(frozen=True)
class Shots(Scan):
    """Marks the first frame of each new shot; `steps/stable_spans` cuts there."""

    threshold: float = CutDetector.threshold
    window_frames: Annotated[int, Field(ge=2)] = CutDetector.window_frames
    min_shot_s: NonNegativeFloat = CutDetector.min_shot_s
    min_content: float = CutDetector.min_content

    SCORES = {"shot_cuts": "shot boundaries found in the whole source"}

    @property
    def look_px(self) -> int:
        return LOOK_WIDTH

    def watch(self, clip: Clip) -> Watcher:
        return ShotWatcher(CutDetector(self.threshold, self.window_frames, self.min_shot_s, self.min_content))


@dataclass
class ShotWatcher(Watcher):
    detector: CutDetector

    def see(self, i: int, frame: VideoFrame, picture: np.ndarray, repeated: bool) -> None:
        if not repeated:
            self.detector.see(i, picture)

    def finish(self, clip: Clip) -> Clip:
        cuts = tuple(self.detector.cuts)
        return replace(clip, cuts=cuts).add_scores({"shot_cuts": float(len(cuts))})
