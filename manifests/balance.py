"""A balanced part of a finished run, to train on without a copy: quotas and caps from any column or label.

    python -m manifests.balance OUT --by language,identity,yaw_deg --hours 100 --to OUT2
    python -m manifests.balance OUT --split identity --to OUT2

`--by` shares the hours out evenly between the values of the first column, those of each value between the values of the
second, and so on; what a value has not is shared among the others. Numbers fall into bins (`--bin yaw_deg=15`: 15 wide;
without it, five of equal numbers). `--cap identity=0.5` keeps at most half an hour of each, `--quota language=de:20`
gives German 20 hours before the rest is shared. `--split identity` makes OUT2/train, OUT2/validation and OUT2/test,
none of which has a person of another, by a hash of the name. Clips are whole, so up to one is lacking of each value,
and chosen by a hash of their keys: the same command gives the same bytes.

OUT2 has an index of OUT's shards and nothing else of them: `training/train.py --data OUT2` reads it as any output.
"""

import argparse
import hashlib
import math
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from command import parser_of
from manifests.labels import add_labels, read_labels
from manifests.reader import ManifestError, read_clips
from shards.index import INDEX_NAME, read_index, write_index
from storage.atomic_write import atomic_folder
from storage.table import TableError

BINS = 5
UNKNOWN = "unknown"
SHARES = {"train": 0.9, "validation": 0.05, "test": 0.05}
Frame = Any  # a DataFrame; pandas' stubs take a selection of one for a Series


class BalanceError(ValueError):
    """What was asked for cannot be had; the text says why."""


def read_kept(output: Path) -> Frame:
    """The kept clips of an output that are in its shards, with the labels of its data set, by key."""
    clips: Frame = read_clips(output)
    clips = clips[clips["kept"].astype(bool) & clips["shard"].notna()]
    return add_labels(clips, read_labels(output)).set_index("key", drop=False)


def groups_of(clips: Frame, column: str, widths: Mapping[str, float]) -> pd.Series:
    """The value of a column as text, numbers as the bin that they fall into, by key. Raises BalanceError."""
    if column not in clips:
        raise BalanceError(f"no column or label {column!r}; there is {', '.join(map(str, clips))}")
    values = clips[column]
    if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        if column in widths:
            raise BalanceError(f"--bin {column}: is no column of numbers")
        return values.astype("str").replace("", None).fillna(UNKNOWN)
    if column in widths:
        lows = (values / widths[column]).map(lambda x: math.floor(x) * widths[column], na_action="ignore")
        return (
            lows.map(lambda low: f"{low:g} to {low + widths[column]:g}", na_action="ignore")
            .fillna(UNKNOWN)
            .astype("str")
        )
    bins: Frame = pd.qcut(values, BINS, duplicates="drop") if values.nunique() > 1 else values
    return bins.astype("str").where(values.notna(), UNKNOWN)


def share_evenly(wanted: float, available: Mapping[str, float]) -> dict[str, float]:
    """Share an amount evenly among some that have no more than `available`; what one lacks goes to the others."""
    given: dict[str, float] = {}
    for i, name in enumerate(sorted(available, key=lambda name: (available[name], name))):
        given[name] = min(available[name], wanted / (len(available) - i))
        wanted -= given[name]
    return given


def choose(clips: Frame, groups: Sequence[pd.Series], seconds: float, quotas: Mapping[str, float] = {}) -> list[str]:
    """The keys of clips that last `seconds` together, shared evenly at each level of groups; `quotas` of the first."""
    if not groups:
        ordered = sorted(clips["key"], key=lambda key: hashlib.sha256(f"balance:{key}".encode()).digest())
        lengths = clips["duration_s"].loc[ordered].cumsum()
        return [key for key, end in lengths.items() if end <= seconds + 1e-6]
    of = groups[0].loc[clips.index]
    available = clips.groupby(of)["duration_s"].sum().to_dict()
    given = {name: min(available[name], quota) for name, quota in quotas.items() if name in available}
    rest = {name: value for name, value in available.items() if name not in given}
    given |= share_evenly(max(0.0, seconds - sum(given.values())), rest)
    return [key for name in sorted(given) for key in choose(clips[of == name], groups[1:], given[name])]


def cap(clips: Frame, of: pd.Series, seconds: float) -> Frame:
    """The clips without what goes beyond so many seconds of any group."""
    keys = [key for _, part in clips.groupby(of.loc[clips.index]) for key in choose(part, (), seconds)]
    return clips.loc[sorted(keys)]


def balance(
    clips: Frame,
    by: Sequence[str],
    hours: float,
    caps: Mapping[str, float] = {},
    quotas: Mapping[str, Mapping[str, float]] = {},
    widths: Mapping[str, float] = {},
) -> Frame:
    """The chosen clips. Raises BalanceError for a column that is not there."""
    columns = [*quotas, *(name for name in by if name not in quotas)]
    if len(quotas) > 1:
        raise BalanceError("--quota: of one column only; the others are shared evenly")
    for column, limit in caps.items():
        clips = cap(clips, groups_of(clips, column, widths), limit * 3600)
    groups = [groups_of(clips, column, widths) for column in columns]
    first = {name: value * 3600 for name, value in quotas[columns[0]].items()} if quotas else {}
    if missing := [name for name in first if name not in set(groups[0])]:
        raise BalanceError(
            f"--quota {columns[0]}={missing[0]}: no clip has it; there is {', '.join(sorted(set(groups[0])))}"
        )
    return clips.loc[sorted(choose(clips, groups, hours * 3600, first))]


