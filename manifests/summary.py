"""The funnel of a run: clips, hours and share by reason, from the first stage to what is kept.

`python -m manifests.summary OUT` prints it. Hours are counted in frames of the 25 fps grid, so that kept + dropped +
error is the input exactly.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from clock import FPS
from manifests.reader import ManifestError, read_clips, read_run_notes
from manifests.schema import FOLDER, KEPT
from storage.atomic_write import atomic_write

FRAMES_PER_HOUR = FPS * 3600


def funnel(clips: pd.DataFrame, stages: Sequence[str] = (), reasons: Sequence[str] = ()) -> pd.DataFrame:
    """One row per stage and reason, in the order of `stages` and `reasons`, kept last.

    Columns: stage, reason, clips, frames, hours, share (of the hours, 0..1). Stages not named (errors) come first.
    """
    counted = clips.assign(
        frames=clips["end_frame"] - clips["start_frame"],
        stage=clips["stage"].astype("str").fillna(""),
        reason=clips["reason"].astype("str"),
    )
    table = counted.groupby(["stage", "reason"]).agg(clips=("frames", "size"), frames=("frames", "sum")).reset_index()
    table["hours"] = table["frames"] / FRAMES_PER_HOUR
    table["share"] = table["frames"] / max(table["frames"].sum(), 1)
    order = [
        (reason == KEPT, _place(stage, stages), _place(reason, reasons), stage, reason)
        for stage, reason in zip(table["stage"], table["reason"], strict=True)
    ]
    return table.iloc[sorted(range(len(order)), key=order.__getitem__)].reset_index(drop=True)


def totals(table: pd.DataFrame) -> dict[str, int]:
    """Frames of a funnel by verdict: kept, dropped (duplicates too), error; input is their sum."""
    error = table["reason"].str.startswith("error:")
    kept = table["reason"] == KEPT
    parts = {"kept": kept, "dropped": ~kept & ~error, "error": error, "input": kept.notna()}
    return {name: sum(table["frames"][rows].tolist()) for name, rows in parts.items()}


def read_funnel(output: Path) -> pd.DataFrame:
    """The funnel of an output folder, in the order of its run's stages. Raises ManifestError."""
    notes = read_run_notes(output)
    clips = read_clips(output, ["start_frame", "end_frame", "stage", "reason"])
    return funnel(clips, notes.stages, list(notes.reasons))


def write_summary(output: Path) -> pd.DataFrame:
    """Write manifests/summary.csv from clips.parquet; gives the funnel."""
    table = read_funnel(output)
    with atomic_write(output / FOLDER / "summary.csv") as file:
        file.write(summary_text(table).encode())
    return table


def summary_text(table: pd.DataFrame) -> str:
    """Return the content of summary.csv for a funnel."""
    return table.to_csv(index=False, lineterminator="\n")


def print_summary(table: pd.DataFrame, console: Console | None = None) -> None:
    """Print a funnel as a table, and the account below it."""
    shown = Table("stage", "reason")
    for name in ("clips", "h:mm:ss", "share"):
        shown.add_column(name, justify="right")
    for row in table.to_dict("records"):
        style = "bold" if row["reason"] == KEPT else None
        cells = (row["stage"], row["reason"], f"{row['clips']:,}", show_time(row["frames"]), f"{row['share']:.1%}")
        shown.add_row(*cells, style=style)
    times = {name: show_time(frames) for name, frames in totals(table).items()}
    console = console or Console()
    console.print(shown)
    console.print("kept {kept} + dropped {dropped} + error {error} = input {input}".format(**times))


def show_time(frames: int) -> str:
    """Frames as h:mm:ss.ss, which is exact (a frame is 0.04 s), so that printed times add up."""
    minutes, left = divmod(frames, 60 * FPS)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{left / FPS:05.2f}"


def _place(name: str, order: Sequence[str]) -> int:
    return order.index(name) if name in order else -1


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m manifests.summary", description="Print the funnel of a run.")
    parser.add_argument("output", type=Path, help="output folder of curation/run.py")
    try:
        print_summary(read_funnel(parser.parse_args(arguments).output))
    except ManifestError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
