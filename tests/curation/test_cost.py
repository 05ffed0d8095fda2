"""What curation costs, counted instead of timed, so that a slow machine does not fail it and a slow change does."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from av.video.frame import VideoFrame

import pipelines
from curation.ledger_files import part_path
from curation.source import Curated, curate, identify
from curation.stage import Stage, build_stages
from curation.steps.faces import Faces
from media import frames
from media.probe import Limits
from models.face_landmarks import FaceLandmarks
from models.whisper_features import OnnxEncoder
from models.yolo_face import OnnxYolo


@pytest.fixture(scope="module")
def stages() -> list[Stage]:
    profile = pipelines.load("embedded")
    return build_stages(profile.stages, profile.device)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many pictures were decoded, and how many each network saw."""
    count: Counter[str] = Counter()
    decoded, scaled = frames.decode, frames.scale_frame

    def counting(*arguments: Any) -> Iterator[VideoFrame]:
        for frame in decoded(*arguments):
            count["decoded"] += 1
            yield frame

    def scaling(*arguments: Any) -> np.ndarray:
        count["scaled"] += 1
        return scaled(*arguments)

    def calls(owner: type, method: str, name: str, each: Callable[[Any], int]) -> None:
        original = getattr(owner, method)

        def counting_call(self: object, given: Any) -> Any:
            count[name] += each(given)
            return original(self, given)

        monkeypatch.setattr(owner, method, counting_call)

    monkeypatch.setattr(frames, "decode", counting)
    monkeypatch.setattr(frames, "scale_frame", scaling)
    calls(OnnxYolo, "_one", "detector", lambda picture: 1)
    calls(FaceLandmarks, "measure", "landmarks", len)
    calls(OnnxEncoder, "__call__", "whisper", lambda window: 1)
    return count


def curated(video: Path, stages: list[Stage], output: Path) -> Curated:
    return curate(identify(video, Limits()), stages, output, Limits(), "")


def test_a_kept_source_is_decoded_once_and_its_face_looked_for_in_every_eighth_frame(
    counted: Counter[str], stages: list[Stage], talkers: Callable[..., Path], tmp_path: Path
) -> None:
    found = curated(talkers("talker_a") / "talker_a.mp4", stages, tmp_path)
    shown, keyframes = found.source["frames"], 3
    kept = sum(clip["end_frame"] - clip["start_frame"] for clip in found.clips if clip["kept"])
    assert kept > 0.9 * shown
    assert counted["decoded"] <= shown + 1
    assert counted["scaled"] <= shown + keyframes
    assert shown / 8 <= counted["detector"] <= shown / 8 + 2 + keyframes
    assert counted["landmarks"] == kept
    assert counted["whisper"] == 1  # window of 30 s


def test_what_there_was_no_room_for_is_decoded_again_to_the_same_bytes(
    counted: Counter[str], stages: list[Stage], talkers: Callable[..., Path], tmp_path: Path
) -> None:
    video, parts = talkers("talker_a") / "talker_a.mp4", []
    for keep_mb in (0, 100, 1024):
        counted.clear()
        some = [replace(stage, keep_mb=keep_mb) if isinstance(stage, Faces) else stage for stage in stages]
        found = curated(video, some, tmp_path / str(keep_mb))
        parts.append(part_path(tmp_path / str(keep_mb), found.source["source_id"]).read_bytes())
        shown = found.source["frames"]
        assert {0: 1.8 * shown, 100: shown + 20}.get(keep_mb, 0) <= counted["decoded"]
        assert counted["decoded"] <= {0: 2.1 * shown, 100: 2 * shown}.get(keep_mb, shown + 1)
    assert parts[0] == parts[1] == parts[2]


@pytest.mark.parametrize("name", ["silence", "no_audio"])
def test_without_speech_no_frame_is_decoded(
    counted: Counter[str], stages: list[Stage], talkers: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    found = curated(talkers(name) / f"{name}.mp4", stages, tmp_path)
    assert found.source["status"] == "dropped"
    assert not counted


def test_without_a_large_face_only_keyframes_are_decoded(
    counted: Counter[str], stages: list[Stage], talkers: Callable[..., Path], tmp_path: Path
) -> None:
    found = curated(talkers("small_face") / "small_face.mp4", stages, tmp_path)
    assert (found.source["reason"], found.clips[0]["stage"]) == ("face_size", "filters/keyframe_face_size")
    assert counted["decoded"] == 0
    assert counted["detector"] == counted["scaled"] <= found.source["frames"] / 50 + 1
