"""Cuts the face out: smoothed, expanded squares at 25 fps.

From what `steps/faces` kept of the first decode; where that is too little, from a second one of this clip's frames.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from pydantic import NonNegativeFloat

from curation.clip import Clip
from curation.stage import CROPS, STEADY_TRACK, UNCROPPED, Step
from media.errors import MediaError
from media.frames import read_crops
from media.geometry import squares, within
from pipelines import EvenPixels, Expansion


@dataclass(frozen=True)
class Crop(Step):
    size: EvenPixels = 320  # pixels (paper, section 4.1)
    expansion: Expansion = 1.7  # square side over the face box's longer side: the face fills 59 % (Hallo: 50 to 70 %)
    smooth_frames: NonNegativeFloat = 5.0  # sigma of the Gaussian over the box centre; twice that over its size

    NEEDS = (STEADY_TRACK, UNCROPPED)
    GIVES = (CROPS,)
    ENDS = (UNCROPPED,)
    SCORES = {"crop_px": "side of the square cut out of the source, median, source pixels"}

    def __call__(self, clip: Clip) -> Iterable[Clip]:
        assert clip.track is not None
        probe = clip.source.probe
        cutouts = squares(clip.track.boxes, self.expansion, self.smooth_frames, probe.width, probe.height)
        frames = np.empty((len(clip), self.size, self.size, 3), np.uint8)
        done = clip.source.regions.crops(clip.start_frame, cutouts, probe, into=frames)
        if done < len(clip):
            try:
                read_crops(clip.source.reader, clip.start_frame + done, cutouts[done:], self.size, into=frames[done:])
            except MediaError as error:
                yield clip.drop(error.reason, str(error))
                return
        crop_px = float(sorted(cutouts[:, 2] - cutouts[:, 0])[len(cutouts) // 2])
        boxes = within(clip.track.boxes, cutouts, self.size)
        yield replace(clip, frames=frames, crop_boxes=boxes).add_scores({"crop_px": crop_px})
