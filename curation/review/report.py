"""`<output>/report/index.html`: a run on one page that needs no server, no network and no second file.

    python -m curation.review.report OUT [--labels TABLE] [--against OTHER]

The funnel, every limit with what lies near it and a handle that moves it, some clips of each reason to look at and
listen to, a table of all clips to sort, filter, search and save, the yield by folder, what was slow and what failed,
the recipe. Pictures are a sample (as many by the limit as at random) of at most 10 MB, the table is whole. `--labels`
names a table (.csv or .parquet) with a column `path` or `file` and others, such as `language`: the yield is then also
given by each of them. `--against` names the output folder of another run over the same videos: the page then says what
was gained and what was lost.
"""

import base64
import gzip
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from clock import FPS
from command import parser_of
from curation.limits import NEAR, Threshold, limits_of, nearest_limits, read_recipe, run_folder, stages_of
from curation.refilter import NotMeasured, by_name, records, replay
from curation.review.compare import compare_runs
from curation.review.page import as_json, data_uri, environment, hours
from curation.review.pictures import Album, Preview
from curation.review.replay import replay_data
from manifests.reader import ManifestError, Notes, read_clips, read_run_notes, read_sources
from manifests.schema import KEPT, REASONS, stage_of_cpu_column
from manifests.summary import funnel, show_time, totals
from storage.atomic_write import atomic_write, remove_leftovers
from storage.table import TableError

FOLDER = "report"
PICTURES = {KEPT: 16}  # of a reason
PICTURES_ELSE = 8
LISTED = 200  # folders, failed sources
SLOWEST = 20
PREVIEW_BYTES = 7_500_000  # of all previews together, which base64 makes 10 MB; those beyond it stay still and silent
THREADS = 4  # decoding leaves Python alone

Rows = list[dict[str, Any]]
Table = Any  # a DataFrame; pandas' stubs take a selection of one for a Series


@dataclass(frozen=True)
class FinishedRun:
    """An output folder, read: what every part of the page is made from."""

    output: Path
    recipe: dict[str, Any]
    notes: Notes
    clips: Table  # with columns limit and headroom of `nearest_limits`
    sources: Table
    stages: list[Any]
    limits: list[Threshold]


def read_run(output: Path) -> FinishedRun:
    """Raises ManifestError."""
    recipe, notes, clips = read_recipe(output), read_run_notes(output), read_clips(output)
    stages = stages_of(recipe)
    clips = clips.join(nearest_limits(clips, stages))
    return FinishedRun(output, recipe, notes, clips, read_sources(output), stages, limits_of(stages, clips))


def write_report(output: Path, labels: Path | None = None, against: Path | None = None) -> Path:
    """Writes the page and gives its path. Raises ManifestError."""
    run = read_run(output)
    rows, album = funnel_rows(run), picture_album(run)
    page = environment().get_template("report.html.j2").render(
        name=run.output.absolute().name,
        output=str(run.output.absolute()),
        headline=headline(run),
        totals={name: show_time(frames) for name, frames in totals(funnel(run.clips)).items()},
        clip_count=len(run.clips),
        source_count=len(run.sources),
        score_only=run.recipe["score_only"],
        recipe_hash=run.recipe["hash"][:8],
        funnel=rows,
        comparison=None if against is None else compare_runs(output, against),
        limits=limit_rows(run),
        near=NEAR,
        other_scores=other_scores(run),
        media=describe_media(album),
        yields=list(yields(run, labels)),
        slowest=slowest_sources(run),
        failed=failed_sources(run),
        failed_count=int((run.sources["status"] == "error").sum()),
        recipe=yaml.safe_dump(run.recipe, sort_keys=False),
        table=pack_json(clip_table(run)),
        album=as_json(album),
    )  # fmt: skip
    path = output / FOLDER / "index.html"
    path.parent.mkdir(exist_ok=True)
    remove_leftovers(path.parent)
    with atomic_write(path) as file:
        file.write(page.encode("utf-8", "replace"))
    return path


def pack_json(value: Any) -> str:
    """JSON, gzip, base64: a table of 100,000 clips takes a fifth of its size."""
    return base64.b64encode(gzip.compress(as_json(value).encode(), 6, mtime=0)).decode()


