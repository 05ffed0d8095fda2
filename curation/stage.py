"""What a stage is, how a profile's list becomes stages, and how a clip runs through them.

A stage is a frozen dataclass in a file of its own: the fields are its settings. `filters/niqe` in `pipelines.yaml`
is `curation/filters/niqe.py`. Three kinds exist: a Step turns a clip into some clips, a Filter measures and decides,
a Scan is a Step that looks at every scaled frame; neighbouring Scans share one decode.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self

import numpy as np
from av.video.frame import VideoFrame

from curation.clip import TRACK_SCORES, Clip
from curation.verdicts import KEEP, Limit, Verdict, drop, judge
from media.errors import MediaError
from media.frames import GridReader, scale_frame
from pipelines import stage_class

# What stages need, give or end, in the words of the message about a wrong order.
WHOLE_SOURCE = "the whole source"
UNCROPPED = "a clip without crops"
FREE_SOUND = "sound that can still be shifted"
VOICE = "voice activity"
TRACK = "a face track"
STEADY_TRACK = "a face track without gaps"
CROPS = "face crops"
LANDMARKS = "face landmarks"
WHISPER_ROWS = "Whisper features"
SYNC_OFFSET = "the offset of lips and sound"


@dataclass(frozen=True)
class Stage:
    """What all kinds have in common.

    SCORES and REASONS document what a stage may write into the manifest; reasons that name no network (`short`,
    `no_face`, ...) stand in `manifests/schema.py`. NEEDS, GIVES and ENDS list what a clip must have before the stage,
    what it has after it, and what it has no more: `pipelines.load` refuses a profile in which the order is wrong.
    """

    SCORES: ClassVar[Mapping[str, str]] = {}
    REASONS: ClassVar[Mapping[str, str]] = {}
    NEEDS: ClassVar[tuple[str, ...]] = ()
    AT_START: ClassVar[frozenset[str]] = frozenset({WHOLE_SOURCE, UNCROPPED, FREE_SOUND})  # what nobody gives
    GIVES: ClassVar[tuple[str, ...]] = ()
    ENDS: ClassVar[tuple[str, ...]] = ()

    @property
    def name(self) -> str:
        """`filters/niqe` for a class in `curation/filters/niqe.py`."""
        return "/".join(type(self).__module__.split(".")[-2:])

    @classmethod
    def deciding_settings(cls) -> frozenset[str]:
        """The settings that change verdicts and nothing that is measured: none, but for filters."""
        return frozenset()

    def __call__(self, clip: Clip) -> Iterable[Clip]:
        """Yield the clips that this one becomes; together they cover it, so what is not kept is yielded as dropped."""
        raise NotImplementedError

    def load(self) -> None:
        """Load the stage's network now; otherwise it is loaded when it is first used."""
        getattr(self, "model", None)

    def on(self, device: str) -> Self:
        """Return the stage with its network on `device`; itself if it has no network that can be moved."""
        has_device = any(field.name == "device" for field in fields(self))
        return replace(self, device=device) if has_device else self


@dataclass(frozen=True)
class Step(Stage):
    """Turns a clip into some clips, or attaches something to it."""


@dataclass(frozen=True)
class Filter(Stage):
    """A stage that measures a clip and then decides on the numbers alone: by the first of LIMITS that it breaks.

    A filter whose rule is more than that overrides `decide`, and names in RULE_SETTINGS the settings that only `decide`
    reads beside those in LIMITS. With another value of such a setting everything that was measured stays true, so a
    finished run can be judged anew without a network.
    """

    LIMITS: ClassVar[tuple[Limit, ...]] = ()
    RULE_SETTINGS: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def deciding_settings(cls) -> frozenset[str]:
        names = {field.name for field in fields(cls)}
        return frozenset(names & {limit.setting for limit in cls.LIMITS} | set(cls.RULE_SETTINGS))

    def measure(self, clip: Clip) -> dict[str, float]:
        """Return the numbers that the rule compares; keys as in SCORES."""
        raise NotImplementedError

    def broken_limits(self, scores: Mapping[str, float]) -> list[Limit]:
        """Return the limits that a clip with these scores breaks, in the order of LIMITS."""
        return [limit for limit in self.LIMITS if not limit.holds(self, scores)]

    def decide(self, scores: Mapping[str, float]) -> Verdict:
        """Return the verdict on a clip with these scores and this `duration_s`."""
        broken = self.broken_limits(scores)
        return drop(broken[0].reason) if broken else KEEP

    def shift_frames(self, scores: Mapping[str, float]) -> int:
        """Return by how many frames a kept clip's sound is moved when it is packed, at most the margin of its part."""
        return 0

    def __call__(self, clip: Clip) -> Iterable[Clip]:
        clip = clip.add_scores(self.measure(clip))
        verdict = judge(clip.numbers(), [self])
        yield clip if verdict.keep else replace(clip, verdict=verdict)


