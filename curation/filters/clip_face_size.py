"""Drops a clip whose own face never exceeds a size: a wide shot beside a close-up has no detail to learn from.

The paper's rule (appendix A) looks at whole videos, most of which are one shot; `filters/face_size` is that rule.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from curation.clip import KEEP, Clip, Verdict, drop
from curation.stage import Filter


@dataclass(frozen=True)
class ClipFaceSize(Filter):
    min_px: int = 228  # paper, appendix A, for whole videos

    THRESHOLDS = ("min_px",)
    # Not face_max_px: that of a clip which `steps/windows` cuts from the span later may be smaller.
    SCORES = {"span_face_max_px": "face_max_px of the whole steady span that the clip is cut from"}
    LIMITS = (("span_face_max_px", ">", "min_px"),)

    def measure(self, clip: Clip) -> dict[str, float]:
        assert clip.track is not None, "filters/clip_face_size needs steps/faces before it"
        return {"span_face_max_px": float(clip.track.shorter_side.max())}

    def decide(self, scores: Mapping[str, float]) -> Verdict:
        return KEEP if scores["span_face_max_px"] > self.min_px else drop("face_size")
