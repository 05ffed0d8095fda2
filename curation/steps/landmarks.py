"""Lips and face oval of every frame, from the 478-point landmarker on the crop; NaN where it finds no face."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

import weights
from curation.clip import Clip
from curation.stage import CROPS, LANDMARKS, Step

if TYPE_CHECKING:
    from models.face_landmarks import FaceLandmarks


@dataclass(frozen=True)
class Landmarks(Step):
    weights: str = "face_landmarker"

    NEEDS = (CROPS,)
    GIVES = (LANDMARKS,)
    SCORES = {"landmark_share": "share of the frames in which the landmarker found a face"}

    @cached_property
    def model(self) -> "FaceLandmarks":
        from models.face_landmarks import FaceLandmarks

        return FaceLandmarks(weights.require(self.weights)[self.weights])

    def __call__(self, clip: Clip) -> Iterable[Clip]:
        from models.face_landmarks import FACE_OVAL, LIPS

        assert clip.frames is not None
        mesh = self.model.measure(clip.frames)
        points = mesh.points[:, [*LIPS, *FACE_OVAL], :2].astype(np.float16)
        share = float(np.isfinite(mesh.points[:, 0, 0]).mean())
        yield replace(clip, landmarks=points, mesh=mesh).add_scores({"landmark_share": share})
