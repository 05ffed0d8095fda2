"""Verdicts from numbers: `judge` makes every one of them, for the live run and for refilter."""

import math
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from manifests.schema import KEPT

SIGNS = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt}


@dataclass(frozen=True)
class Verdict:
    """What became of a clip: `reason` is `kept` or a documented reason such as `syncnet:offset`.

    `remainder` is set for a clip that was dropped before and only scored, where a step then left it aside; it holds the
    step and its reason, such as `steps/stable_spans:short`.
    """

    keep: bool
    reason: str
    stage: str = ""
    detail: str = ""
    remainder: str = ""

    def columns(self) -> dict[str, Any]:
        """The columns of clips.parquet that hold a verdict; None for text that is empty."""
        texts = {"stage": self.stage, "detail": self.detail, "remainder": self.remainder}
        return {"kept": self.keep, "reason": self.reason, **{name: text or None for name, text in texts.items()}}


KEEP = Verdict(True, KEPT)


def drop(reason: str, detail: str = "") -> Verdict:
    """Return a verdict that drops a clip for this reason."""
    return Verdict(False, reason, detail=detail)


@dataclass(frozen=True)
class Limit:
    """One comparison of a filter's rule: a clip whose `score` does not hold it is dropped for `reason`."""

    score: str  # a column of the filter's SCORES; `|score|` where only its size counts
    sign: Literal[">=", ">", "<=", "<"]
    setting: str  # a setting of the filter, or another of its scores
    reason: str
    optional: bool = False  # whether a clip without this number (NaN) passes

    @property
    def column(self) -> str:
        """The score's name without the bars of `|score|`."""
        return self.score.strip("|")

    def holds(self, settings: object, scores: Mapping[str, float]) -> bool:
        """Whether a clip with these scores is inside the limit, by a filter with these settings."""
        value = scores[self.column]
        value = abs(value) if self.score != self.column else value
        bound = getattr(settings, self.setting) if hasattr(settings, self.setting) else scores[self.setting]
        if self.optional and (math.isnan(value) or math.isnan(bound)):
            return True
        return SIGNS[self.sign](value, bound)


class Rule(Protocol):
    """What `judge` needs of a filter: its name, and its own decision."""

    @property
    def name(self) -> str: ...

    def decide(self, scores: Mapping[str, float], /) -> Verdict: ...


def judge(scores: Mapping[str, Any], filters: Iterable[Rule]) -> Verdict:
    """Return the verdict of the first filter that drops a clip with these scores, else KEEP.

    `scores` also holds the clip's `duration_s`. Filters behind the one that drops are not taken from `filters`.
    """
    for each in filters:
        verdict = each.decide(scores)
        if not verdict.keep:
            return replace(verdict, stage=each.name)
    return KEEP
