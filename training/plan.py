"""Which source frame each generated frame shows, and how a run of frames is cut into what the network sees at once.

Times are in frames of 25 a second. Appendix B: the video follows the length of the sound, forward and back again where
it is too short; segments of 16 overlap by 4.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from media.geometry import smooth

CHUNK_FRAMES = 76  # denoised together, 3 s: six segments; more takes memory, less has more joints
TURN_FRAMES = 2.0  # sigma of the easing where the video turns round
JUMP = 0.5  # of the face's side: a box that moves further from one frame to the next is another face


@dataclass(frozen=True)
class Segments:
    """The frames that the network sees at once: as many as in training, some shared with the segment before."""

    frames: int = 16  # section 4.1
    overlap: int = 4  # appendix B

    @classmethod
    def of(cls, frames: int) -> "Segments":
        """Appendix B's quarter, for windows of another length; none for windows of less than four frames."""
        return cls(frames, frames // 4)


def source_frames(video_frames: int, sound_frames: int) -> np.ndarray:
    """Return the source frame that each output frame shows, [sound_frames] int.

    A longer sound plays the video forward and back, without showing the frame at the turn twice; speed falls and
    rises smoothly around a turn, so that no step is larger than the video's own.
    """
    if sound_frames <= video_frames:
        return np.arange(sound_frames)
    if video_frames == 1:
        return np.zeros(sound_frames, int)
    margin = round(4 * TURN_FRAMES)
    last, t = video_frames - 1, np.arange(-margin, sound_frames + margin)
    there_and_back = np.where(t < 0, t, last - np.abs(last - t % (2 * last)))  # the start is no turn
    eased = smooth(there_and_back.astype(np.float32)[:, None], TURN_FRAMES)[margin:-margin, 0]
    return np.clip(np.round(eased), 0, last).astype(int)


@dataclass(frozen=True)
class Run:
    """Output frames [start, end) in which one face is followed without a break."""

    start: int
    end: int


def runs(has_face: np.ndarray, boxes: np.ndarray, shot: np.ndarray, shown: np.ndarray) -> list[Run]:
    """Return where faces can be generated; no run goes over a cut.

    Of the source frames: [n] bool, [n, 4], and [n] int to which shot each belongs; [F] which of them are shown.
    """
    found, box, shot = has_face[shown], boxes[shown], shot[shown]
    side = np.maximum((box[:, 2:] - box[:, :2]).max(axis=1), 1)
    moved = np.abs(np.diff(box[:, :2] + box[:, 2:], axis=0)).max(axis=1, initial=0) / 2
    breaks = np.flatnonzero((found[1:] != found[:-1]) | (shot[1:] != shot[:-1]) | (moved > JUMP * side[1:])) + 1
    edges = [0, *breaks.tolist(), len(shown)]
    return [Run(a, b) for a, b in pairwise(edges) if found[a]]


def chunks(run: Run, segments: Segments = Segments(), at_most: int = CHUNK_FRAMES) -> list[Run]:
    """Cut a run into pieces that are denoised in turn; each begins with the last frames of the one before."""
    step = segments.frames - segments.overlap
    length = segments.frames + max(0, (at_most - segments.frames) // step) * step
    starts = list(range(run.start, max(run.end - segments.overlap, run.start + 1), length - segments.overlap))
    return [Run(start, min(start + length, run.end)) for start in starts]
