"""Raw video -> WebDataset shards, a manifest, and an account of every second.

    python curation/run.py --profile embedded --videos FOLDER... --output DIR
    ray job submit --address ADDRESS --working-dir . -- python curation/run.py ...

One actor per worker holds the networks and curates one source at a time, longest first; this process alone decides what
is done. Only paths and rows travel between them. The same command continues an interrupted run.

Exit code 0: every source has its rows; 1: stopped before the end, run it again; 2: refused before starting.
"""

import argparse
import logging
import os
import signal
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

# The corpus' sums must not depend on the number of cores; read by BLAS when numpy is imported.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

ROOT = Path(__file__).resolve().parent.parent
if sys.path[0] != str(ROOT):  # run as a script, the first place is this file's own folder
    sys.path[0] = str(ROOT)

import pipelines  # noqa: E402
import weights  # noqa: E402
from curation.progress import Bar  # noqa: E402
from curation.videos import list_videos  # noqa: E402

if TYPE_CHECKING:  # ray, torch and the stages are imported when a run is certain to start: refusing takes a second
    from curation.ledger import Ledger
    from curation.source import Curated, Identity

MAX_DEATHS = 2  # of workers over one source, before it is given up
WAIT_S = 1.0
log = logging.getLogger("curation")


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        profile = pipelines.load(options.profile, options.set)
        videos, ignored = list_videos(options.videos)
        weights.ensure(*pipelines.weights_of(profile))
        options.output = options.output.absolute()
        (options.output / "logs").mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:  # ProfileError, VideoListError, WeightsError
        return refuse(error)
    if ignored:
        names = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in sorted(ignored.items()))
        print(f"not videos by name, left alone: {names}")
    return run(profile, videos, options)


