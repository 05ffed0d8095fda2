"""Whether listening still rises: what a person would stop a training for, or look into.

A validation counts as risen if its mean lies more than its standard error above the last one that did. All validations
measure the same windows with the same noise, so that between two of them the mean moves less than its error says: one
error is enough, and slow progress adds up to it.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from training.curve import LISTENING, points
from training.listening import Estimate, Heard


@dataclass
class Plateau:
    """Since when listening has not risen. `step` and `mean` are of the validation at which it last did."""

    step: int | None = None
    mean: float = 0.0

    @classmethod
    def of(cls, curve: Iterable[tuple[int, Estimate]]) -> Self:
        """What `add` finds over a curve."""
        found = cls()
        for step, estimate in curve:
            found.add(step, estimate)
        return found

    def add(self, step: int, estimate: Estimate) -> None:
        """Take a validation into account."""
        if self.step is None or estimate.mean > self.mean + estimate.error:
            self.step, self.mean = step, estimate.mean

    def flat_steps(self, now: int) -> int:
        """How many steps ago listening last rose; 0 if it was never measured."""
        return 0 if self.step is None else now - self.step


def read_curve(run: Path, until: int) -> list[tuple[int, Estimate]]:
    """The listening of each validation in RUN/train.log up to a step; empty if there is no log."""
    file = run / "train.log"
    if not file.is_file():
        return []
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    (steps, means), (_, errors) = points(lines, LISTENING), points(lines, f"{LISTENING}_se")
    return [(s, Estimate(m, e)) for s, m, e in zip(steps, means, errors, strict=True) if s <= until]


def rings(flat: int, before: int, every: int) -> bool:
    """Whether `every` steps without a rise were completed since the validation before; `every` 0: never."""
    return every > 0 and flat // every > before // every and flat > before


def flat_warning(run: Path, step: int, flat: int, heard: Heard) -> str:
    """The warning that listening does not rise any more, with what to look at."""
    share = heard.share
    reached = f"{heard.listening.mean:.5f}, standard error {heard.listening.error:.5f}"
    of_attainable = f", {share.mean:.1%} of what is attainable" if share else ""
    return (
        f"listening: did not rise in {flat} steps (at step {step}: {reached}{of_attainable}). Look at "
        f"{run / 'curve.png'}: if validation/loss rises while loss falls, the data are too few (more --data, "
        "data.flip); if both are flat, lower optimizer.learning_rate (--init goes on from here) or stop; if both "
        "fall, the steps go to what tells no lips (noise.P_mean, loss.outside). "
        f"{run / 'validation'} shows whether the lips move enough already"
    )
