"""Drops a clip whose own face never exceeds a size: a wide shot beside a close-up has no detail to learn from.

The paper's rule (appendix A) looks at whole videos, most of which are one shot; `filters/face_size` is that rule.
"""

from dataclasses import dataclass

from pydantic import NonNegativeInt

from curation.clip import Clip
from curation.stage import STEADY_TRACK, Filter
from curation.verdicts import Limit


@dataclass(frozen=True)
class ClipFaceSize(Filter):
    min_px: NonNegativeInt = 228  # paper, appendix A, for whole videos

    NEEDS = (STEADY_TRACK,)
    # Not face_max_px: that of a clip which `steps/windows` cuts from the span later may be smaller.
    SCORES = {"span_face_max_px": "face_max_px of the whole steady span that the clip is cut from"}
    LIMITS = (Limit("span_face_max_px", ">", "min_px", "face_size"),)

    def measure(self, clip: Clip) -> dict[str, float]:
        assert clip.track is not None
        return {"span_face_max_px": float(clip.track.shorter_side.max())}
