"""One video of a run: what became of each of its seconds, by which stage, which number against which threshold.

    python -m curation.review.explain OUT VIDEO [--to FILE.html | FILE.png]

VIDEO is a path, or enough of one to name a single source. Prints a timeline and a table; `--to` writes them as a page
or as a picture, with thumbnails from the video if it is still there.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from rich.text import Text

from clock import FPS
from command import parser_of
from curation.limits import Threshold, limits_of, nearest_limits, read_recipe, stages_of
from curation.review.page import data_uri, environment
from curation.review.pictures import thumbnail
from manifests.reader import ManifestError, read_clips, read_run_notes, read_sources
from manifests.schema import KEPT
from manifests.summary import show_time
from storage.atomic_write import atomic_write
from storage.table import TableError

THUMBNAILS = 16
STRIP_IN = 12  # inches of a picture's timeline
KEPT_COLOUR = "#2a9d8f"
COLOURS = ("#e76f51", "#f4a261", "#8ab17d", "#e9c46a", "#7b6d8d", "#287271", "#b56576", "#9aa5b1")
SUFFIXES = (".html", ".png")
NOT = {">=": "<", "<=": ">", ">": "<=", "<": ">="}

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Comparison:
    """One number of a clip against its threshold."""

    limit: Threshold
    value: float
    bound: float
    headroom: float
    here: bool  # whether the stage that decided over the clip made it

    @property
    def holds(self) -> bool:
        return self.headroom > 0 or (self.headroom == 0 and self.limit.sign.endswith("="))

    def __str__(self) -> str:
        sign = self.limit.sign if self.holds else NOT[self.limit.sign]
        return f"{self.limit.score} {self.value:.4g} {sign} {self.bound:.4g}"


@dataclass(frozen=True)
class Span:
    """A row of the source with every number that was measured, in the order of the stages."""

    row: Row
    colour: str
    meaning: str
    compared: list[Comparison]
    settings: str  # of the step that cut it off, else empty
    nearest: Comparison | None

    @property
    def deciding_number(self) -> str:
        """The number that dropped the clip; of a kept clip the one nearest to its limit."""
        if self.row["kept"]:
            return f"nearest: {self.nearest}, {self.nearest.headroom:.0%} to spare" if self.nearest else ""
        return "; ".join(str(each) for each in self.compared if each.here and not each.holds) or self.settings


@dataclass(frozen=True)
class Explained:
    """A source and all its spans, which cover it."""

    source: Row
    spans: list[Span]

    @property
    def frames(self) -> int:
        return max((span.row["end_frame"] for span in self.spans), default=0)


def explain(output: Path, video: str) -> Explained:
    """Return a source and its spans. Raises ManifestError if the run has no such source, or several."""
    recipe, notes, sources = read_recipe(output), read_run_notes(output), read_sources(output)
    path = find_source(video, sources["path"].tolist())
    clips: Any = read_clips(output)
    clips = clips[clips["source"] == path].reset_index(drop=True)
    stages = stages_of(recipe)
    limits = limits_of(stages, clips)
    places = nearest_limits(clips, stages)["limit"].tolist()
    numbers: Any = [(limit, limit.values(clips), limit.bounds(clips), limit.headroom(clips)) for limit in limits]
    settings = {name: given for stage in recipe["profile"]["stages"] for name, given in stage.items()}
    palette = choose_colours([str(reason) for reason in clips["reason"]])
    spans = []
    for k, row in enumerate(clips.to_dict("records")):
        compared = [
            Comparison(limit, values[k], bounds[k], rooms[k], limit.stage == row["stage"])
            for limit, values, bounds, rooms in numbers
            if not math.isnan(rooms[k])
        ]
        nearest = limits[places[k]] if places[k] >= 0 else None
        spans.append(
            Span(
                row,
                palette[row["reason"]],
                notes.reasons.get(row["reason"], ""),
                compared,
                step_settings(row["stage"], settings),
                next((each for each in compared if each.limit is nearest), None),
            )
        )
    found: Any = sources[sources["path"] == path].iloc[0].to_dict()
    return Explained(found, spans)


def find_source(video: str, paths: Sequence[str]) -> str:
    """The one source with this path, this end of a path, or these letters in it."""
    absolute = str(Path(video).absolute())
    for matches in (
        [path for path in paths if path in (video, absolute)],
        [path for path in paths if path.endswith(f"/{video}")],
        [path for path in paths if video in path],
    ):
        if len(matches) == 1:
            return matches[0]
        if matches:
            shown = "\n  ".join(matches[:5])
            raise ManifestError(f"{video}: {len(matches)} sources are called so; give more of the path:\n  {shown}")
    raise ManifestError(f"{video}: no source of this run has that in its path")


def step_settings(stage: Any, settings: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the settings of the step that dropped a row, from the recipe; empty for a filter."""
    if not (isinstance(stage, str) and stage.startswith("steps/")):
        return ""
    return ", ".join(f"{name} {value}" for name, value in settings.get(stage, {}).items())


def choose_colours(reasons: Sequence[str]) -> dict[str, str]:
    """A colour for each reason; kept is always the same."""
    others = sorted(set(reasons) - {KEPT})
    return {KEPT: KEPT_COLOUR} | {reason: COLOURS[k % len(COLOURS)] for k, reason in enumerate(others)}


def print_explained(found: Explained, console: Console) -> None:
    """The timeline as a line of colours, then a row for each span."""
    console.print(Text(heading(found), style="bold"))
    if found.frames:
        console.print(timeline(found, min(100, console.width)))
    table = Table()
    for title in ("from", "to", "verdict", "stage", "number against threshold"):
        table.add_column(title, overflow="fold")
    for span in found.spans:
        row = span.row
        verdict = Text("■ ", style=span.colour).append(str(row["reason"]), style="default")
        stage = row["stage"] if isinstance(row["stage"], str) else ""
        detail = row["detail"] if isinstance(row["detail"], str) else ""
        table.add_row(
            clock(row["start_s"]),
            clock(row["end_s"]),
            verdict,
            stage,
            Text(span.deciding_number or detail or span.meaning),
        )
    console.print(table)


