"""The verdicts of the lip probe, and which clips it is fitted on; the probe itself is tested in tests/models."""

from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import pytest

from curation.filters.lip_audio import PROBE_FILE, LipAudio
from models.lip_probe import WHISPER_LAYER, LipProbe
from models.lip_probe_fit import choose_clips
from models.mouth import CHANNELS
from shards.sample import Sample, encode_json, encode_npy

NOTHING = float("nan")


def scores(confidence: float, offset: float = 0.0, threshold: float = 0.3, **more: float) -> dict[str, float]:
    """Of a clip of 6 s, unless said."""
    windows = {"lip_window_confidence": NOTHING, "lip_window_threshold": 0.36, "lip_window_agreement": NOTHING}
    measured = {"lip_confidence": confidence, "lip_offset_frames": offset, "lip_threshold": threshold}
    return {**measured, **windows, "duration_s": 6.0, **more}


@pytest.mark.parametrize(
    ("measured", "reason"),
    [
        (scores(0.5), "kept"),
        (scores(0.35, threshold=0.1), "kept"),
        (scores(0.349, threshold=0.1), "lip_audio:confidence"),
        (scores(0.2, duration_s=4.0), "lip_audio:confidence"),
        (scores(0.2, duration_s=3.96), "lip_audio:unknown"),
        (scores(0.5, lip_window_confidence=0.35, lip_window_agreement=1.0), "lip_audio:confidence"),
        (scores(0.5, lip_window_confidence=0.36, lip_window_agreement=0.7), "kept"),
        (scores(0.5, lip_window_confidence=0.36, lip_window_agreement=0.69), "lip_audio:confidence"),
        (scores(0.5, threshold=0.51), "lip_audio:confidence"),
        (scores(0.5, offset=6), "kept"),
        (scores(0.5, offset=-6), "kept"),
        (scores(0.5, offset=7), "lip_audio:offset"),
        (scores(0.5, offset=-7), "lip_audio:offset"),
        (scores(NOTHING, NOTHING, NOTHING), "lip_audio:unknown"),
    ],
)
def test_a_clip_needs_more_than_a_foreign_voice_reaches_and_an_offset_that_can_be_repaired(measured, reason):
    assert LipAudio(min_confidence=0.35, max_offset_frames=6).decide(measured).reason == reason


def test_unknown_is_kept_only_if_asked():
    assert LipAudio(keep_unknown=True).decide(scores(NOTHING, NOTHING, NOTHING)).keep
    assert not LipAudio(keep_unknown=False).decide(scores(NOTHING, NOTHING, NOTHING)).keep


def test_late_sound_is_taken_from_later_in_the_track():
    assert LipAudio().shift_frames(scores(0.5, offset=4)) == 4
    assert LipAudio().shift_frames(scores(0.5, offset=-2)) == -2
    assert LipAudio().shift_frames(scores(0.5, offset=1)) == 0  # within the probe's own error
    assert LipAudio().shift_frames(scores(NOTHING, NOTHING)) == 0


def test_only_clips_without_a_fitted_probe_may_be_judged_again():
    assert LipAudio().is_undecided(scores(NOTHING, NOTHING, NOTHING))
    assert not LipAudio().is_undecided(scores(0.1))


FRAMES, MARGIN = 60, 15


def speaking(number: int) -> Sample:
    """A clip of synthetic speech: a smooth signal in the Whisper rows moves the mouth."""
    world, own = np.random.default_rng(7), np.random.default_rng(number)
    to_rows, to_mouth = world.normal(size=(10, 384)), world.normal(size=(10, CHANNELS))
    noise = own.normal(size=(2 * (FRAMES + 2 * MARGIN) + 6, 10))
    speech = np.stack([np.convolve(column, np.ones(7) / np.sqrt(7), "valid") for column in noise.T], 1)
    mouth = speech.reshape(-1, 2, 10).mean(1)[MARGIN : MARGIN + FRAMES] @ to_mouth
    rows = np.zeros((len(speech), WHISPER_LAYER + 1, 384), np.float16)
    rows[:, WHISPER_LAYER] = speech @ to_rows
    place = {"source_id": f"source{number % 8}", "start_frame": 0, "end_frame": FRAMES, "frames": FRAMES}
    members = {
        "json": encode_json({**place, "margin_frames": MARGIN}),
        "mouth.npy": encode_npy(mouth.astype(np.float32)),
        "whisper.npy": encode_npy(rows),
    }
    return Sample(f"clip{number:02d}", members)


POOL = {sample.key: sample for sample in map(speaking, range(36))}


class Reader:
    """Gives samples in an order of its own, and remembers what was asked for."""

    def __init__(self, seed: int) -> None:
        self.order, self.asked = np.random.default_rng(seed).permutation(sorted(POOL)), list[Collection[str]]()

    def __call__(self, keys: Collection[str]) -> Iterator[Sample]:
        self.asked.append(set(keys))
        return (POOL[key] for key in self.order if key in keys)


def test_the_probe_is_fitted_on_so_many_clips_and_scores_the_others(tmp_path: Path) -> None:
    reader = Reader(seed=0)
    found = LipAudio(fit_clips=24).measure_all(POOL.keys(), reader, tmp_path, fitted=False)
    fitted_on = choose_clips(POOL, 24)
    assert len(fitted_on) == 24
    assert reader.asked == [fitted_on] * 7 + [set(POOL)]
    assert LipProbe.load(tmp_path / PROBE_FILE).clips == 24
    assert found.keys() == POOL.keys()
    assert all(abs(row["lip_offset_frames"]) <= 1 and row["lip_confidence"] > 0.3 for row in found.values())


def test_what_comes_out_depends_on_the_set_of_clips_only(tmp_path: Path) -> None:
    results = []
    for seed in (1, 2):
        output = tmp_path / str(seed)
        output.mkdir()
        keys = list(Reader(seed).order)
        found = LipAudio(fit_clips=24).measure_all(keys, Reader(seed + 5), output, fitted=False)
        results.append((repr(sorted(found.items())), (output / PROBE_FILE).read_bytes()))
    assert results[0] == results[1]


def test_enough_room_for_all_clips_fits_on_all(tmp_path: Path) -> None:
    LipAudio().measure_all(POOL.keys(), Reader(seed=0), tmp_path, fitted=False)
    assert LipProbe.load(tmp_path / PROBE_FILE).clips == len(POOL)


def test_the_chosen_stay_chosen_when_others_join() -> None:
    few, more = choose_clips(list(POOL)[:30], 10), choose_clips(POOL, 10)
    assert len(few) == len(more) == 10
    assert more & set(list(POOL)[:30]) <= few
