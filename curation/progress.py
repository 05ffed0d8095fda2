"""A progress bar, and the line a minute that stands for it in a log; and text that a terminal may get."""

import logging
import sys
import time
from collections.abc import Callable
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
    """A progress bar over sources, as a `with` block; with `total` it moves by bytes instead."""

    def __init__(self, title: str, sources: int, total: float | None = None) -> None:
        self.sources, self.count, self.by_bytes = sources, 0, total is not None
        shown, speed = TextColumn("{task.fields[shown]}"), TextColumn("{task.fields[speed]}")
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(), shown, speed, TimeElapsedColumn(), TimeRemainingColumn()
        )
        total = sources if total is None else total
        self.task = self.bar.add_task(title, total=total or 1e-9, shown=f"0/{sources} sources", speed="")

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.bar.stop()

    def advance(self, count: float = 0.0, speed: str = "") -> None:
        """Count one source of so many bytes."""
        self.count += 1
        shown = f"{self.count}/{self.sources} sources"
        self.bar.update(self.task, advance=count if self.by_bytes else 1, shown=shown, speed=speed)

    @property
    def elapsed_s(self) -> float:
        return self.bar.tasks[0].elapsed or 0.0

    @property
    def share_done(self) -> float:
        return self.bar.tasks[0].percentage / 100

    def print(self, line: str) -> None:
        """Print a line above the bar; plainly where no bar is seen."""
        if self.bar.console.is_terminal:
            self.bar.console.print(line, markup=False, highlight=False)
        else:
            print(line)


class Minutes:
    """Writes a line into the run's log once a minute, and prints it where no bar is seen: in the log of a job."""

    def __init__(self, describe: Callable[[], str], every_s: float = 60.0) -> None:
        self.describe, self.every_s, self.last = describe, every_s, time.monotonic()

    def tick(self) -> None:
        """Write the line if it is time."""
        if time.monotonic() - self.last < self.every_s:
            return
        self.last = time.monotonic()
        text = self.describe()
        logging.getLogger("curation").info("%s", text)
        if not sys.stdout.isatty():
            print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", flush=True)
