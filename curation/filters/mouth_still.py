"""Drops a clip whose lips hardly move while somebody speaks: a listener, a still picture, a voice from elsewhere.

In no profile yet: its threshold was measured on the demo's talkers only, see `min_motion`.
"""

from dataclasses import dataclass

import numpy as np

from clock import FPS
from curation.clip import Clip
from curation.filters.source_speech import CHUNK_S, SPEAKING, voice_of
from curation.stage import LANDMARKS, VOICE, Filter
from curation.verdicts import Limit
from models.mouth import LIP_OPENING, mouth_channels

MIN_FRAMES = 25  # of speech with a face: fewer may well lie in one closed mouth


@dataclass(frozen=True)
class MouthStill(Filter):
    min_motion: float = 0.02  # 26 clips of the demo's talkers have .062 to .111, the one with a closed mouth .0018

    NEEDS = (VOICE, LANDMARKS)
    LIMITS = (Limit("lip_motion", ">=", "min_motion", "mouth_still", optional=True),)
    SCORES = {
        "lip_motion": "10th to 90th percentile of the lips' opening while somebody speaks, in distances of the outer "
        "eye corners; NaN below 1 s of speech"
    }
    REASONS = {"mouth_still": "the lips hardly move while somebody speaks"}

    def measure(self, clip: Clip) -> dict[str, float]:
        assert clip.mesh is not None
        opening = mouth_channels(clip.mesh.points, clip.mesh.blendshapes)[:, LIP_OPENING]
        opening = opening[np.isfinite(opening) & is_speaking(clip)]
        if len(opening) < MIN_FRAMES:
            return {"lip_motion": float("nan")}
        low, high = np.percentile(opening, (10, 90))
        return {"lip_motion": float(high - low)}


def is_speaking(clip: Clip) -> np.ndarray:
    """[T] bool: whether somebody speaks in the middle of each frame."""
    if clip.voice is None:  # a source without sound, already dropped, of which only the scores are wanted
        return np.zeros(len(clip), bool)
    voice = voice_of(clip)
    chunks = ((np.arange(len(clip)) + 0.5) / FPS / CHUNK_S).astype(int)
    return voice[np.minimum(chunks, len(voice) - 1)] > SPEAKING
