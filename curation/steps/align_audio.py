"""Moves a clip's sound by the offset that SyncNet measured, so that it is 0: sample-accurate, real sound at both ends.

Nothing is copied: the shift is stored in the clip, and its sound and Whisper rows are cut from the track with it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from curation.clip import Clip
from curation.stage import FREE_SOUND, SYNC_OFFSET, Step


@dataclass(frozen=True)
class AlignAudio(Step):
    NEEDS = (SYNC_OFFSET, FREE_SOUND)

    def __call__(self, clip: Clip) -> Iterable[Clip]:
        offset = round(clip.scores["sync_offset_frames"])
        yield replace(clip, audio_shift_frames=offset)
