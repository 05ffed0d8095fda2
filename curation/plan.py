"""What a whole run will yield, take and need, from a seeded sample of its sources: `curation/run.py --plan`.

1 % of the sources, at least 20, drawn from five layers of equal numbers by duration, go through all stages into
OUT/plan. Each layer's seconds by reason, CPU time and bytes then stand for the layer's whole duration. The intervals
are 90 % bootstrap intervals over the sampled sources, layer by layer: they say how much another sample would differ.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from clock import FPS
from curation.videos import Video, storable
from manifests.reader import read_clips, read_sources
from manifests.schema import KEPT
from manifests.summary import show_time
from media.errors import MediaError
from media.probe import probe
from storage.store import RemoteFile

SHARE, LEAST, LAYERS = 0.01, 20, 5
DRAWS = 1000
OBJECT_BYTES_PER_S = 250_000  # 2 Mbit/s, a guess that orders objects, which are not opened, until some are measured
FOLDER = "plan"
COLUMNS = ("expected", "low", "high")
MEASURES = ("shards_gb", "parts_gb", "cpu_hours", "worker_hours")  # the other rows are hours by reason


@dataclass(frozen=True)
class Plan:
    """Durations of all sources [s], their layer, and which were drawn; a source that cannot be probed has 0 s."""

    durations: Mapping[Video, float]
    layers: Mapping[Video, int]
    drawn: list[Video]


def draw(videos: Sequence[Video], seed: int) -> Plan:
    """Read the header of every source, of an object only its size, and draw the sample."""
    durations = {path: duration_s(path) for path in videos}
    ordered = sorted(videos, key=lambda path: (durations[path], str(path)))
    layers = {path: i * LAYERS // len(ordered) for i, path in enumerate(ordered)}
    wanted = min(len(ordered), max(LEAST, round(SHARE * len(videos))))
    random = np.random.default_rng(seed)
    sample: list[Video] = []
    before = 0
    for layer in range(LAYERS):
        members = [path for path in ordered if layers[path] == layer]
        after = before + len(members)
        share = wanted * after // len(ordered) - wanted * before // len(ordered)
        sample += [members[i] for i in random.permutation(len(members))[:share]]
        before = after
    chosen = set(sample)
    return Plan(durations, layers, [path for path in videos if path in chosen])


def duration_s(path: Video) -> float:
    if isinstance(path, RemoteFile):
        return (path.size or 0) / OBJECT_BYTES_PER_S
    try:
        return probe(path).duration_s
    except (MediaError, OSError):
        return 0.0


def estimate(plan: Plan, output: Path) -> Plan:
    """Return the plan with durations of objects that follow from their sizes, at the rate of those that were drawn."""
    objects = [path for path in plan.drawn if isinstance(path, RemoteFile)]
    if not objects:
        return plan
    measured = read_sources(output).set_index("path")["duration_s"].fillna(0.0)
    found = sum(measured.loc[storable(path)] for path in objects)
    rate = found / max(sum(plan.durations[path] for path in objects), 1e-9)
    scaled = {path: s * rate if isinstance(path, RemoteFile) else s for path, s in plan.durations.items()}
    return replace(plan, durations=scaled)


def forecast(plan: Plan, output: Path) -> pd.DataFrame:
    """Return the expected value and the 90 % interval of each quantity, from the manifests of the sample's run.

    Rows: hours by reason, `kept` first; `shards_gb`, `parts_gb`, `cpu_hours`, `worker_hours`.
    """
    measured = per_source(output)
    rows = [
        measured.loc[[storable(path) for path in plan.drawn if plan.layers[path] == layer]] for layer in range(LAYERS)
    ]
    totals = [sum(s for path, s in plan.durations.items() if plan.layers[path] == layer) for layer in range(LAYERS)]
    random = np.random.default_rng(0)
    again = [
        scale_up([r.iloc[random.integers(len(r), size=len(r))] if len(r) else r for r in rows], totals)
        for _ in range(DRAWS)
    ]
    draws = pd.DataFrame(again)
    found = pd.DataFrame(
        {"expected": scale_up(rows, totals), "low": draws.quantile(0.05), "high": draws.quantile(0.95)}
    )
    return found.loc[order_rows(found)]


def per_source(output: Path) -> pd.DataFrame:
    """One row per source of the sample, by path: seconds by reason, bytes and CPU seconds."""
    clips, sources = read_clips(output), read_sources(output).set_index("path")
    reason = clips["reason"].astype(str).where(~clips["kept"].astype(bool), KEPT)
    table = (
        clips.assign(reason=reason).pivot_table("duration_s", "source", "reason", "sum", fill_value=0.0, observed=True)
        / 3600
    )
    table = table.reindex(index=sources.index, columns=sorted({KEPT, *table.columns}), fill_value=0.0)
    table["source_s"] = sources["duration_s"].fillna(0.0)
    kept_s: float = sources["kept_s"].sum()  # pyright: ignore[reportAssignmentType]
    for name, folder in (("shards_gb", "shards"), ("parts_gb", "parts")):
        size = sum(file.stat().st_size for file in (output / folder).rglob("*.tar"))
        table[name] = sources["kept_s"].fillna(0.0) * (size / 1e9 / kept_s if kept_s else 0.0)
    cpu = [name for name in sources.columns if str(name).startswith("cpu_s_")]
    table["cpu_hours"] = sources[cpu].sum(axis=1) / 3600
    table["worker_hours"] = sources["wall_s"].fillna(0.0) / 3600
    return table


def scale_up(rows: Sequence[pd.DataFrame], totals: Sequence[float]) -> pd.Series:
    """Return the sums over all layers, each scaled from its sample to the duration of the layer."""
    parts = []
    for sample, total in zip(rows, totals, strict=True):
        seconds: float = sample["source_s"].sum()  # pyright: ignore[reportAssignmentType]
        parts.append(sample.drop(columns="source_s").sum() * (total / seconds if seconds else 0.0))
    return pd.concat(parts, axis=1).sum(axis=1)


def order_rows(found: pd.DataFrame) -> list[str]:
    reasons = [name for name in found.index if name not in (KEPT, *MEASURES)]
    return [KEPT, *sorted(reasons, key=lambda name: -found.loc[name, "expected"]), *MEASURES]  # pyright: ignore


def print_forecast(plan: Plan, found: pd.DataFrame, workers: int, gpus: float) -> None:
    """Print the forecast as a table, with the hours on this many workers."""
    hours = sum(plan.durations.values()) / 3600
    head = (
        f"{len(plan.durations)} sources, {show_hours(hours)}; from {len(plan.drawn)} of them, 90 % intervals, h:mm:ss"
    )
    table = Table(title=head)
    for column in ("", "expected", "from", "to", "share of the hours"):
        table.add_column(column, justify="left" if not column else "right")
    for name, row in found.iterrows():
        show = show_gb if str(name).endswith("_gb") else show_hours
        share = "" if str(name).endswith(("_gb", "_hours")) or not hours else f"{row['expected'] / hours:.1%}"
        table.add_row(str(name), *(show(row[column]) for column in COLUMNS), share)  # pyright: ignore[reportArgumentType]
    spent = [float(value) for value in found[[*COLUMNS]].loc["worker_hours"].tolist()]
    table.add_row(f"time, {workers} workers", *(show_hours(each / max(workers, 1)) for each in spent), "")
    if gpus:
        table.add_row("GPU-hours", *(show_hours(each * gpus) for each in spent), "")
    Console(width=120).print(table)


def show_hours(hours: float) -> str:
    """Hours as h:mm:ss."""
    return show_time(round(hours * 3600) * FPS).removesuffix(".00")


def show_gb(size: float) -> str:
    return f"{size:.2f} GB"
