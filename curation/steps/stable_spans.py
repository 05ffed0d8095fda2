"""Cuts a source into spans with one steady face (paper, appendix A, "Quality Filtering", "Adaptive Mask Allowance").

A new span begins at a shot boundary, where the box jumps, and after more than `max_gap_frames` without a face.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from pydantic import NonNegativeFloat, NonNegativeInt

from clock import FPS
from curation.clip import Clip, FaceTrack
from curation.stage import STEADY_TRACK, TRACK, UNCROPPED, WHOLE_SOURCE, Step
from media.geometry import fill_gaps, movement

ANOTHER_FACE = 1.0  # box sides: however long a face was out of sight, one a whole side away is another


@dataclass(frozen=True)
class StableSpans(Step):
    # The paper states no number. In 20,810 steps of the real clips one talker's face moves less than 0.15 sides, people
    # in motion up to 0.3; where another face becomes the largest it jumps by 2 to 5 (benchmarks/displacement.png).
    max_displacement: float = 0.25  # of the box side, per frame
    max_gap_frames: NonNegativeInt = 8  # paper, appendix A
    min_s: NonNegativeFloat = 2.0  # paper, appendix A

    NEEDS = (TRACK, UNCROPPED)
    GIVES = (STEADY_TRACK,)
    ENDS = (WHOLE_SOURCE,)

    def __call__(self, clip: Clip) -> Iterable[Clip]:
        assert clip.track is not None
        for start, end, reason in self.spans(clip.track, [cut - clip.start_frame for cut in clip.cuts]):
            part = clip.cut(clip.start_frame + start, clip.start_frame + end)
            yield part.drop(reason) if reason else replace(part, track=bridge_gaps(part.track))

    def spans(self, track: FaceTrack, cuts: Iterable[int]) -> Iterator[tuple[int, int, str]]:
        """(start, end, reason) that cover the track; the reason is empty for a span to keep."""
        short = None  # the start of neighbouring runs that are all too short, as when two faces take turns: one row
        done = 0
        for start, end in [*self.runs(track, cuts), (len(track), len(track))]:
            keeps = end - start >= round(self.min_s * FPS)
            if short is not None and (keeps or start > done or start == end):
                yield short, done, "short"
                short = None
            if start > done:
                yield done, start, "no_face"
            if keeps:
                yield start, end, ""
            elif start < end and short is None:
                short = start
            done = end

    def runs(self, track: FaceTrack, cuts: Iterable[int]) -> Iterator[tuple[int, int]]:
        """(first found frame, last + 1) of each steady run; gaps inside are short enough to bridge."""
        found = np.flatnonzero(track.found)
        if not len(found):
            return
        steps = np.diff(found)
        breaks = (steps > self.max_gap_frames + 1) | self.jumps(track.boxes[found], steps)
        for cut in cuts:
            after = int(np.searchsorted(found, cut))
            if 0 < after < len(found):
                breaks[after - 1] = True
        for run in np.split(found, np.flatnonzero(breaks) + 1):
            yield int(run[0]), int(run[-1]) + 1

    def jumps(self, boxes: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """[F-1] bool: whether the face moves or grows too fast to be the same face, steadily filmed."""
        limit = np.minimum(self.max_displacement * steps, ANOTHER_FACE)
        return movement(boxes) > limit


def bridge_gaps(track: FaceTrack | None) -> FaceTrack:
    assert track is not None
    return replace(track, boxes=fill_gaps(track.boxes, track.found))
