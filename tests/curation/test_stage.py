from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from av.video.frame import VideoFrame
from hypothesis import given
from hypothesis import strategies as st

import curation.stage
import pipelines
from curation.clip import TRACK_SCORES, Clip, Source
from curation.filters.niqe import Niqe
from curation.stage import Filter, Scan, Stage, Step, Timer, Watcher, build_stages, collect_meanings, run_stages
from curation.steps.windows import Windows
from curation.verdicts import KEEP, Verdict, drop
from media.errors import MediaError
from media.probe import probe
from tests.clips import clip_of
from tests.videos import Pictures, number_of, truncate, write_video


@dataclass(frozen=True)
class Split(Step):
    """Cuts a clip at these shares of its length; the pieces named in `lost` are dropped."""

    shares: tuple[float, ...] = (0.5,)
    lost: frozenset[int] = frozenset()

    def __call__(self, clip: Clip) -> Iterable[Clip]:
        inner = {clip.start_frame + int(share * len(clip)) for share in self.shares} - {clip.start_frame}
        borders = [clip.start_frame, *sorted(inner), clip.end_frame]
        for k, (start, end) in enumerate(pairwise(borders)):
            part = clip.cut(start, end)
            yield part.drop("short") if k in self.lost else part


@dataclass(frozen=True)
class Longer(Filter):
    """Keeps clips of more than so many frames."""

    frames: int = 10
    score: str = "frames"

    def measure(self, clip: Clip) -> dict[str, float]:
        return {self.score: float(len(clip))}

    def decide(self, scores: Mapping[str, float]) -> Verdict:
        return KEEP if scores[self.score] > self.frames else drop(self.score, f"{scores['duration_s']:.2f} s")


def run(clip: Clip, *stages: Stage, score_only: bool = False) -> list[Clip]:
    return list(run_stages(clip, stages, Timer(), score_only))


shares = st.lists(st.floats(0.01, 0.99), max_size=5).map(tuple)
stage = st.one_of(
    st.builds(Split, shares, st.frozensets(st.integers(0, 5))),
    st.builds(Longer, st.integers(0, 60)),
    st.builds(Windows, st.sampled_from([0.4, 1.0, 20.0])),
)


@given(st.integers(1, 300), st.lists(stage, max_size=5), st.booleans())
def test_rows_partition_the_timeline_whatever_the_stages_do(frames: int, stages: list[Stage], score_only: bool) -> None:
    clips = run(clip_of(frames), *stages, score_only=score_only)
    borders = [(clip.start_frame, clip.end_frame) for clip in clips]
    assert borders[0][0] == 0 and borders[-1][1] == frames
    assert all(left[1] == right[0] for left, right in pairwise(borders))
    assert all(start < end for start, end in borders)


@given(st.integers(1, 300), st.lists(stage, max_size=5))
def test_scoring_everything_changes_no_verdict(frames: int, stages: list[Stage]) -> None:
    def kept(clips: list[Clip]) -> set[tuple[int, int]]:
        return {(clip.start_frame, clip.end_frame) for clip in clips if clip.verdict.keep}

    assert kept(run(clip_of(frames), *stages)) == kept(run(clip_of(frames), *stages, score_only=True))


def test_a_filter_keeps_its_scores_and_names_itself_in_the_verdict() -> None:
    (kept,), (lost,) = run(clip_of(11), Longer()), run(clip_of(10), Longer())
    assert (kept.verdict, kept.scores) == (KEEP, {"frames": 11})
    assert lost.verdict == Verdict(False, "frames", "curation/test_stage", "0.40 s")
    assert lost.scores == {"frames": 10}


def test_dropped_clip_skips_the_stages_left() -> None:
    (clip,) = run(clip_of(10), Longer(), Longer(99, "later"))
    assert clip.scores == {"frames": 10}


def test_first_verdict_stands_when_everything_is_scored() -> None:
    (clip,) = run(clip_of(10), Longer(), Longer(99, "later"), Split(lost=frozenset({9})), score_only=True)[:1]
    assert clip.verdict.reason == "frames" and clip.verdict.detail == "0.40 s"
    assert clip.scores.keys() == {"frames", "later"}


def test_what_a_step_leaves_aside_of_a_clip_dropped_before_is_remembered() -> None:
    lost, scored = run(clip_of(10), Longer(), Split(lost=frozenset({0})), score_only=True)
    assert [clip.verdict.reason for clip in (lost, scored)] == ["frames", "frames"]
    assert [clip.verdict.remainder for clip in (lost, scored)] == ["curation/test_stage:short", ""]


def test_a_remainder_is_not_scored_further() -> None:
    first, second = run(clip_of(100), Split(lost=frozenset({0})), Longer(), score_only=True)
    assert (first.verdict.reason, first.scores, second.scores) == ("short", {}, {"frames": 50})


