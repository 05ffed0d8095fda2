"""A progress bar with its speed in source-hours per hour and the time left; and text that a terminal may get."""

import sys
from contextlib import suppress
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def printable(text: str) -> str:
    """Text in which what would steer a terminal (escape sequences, bells, bidirectional marks) is spelled out."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape", "replace").decode() for c in text)


def accept_every_name() -> None:
    """Let the terminal spell out characters that it cannot show, in place of an exception in the middle of a run."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):  # a stream that a test or an embedding program has put in their place
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


class Bar:
    """A progress bar over sources, as a `with` block; it moves by seconds of video if `seconds` is given."""

    def __init__(self, title: str, sources: int, seconds: float | None = None) -> None:
        self.sources, self.count, self.by_time = sources, 0, seconds is not None
        told, speed = TextColumn("{task.fields[told]}"), TextColumn("{task.fields[speed]}")
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(), told, speed, TimeElapsedColumn(), TimeRemainingColumn()
        )
        total = sources if seconds is None else seconds
        self.task = self.bar.add_task(title, total=total or 1e-9, told=f"0/{sources} sources", speed="")

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.bar.stop()

    def advance(self, seconds: float = 0.0) -> None:
        """Count one source of so many seconds."""
        self.count += 1
        self.bar.update(self.task, advance=seconds if self.by_time else 1, told=f"{self.count}/{self.sources} sources")
        task = self.bar.tasks[0]
        if self.by_time and task.elapsed:
            self.bar.update(self.task, speed=f"{task.completed / task.elapsed:.1f} source-hours/hour")

    def print(self, line: str) -> None:
        """Print a line above the bar."""
        self.bar.console.print(line, markup=False, highlight=False)
