"""Drops clips with the sound of a telephone or of a bad encoder, and says how loud the noise in the pauses is.

All that is known of the sound is its 16 kHz track, so 8 kHz is the most there can be. In no profile: the paper has no
such rule.
"""

from dataclasses import dataclass

import numpy as np

from clock import SAMPLE_RATE
from curation.clip import Clip
from curation.filters.source_speech import CHUNK_SAMPLES, levels_of
from curation.stage import FREE_SOUND, Filter
from curation.verdicts import Limit

BELOW_DB = 65.0  # of the loudest frequency: speech that was not cut off reaches 7 kHz above it (benchmarks/columns.md)
PAUSE, SPEECH = 10, 95  # percentiles of the 32 ms levels


@dataclass(frozen=True)
class SoundBandwidth(Filter):
    min_bandwidth_hz: float = 4500.0  # a telephone has 3400; benchmarks/columns.md

    NEEDS = (FREE_SOUND,)
    LIMITS = (Limit("bandwidth_hz", ">=", "min_bandwidth_hz", "sound_bandwidth"),)
    SCORES = {
        "bandwidth_hz": "highest frequency that is louder than 65 dB below the loudest",
        "noise_level_db": "10th percentile of the 32 ms sound levels, dB below full scale",
        "speech_to_noise_db": "how far their 95th percentile lies above it",
    }
    REASONS = {"sound_bandwidth": "the sound lacks high frequencies: telephone, or encoded at few bits"}

    def measure(self, clip: Clip) -> dict[str, float]:
        sound = clip.audio()
        pieces = sound[: len(sound) // CHUNK_SAMPLES * CHUNK_SAMPLES].reshape(-1, CHUNK_SAMPLES)
        pause, speech = (
            float(20 * np.log10(level + 1e-6)) for level in np.percentile(levels_of(pieces), (PAUSE, SPEECH))
        )
        return {"bandwidth_hz": bandwidth_hz(pieces), "noise_level_db": pause, "speech_to_noise_db": speech - pause}


def bandwidth_hz(pieces: np.ndarray) -> float:
    """The highest frequency within BELOW_DB of the loudest, by the 95th percentile spectrum of [P, N] samples."""
    power = np.abs(np.fft.rfft(pieces * np.hanning(pieces.shape[1]), axis=1)) ** 2
    spectrum = np.percentile(power, SPEECH, axis=0)
    if not spectrum.max():
        return 0.0
    loud = np.flatnonzero(10 * np.log10(spectrum / spectrum.max() + 1e-12) > -BELOW_DB)
    return float(loud[-1] * SAMPLE_RATE / pieces.shape[1])