def test_one_clip_reaches_the_end_before_the_next_is_made() -> None:
    log = []

    @dataclass(frozen=True)
    class Note(Step):
        label: str

        def __call__(self, clip: Clip) -> Iterable[Clip]:
            log.append((self.label, clip.start_frame))
            yield clip

    list(run_stages(clip_of(30), [Windows(0.4), Note("a"), Note("b")], Timer()))
    assert log == [("a", 0), ("b", 0), ("a", 10), ("b", 10), ("a", 20), ("b", 20)]


def test_time_is_counted_where_it_is_spent() -> None:
    @dataclass(frozen=True)
    class Busy(Step):
        turns: int = 0

        def __call__(self, clip: Clip) -> Iterable[Clip]:
            for _ in range(self.turns):
                np.sort(np.random.default_rng(0).random(2000))
            yield clip

    timer = Timer()
    list(run_stages(clip_of(30), [Windows(0.4), Busy(2000)], timer))
    assert set(timer.cpu_s) == {"windows", "test_stage"}
    assert timer.cpu_s["windows"] < 0.2 * max(timer.cpu_s.values())


@dataclass(frozen=True)
class Look(Scan):
    @property
    def look_px(self) -> int:
        return 64

    def watch(self, clip: Clip) -> Watcher:
        return LookWatcher()


@dataclass
class LookWatcher(Watcher):
    seen: list[tuple[int, int, bool]] = field(default_factory=list)

    def see(self, i: int, frame: VideoFrame, picture: np.ndarray, repeated: bool) -> None:
        self.seen.append((i, number_of(picture), repeated))

    def finish(self, clip: Clip) -> Clip:
        earlier = clip.collected.get("looks", np.zeros((0, len(self.seen), 3), int))
        return replace(clip, collected={"looks": np.concatenate([earlier, np.array([self.seen])])})


def filmed(path: Path) -> Clip:
    source = Source("ab" * 32, path, probe(path))
    return Clip(source, 0, source.probe.frames)


def test_neighbouring_scans_share_one_decode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decodes = []

    def counted(*given: Any, **named: Any) -> Any:
        decodes.append(given)
        return reader(*given, **named)

    reader = curation.stage.GridReader
    monkeypatch.setattr(curation.stage, "GridReader", counted)
    clip = filmed(write_video(tmp_path / "a.mp4", Pictures(6, fps=12)))
    (seen,) = run(clip, Look(), Look())
    assert len(decodes) == 1
    looks = seen.collected["looks"]
    np.testing.assert_array_equal(looks[0], looks[1])
    assert looks[0, :, 0].tolist() == list(range(13))
    repeated = np.concatenate([[False], np.diff(looks[0, :, 1]) == 0])
    assert looks[0, :, 2].astype(bool).tolist() == repeated.tolist()
    assert repeated.any()


def test_a_lost_tail_is_a_row_of_its_own(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", Pictures(100, options={"g": "10"}), options={"movflags": "faststart"})
    seen, lost = run(filmed(truncate(path, 0.6)), Look())
    assert (seen.start_frame, lost.start_frame, lost.end_frame) == (0, seen.end_frame, 100)
    assert 40 < len(seen) < 80 and seen.verdict.keep
    assert lost.verdict.reason == "error:decode"
    assert f"{len(lost)} more frames" in lost.verdict.detail


def test_a_header_that_rounds_up_loses_nothing(tmp_path: Path) -> None:
    clip = filmed(write_video(tmp_path / "a.mp4", Pictures(20)))
    (seen,) = run(replace(clip, end_frame=22), Look())
    assert (seen.end_frame, seen.verdict) == (20, KEEP)


def test_a_dropped_source_can_still_be_scanned_for_its_scores(tmp_path: Path) -> None:
    clip = filmed(write_video(tmp_path / "a.mp4", Pictures(5)))
    (seen,) = run(clip, Longer(9), Look(), score_only=True)
    assert seen.verdict.reason == "frames"
    assert len(seen.collected["looks"][0]) == 5


def test_a_source_of_which_no_frame_decodes_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = filmed(write_video(tmp_path / "a.mp4", Pictures(5)))
    monkeypatch.setattr(curation.stage.GridReader, "frames", lambda _: iter(()))
    with pytest.raises(MediaError) as caught:
        run(clip, Look())
    assert caught.value.reason == "error:decode"


def test_stages_are_built_from_the_profile_and_put_on_its_device() -> None:
    profile = pipelines.load("sayanything")
    stages = build_stages(profile.stages, profile.device)
    assert [stage.name for stage in stages] == [name for name, _ in profile.stages]
    devices = {getattr(stage, "device", "cuda") for stage in stages}
    assert devices == {"cuda"}


def test_what_stages_may_write_is_documented() -> None:
    scores, reasons = collect_meanings([Niqe(), Longer()])
    assert scores == {**TRACK_SCORES, **Niqe.SCORES} and reasons == Niqe.REASONS
