"""Drops a source whose face never exceeds a size (paper, appendix A: 228 x 228 pixels, both sides)."""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import NonNegativeInt

from curation.clip import Clip
from curation.stage import TRACK, WHOLE_SOURCE, Filter
from curation.verdicts import Limit, Verdict, drop


@dataclass(frozen=True)
class FaceSize(Filter):
    min_px: NonNegativeInt = 228  # paper, appendix A

    NEEDS = (WHOLE_SOURCE, TRACK)
    LIMITS = (Limit("source_face_max_px", ">", "min_px", "face_size"),)
    SCORES = {
        "source_face_max_px": "shorter side of the largest face anywhere in the source, source pixels; 0 without a face"
    }

    def measure(self, clip: Clip) -> dict[str, float]:
        assert clip.track is not None
        side = clip.track.shorter_side
        return {"source_face_max_px": float(side.max()) if len(side) else 0.0}

    def decide(self, scores: Mapping[str, float]) -> Verdict:
        return super().decide(scores) if scores["source_face_max_px"] else drop("no_face")
