"""Drops blurred faces by how little a further blur changes them (Crete et al., 2007), which needs no network.

Sees what `filters/niqe` misses: defocus that was compressed afterwards. It does not see compression itself.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from pydantic import PositiveInt

from curation.clip import Clip
from curation.filters.hyperiqa import spread
from curation.stage import CROPS, Filter
from curation.verdicts import Limit

BLUR_PIXELS = 11  # the size of scikit-image's own re-blur


@dataclass(frozen=True)
class Blur(Filter):
    frames: PositiveInt = 5
    max_blur: float = 0.68  # clean real crops reach .63, Gaussian blur of sigma 3 begins at .745 (benchmarks/README.md)

    NEEDS = (CROPS,)
    LIMITS = (Limit("blur", "<=", "max_blur", "blur"),)
    SCORES = {"blur": "how little a further blur changes the face crop, median over sampled frames, 0 sharp to 1"}
    REASONS = {"blur": "out of focus or enlarged: a further blur hardly changes the picture"}

    def measure(self, clip: Clip) -> dict[str, float]:
        from skimage.measure import blur_effect

        assert clip.frames is not None
        greys = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in spread(clip.frames, self.frames)]
        return {"blur": float(np.median([blur_effect(grey, h_size=BLUR_PIXELS) for grey in greys]))}
