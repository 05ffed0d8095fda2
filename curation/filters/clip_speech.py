"""Drops a clip in which nobody speaks for too large a part (paper, appendix A: "background-only audio")."""

from dataclasses import dataclass

from curation.clip import Clip
from curation.filters.source_speech import QUIETEST_DB, loudness_db, spoken_s, voice_of
from curation.stage import VOICE, Filter
from curation.verdicts import Limit


@dataclass(frozen=True)
class ClipSpeech(Filter):
    min_share: float = 0.3  # the single short commands of the GRID corpus have .39 to .58, continuous talk .75 and more
    min_loudness_db: float = -55.0  # as in filters/source_speech

    NEEDS = (VOICE,)
    LIMITS = (
        Limit("loudness_db", ">=", "min_loudness_db", "silent"),
        Limit("speech_share", ">=", "min_share", "no_speech"),
    )
    SCORES = {
        "speech_share": "share of the clip in which somebody speaks",
        "loudness_db": "95th percentile of the clip's 32 ms sound levels, dB below full scale",
    }

    def measure(self, clip: Clip) -> dict[str, float]:
        if clip.source.audio is None:
            return {"speech_share": 0.0, "loudness_db": QUIETEST_DB}
        share = min(1.0, spoken_s(voice_of(clip)) / (clip.end_s - clip.start_s))
        return {"speech_share": share, "loudness_db": loudness_db(clip.audio())}
