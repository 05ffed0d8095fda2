"""A progress bar that also says how fast: source-hours per hour, and the time left."""

from types import TracebackType
from typing import Self

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


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
