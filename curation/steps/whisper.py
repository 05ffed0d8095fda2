"""Whisper encoder features of the clip, cut from the features of its whole track (paper, section 3.4).

All layers, float16, 50 rows a second: rows 2t and 2t+1 cover the same 40 ms as frame t. Comes after
`steps/align_audio`, because the rows move with the sound.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from pydantic import NonNegativeInt

import weights
from clock import WHISPER_ROWS_PER_FRAME
from curation.clip import Clip
from curation.stage import FREE_SOUND, WHISPER_ROWS, Step
from pipelines import Device

if TYPE_CHECKING:
    from models.whisper_features import WhisperFeatures


@dataclass(frozen=True)
class Whisper(Step):
    weights: str = "whisper_tiny_en"
    device: Device = "cpu"
    margin_frames: NonNegativeInt = 0  # kept on both sides of the clip, for a filter that moves the sound later

    GIVES = (WHISPER_ROWS,)
    ENDS = (FREE_SOUND,)

    @cached_property
    def model(self) -> "WhisperFeatures":
        from models.whisper_features import WhisperFeatures

        return WhisperFeatures(weights.require(self.weights)[self.weights], self.device)

    def __call__(self, clip: Clip) -> Iterable[Clip]:
        if clip.source.audio is None:  # already dropped, and only looked at for its other scores
            yield clip
            return
        first = WHISPER_ROWS_PER_FRAME * (clip.start_frame + clip.audio_shift_frames - self.margin_frames)
        last = WHISPER_ROWS_PER_FRAME * (clip.end_frame + clip.audio_shift_frames + self.margin_frames)
        rows = self.model.rows(clip.source.audio, max(first, 0), last)
        before = np.zeros((max(-first, 0), *rows.shape[1:]), rows.dtype)  # paper, section 3.4: zeros at the boundary
        yield replace(clip, whisper=np.concatenate([before, rows]), margin_frames=self.margin_frames)