@dataclass(frozen=True)
class Scan(Step):
    """A step over the scaled frames of a whole source."""

    NEEDS = (WHOLE_SOURCE,)

    @property
    def look_px(self) -> int:
        """Pixels that it needs on the longer side of a frame; scans that share a decode get the largest of these."""
        raise NotImplementedError

    def watch(self, clip: Clip) -> "Watcher":
        """Return an object that is given the frames of this clip one at a time."""
        raise NotImplementedError

    def __call__(self, clip: Clip) -> Iterable[Clip]:
        return scan_together(clip, [self])


class Watcher:
    def see(self, i: int, frame: VideoFrame, picture: np.ndarray, repeated: bool) -> None:
        """Take grid frame i, decoded and scaled ([h, w, 3] uint8 RGB); `repeated` if it is the one before once more."""
        raise NotImplementedError

    def finish(self, clip: Clip) -> Clip:
        """Return the clip with what was collected; by now its end is the last frame that could be decoded."""
        raise NotImplementedError


def build_stages(stages: Iterable[tuple[str, Mapping[str, Any]]], device: str = "cpu") -> list[Stage]:
    """Return the stages of (name, settings) pairs that `pipelines` has checked, with their networks on `device`."""
    return [stage_class(name)(**settings).on(device) for name, settings in stages]


def filters_of(stages: Iterable[Stage]) -> list[Filter]:
    """Return those of the stages that judge, in order."""
    return [stage for stage in stages if isinstance(stage, Filter)]


def collect_meanings(stages: Iterable[Stage]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the scores and the reasons that these stages may write, name -> meaning."""
    scores: dict[str, str] = dict(TRACK_SCORES)
    reasons: dict[str, str] = {}
    for stage in stages:
        scores |= stage.SCORES
        reasons |= stage.REASONS
    return scores, reasons


class Timer:
    """CPU seconds of this process by stage, without the time that a stage waits for the ones behind it."""

    def __init__(self) -> None:
        self.cpu_s: dict[str, float] = {}

    def run(self, name: str, clips: Callable[[], Iterable[Clip]]) -> Iterator[Clip]:
        began = time.process_time()
        iterator = iter(clips())
        while True:
            clip = next(iterator, None)
            self.cpu_s[name] = self.cpu_s.get(name, 0.0) + time.process_time() - began
            if clip is None:
                return
            yield clip
            began = time.process_time()


def run_stages(clip: Clip, stages: Sequence[Stage], timer: Timer, score_only: bool = False) -> Iterator[Clip]:
    """Yield every clip that the stages make of this one, dropped ones included, in order of time.

    Depth first: one clip reaches the end before the next is cut out, so that memory holds the frames of one clip.
    A dropped clip skips the stages left, unless `score_only` asks for every number that can be measured; its verdict
    is then that of the first stage that dropped it.
    """
    if not stages:
        yield clip
        return
    together = leading_scans(stages)
    stage, rest = stages[0], stages[max(1, len(together)) :]
    made = (lambda: scan_together(clip, together)) if together else (lambda: stage(clip))
    name = "_".join(each.name.split("/")[1] for each in (together or [stage]))
    for out in timer.run(name, made):
        decided_here = not out.verdict.keep and out.verdict is not clip.verdict
        remainder = decided_here and isinstance(stage, Step)
        if not clip.verdict.keep:  # only when scoring: the first verdict stands
            why = f"{stage.name}:{out.verdict.reason}" if remainder else ""
            out = replace(out, verdict=replace(clip.verdict, remainder=why))
        elif decided_here:
            out = replace(out, verdict=replace(out.verdict, stage=stage.name))
        if out.verdict.keep or (score_only and not remainder):
            yield from run_stages(out, rest, timer, score_only)
        else:
            yield out


def leading_scans(stages: Sequence[Stage]) -> list[Scan]:
    """Return the scans at the head of the list, which share a decode."""
    scans = []
    for stage in stages:
        if not isinstance(stage, Scan):
            break
        scans.append(stage)
    return scans


def scan_together(clip: Clip, scans: Sequence[Scan]) -> Iterable[Clip]:
    """Run several scans over a source or a segment with one decode; what ends early leaves a dropped remainder."""
    source, watchers, end = clip.source, [step.watch(clip) for step in scans], 0
    look_px, last, picture = max(step.look_px for step in scans), None, np.empty(0)
    part = (clip.start_frame, clip.end_frame) if source.segment else ()
    with closing(GridReader(source.path, source.probe, source.limits)) as reader:
        for i, frame in reader.frames(*part):
            repeated = frame is last
            picture = picture if repeated else scale_frame(frame, source.probe, look_px)
            for watcher in watchers:
                watcher.see(i, frame, picture, repeated)
            last, end = frame, i + 1
    if last is None and source.segment:
        yield clip.drop("error:decode", "no frame of this segment can be decoded")
        return
    if last is None:
        raise MediaError("error:decode", f"{source.path}: no frame of the video stream can be decoded")
    seen = replace(clip, end_frame=end)
    for watcher in watchers:
        seen = watcher.finish(seen)
    yield seen
    missing = clip.end_frame - end
    if missing > (0 if source.segment else END_TOLERANCE_FRAMES):
        rest = replace(clip, start_frame=end)
        yield rest.drop("error:decode", f"the file promises {missing} more frames than can be decoded")


END_TOLERANCE_FRAMES = 2  # headers round durations up