def heading(found: Explained) -> str:
    kept = sum(span.row["end_frame"] - span.row["start_frame"] for span in found.spans if span.row["kept"])
    return f"{found.source['path']}\n{show_time(kept)} of {show_time(found.frames)} kept"


def timeline(found: Explained, width: int) -> Text:
    """One character for each equal part of the source: the span in its middle, full if it is kept."""
    text = Text()
    for column in range(width):
        frame = (column + 0.5) * found.frames / width
        span = next(span for span in found.spans if frame < span.row["end_frame"])
        text.append("█" if span.row["kept"] else "░", style=span.colour)
    return text


def clock(seconds: float) -> str:
    return show_time(round(seconds * FPS))


def thumbnails(found: Explained, count: int = THUMBNAILS) -> list[tuple[float, np.ndarray]]:
    """(second, picture) evenly spread over the source; none if it is gone or could not be read."""
    if not found.frames or found.source["status"] == "error":
        return []
    frames = ((np.arange(count) + 0.5) * found.frames / count).astype(int).tolist()
    pictures = [(frame / FPS, thumbnail(found.spans[0].row, frame)) for frame in frames]
    return [(second, picture) for second, picture in pictures if picture is not None]


def write_page(found: Explained, path: Path) -> None:
    """The explanation as one HTML file."""
    pictures = [
        {"second": second, "picture": data_uri(cv2.imencode(".webp", picture[:, :, ::-1])[1].tobytes(), "image/webp")}
        for second, picture in thumbnails(found)
    ]
    page = environment().get_template("explain.html.j2").render(
        heading=heading(found), name=Path(found.source["path"]).name, found=found, pictures=pictures, clock=clock
    )  # fmt: skip
    with atomic_write(path) as file:
        file.write(page.encode("utf-8", "replace"))


def write_picture(found: Explained, path: Path) -> None:
    """The explanation as PNG: thumbnails, the timeline, and every number over time with its threshold."""
    limits = list({id(each.limit): each.limit for span in found.spans for each in span.compared}.values())
    pictures = thumbnails(found)
    strip = [STRIP_IN * pictures[0][1].shape[0] / (pictures[0][1].shape[1] * len(pictures))] if pictures else []
    heights = [*strip, 0.4, *([0.6] * len(limits))]
    figure = Figure(figsize=(STRIP_IN + 2, 1.3 * sum(heights) + 1.5), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(np.atleast_1d(figure.subplots(len(heights), 1, height_ratios=heights)))
    figure.suptitle(heading(found), fontsize=10)
    if pictures:
        draw_thumbnails(axes.pop(0), pictures)
    draw_timeline(axes[0], found)
    for limit, panel in zip(limits, axes[1:], strict=True):
        draw_limit(panel, found, limit)
    for panel in axes:
        panel.set_xlim(0, max(found.frames / FPS, 1 / FPS))
        panel.tick_params(labelbottom=panel is axes[-1])
    axes[-1].set_xlabel("s")
    with atomic_write(path) as file:
        figure.savefig(file, format="png", metadata={"Software": None})


def draw_thumbnails(panel: Axes, pictures: Sequence[tuple[float, np.ndarray]]) -> None:
    panel.imshow(np.concatenate([picture for _, picture in pictures], axis=1), aspect="auto")
    width = pictures[0][1].shape[1]
    panel.set_xticks([(k + 0.5) * width for k in range(len(pictures))], [f"{second:.1f}" for second, _ in pictures])
    panel.set_yticks([])


def draw_timeline(panel: Axes, found: Explained) -> None:
    for span in found.spans:
        start, length = span.row["start_s"], span.row["duration_s"]
        panel.barh(0, length, left=start, color=span.colour, edgecolor="white")
        if length * FPS > found.frames / 12:
            panel.text(start + length / 2, 0, str(span.row["reason"]), ha="center", va="center", fontsize=8)
    panel.set_yticks([])


def draw_limit(panel: Axes, found: Explained, limit: Threshold) -> None:
    """A score as a step over the spans, red where it is beyond its threshold, which is dashed."""
    for span in found.spans:
        for each in span.compared:
            if each.limit is limit:
                ends = [span.row["start_s"], span.row["end_s"]]
                panel.plot(ends, [each.value] * 2, color=KEPT_COLOUR if each.holds else COLOURS[0], linewidth=3)
                panel.plot(ends, [each.bound] * 2, color="black", linestyle="--", linewidth=1)
    panel.set_ylabel(f"{limit.score}\n{limit.sign} {limit.bound}", fontsize=7, rotation=0, ha="right", va="center")
    panel.tick_params(labelsize=7)
    panel.margins(y=0.3)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("python -m curation.review.explain", __doc__)
    parser.add_argument("output", type=Path, help="output folder of curation/run.py")
    parser.add_argument("video", help="path of a source, or enough of it")
    parser.add_argument("--to", type=Path, metavar="FILE", help="also write a page (.html) or a picture (.png)")
    options = parser.parse_args(arguments)
    if options.to and options.to.suffix.lower() not in SUFFIXES:
        parser.error(f"--to {options.to}: .html or .png")
    try:
        found = explain(options.output, options.video)
        print_explained(found, Console())
        if options.to:
            (write_page if options.to.suffix.lower() == ".html" else write_picture)(found, options.to)
            print(options.to)
    except (ManifestError, TableError, OSError) as error:
        print(f"python -m curation.review.explain: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
