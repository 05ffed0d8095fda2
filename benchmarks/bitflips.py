"""Turns one bit at a time in a finished output: `curation.verify --all` finds it, or it is shown to change nothing.

    python benchmarks/bitflips.py [--output OUT] [--flips 100] [--seed 0] [--json FILE]

OUT (without it a small output is made up) is copied first, and every bit is turned back after it was looked at. The
flips go in equal numbers into shards, parts, the index, the manifests and the ledger, the file and the bit drawn at
random. A flip without a finding is harmless if everything that any reader gets is as before: all rows, types and notes
of the tables, what the logs say that is still of use, the bytes of every sample; it lies then in what no reader looks
at, such as the padding of a tar. Exit code 1: a flip was neither.
"""

import argparse
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pandas as pd
import pyarrow.parquet as pq
import yaml

from benchmarks.result import write_json
from curation.ledger_files import ATTEMPTS, read_finished, read_log
from curation.verify.command import verify
from shards.reader import iterate
from shards.sample import sample_sha256
from storage.table import NOTE
from tests.curation.finished import build, record

KINDS = {
    "shards": ("shards/*.tar",),
    "parts": ("parts/*/*.tar",),
    "index": ("shards/index.parquet",),
    "manifests": ("manifests/*", "recipe.yaml"),
    "ledger": ("ledger/*",),
}


def content(file: Path) -> Any:
    """What a reader gets of a file, to be compared."""
    if file.suffix == ".tar":
        return [(sample.key, sample_sha256(sample.members)) for sample in iterate(file)]
    if file.suffix == ".parquet":
        table = pq.ParquetFile(file, page_checksum_verification=True)
        schema = table.schema_arrow
        meanings = [(field.name, str(field.type), (field.metadata or {}).get(b"meaning")) for field in schema]
        notes = {name: text for name, text in schema.metadata.items() if name.startswith(NOTE)}
        frame: pd.DataFrame = table.read().to_pandas()
        return meanings, notes, frame.to_csv(), [str(kind) for kind in frame.dtypes]
    if file.name == ATTEMPTS:  # a source that has ended is no attempt any more
        return read_log(file) - {row["path"] for _, row in read_finished(file.parents[1])}
    if file.suffix == ".log":
        return read_log(file)
    return yaml.safe_load(file.read_bytes()) if file.suffix == ".yaml" else file.read_bytes()


def turn(file: Path, place: int, bit: int) -> None:
    with file.open("r+b") as opened:
        opened.seek(place)
        byte = opened.read(1)[0]
        opened.seek(place)
        opened.write(bytes([byte ^ (1 << bit)]))


def is_as_before(file: Path, before: Any) -> bool:
    try:
        return bool(content(file) == before)
    except Exception:  # noqa: BLE001  whatever a reader raises: it does not get what it got before
        return False


def try_flip(output: Path, file: Path, place: int, bit: int, before: Any) -> tuple[str, str]:
    """`found` with the first finding, `harmless`, or `MISSED`."""
    turn(file, place, bit)
    try:
        findings = verify(output)
        if findings:
            return "found", f"{findings[0].kind}: {findings[0].text}"
        return ("harmless", "") if is_as_before(file, before) else ("MISSED", "")
    finally:
        turn(file, place, bit)


def files_of(output: Path, patterns: Iterable[str]) -> list[Path]:
    return sorted(path for pattern in patterns for path in output.glob(pattern) if path.stat().st_size)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--output", type=Path, help="a finished output; it is copied")
    parser.add_argument("--flips", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    drawn, counts, missed = random.Random(options.seed), Counter[tuple[str, str]](), []
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "out"
        if options.output:
            shutil.copytree(options.output, output)
        else:
            output.mkdir()
            build(output)
            record(output)
        whole = verify(output)
        if whole:
            sys.exit(f"{options.output or output} is not whole to begin with: {whole[0].text}")
        for number in range(options.flips):
            kind = list(KINDS)[number % len(KINDS)]
            file = drawn.choice(files_of(output, KINDS[kind]))
            place, bit = drawn.randrange(file.stat().st_size), drawn.randrange(8)
            end, why = try_flip(output, file, place, bit, content(file))
            counts[kind, end] += 1
            name = file.relative_to(output)
            print(f"{name} byte {place} bit {bit}: {end} {why.replace(str(output), 'OUT')}", flush=True)
            missed += [f"{name} byte {place} bit {bit}"] if end == "MISSED" else []
        assert verify(output) == [], "every bit was turned back"
    print(f"\n{'':<10}" + "".join(f"{end:>10}" for end in ("found", "harmless", "MISSED")))
    for kind in KINDS:
        print(f"{kind:<10}" + "".join(f"{counts[kind, end]:>10}" for end in ("found", "harmless", "MISSED")))
    if options.json:
        write_json(options.json, {f"{kind} {end}": count for (kind, end), count in counts.items()})
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