def split(clips: Frame, column: str) -> dict[str, Frame]:
    """The clips in train, validation and test, no value of the column in two. Raises BalanceError."""
    values = groups_of(clips, column, {})
    if (values == UNKNOWN).any():
        unknown = int((values == UNKNOWN).sum())
        raise BalanceError(f"{unknown} clips have no {column}, so nobody can say whose split they belong to")
    parts = values.map({value: part_of(value) for value in set(values)})
    return {name: clips[parts == name] for name in SHARES}


def part_of(value: str) -> str:
    """The split of a name, by its hash: the same in every corpus."""
    place, end = int.from_bytes(hashlib.sha256(f"split:{value}".encode()).digest()[:8], "big") / 2**64, 0.0
    for name, share in SHARES.items():
        end += share
        if place < end:
            return name
    return name


def write_selection(output: Path, clips: Frame, to: Path) -> None:
    """Write `to`: an index of these clips whose shards are those of `output`, and its recipe."""
    index = read_index(output / "shards")
    index = index.loc[index["key"].isin(clips["key"])].copy()
    folder = os.path.relpath((output / "shards").resolve(), (to / "shards").absolute())
    index["shard"] = [f"{folder}/{name}" for name in index["shard"]]
    with atomic_folder(to) as temporary:
        (temporary / "shards").mkdir()
        write_index(temporary / "shards", index)
        for recipe in sorted(output.glob("recipe*.yaml")):
            shutil.copy(recipe, temporary / recipe.name)
        clips[["key", "source", "duration_s"]].to_csv(temporary / "selection.csv", index=False)


def print_table(before: Frame, after: Frame, columns: Sequence[str], widths: Mapping[str, float]) -> None:
    """Print the hours of each value of each column, before and after."""
    table = Table(title=f"{before.duration_s.sum() / 3600:.2f} h before, {after.duration_s.sum() / 3600:.2f} h after")
    for name in ("column", "value", "hours before", "hours after", "share after"):
        table.add_column(name, justify="right" if "hours" in name or "share" in name else "left")
    total = max(after["duration_s"].sum(), 1e-9)
    for column in columns:
        of = groups_of(before, column, widths)
        hours, left = (part.groupby(of.loc[part.index])["duration_s"].sum() / 3600 for part in (before, after))
        for value in hours.index:
            kept = float(left.get(value, 0.0))
            table.add_row(column, value, f"{hours[value]:.2f}", f"{kept:.2f}", f"{kept * 3600 / total:.1%}")
    Console(width=120).print(table)


def pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"{text!r}: write COLUMN=VALUE")
    return name, value


def numbers(pairs: Sequence[tuple[str, str]], option: str) -> dict[str, float]:
    """The pairs with their values as numbers above 0. Raises BalanceError."""
    found = {}
    for name, value in pairs:
        try:
            found[name] = float(value)
        except ValueError:
            found[name] = 0.0
        if not 0 < found[name] < math.inf:
            raise BalanceError(f"{option} {name}={value}: a number above 0 is needed")
    return found


def quotas_of(pairs: Sequence[tuple[str, str]]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for column, text in pairs:
        value, _, hours = text.rpartition(":")
        found.setdefault(column, {}).update(numbers([(value or text, hours)], f"--quota {column}"))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("python -m manifests.balance", __doc__)
    parser.add_argument("output", type=Path, help="folder of a finished curation run")
    parser.add_argument("--by", default="", help="columns and labels between whose values the hours are shared evenly")
    parser.add_argument("--hours", type=float, default=math.inf, help="how many to choose; default: what caps leave")
    parser.add_argument("--cap", type=pair, action="append", default=[], metavar="COLUMN=HOURS")
    parser.add_argument("--quota", type=pair, action="append", default=[], metavar="COLUMN=VALUE:HOURS")
    parser.add_argument("--bin", type=pair, action="append", default=[], metavar="COLUMN=WIDTH")
    parser.add_argument("--split", metavar="COLUMN", help="train, validation and test without a value of it in two")
    parser.add_argument("--to", type=Path, required=True, help="folder that training reads; must not exist")
    options = parser.parse_args(arguments)
    by = [name.strip() for name in options.by.split(",") if name.strip()]
    try:
        if options.to.exists():
            raise BalanceError(f"{options.to}: exists; give a new folder")
        if not (options.output / "shards" / INDEX_NAME).is_file():
            raise BalanceError(f"{options.output}: no shards/{INDEX_NAME}; only a finished run can be balanced")
        clips, widths = read_kept(options.output), numbers(options.bin, "--bin")
        caps, quotas = numbers(options.cap, "--cap"), quotas_of(options.quota)
        chosen = balance(clips, by, min(options.hours, clips["duration_s"].sum() / 3600), caps, quotas, widths)
        shown = list(dict.fromkeys([*by, *caps, *quotas]))
        print_table(clips, chosen, shown, widths)
        parts = split(chosen, options.split) if options.split else {"": chosen}
        if empty := [name or "the selection" for name, part in parts.items() if part.empty]:
            raise BalanceError(f"{', '.join(empty)}: no clip; more hours or more values are needed")
        for name, part in parts.items():
            write_selection(options.output, part, options.to / name if name else options.to)
            print(f"{options.to / name}: {len(part):,} clips, {part['duration_s'].sum() / 3600:.2f} h")
    except (BalanceError, ManifestError, TableError, OSError) as error:
        print(f"manifests.balance: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