def parser() -> argparse.ArgumentParser:
    head, _, rest = (__doc__ or "").partition("\n\n")
    found = argparse.ArgumentParser(
        prog="python curation/run.py",
        description=head,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument("--profile", required=True, help="a profile of pipelines.yaml, such as embedded or sayanything")
    found.add_argument(
        "--videos",
        required=True,
        nargs="+",
        type=Path,
        help="folders (with all below), video files, or lists of them (.txt, .csv or .parquet with a column `path`)",
    )
    found.add_argument("--output", required=True, type=Path, help="folder of the results; continued if it exists")
    found.add_argument("--workers", type=int, help="processes that curate; default: one per CPU that Ray sees")
    found.add_argument("--set", action="append", default=[], metavar="STAGE.SETTING=VALUE", help="override the profile")
    found.add_argument("--score-only", action="store_true", help="a dropped clip still gets all scores")
    return found


def refuse(error: Exception) -> int:
    print(f"curation/run.py: {error}", file=sys.stderr)
    return 2


def run(profile: pipelines.Profile, videos: list[Path], options: argparse.Namespace) -> int:
    """Identify the sources, curate them, finish the corpus."""
    from curation.corpus import finish
    from curation.ledger import Ledger, LedgerError, recipe_of
    from curation.stage import build_stages
    from manifests.summary import print_summary

    logging.basicConfig(
        filename=options.output / "logs" / "run.log", level=logging.INFO, format="%(asctime)s %(message)s", force=True
    )
    signal.signal(signal.SIGTERM, stop)
    recipe = recipe_of(profile, options.score_only)
    try:
        ledger = Ledger(options.output, recipe)
        pool = Pool(profile, options, recipe["hash"])
    except (LedgerError, ClusterError) as error:
        return refuse(error)
    try:
        curate(videos, ledger, pool)
        pool.close()
        stages = build_stages(profile.stages)
        table = finish(options.output, profile, stages, ledger)
    except KeyboardInterrupt:
        print("stopped; the same command continues", file=sys.stderr)
        return 1
    finally:
        ledger.flush()
        pool.close()
    print_summary(table)
    print(f"manifests and shards: {options.output}")
    return 0


def stop(*_: Any) -> None:
    raise KeyboardInterrupt


def curate(videos: Iterable[Path], ledger: "Ledger", pool: "Pool") -> None:
    """Brings every video that is not finished into the ledger."""
    from curation.source import Identity, duplicate, failed

    waiting = [video for video in videos if not ledger.finished(video)]
    found: list[Identity] = []
    lost = lambda path: found.append(  # noqa: E731
        Identity(path, None, None, None, None, "error:worker_crash", "reading its header killed the worker")
    )
    with Bar("reading headers", len(waiting)) as bar:
        pool.map("identify", waiting, lambda _, identity: (found.append(identity), bar.advance()), lost)
    found.sort(key=lambda identity: str(identity.path))

    originals = {
        identity.source_id: identity.path
        for identity, curated in ledger.done.values()
        if identity.source_id and curated.source["status"] != "duplicate"
    }
    work = []
    for identity in found:
        original = originals.setdefault(identity.source_id, identity.path) if identity.source_id else identity.path
        if identity.probe is None:
            ledger.add(identity, failed(identity, identity.reason, identity.detail))
        elif original != identity.path:
            ledger.add(identity, duplicate(identity, original))
        else:
            work.append(identity)
    work.sort(key=lambda identity: (-identity.frames, str(identity.path)))  # longest first: no straggler at the end

    with Bar("curating", len(work), sum(identity.frames for identity in work) / 25) as bar:

        def done(identity: "Identity", curated: "Curated") -> None:
            ledger.add(identity, curated)
            bar.advance(identity.frames / 25)
            account(identity, curated, bar.print)

        crash = "the worker process died twice with this source"
        pool.map("curate", work, done, lambda identity: done(identity, failed(identity, "error:worker_crash", crash)))


def account(identity: "Identity", curated: "Curated", say: Callable[[str], None]) -> None:
    """One line per source: what became of its seconds."""
    seconds: Counter[str] = Counter()
    for clip in curated.clips:
        seconds[clip["reason"]] += (clip["end_frame"] - clip["start_frame"]) / 25
    parts = "  ".join(f"{reason} {value:.1f} s" for reason, value in sorted(seconds.items(), key=lambda p: -p[1]))
    log.info("%s: %s%s", identity.path, parts, f" ({curated.source['detail']})" if curated.source["detail"] else "")
    say(f"{identity.path.name}: {parts}")


class ClusterError(ValueError):
    """Ray cannot give what the profile asks for."""


class Pool:
    """The workers: Ray actors that each hold the networks, replaced when they die."""

    def __init__(self, profile: pipelines.Profile, options: argparse.Namespace, recipe: str) -> None:
        import ray
        from ray.exceptions import RayActorError, RayTaskError

        from curation.worker import Worker
        from media.probe import Limits

        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's coming default; it warns otherwise
        environment = {"env_vars": {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}}
        if "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ:  # a submitted job brings its own copy of the code
            environment["env_vars"]["PYTHONPATH"] = str(ROOT)
        ray.init(
            runtime_env=environment,
            include_dashboard=False if "RAY_ADDRESS" not in os.environ else None,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
        self.ray, self.death = ray, RayActorError
        gpus = 0.0 if profile.device == "cpu" else profile.gpus_per_worker
        have = ray.cluster_resources()
        if gpus and have.get("GPU", 0) < gpus:
            ray.shutdown()
            raise ClusterError(
                f"profile {profile.name} runs on {profile.device}, and Ray sees {have.get('GPU', 0):.0f} GPUs; "
                "add --set device=cpu, or submit to a cluster with GPUs"
            )
        most = int(min(have.get("CPU", 1), have.get("GPU", 0) / gpus if gpus else float("inf")))
        self.size = max(1, min(options.workers or most, most))
        actor = ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=0, max_task_retries=0)(Worker)
        limits = Limits(**asdict(profile.limits))
        self.start = lambda: actor.remote(profile, limits, options.output, recipe, options.score_only)
        self.workers = [self.start() for _ in range(self.size)]
        try:
            ray.get([worker.ready.remote() for worker in self.workers])
        except (RayActorError, RayTaskError) as error:
            ray.shutdown()
            raise ClusterError(f"a worker cannot start: {str(error).strip().splitlines()[-1]}") from error

    def map(
        self,
        method: str,
        items: Iterable[Any],
        done: Callable[[Any, Any], Any],
        lost: Callable[[Any], Any],
    ) -> None:
        """Calls `method` of some worker for every item; an item whose workers keep dying is handed to `lost`."""
        waiting, deaths = deque(items), Counter()
        idle, running = deque(self.workers), {}
        while waiting or running:
            while waiting and idle:
                item, worker = waiting.popleft(), idle.popleft()
                running[getattr(worker, method).remote(item)] = (item, worker)
            ready, _ = self.ray.wait(list(running), timeout=WAIT_S)
            for reference in ready:
                item, worker = running.pop(reference)
                try:
                    result = self.ray.get(reference)
                except self.death:
                    log.exception("a worker died over %s", item)
                    self.workers[self.workers.index(worker)] = worker = self.start()
                    deaths[id(item)] += 1
                    waiting.append(item) if deaths[id(item)] < MAX_DEATHS else lost(item)
                else:
                    done(item, result)
                idle.append(worker)

    def close(self) -> None:
        self.ray.shutdown()


if __name__ == "__main__":
    raise SystemExit(main())
