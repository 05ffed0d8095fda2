import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from curation.clip import Clip
from curation.filters.clip_speech import ClipSpeech
from curation.filters.source_speech import SourceSpeech
from curation.ledger_files import part_path
from curation.source import Curated, Identity, curate, duplicate, identify, sha256, unread
from curation.stage import Filter, Stage, Step
from curation.steps.crop import Crop
from curation.steps.shots import Shots
from curation.steps.stable_spans import StableSpans
from curation.steps.voice_activity import VoiceActivity
from curation.steps.whisper import Whisper
from curation.steps.windows import Windows
from curation.verdicts import Verdict, drop
from media.encode import decode_flac, decode_mp4
from media.probe import Limits
from shards.reader import iterate
from shards.sample import AUDIO, BOXES, VIDEO, decode_npy
from tests.clips import track_of
from tests.videos import Pictures, Sound, corners, number_of, numbered, tone, truncate, write_video

LIMITS = Limits()


@dataclass(frozen=True)
class Gaze(Step):
    """Says that a face was found in these frames of the whole source."""

    found: tuple[tuple[int, int], ...] = ((0, 1000),)

    def __call__(self, clip: Clip) -> Iterable[Clip]:
        mask = np.zeros(len(clip), bool)
        for start, end in self.found:
            mask[start:end] = True
        yield replace(clip, track=track_of(mask, side=30.0, x=10.0))


@dataclass(frozen=True)
class Fail(Step):
    after: int = 0

    def __call__(self, clip: Clip) -> Iterable[Clip]:
        if clip.start_frame >= self.after:
            raise RuntimeError("this network has a bad day")
        yield clip


def square(number: int) -> np.ndarray:
    return numbered(number, 64, 64)


def talk(path: Path, frames: int = 150, container: dict[str, str] | None = None) -> Path:
    return write_video(path, Pictures(frames, draw=square), [Sound(tone(frames / 25), codec="aac")], options=container)


def work(path: Path, output: Path, *stages: Stage, score_only: bool = False) -> Curated:
    return curate(identify(path, LIMITS), stages, output, LIMITS, "recipe", score_only)


def spans(curated: Curated) -> list[tuple[int, int, str]]:
    return [(clip["start_frame"], clip["end_frame"], clip["reason"]) for clip in curated.clips]


