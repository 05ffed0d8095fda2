"""Checks an output folder: nothing lost, nothing doubled, every sample whole and as the manifests say.

    python -m curation.verify OUT [--all] [--sample N] [--workers N]

Reads every shard once, in order, and decodes some samples or all. What is wrong comes one line each:

    table      a table of the output is missing or cannot be read
    source     a source has not exactly one state, or one that its clips contradict
    timeline   the rows of a source do not cover its frames exactly once
    clip       a kept clip lies in no sample or in several, a dropped one in some, or its row says another place
    shard      a tar is missing, cut off, not named by the index, or holds what the index does not place there
    sample     its bytes are damaged, or its members are not what a sample has
    decode     its video or sound does not decode to what its frames promise
    count      numbers in sources.parquet or summary.csv do not follow from clips.parquet
    ledger     the manifests or a part do not say of a finished source what the ledger does
    value      a number or a word of clips, sources or timings is not the ledger's
    recipe     recipe.yaml is missing, no recipe, or not the one that its hash is of
    stray      a file among shards or parts that nothing names
    unfinished a source was begun and has no end, or its end is not in the manifests: run the same command again

It says what is wrong and mends nothing. Exit code 0: all is well; 1: something is wrong; 2: not an output folder.
"""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from curation.verify.ledger import check_ledger
from curation.verify.recipe import check_recipes
from curation.verify.shards import check_shards, choose
from curation.verify.tables import Finding, Tables, check_manifests, check_places, check_summary, read_tables
from manifests.schema import FOLDER
from shards.index import INDEX_NAME

SAMPLE = 100  # samples decoded if not told otherwise: about ten seconds of work
SHOWN = 20  # lines per kind of finding
OUTPUT_SIGNS = ("recipe.yaml", f"{FOLDER}/clips.parquet", f"{FOLDER}/sources.parquet", f"shards/{INDEX_NAME}")


def verify(output: Path, sample: int | None = None, workers: int = 1) -> list[Finding]:
    """Everything that is wrong with an output folder; `sample` samples are decoded, or all, and parts read (None)."""
    tables, findings = read_tables(output)
    decoded = choose((row["key"] for row in tables.samples), sample, seed=0)
    return [*findings, *check(output, tables, decoded, workers, sample is None)]


def check(
    output: Path,
    tables: Tables,
    decoded: frozenset[str],
    workers: int,
    whole_parts: bool,
    advance: Callable[[int], None] = lambda _: None,
) -> Iterator[Finding]:
    """What is wrong in and between the tables and the shards, what takes no time first."""
    yield from check_manifests(tables)
    yield from check_places(tables)
    yield from check_summary(output, tables)
    yield from check_recipes(output)
    yield from check_ledger(output, tables, whole_parts)
    yield from check_shards(output / "shards", tables, decoded, workers, advance)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    if not any((options.output / sign).exists() for sign in OUTPUT_SIGNS):
        print(f"{printable(str(options.output))}: not the output folder of a curation run", file=sys.stderr)
        return 2
    tables, findings = read_tables(options.output)
    decoded = choose((row["key"] for row in tables.samples), None if options.all else options.sample, options.seed)
    size = sum(row["bytes"] for row in tables.samples)
    console, kinds, began = Console(soft_wrap=True, highlight=False, markup=False), Counter[str](), time.monotonic()
    with Progress(
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(),
        console=console, disable=not console.is_terminal, transient=True,
    ) as bar:  # fmt: skip
        task = bar.add_task("reading shards", total=size)
        for kind, text in chain(
            findings,
            check(options.output, tables, decoded, options.workers, options.all, lambda n: bar.advance(task, n)),
        ):
            kinds[kind] += 1
            if kinds[kind] <= SHOWN:
                console.print(f"{kind}: {printable(text)}")
    for kind, count in kinds.items():
        if count > SHOWN:
            console.print(f"{kind}: and {count - SHOWN} more")
    seen = f"{describe_tables(tables)}, {len(decoded)} decoded; {size / 1e6:.1f} MB in {time.monotonic() - began:.1f} s"
    if not kinds:
        console.print(f"all is well: {seen}")
        return 0
    counted = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    console.print(f"SOMETHING IS WRONG: {counted} ({seen})")
    return 1


def describe_tables(tables: Tables) -> str:
    """`12 sources, 34 samples in 2 shards`, as far as the tables are there."""
    index, sources = tables.index, tables.sources
    shown = "sources unknown" if sources is None else f"{len(sources)} sources"
    return shown + ("" if index is None else f", {len(index)} samples in {index['shard'].nunique()} shards")


def printable(text: str) -> str:
    """Text on one line: names of files may hold line ends and bytes that are no text."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def parser() -> argparse.ArgumentParser:
    head, _, rest = (__doc__ or "").partition("\n\n")
    found = argparse.ArgumentParser(
        prog="python -m curation.verify",
        description=head,
        epilog=rest.partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument("output", type=Path, metavar="OUT", help="output folder of curation/run.py")
    found.add_argument("--all", action="store_true", help="decode every sample, and read all parts")
    found.add_argument(
        "--sample", type=natural, default=SAMPLE, metavar="N", help=f"decode N samples (default {SAMPLE})"
    )
    found.add_argument("--seed", type=int, default=0, metavar="N", help="which samples are decoded (default 0)")
    found.add_argument(
        "--workers", type=positive, default=os.cpu_count() or 1, metavar="N", help="processes (default: one per core)"
    )
    return found


def natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of samples")
    return int(text)


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of processes")
    return int(text)
