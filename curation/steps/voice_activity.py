"""How likely somebody speaks, every 32 ms of the whole track, by silero VAD. The filters that follow only count."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from curation.clip import Clip
from curation.stage import VOICE, Step

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
        yield clip if audio is None else replace(clip, voice=self.model.probability(audio))
