"""What the driver itself costs: ms per source, and how long a resume takes to start.

    python benchmarks/driver.py --sources 10000 --resume 100000

Only here the work of a source is replaced by nothing; all else (Ray, attempts, ledger, corpus, manifests) is real.
"""

import argparse
import logging
import resource
import sys
import tempfile
import time
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import curation.pool
import pipelines
from curation.corpus import finish
from curation.ledger import Ledger, to_row
from curation.pool import Pool
from curation.run import curate
from curation.source import Curated, Identity, failed
from media.probe import Probe

HEADER = Probe(10.0, 0.0, 1920, 1080, 25.0, False, 0, 1.0, "h264", "yuv420p", 8, None, "aac", 48000, 2, 1)


class Idle:
    """A worker that has every answer ready."""

    def __init__(self, *_: object) -> None:
        pass

    def ready(self, *_: object) -> str:
        return ""

    def identify(self, path: Path) -> Identity:
        return fake(path)

    def curate(self, identity: Identity) -> Curated:
        return drop_source(identity)


def fake(path: Path) -> Identity:
    status = path.stat()
    return Identity(path, path.stem.rjust(64, "0"), status.st_size, status.st_mtime_ns, HEADER)


def drop_source(identity: Identity) -> Curated:
    curated = failed(identity, "face_size", "")
    return replace(curated, source={**curated.source, "status": "dropped", "wall_s": 0.0, "worker": "idle"})


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--sources", type=int, default=10_000)
    parser.add_argument("--resume", type=int, default=100_000)
    options = parser.parse_args()
    logging.disable()
    profile = pipelines.load("embedded")
    recipe = {"hash": "benchmark"}
    curation.pool.Worker = Idle  # type: ignore[misc]
    with tempfile.TemporaryDirectory() as folder:
        videos = [Path(folder) / f"{i:06d}.mp4" for i in range(options.sources)]
        for video in videos:
            video.touch()
        output = Path(folder) / "out"
        ledger = Ledger(output, recipe)
        pool = Pool(profile, output, "benchmark", False, 2)
        began, cpu = time.monotonic(), time.process_time()
        with redirect_stdout(StringIO()):
            curate(videos, ledger, pool, profile, None)
        ledger.flush()
        wall_s, cpu_s = time.monotonic() - began, time.process_time() - cpu
        pool.close()
        each_ms, each_cpu_ms = 1000 * wall_s / options.sources, 1000 * cpu_s / options.sources
        print(f"{options.sources} sources: {each_ms:.2f} ms each, {each_cpu_ms:.2f} ms of them CPU of the driver")
        began = time.monotonic()
        with redirect_stdout(StringIO()):
            finish(output, profile, [], ledger)
        print(f"corpus and manifests of them: {time.monotonic() - began:.1f} s")

        done = Path(folder) / "done"
        many = Ledger(done, recipe)
        for i in range(options.resume):
            identity = replace(fake(videos[0]), path=Path(folder) / f"{i}.mp4")
            many.waiting.append(to_row(identity, drop_source(identity)))
            if len(many.waiting) == 256:
                many.flush()
        many.flush()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.monotonic()
        again = Ledger(done, recipe)
        print(
            f"a resume with {len(again.done)} finished sources starts after {time.monotonic() - began:.1f} s", end=", "
        )
        print(f"{(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024:.0f} MB more")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
