"""What is done to clips after the last source."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import curation.corpus
import pipelines
from curation.corpus import LostParts, describe_need, finish
from curation.ledger import Ledger
from curation.ledger_files import ATTEMPTS, append_to_log, part_path
from curation.source import Curated, Identity
from curation.stage import Filter
from curation.verify.command import verify
from curation.verify.tables import Finding
from manifests.reader import read_clips
from media.encode import decode_flac, encode_flac, encode_mp4
from shards.index import read_index
from shards.packer import Need
from shards.reader import iterate
from shards.sample import Sample, decode_npy, encode_json, encode_npy, sample_sha256
from shards.writer import write_tar

FRAMES = 5
DECIDING = {"profile": {}, "score_only": False, "weights": {}, "code": ""}
RECIPE = {**DECIDING, "hash": pipelines.recipe_hash(DECIDING)}
PROFILE = pipelines.load("embedded")
MARGIN = 2  # frames of sound beyond the clips of a part


@dataclass(frozen=True)
class Late(Filter):
    """Says of every clip that its sound is late."""

    by_frames: int = 0

    def shift_frames(self, scores: Mapping[str, float]) -> int:
        return self.by_frames


def curate(output: Path, ledger: Ledger, name: str, path: Path | None = None) -> None:
    """A finished source with two clips."""
    source_id, path = name * 64, path or Path(f"/raw/{name}.mp4")
    clips, made = [], []
    for n in range(2):
        place = {"source_id": source_id, "start_frame": n * FRAMES, "end_frame": (n + 1) * FRAMES}
        row = {"key": f"{name}-{n}", "source": str(path), **place, "kept": True, "reason": "kept"}
        clips.append({**row, "stage": None, "audio_shift_frames": 0})
        members = {
            "mp4": encode_mp4(np.full((64, 64, 3), 9 * i, np.uint8) for i in range(FRAMES)),
            "flac": encode_flac(np.repeat(np.arange(FRAMES + 2 * MARGIN) / 16, 640)),  # its level tells the frame
            "whisper.npy": encode_npy(np.arange(2 * (FRAMES + 2 * MARGIN), dtype=np.float16)[:, None, None]),
            "boxes.npy": encode_npy(np.zeros((FRAMES, 4), np.float32)),
            "json": encode_json(
                {
                    **place,
                    "frames": FRAMES,
                    "size": 64,
                    "audio_shift_frames": 0,
                    "margin_frames": MARGIN,
                    "scores": {},
                }
            ),
        }
        made.append(Sample(f"{name}-{n}", members))
    part = part_path(output, source_id)
    part.parent.mkdir(parents=True, exist_ok=True)
    write_tar(part, made)
    source = {"path": str(path), "source_id": source_id, "frames": 2 * FRAMES, "status": "kept", "reason": "kept"}
    identity = Identity(path, source_id, 1, 1, None)
    ledger.begin(identity)
    ledger.add(identity, Curated(source, clips, {sample.key: sample_sha256(sample.members) for sample in made}))
    ledger.flush()


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path, RECIPE)
    for name in "abc":
        curate(tmp_path, ledger, name)
    return ledger


def ignore(_: str) -> None:
    pass


def parts_of(output: Path) -> list[str]:
    return sorted(path.stem[0] for path in output.glob("parts/*/*.tar"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_parts_go_when_the_shards_are_whole_and_runs_go_on_without_them(tmp_path: Path, ledger: Ledger) -> None:
    said: list[str] = []
    finish(tmp_path, PROFILE, [], ledger, keep_parts=False, say=said.append)
    assert parts_of(tmp_path) == []
    assert said[-1] == "3 parts removed, 0.0 GB"
    assert verify(tmp_path) == []
    before = contents(tmp_path / "shards"), contents(tmp_path / "manifests")
    again = Ledger(tmp_path, RECIPE)
    finish(tmp_path, PROFILE, [], again, keep_parts=False, say=said.append)
    assert (contents(tmp_path / "shards"), contents(tmp_path / "manifests")) == before
    curate(tmp_path, again, "d")
    finish(tmp_path, PROFILE, [], again, keep_parts=False, say=said.append)
    assert parts_of(tmp_path) == []
    assert sorted(read_index(tmp_path / "shards")["key"]) == [f"{name}-{n}" for name in "abcd" for n in range(2)]
    assert contents(tmp_path / "shards")["shard-000000.tar"] == before[0]["shard-000000.tar"]
    assert verify(tmp_path) == []


@pytest.mark.parametrize("shift", [-2, 0, 1])
def test_late_sound_is_taken_from_later_in_the_track_when_it_is_packed(
    tmp_path: Path, ledger: Ledger, shift: int
) -> None:
    finish(tmp_path, PROFILE, [Late(shift)], ledger, say=lambda _: None)
    clips = read_clips(tmp_path)
    assert clips["audio_shift_frames"].tolist() == [shift] * 6
    for sample in iterate(tmp_path / "shards" / "shard-000000.tar"):
        heard = decode_flac(sample.members["flac"]).reshape(FRAMES, 640).mean(1) * 16
        assert np.round(heard).tolist() == [MARGIN + shift + i for i in range(FRAMES)]
        assert decode_npy(sample.members["whisper.npy"])[0, 0, 0] == 2 * (MARGIN + shift)
        assert sample.json["audio_shift_frames"] == shift
    assert verify(tmp_path) == []


def test_a_source_that_was_replaced_leaves_the_shards_and_its_new_bytes_come_in(tmp_path: Path, ledger: Ledger) -> None:
    """Its path has other rows now: the earlier clips are retired by name, and everything else stays."""
    said: list[str] = []
    finish(tmp_path, PROFILE, [], ledger, say=said.append)
    before = read_index(tmp_path / "shards").set_index("key")["sha256"]
    again = Ledger(tmp_path, RECIPE)
    curate(tmp_path, again, "d", Path("/raw/a.mp4"))
    finish(tmp_path, PROFILE, [], again, say=said.append)
    after = read_index(tmp_path / "shards").set_index("key")["sha256"]
    assert sorted(after.index) == ["b-0", "b-1", "c-0", "c-1", "d-0", "d-1"]
    stayed = ["b-0", "b-1", "c-0", "c-1"]
    assert after[stayed].tolist() == before[stayed].tolist()
    assert parts_of(tmp_path) == ["b", "c", "d"]
    (line,) = [line for line in said if "retired" in line]
    assert line.startswith("2 packed clips are retired") and "a-0 of shard-000000.tar" in line
    assert verify(tmp_path) == []


def test_parts_are_kept_unless_asked(tmp_path: Path, ledger: Ledger) -> None:
    said: list[str] = []
    finish(tmp_path, PROFILE, [], ledger, say=said.append)
    assert parts_of(tmp_path) == ["a", "b", "c"]
    assert [line.split(",")[0] for line in said] == ["packing 6 clips"]


def test_no_part_goes_before_the_shards_were_found_whole(
    tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    append_to_log(tmp_path / "ledger" / ATTEMPTS, ["/raw/z.mp4"])  # an unfinished source is no damage
    monkeypatch.setattr(curation.corpus, "verify", lambda *_, **__: [Finding("shard", "shard-000000.tar: cut off")])
    finish(tmp_path, PROFILE, [], ledger, keep_parts=False, say=said.append)
    assert said[-1].startswith("parts are kept, because shard-000000.tar: cut off")
    assert parts_of(tmp_path) == ["a", "b", "c"]
    monkeypatch.undo()
    finish(tmp_path, PROFILE, [], ledger, keep_parts=False, say=said.append)
    assert parts_of(tmp_path) == []


def test_the_disk_is_told_in_words_that_a_person_reads() -> None:
    assert describe_need(Need(1234, 45_600_000_000, 812_300_000_000)) == "packing 1,234 clips, 45.6 GB (812.3 GB free)"


def test_a_part_that_is_gone_is_named_before_anything_is_packed(tmp_path: Path, ledger: Ledger) -> None:
    (gone,) = (tmp_path / "parts").glob("bb/*.tar")
    gone.unlink()
    with pytest.raises(LostParts, match="1 sources whose samples are gone, the first /raw/b.mp4") as error:
        finish(tmp_path, PROFILE, [], ledger, say=ignore)
    assert error.value.paths == {"/raw/b.mp4"}
    assert not (tmp_path / "shards").exists()


def test_a_part_that_nobody_needs_any_more_may_be_gone(tmp_path: Path, ledger: Ledger) -> None:
    finish(tmp_path, PROFILE, [], ledger, say=ignore)
    for part in (tmp_path / "parts").glob("*/*.tar"):
        part.unlink()
    finish(tmp_path, PROFILE, [], ledger, say=ignore)
    assert len(read_index(tmp_path / "shards")) == 6
