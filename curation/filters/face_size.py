"""Drops a source whose face never exceeds a size (paper, appendix A: 228 x 228 pixels, both sides)."""

from collections.abc import Mapping
from dataclasses import dataclass

from curation.clip import KEEP, Clip, Verdict, drop
from curation.stage import Filter


@dataclass(frozen=True)
class FaceSize(Filter):
    min_px: int = 228  # paper, appendix A

    THRESHOLDS = ("min_px",)
    LIMITS = (("source_face_max_px", ">", "min_px"),)
    SCORES = {
        "source_face_max_px": "shorter side of the largest face anywhere in the source, source pixels; 0 without a face"
    }

    def measure(self, clip: Clip) -> dict[str, float]:
        assert clip.track is not None, "filters/face_size needs steps/faces before it"
        side = clip.track.shorter_side
        return {"source_face_max_px": float(side.max()) if len(side) else 0.0}

    def decide(self, scores: Mapping[str, float]) -> Verdict:
        largest = scores["source_face_max_px"]
        if largest == 0:
            return drop("no_face")
        return KEEP if largest > self.min_px else drop("face_size")
