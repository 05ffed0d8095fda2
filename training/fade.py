"""Where a face appears or goes inside a shot, the generated one comes and goes over some frames, not at once.

At a cut, and at the video's own ends, nothing is faded: the picture changes there anyway, or there is none before.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from training.composite import PlacedCrop
from training.plan import Run

FADE_FRAMES = 4  # .16 s, on each side


def shares(run: Run, has_face: np.ndarray, shot: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Return how much of the generated face is seen in each frame of a run: [frames] float32, above 0, up to 1.

    Of the source frames: [n] bool whether there is a face, [n] int in which shot; [F] which of them are shown.
    """

    def appears(edge: int, beyond: int) -> bool:
        """Whether the same shot goes on beyond this frame of the run, without a face."""
        if not 0 <= beyond < len(shown):
            return False
        return bool(shot[shown[beyond]] == shot[shown[edge]] and not has_face[shown[beyond]])

    found = np.ones(run.end - run.start, np.float32)
    rising = np.minimum(np.arange(1, len(found) + 1) / (FADE_FRAMES + 1), 1)
    if appears(run.start, run.start - 1):
        found = np.minimum(found, rising)
    if appears(run.end - 1, run.end):
        found = np.minimum(found, rising[::-1])
    return found.astype(np.float32)


def fade(crops: Iterable[PlacedCrop], seen: np.ndarray) -> Iterator[PlacedCrop]:
    """Yield the crops of a run, each with the share [frames] of it that is seen."""
    for crop, share in zip(crops, seen.tolist(), strict=True):
        yield replace(crop, share=share)
