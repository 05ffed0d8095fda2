"""Moves a clip's sound by the offset that SyncNet measured, so that it is 0: sample-accurate, real sound at both ends.

Nothing is copied: the clip remembers the shift, and its sound and its Whisper rows are cut from the track with it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from curation.clip import Clip
from curation.stage import Step


@dataclass(frozen=True)
class AlignAudio(Step):
    def __call__(self, clip: Clip) -> Iterable[Clip]:
        assert clip.whisper is None, "steps/align_audio belongs before steps/whisper"
        offset = round(clip.scores["sync_offset_frames"])
        yield replace(clip, audio_shift_frames=offset)
