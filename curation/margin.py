"""From a part to a shard: in a part, sound and features reach beyond their clip, so that they can be moved later."""

from collections.abc import Mapping

from clock import SAMPLES_PER_FRAME, WHISPER_ROWS_PER_FRAME
from media.encode import decode_flac, encode_flac
from renamed import with_todays_names
from shards.sample import AUDIO, JSON, WHISPER, Sample, decode_npy, encode_json, encode_npy


def cut_to_clip(sample: Sample, audio_shift_frames: int, scores: Mapping[str, float | None] | None = None) -> Sample:
    """Return a sample as a shard holds it: margins cut off, audio and features shifted, the scores in its JSON.

    They are those that the sample has, under today's names, unless others are given.
    """
    fields = sample.json
    frames, shift = fields["frames"], audio_shift_frames - fields["audio_shift_frames"]
    members = dict(sample.members)
    margin = fields.pop("margin_frames", 0)
    assert abs(shift) <= margin, f"{sample.key}: shifted by {shift} frames, the margin is {margin}"
    if margin:
        first = margin + shift
        audio = decode_flac(members[AUDIO])[first * SAMPLES_PER_FRAME :][: frames * SAMPLES_PER_FRAME]
        members[AUDIO] = encode_flac(audio)
        rows = decode_npy(members[WHISPER])[first * WHISPER_ROWS_PER_FRAME :][: frames * WHISPER_ROWS_PER_FRAME]
        members[WHISPER] = encode_npy(rows)
    scores = with_todays_names(fields["scores"]) if scores is None else dict(scores)
    fields |= {"audio_shift_frames": audio_shift_frames, "scores": scores}
    members[JSON] = encode_json(fields)
    return Sample(sample.key, members)
