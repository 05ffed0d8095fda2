"""Verdicts follow from numbers: limits, their filters, and the judge over several of them."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import pipelines
import weights
from curation.clip import Clip, Source
from curation.stage import Filter
from curation.verdicts import KEEP, Limit, Verdict, drop, judge
from manifests.schema import REASONS
from media.probe import probe
from models.lip_probe import COMPONENTS, REGRESSORS, LipProbe
from models.mouth import CHANNELS, MOTIONS
from models.sync import SyncModel
from tests.clips import clip_of, track_of
from tests.videos import Pictures, tone, write_video

NAN = float("nan")
FILTERS = [name for name in pipelines.stage_names() if name.startswith("filters/")]


@dataclass(frozen=True)
class Bright(Filter):
    min_light: float = 5.0

    LIMITS = (Limit("light", ">=", "min_light", "dark"), Limit("|tilt|", "<", "max_tilt", "tilted", optional=True))


@pytest.mark.parametrize(
    ("light", "tilt", "max_tilt", "verdict"),
    [
        (5.0, 2.9, 3.0, KEEP),
        (5.0, -2.9, 3.0, KEEP),
        (4.99, 9.0, 3.0, drop("dark")),  # the first limit gives the reason
        (5.0, -3.0, 3.0, drop("tilted")),
        (NAN, 0.0, 3.0, drop("dark")),  # what was not measured is not bright
        (5.0, NAN, 3.0, KEEP),  # unless the limit is optional
        (5.0, 9.0, NAN, KEEP),
    ],
)
def test_a_clip_is_dropped_for_the_first_limit_that_it_breaks(
    light: float, tilt: float, max_tilt: float, verdict: Verdict
) -> None:
    assert Bright().decide({"light": light, "tilt": tilt, "max_tilt": max_tilt}) == verdict


def test_settings_in_limits_are_those_that_can_be_moved_without_measuring() -> None:
    assert Bright.deciding_settings() == {"min_light"}


def test_the_first_filter_that_drops_gives_the_verdict_and_those_behind_it_are_not_asked() -> None:
    def filters() -> Any:
        yield Bright(min_light=1.0)
        yield Bright(min_light=9.0)
        raise ValueError("asked")

    scores = {"light": 5.0, "tilt": 0.0, "max_tilt": 3.0}
    assert judge(scores, filters()) == Verdict(False, "dark", stage="curation/test_verdicts")
    assert judge(scores, [Bright()]) == KEEP


def test_the_columns_of_a_verdict_have_no_empty_text() -> None:
    nothing = {"stage": None, "detail": None, "remainder": None}
    assert KEEP.columns() == {"kept": True, "reason": "kept", **nothing}
    dropped = Verdict(False, "short", "steps/windows", "0.2 s", "steps/crop:no_face")
    assert tuple(dropped.columns().values()) == (False, "short", "steps/windows", "0.2 s", "steps/crop:no_face")


@pytest.mark.parametrize("name", FILTERS)
def test_limits_name_scores_settings_and_reasons_that_exist(name: str) -> None:
    stage = pipelines.stage_class(name)
    settings = {field.name for field in fields(stage)}
    for limit in stage.LIMITS:
        assert limit.column in stage.SCORES
        assert limit.setting in settings | stage.SCORES.keys()
        assert limit.reason in REASONS | stage.REASONS
    assert stage.LIMITS and set(stage.RULE_SETTINGS) <= settings


class Fake:
    """Stands for any network: one number a picture, a face of 10 pixels, no offset."""

    confidence, offset_frames, min_distance = 5.0, 0, 7.0

    def score(self, images: np.ndarray) -> np.ndarray:
        return np.zeros(len(images))

    def detect(self, pictures: list[np.ndarray]) -> list[np.ndarray]:
        return [np.array([[5, 5, 15, 15, 0.9]], np.float32) for _ in pictures]

    def measure(self, *_: np.ndarray) -> "Fake":
        return self


@pytest.fixture
def measurable(tmp_path: Path) -> Clip:
    """A clip with all that filters measure by."""
    path = write_video(tmp_path / "a.mp4", Pictures(50))
    clip = clip_of(50, tone(2, rate=16000)[0], voice=np.full(62, 0.9, np.float32), track=track_of([True] * 50))
    source = Source("ab" * 32, path, probe(path))
    source.__dict__["audio"] = clip.source.audio
    pictures = np.random.default_rng(0).integers(0, 255, (50, 64, 64, 3)).astype(np.uint8)
    boxes = np.tile(np.array([8, 8, 56, 56], np.float32), (50, 1))
    random = np.random.default_rng(0)
    mesh: Any = SimpleNamespace(
        points=random.random((50, 478, 3)), blendshapes=np.zeros((50, 52)), has_face=np.ones(50, bool)
    )
    whisper = random.normal(size=(100, 5, 384)).astype(np.float16)
    seen = Clip(source, 0, 50, voice=clip.voice, track=clip.track, frames=pictures, crop_boxes=boxes, mesh=mesh)
    return replace(seen, whisper=whisper, collected={"mouth": random.normal(size=(50, CHANNELS))})


def network_of(name: str) -> Any:
    """What a filter measures with, without a file."""
    if name == "filters/sync":
        return SyncModel.load(weights.require("sync_small")["sync_small"])
    if name != "filters/lip_audio":
        return Fake()
    random = np.random.default_rng(1)
    arrays = (random.normal(size=shape) for shape in ((384, COMPONENTS), (REGRESSORS, MOTIONS), (MOTIONS,), (5,)))
    return LipProbe(*(array.astype(np.float32) for array in arrays), clips=0, sources=0, voters=0)


@pytest.mark.parametrize("name", FILTERS)
def test_measuring_reads_no_setting_that_can_be_moved_afterwards(name: str, measurable: Clip) -> None:
    """`refilter` trusts the numbers of a run that had other values of these settings."""

    def refuse(_: Any) -> None:
        raise AssertionError("read while measuring")

    stage = pipelines.stage_class(name)()
    network = stage.__dict__["model"] = network_of(name)
    expected = stage.measure(measurable)
    names = stage.deciding_settings()
    guarded = type(stage)(**{field.name: getattr(stage, field.name) for field in fields(stage)})
    guarded.__dict__["model"] = network
    object.__setattr__(
        guarded, "__class__", type("Guarded", (type(stage),), {each: property(refuse) for each in names})
    )
    assert names and repr(guarded.measure(measurable)) == repr(expected)  # NaN is unlike itself
    assert expected.keys() == stage.SCORES.keys()
