"""The described corpus through the embedded profile: every video gets what its table says."""

import json

import numpy as np
import pandas as pd
import pytest
from webdataset.compat import WebDataset

from manifests.reader import read_clips, read_sources
from media.audio import read_audio
from media.encode import decode_flac, decode_mp4
from media.probe import probe
from shards.sample import MEMBERS
from tests.talkers import described


def test_the_corpus_gets_the_verdicts_and_reasons_of_its_table(curated):
    clips = read_clips(curated)
    wrong = []
    for video in described():
        rows = pd.DataFrame(clips[clips.source.str.endswith(f"/{video['name']}.mp4")])
        found = [
            (row["start_s"], row["end_s"], "keep" if row["kept"] else row["reason"]) for row in rows.to_dict("records")
        ]
        wanted = [(part.get("start_s", 0), part["end_s"], part.get("reason", "keep")) for part in video["expect"]]
        close = len(found) == len(wanted) and all(
            abs(a[0] - b[0]) <= 0.2 and abs(a[1] - b[1]) <= 0.2 and a[2] == b[2]
            for a, b in zip(found, wanted, strict=True)
        )
        if not close:
            wrong.append(f"{video['name']}: {found}, expected {wanted}")
    assert not wrong, "\n".join(wrong)


def test_measured_offsets_of_kept_clips_are_within_a_frame_of_the_truth(curated):
    clips = read_clips(curated)
    for video in described():
        for part in video["expect"]:
            if part["verdict"] == "keep":
                start_s = part.get("start_s", 0)
                rows = clips[clips.source.str.endswith(f"/{video['name']}.mp4") & (abs(clips.start_s - start_s) < 0.2)]
                assert abs(rows.lip_offset_frames.iloc[0] - part["offset_frames"]) <= 1, video["name"]


def test_every_second_of_every_source_is_accounted_for(curated):
    clips, sources = read_clips(curated), read_sources(curated)
    summary = pd.read_csv(curated / "manifests" / "summary.csv")
    assert len(sources) == len(described())
    assert summary.frames.sum() == (clips.end_frame - clips.start_frame).sum() == sources.frames.fillna(0).sum()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_plain_webdataset_reader_finds_complete_samples(curated):
    shards = sorted(map(str, (curated / "shards").glob("*.tar")))
    seen = 0
    for sample in WebDataset(shards, shardshuffle=False):
        assert {name for name in sample if not name.startswith("__")} == set(MEMBERS)
        frames = json.loads(sample["json"])["frames"]
        if seen < 3:
            assert decode_mp4(sample["mp4"]).shape == (frames, 320, 320, 3)
            assert len(decode_flac(sample["flac"])) == frames * 640
        seen += 1
    assert seen == read_clips(curated).kept.sum()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_repaired_clip_carries_the_sound_from_later_in_the_track(curated, talkers):
    clips = read_clips(curated)
    row = clips[clips.source.str.endswith("/late_4.mp4")].iloc[0]
    sample = next(
        sample
        for sample in WebDataset(str(curated / "shards" / row.shard), shardshuffle=False)
        if sample["__key__"] == row.key
    )
    path = talkers("late_4") / "late_4.mp4"
    track = read_audio(path, probe(path))
    assert track is not None
    audio = decode_flac(sample["flac"])
    first = (row.start_frame + row.audio_shift_frames) * 640
    assert row.audio_shift_frames != 0
    assert np.abs(audio[:64000] - np.clip(track[first : first + 64000], -1, 1)).max() < 1e-4