def headline(run: FinishedRun) -> str:
    """What became of the run in one sentence."""
    frames = totals(funnel(run.clips))
    kept, total = frames["kept"], frames["input"]
    lost = [row for row in funnel_rows(run) if row["reason"] != KEPT]
    most = max(lost, key=lambda row: row["frames"], default=None)
    videos = f"{len(run.sources):,} {'video' if len(run.sources) == 1 else 'videos'}"
    text = f"{show_whole(kept)} of {show_whole(total)} in {videos} kept, {kept / max(total, 1):.0%}"
    return text + (f"; most was lost to {most['reason']}, {show_whole(most['frames'])}." if most else ".")


def show_whole(frames: int) -> str:
    """Frames as h:mm:ss."""
    return show_time(round(frames / FPS) * FPS).removesuffix(".00")


def funnel_rows(run: FinishedRun) -> Rows:
    """The funnel with the meaning of each reason."""
    rows = funnel(run.clips, run.notes.stages, list(run.notes.reasons)).to_dict("records")
    return [{**row, "time": show_time(row["frames"]), "meaning": meaning(run, row["reason"])} for row in rows]


def meaning(run: FinishedRun, reason: str) -> str:
    return "in the shards" if reason == KEPT else run.notes.reasons.get(reason, "")


def limit_rows(run: FinishedRun) -> Rows:
    """Return for each limit what it dropped alone, what is within 10 % of it, and how to loosen it."""
    rows = []
    for place, limit in enumerate(run.limits):
        room = limit.headroom(run.clips)
        near = room.abs() <= NEAR
        dropped = ~run.clips["kept"] & (run.clips["limit"] == place)
        rows.append(
            {
                "text": str(limit),
                "stage": limit.stage,
                "meaning": run.notes.scores.get(limit.column, ""),
                "measured": int(room.notna().sum()),
                "near": int(near.sum()),
                "near_kept": tally(run.clips[near & run.clips["kept"]]),
                "near_dropped": tally(run.clips[near & dropped]),
                "dropped": tally(run.clips[dropped]),
                "loosened": None if limit.value is None else limit.loosen(),
                "then": [] if limit.value is None else count_if_loosened(run, limit, run.clips[near & dropped]),
            }
        )
    return rows


def count_if_loosened(run: FinishedRun, limit: Threshold, clips: Table) -> list[tuple[str, int]]:
    """What would become of clips if a limit were loosened by 10 %: (kept, or the stage that drops them, how many)."""
    stages = by_name(read_recipe(run.output, [limit.loosen()]))
    found: Counter[str] = Counter()
    for row in records(clips):
        try:
            found[replay(row, stages, run.recipe["score_only"]).stage or KEPT] += 1
        except NotMeasured as error:
            found[f"not measured by {error.args[0]}"] += 1
    return found.most_common()


def tally(clips: Table) -> dict[str, Any]:
    return {"clips": len(clips), "time": hours(clips["duration_s"].sum())}


def other_scores(run: FinishedRun) -> Rows:
    """Each score that nothing is compared with, and its meaning."""
    limited = {limit.column for limit in run.limits}
    return [
        {"name": name, "meaning": meaning}
        for name, meaning in run.notes.scores.items()
        if name not in limited and run.clips[name].notna().any()
    ]


def yields(run: FinishedRun, labels: Path | None) -> Iterator[dict[str, Any]]:
    """What was kept of each source folder, and of each value of each label."""
    sources = run.sources.copy()
    sources["folder"] = [str(Path(path).parent) for path in sources["path"]]
    columns = ["folder"]
    if labels is not None:
        named = read_labels(labels)
        key = [path if path in named.index else Path(path).name for path in sources["path"]]
        columns += list(named)
        sources = sources.join(named.reindex(key).reset_index(drop=True).astype("str").fillna("(no label)"))
    sources["input_s"] = sources["frames"].astype("float64").fillna(0) / FPS
    lost = run.clips[~run.clips["kept"]].groupby(["source", "reason"], observed=True)["duration_s"].sum().reset_index()
    for column in columns:
        groups = sources.groupby(column).agg(
            sources=("path", "size"), input_s=("input_s", "sum"), kept_s=("kept_s", "sum")
        )
        groups["share"] = (groups["kept_s"] / groups["input_s"].where(groups["input_s"] > 0)).fillna(0.0)
        groups["reason"] = most_lost(lost, sources.set_index("path")[column]).reindex(groups.index).fillna("")
        groups = groups.sort_values("input_s", ascending=False)
        rows = groups.head(LISTED).reset_index(names="value").to_dict("records")
        yield {"by": column, "rows": rows, "more": max(0, len(groups) - LISTED)}