def test_a_video_ends_in_rows_that_cover_it_and_a_part_with_what_was_kept(tmp_path: Path) -> None:
    path = talk(tmp_path / "a.mp4")
    curated = work(path, tmp_path, Gaze(((0, 60), (80, 150))), StableSpans(), Windows(), Crop(size=64))
    assert spans(curated) == [(0, 60, "kept"), (60, 80, "no_face"), (80, 150, "kept")]
    assert (curated.source["status"], curated.source["reason"], curated.source["frames"]) == ("kept", "kept", 150)
    assert {"cpu_s_crop", "cpu_s_stable_spans"} <= curated.source.keys()
    samples = list(iterate(part_path(tmp_path, curated.source["source_id"])))
    assert [sample.key for sample in samples] == list(curated.sampled)
    second = samples[1]
    assert decode_mp4(second.members[VIDEO]).shape == (70, 64, 64, 3)
    assert len(decode_flac(second.members[AUDIO])) == 70 * 640
    assert decode_npy(second.members[BOXES]).shape == (70, 4)
    assert (second.json["start_frame"], second.json["end_frame"], second.json["fps"]) == (80, 150, 25)
    assert second.json["source_id"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_pictures_of_a_sample_are_those_of_its_frames(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Everything(Step):
        def __call__(self, clip: Clip) -> Iterable[Clip]:
            track = track_of(np.ones(len(clip), bool), side=64.0, x=0.0)
            track.boxes[:, 1::2] = (0, 64)
            yield replace(clip, track=track)

    curated = work(talk(tmp_path / "a.mp4"), tmp_path, Everything(), Windows(2.0), Crop(size=64, expansion=1.0))
    for sample, first in zip(iterate(part_path(tmp_path, curated.source["source_id"])), (0, 50, 100), strict=True):
        shown = [number_of(frame) for frame in decode_mp4(sample.members[VIDEO])]
        assert shown == list(range(first, first + 50))


def test_the_same_video_gives_the_same_bytes(tmp_path: Path) -> None:
    path = talk(tmp_path / "a.mp4", 60)
    parts = []
    for name in ("one", "two"):
        curated = work(path, tmp_path / name, Gaze(), Crop(size=64))
        parts.append(part_path(tmp_path / name, curated.source["source_id"]).read_bytes())
    assert parts[0] == parts[1]


def test_a_dropped_clip_has_rows_and_scores_but_no_sample(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Reject(Step):
        def __call__(self, clip: Clip) -> Iterable[Clip]:
            yield clip.add_scores({"ugliness": 1.0}).drop("ugly")

    curated = work(talk(tmp_path / "a.mp4", 60), tmp_path, Gaze(), Crop(size=64), Reject())
    assert (curated.sampled, curated.clips[0]["reason"], curated.clips[0]["ugliness"]) == ({}, "ugly", 1.0)
    assert curated.source["status"] == "dropped"
    assert not part_path(tmp_path, curated.source["source_id"]).exists()


def test_a_dropped_clip_of_which_a_stage_collected_something_has_a_sample_when_everything_is_scored(
    tmp_path: Path,
) -> None:
    @dataclass(frozen=True)
    class Reject(Filter):
        def measure(self, clip: Clip) -> dict[str, float]:
            return {}

        def decide(self, scores: Mapping[str, float]) -> Verdict:
            return drop("ugly")

    @dataclass(frozen=True)
    class Collect(Step):
        def __call__(self, clip: Clip) -> Iterable[Clip]:
            yield replace(clip, collected={"note": np.arange(3)})

    stages = (Gaze(), Reject(), Crop(size=64), Collect())
    path = talk(tmp_path / "a.mp4", 60)
    assert work(path, tmp_path / "plain", *stages).sampled == {}
    scored = work(path, tmp_path / "scored", *stages, score_only=True)
    assert list(scored.sampled) == [scored.clips[0]["key"]]
    (sample,) = iterate(part_path(tmp_path / "scored", scored.source["source_id"]))
    assert decode_npy(sample.members["note.npy"]).tolist() == [0, 1, 2]


def test_a_failing_stage_makes_one_row_over_the_source_and_leaves_no_file(tmp_path: Path) -> None:
    curated = work(talk(tmp_path / "a.mp4"), tmp_path / "out", Gaze(), Windows(2.0), Crop(size=64), Fail(50))
    assert spans(curated) == [(0, 150, "error:exception")]
    assert "bad day" in curated.clips[0]["detail"]
    assert (curated.source["status"], curated.sampled) == ("error", {})
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


def test_a_part_of_an_interrupted_run_is_removed(tmp_path: Path) -> None:
    path = talk(tmp_path / "a.mp4", 30)
    part = part_path(tmp_path, identify(path, LIMITS).source_id or "")
    part.parent.mkdir(parents=True)
    part.write_bytes(b"old")
    work(path, tmp_path, Gaze(()), StableSpans())
    assert not part.exists()


def test_a_torn_file_accounts_for_its_lost_tail(tmp_path: Path) -> None:
    path = truncate(talk(tmp_path / "a.mp4", container={"movflags": "faststart"}), 0.5)
    curated = work(path, tmp_path, Shots())
    (_, seen, kept), (start, end, reason) = spans(curated)
    assert (kept, reason, start, end) == ("kept", "error:decode", seen, 150)
    assert 30 < seen < 120
    assert curated.source["frames"] == 150


def test_a_source_without_sound_is_dropped_and_still_gets_its_other_scores(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", Pictures(60, draw=lambda i: corners()))
    stages = (VoiceActivity(), SourceSpeech(), Shots(), Gaze(), StableSpans(), ClipSpeech(), Crop(size=64), Whisper())
    assert spans(work(path, tmp_path, *stages)) == [(0, 60, "no_audio")]
    scored = work(path, tmp_path, *stages, score_only=True)
    assert spans(scored) == [(0, 60, "no_audio")]
    assert scored.clips[0]["face_share"] == 1
    assert {"shot_cuts", "crop_px", "speech_share", "source_speech_s"} <= scored.clips[0].keys()
    assert scored.sampled == {}


def test_sound_that_cannot_be_decoded_is_an_error_row(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", Pictures(50), [Sound(tone(2), codec="ac3")])
    path.write_bytes(path.read_bytes().replace(b"\x0b\x77", b"\x00\x00"))
    assert spans(work(path, tmp_path, VoiceActivity(), SourceSpeech())) == [(0, 50, "error:decode")]


@pytest.mark.parametrize("name", ["missing.mp4", "text.mp4", "empty.mp4", "pipe.mp4", "folder.mp4"])
def test_what_is_no_video_is_one_row_of_no_length(tmp_path: Path, name: str) -> None:
    (tmp_path / "text.mp4").write_text("no")
    (tmp_path / "empty.mp4").touch()
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    curated = work(tmp_path / name, tmp_path, Gaze())
    reason = "error:probe" if name in ("text.mp4", "empty.mp4") else "error:io"
    assert spans(curated) == [(0, 0, reason)]
    assert (curated.source["status"], curated.source["reason"]) == ("error", reason)
    assert str(tmp_path / name) in curated.source["detail"]


def test_a_file_past_the_limits_is_not_read(tmp_path: Path) -> None:
    path = talk(tmp_path / "a.mp4", 30)
    identity = identify(path, Limits(max_bytes=100))
    assert (identity.reason, identity.probe) == ("error:limits", None)


def test_a_crash_while_reading_a_header_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> None:
        raise AttributeError("PyAV was surprised")

    monkeypatch.setattr("curation.source.probe", crash)
    identity = identify(talk(tmp_path / "a.mp4", 5), LIMITS)
    assert identity.reason == "error:exception" and "PyAV was surprised" in identity.detail
    assert identity.source_id is not None


def test_a_duplicate_is_one_row_that_names_the_original(tmp_path: Path) -> None:
    identity = identify(talk(tmp_path / "a.mp4", 30), LIMITS)
    curated = duplicate(identity, Path("/raw/first.mp4"))
    assert spans(curated) == [(0, 30, "duplicate")]
    assert (curated.source["status"], curated.source["duplicate_of"]) == ("duplicate", "/raw/first.mp4")


def test_the_source_row_carries_the_header(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", Pictures(50, start_s=0.5), [Sound(tone(2.5), codec="aac")])
    row = work(path, tmp_path, Gaze()).source
    assert (row["width"], row["height"], row["fps"], row["video_codec"], row["hdr"]) == (64, 48, 25, "h264", False)
    assert row["start_offset_s"] == pytest.approx(0.5, abs=1e-3)
    assert row["bytes"] == path.stat().st_size


def test_identities_that_failed_have_no_frames() -> None:
    assert Identity(Path("a"), None, None, None, None).frames == 0


def test_a_file_that_changes_while_it_is_curated_is_an_error_row(tmp_path: Path) -> None:
    """Its clips would stand under the hash of other bytes."""

    @dataclass(frozen=True)
    class Replace(Step):
        how: str = ""

        def __call__(self, clip: Clip) -> Iterable[Clip]:
            yield clip
            path, status = clip.source.path, clip.source.path.stat()
            if self.how == "grown":
                with path.open("ab") as file:
                    file.write(b"more")
            elif self.how == "touched":
                os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
            elif self.how == "renamed over":
                other = path.with_suffix(".new")
                other.write_bytes(path.read_bytes())
                os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
                other.replace(path)
            elif self.how == "gone":
                path.unlink()

    for how in ("grown", "touched", "renamed over", "gone"):
        curated = work(talk(tmp_path / f"{how}.mp4", 60), tmp_path / how, Gaze(), Crop(size=64), Replace(how))
        assert spans(curated) == [(0, 60, "error:changed")], how
        assert f"{how}.mp4" in curated.clips[0]["detail"] and curated.sampled == {}
        assert not part_path(tmp_path / how, curated.source["source_id"]).exists()
    untouched = work(talk(tmp_path / "a.mp4", 60), tmp_path / "a", Gaze(), Crop(size=64), Replace())
    assert spans(untouched) == [(0, 60, "kept")]


def test_a_file_that_changes_while_it_is_hashed_is_an_error_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = talk(tmp_path / "a.mp4", 5)

    def slow(given: Path) -> str:
        given.write_bytes(b"other bytes")
        return sha256(given)

    monkeypatch.setattr("curation.source.sha256", slow)
    identity = identify(path, LIMITS)
    assert (identity.source_id, identity.probe, identity.reason) == (None, None, "error:changed")


@pytest.mark.parametrize("name", ["nul\0.mp4", "gone.mp4", "device.mp4", "x" * 300 + ".mp4"])
def test_a_file_that_cannot_be_read_is_a_row_that_names_it(tmp_path: Path, name: str) -> None:
    """A NUL in a list; a file that vanished; one whose bytes give EIO when they are hashed; a name too long."""
    if name == "device.mp4":
        (tmp_path / name).symlink_to("/proc/self/mem")
    curated = work(tmp_path / name, tmp_path, Gaze())
    assert spans(curated) == [(0, 0, "error:io")]
    assert name in curated.clips[0]["detail"]


def test_a_file_whose_reader_died_may_be_gone(tmp_path: Path) -> None:
    assert unread(tmp_path / "gone.mp4", "error:worker_crash", "log") == Identity(
        tmp_path / "gone.mp4", None, None, None, None, "error:worker_crash", "log"
    )
    path = talk(tmp_path / "a.mp4", 5)
    assert unread(path, "error:worker_crash", "log").bytes == path.stat().st_size
