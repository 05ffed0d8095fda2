"""How likely somebody speaks, every 32 ms of the whole track, by silero VAD. The filters that follow only count."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from clock import SAMPLES_PER_FRAME
from curation.clip import Clip
from curation.filters.source_speech import CHUNK_SAMPLES
from curation.stage import VOICE, Step
from media.audio import Samples

if TYPE_CHECKING:
    from models.voice_activity import VoiceActivity as Silero


@dataclass(frozen=True)
class VoiceActivity(Step):
    GIVES = (VOICE,)

    @cached_property
    def model(self) -> "Silero":
        from models.voice_activity import VoiceActivity as Silero

        return Silero()

    def __call__(self, clip: Clip) -> Iterable[Clip]:
        audio = clip.source.audio
        yield clip if audio is None else replace(clip, voice=self.probability(clip, audio))

    def probability(self, clip: Clip, audio: Samples) -> np.ndarray:
        """[M] of the whole track; of a segment 0 outside it, without looking there."""
        if clip.source.segment is None:
            return self.model.probability(audio)
        chunks, first = -(-len(audio) // CHUNK_SAMPLES), clip.start_frame * SAMPLES_PER_FRAME // CHUNK_SAMPLES
        part = self.model.probability(audio[first * CHUNK_SAMPLES : clip.end_frame * SAMPLES_PER_FRAME])
        voice = np.zeros(max(chunks, first + len(part)), np.float32)
        voice[first : first + len(part)] = part
        return voice