def read_labels(path: Path) -> Table:
    """A table of labels, with paths or file names as index and few values in each column. Raises ManifestError."""
    try:
        table: Table = pd.read_csv(path, dtype=str) if path.suffix.lower() == ".csv" else pd.read_parquet(path)
    except (ValueError, OSError) as error:
        raise ManifestError(f"{path}: cannot be read as a table of labels ({error})") from error
    key = next((name for name in ("path", "file") if name in table), None)
    if key is None:
        raise ManifestError(f"{path}: needs a column path or file; it has {', '.join(map(str, table.columns))}")
    table = table.drop_duplicates(key).set_index(key)
    kinds = {name: table[name].nunique() for name in table}
    return table[[name for name, count in kinds.items() if 1 < count <= min(LISTED, max(2, len(table) // 3))]]


def most_lost(lost: Table, groups: Table) -> Table:
    """The reason that took most of each group; `lost` has seconds by source and reason, `groups` is source -> group."""
    seconds = lost.groupby([lost["source"].map(groups), lost["reason"].astype("str")])["duration_s"].sum()
    return seconds.sort_values().reset_index().drop_duplicates("source", keep="last").set_index("source")["reason"]


def slowest_sources(run: FinishedRun) -> Rows:
    """The sources that took longest, with the stage that took most of it."""
    timed = run.sources[run.sources["wall_s"].notna()].nlargest(SLOWEST, "wall_s")
    stages = [name for name in timed if stage_of_cpu_column(str(name))]
    rows = timed.to_dict("records")
    found = []
    for row in rows:
        cpu = {str(stage_of_cpu_column(name)): row[name] for name in stages if row[name] == row[name]}
        heaviest = max(cpu, key=lambda name: cpu[name], default="")
        seconds = row["duration_s"] if row["duration_s"] == row["duration_s"] else 0.0
        found.append(
            {
                "path": row["path"],
                "wall_s": row["wall_s"],
                "duration_s": seconds,
                "stage": heaviest,
                "cpu_s": cpu.get(heaviest, 0),
            }
        )
    return found


def failed_sources(run: FinishedRun) -> Rows:
    """The sources that could not be curated, with the last lines of their logs."""
    rows = run.sources[run.sources["status"] == "error"].head(LISTED).to_dict("records")
    return [
        {
            "path": row["path"],
            "reason": row["reason"],
            "meaning": REASONS.get(row["reason"], ""),
            "detail": row["detail"],
        }
        for row in rows
    ]


def clip_table(run: FinishedRun) -> dict[str, Any]:
    """All clips by column; texts that repeat as numbers into a list."""
    clips, limits = run.clips, run.limits
    sources, source = np.unique(clips["source"].to_numpy(str), return_inverse=True)
    reason = clips["reason"].cat
    return {
        "sources": sources.tolist(),
        "reasons": list(reason.categories),
        "limits": [asdict(each) | {"rising": each.rising, "column": each.column, "text": str(each)} for each in limits],
        "meanings": run.notes.scores,
        "output": str(run.output.absolute()),
        "rows": {
            "key": clips["key"].tolist(),
            "source": source.tolist(),
            "start_s": clips["start_s"].tolist(),
            "end_s": clips["end_s"].tolist(),
            "reason": reason.codes.tolist(),
            "limit": clips["limit"].tolist(),
            "headroom": round_digits(clips["headroom"]),
            "shift": [None if value is pd.NA else int(value) for value in clips["audio_shift_frames"]],
            "detail": {str(row): text for row, text in enumerate(clips["detail"]) if isinstance(text, str)},
        },
        "scores": {name: round_digits(clips[name]) for name in run.notes.scores},
        "replay": replay_data(clips, run.stages, limits, run.recipe["score_only"]),
    }  # fmt: skip


def round_digits(values: Any) -> list[float | None]:
    """Numbers with four digits, which is what the page shows; None for one that is missing."""
    found = values.to_numpy(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = 10.0 ** (3 - np.floor(np.log10(np.abs(found))))
        short = np.where(np.isfinite(scale), np.round(found * scale) / scale, found)
    return [value if value == value else None for value in short.tolist()]


def picture_album(run: FinishedRun) -> dict[str, Any]:
    """Pictures of some clips of each reason: in the order of the funnel, kept first."""
    book = Album(run.output, run_folder(run.output, run.recipe), run.stages)
    reasons = [row["reason"] for row in reversed(funnel_rows(run))]
    chosen = {reason: choose_rows(run.clips, reason) for reason in reasons}
    rows = run.clips.loc[[row for rows in chosen.values() for row in rows]].to_dict("index")
    with ThreadPoolExecutor(THREADS) as pool:
        pictures = dict(zip(rows, pool.map(book.picture, rows.values()), strict=True))
    return {
        "reasons": [
            {"reason": reason, "rows": rows, "of": int((run.clips["reason"] == reason).sum()),
             "meaning": meaning(run, reason)}
            for reason, rows in chosen.items()
        ],
        "pictures": {str(row): picture_fields(picture) for row, picture in limit_bytes(pictures).items()},
    }  # fmt: skip


def limit_bytes(pictures: Mapping[int, Preview | None]) -> dict[int, Preview]:
    """Return the pictures there are; those whose previews no longer fit into PREVIEW_BYTES come without."""
    found, left = {}, PREVIEW_BYTES
    for row, picture in pictures.items():
        if picture is not None:
            fits = len(picture.preview) <= left
            left -= len(picture.preview) if fits else 0
            found[row] = picture if fits else replace(picture, preview=b"")
    return found


def describe_media(album: Mapping[str, Any]) -> str:
    """How many pictures the page has, and how much of it they take."""
    pictures = album["pictures"].values()
    size = sum(len(picture["preview"]) + len(picture["poster"]) for picture in pictures)
    playing = sum(bool(picture["preview"]) for picture in pictures)
    return f"{len(pictures)} pictures, {playing} of them play, {size / 1e6:.1f} MB of this page"


def choose_rows(clips: Table, reason: str) -> list[int]:
    """Row numbers of clips of a reason: half of them nearest to another verdict, half by a seeded dice.

    A second clip of the same source comes after the first clips of all others.
    """
    count = PICTURES.get(reason, PICTURES_ELSE)
    of_reason = clips[clips["reason"] == reason]
    near = of_reason[of_reason["headroom"].notna()].sort_values("headroom", key=abs)
    nearest = sources_first(near)[: count // 2]
    return [*nearest, *sources_first(of_reason.drop(index=nearest).sample(frac=1, random_state=0))][:count]


def sources_first(clips: Table) -> list[int]:
    """Row numbers in the order given, but for second clips of a source, third ones and so on, which come later."""
    return clips.groupby("source").cumcount().sort_values(kind="stable").index.tolist()


def picture_fields(picture: Preview) -> dict[str, Any]:
    """A picture as the page's script reads it."""
    return {
        **asdict(picture),
        "poster": data_uri(picture.poster, "image/webp"),
        "preview": data_uri(picture.preview, "video/mp4") if picture.preview else "",
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("python -m curation.review.report", __doc__)
    parser.add_argument("output", type=Path, help="output folder of curation/run.py or curation/refilter.py")
    parser.add_argument("--labels", type=Path, help="table with a column path or file, and what is known of each")
    parser.add_argument("--against", type=Path, metavar="OTHER", help="output folder of another run, to compare with")
    options = parser.parse_args(arguments)
    try:
        path = write_report(options.output, options.labels, options.against)
    except (ManifestError, TableError, OSError) as error:
        print(f"python -m curation.review.report: {error}", file=sys.stderr)
        return 1
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
