"""Drops a source whose keyframes show no face that could become large enough, before anything else of it is decoded.

Slides, landscapes and crowds cost a fiftieth of what a look at every frame does. Encoders set keyframes at cuts and
every 10 s, so a shot without one is rare; a source whose keyframes are too far apart is left to the stages behind.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from pydantic import NonNegativeInt

import weights
from clock import FPS
from curation.clip import Clip
from curation.stage import WHOLE_SOURCE, Filter
from curation.verdicts import KEEP, Limit, Verdict, drop
from media.frames import keyframes
from pipelines import Device, Pixels

if TYPE_CHECKING:
    from models.yolo_face import YoloFace


@dataclass(frozen=True)
class KeyframeFaceSize(Filter):
    weights: str = "yolov8n_face"
    device: Device = "cpu"
    size: Pixels = 640  # pixels on the longer side of the detector's input
    min_score: float = 0.3  # less than `steps/faces` asks for: one face that is overlooked here is a source lost
    min_px: NonNegativeInt = 160  # 0.7 of the paper's 228: a face that leans forward between two keyframes grows
    max_gap_s: float = 12.0  # x264's own distance of keyframes is 10 s at 25 fps
    apart_s: float = 2.0  # of material that has them more often

    NEEDS = (WHOLE_SOURCE,)
    LIMITS = (Limit("keyframe_face_max_px", ">", "min_px", "face_size"),)
    RULE_SETTINGS = ("max_gap_s",)
    SCORES = {
        "keyframe_face_max_px": "shorter side of the largest face in the keyframes, source pixels; 0 without a face",
        "keyframe_gap_s": "longest time without a keyframe, seconds",
    }

    @cached_property
    def model(self) -> "YoloFace":
        from models.yolo_face import YoloFace

        return YoloFace(weights.require(self.weights)[self.weights], self.device, self.size, self.min_score)

    def measure(self, clip: Clip) -> dict[str, float]:
        probe = clip.source.probe
        times, largest = [clip.start_s], 0.0
        part = (clip.start_frame, clip.end_frame) if clip.source.segment else None
        for i, picture in keyframes(clip.source.path, probe, self.size, round(self.apart_s * FPS), part):
            (boxes,) = self.model.detect([picture])
            scale = max(probe.width, probe.height) / max(picture.shape[:2])
            times.append(i / FPS)
            if len(boxes):
                largest = max(largest, scale * float((boxes[:, 2:4] - boxes[:, :2]).min(axis=1).max()))
        return {
            "keyframe_face_max_px": largest,
            "keyframe_gap_s": float(np.diff([*times, max(times[-1], clip.end_s)]).max()),
        }

    def decide(self, scores: Mapping[str, float]) -> Verdict:
        if scores["keyframe_gap_s"] > self.max_gap_s:
            return KEEP  # too little was seen to tell
        verdict = super().decide(scores)
        return verdict if verdict.keep or scores["keyframe_face_max_px"] else drop("no_face")
