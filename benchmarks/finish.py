"""What ends a run costs the driver: memory and time per row of the manifest, once all sources are curated.

    python benchmarks/finish.py --sources 2000 --clips 60

Real are the ledger, the parts (of tiny members), the order of packing, the index and the manifests; the shards are not
written, because the pool's workers do that. Half of the clips are kept.
"""

import resource
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

import pipelines
from benchmarks.result import write_json
from command import parser_of
from curation.corpus import finish
from curation.ledger import Ledger
from curation.ledger_files import part_path
from curation.source import Curated, Identity
from curation.stage import Filter
from shards.index import offset_column, size_column
from shards.packer import ShardJob
from shards.sample import MEMBERS, Sample, encode_json, sample_sha256
from shards.writer import write_tar

CLIP_FRAMES = 250
SCORES = tuple(f"score_{number:02d}" for number in range(28))  # as many as the embedded profile has


class Measured(Filter):
    """Documents the scores that are made up here."""

    SCORES = dict.fromkeys(SCORES, "made up")
    REASONS = {"made_up": "made up"}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("python benchmarks/finish.py", __doc__)
    parser.add_argument("--sources", type=int, default=2_000)
    parser.add_argument("--clips", type=int, default=60, help="rows of each source (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder), {"hash": "benchmark"})
        for number in range(options.sources):
            add_source(ledger, Path(folder), number, options.clips)
        ledger.flush()
        before, began, cpu = peak_bytes(), time.monotonic(), time.process_time()
        with redirect_stdout(StringIO()):
            finish(Path(folder), pipelines.load("embedded"), [Measured()], ledger, do=place)
        seconds, cpu_s = time.monotonic() - began, time.process_time() - cpu
    rows = options.sources * options.clips
    found = {
        "rows": rows,
        "kept": rows // 2,
        "bytes_per_row": (peak_bytes() - before) / rows,
        "wall_ms_per_row": 1000 * seconds / rows,
        "cpu_ms_per_row": 1000 * cpu_s / rows,
    }
    print(
        f"{rows:,} rows, half of them kept: {found['bytes_per_row']:,.0f} bytes of memory and "
        f"{found['cpu_ms_per_row']:.2f} ms of CPU a row"
    )
    write_json(options.json, found)
    return 0


def add_source(ledger: Ledger, output: Path, number: int, clips: int) -> None:
    """Add a finished source, every second clip of which is kept and lies in its part."""
    dice = np.random.default_rng(number)
    source_id, path = f"{number:016x}".ljust(64, "0"), Path(f"/raw/{number:08d}.mp4")
    rows, samples = [], []
    for clip in range(clips):
        place = {
            "source_id": source_id,
            "start_frame": clip * CLIP_FRAMES,
            "end_frame": (clip + 1) * CLIP_FRAMES,
        }
        key, kept = f"{source_id[:16]}-{clip * 10_000:08d}-{(clip + 1) * 10_000:08d}", clip % 2 == 0
        verdict = {"kept": kept, "reason": "kept" if kept else "made_up", "stage": None if kept else "measured"}
        scores = dict(zip(SCORES, dice.random(len(SCORES)).tolist(), strict=True))
        rows.append({"key": key, "source": str(path), **place, **verdict, "audio_shift_frames": 0, **scores})
        if kept:
            fields = encode_json({**place, "frames": CLIP_FRAMES, "audio_shift_frames": 0, "scores": scores})
            samples.append(Sample(key, {**dict.fromkeys(MEMBERS, b"."), "json": fields}))
    part = part_path(output, source_id)
    part.parent.mkdir(parents=True, exist_ok=True)
    write_tar(part, samples)
    source = {"path": str(path), "source_id": source_id, "frames": clips * CLIP_FRAMES, "status": "kept"}
    curated = Curated({**source, "reason": "kept"}, rows, {s.key: sample_sha256(s.members) for s in samples})
    ledger.add(Identity(path, source_id, 1, 1, None), curated)


def place(jobs: Iterable[ShardJob]) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of the index of each shard, as if it had been written."""
    for job in jobs:
        job.path.touch()
        offset, rows = 0, []
        for piece, sha256 in zip(job.pieces, job.sha256, strict=True):
            row: dict[str, Any] = {"shard": job.path.name, "key": piece.extent.key, "offset": offset, "sha256": sha256}
            row |= {"source_id": piece.part.stem, "frames": CLIP_FRAMES, "start_frame": 0, "end_frame": CLIP_FRAMES}
            row |= {column(member): 1 for member in MEMBERS for column in (offset_column, size_column)}
            rows.append({**row, "bytes": piece.size})
            offset += piece.size
        yield rows


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    raise SystemExit(main())
