"""Raw video -> WebDataset shards, a manifest, and an account of every second.

    python curation/run.py --profile embedded --videos FOLDER... --output DIR
    ray job submit --address ADDRESS --working-dir . -- python curation/run.py ...

One worker per core holds the networks and curates one source at a time, longest first; this process alone decides what
is done. Only paths and rows travel between them. The same command continues an interrupted run.

Exit code 0: every source has its rows; 1: stopped before the end, run it again; 2: refused before starting.
"""

import argparse
import logging
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

# The corpus' sums must not depend on the number of cores; read by BLAS when numpy is imported.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

ROOT = Path(__file__).resolve().parent.parent
if sys.path[0] != str(ROOT):  # run as a script, the first place is this file's own folder
    sys.path[0] = str(ROOT)

import pipelines  # noqa: E402
import weights  # noqa: E402
from clock import FPS  # noqa: E402
from command import parser_of  # noqa: E402
from curation.doctor import examine, fails, unwell  # noqa: E402
from curation.lock import Lock, LockError  # noqa: E402
from curation.progress import Bar, accept_every_name, printable  # noqa: E402
from curation.videos import list_videos, storable  # noqa: E402

if TYPE_CHECKING:  # ray, torch and the stages are imported when a run is certain to start: refusing takes a second
    from curation.ledger import Ledger
    from curation.pool import Pool
    from curation.source import Curated, Identity

HEADER_DEADLINE_S = 600.0  # to hash a file and read its header
log = logging.getLogger("curation")


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    accept_every_name()
    with ExitStack() as held:
        try:
            profile = pipelines.load(options.profile, options.set)
            videos, ignored = list_videos(options.videos)
            weights.ensure(*pipelines.weights_of(profile))
            options.output = options.output.absolute()
            (options.output / "logs").mkdir(parents=True, exist_ok=True)
            lock = held.enter_context(Lock(options.output))
            findings = examine(profile, options.output, options.workers)
            if fails(findings):
                raise ValueError("this machine cannot run it: " + "; ".join(unwell(findings)))
        except (ValueError, OSError) as error:  # ProfileError, VideoListError, WeightsError, LockError
            return refuse(error)
        for line in unwell(findings):
            print(f"warning: {line}")
        if ignored:
            names = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in sorted(ignored.items()))
            print(printable(f"not videos by name, left alone: {names}"))
        return plan(profile, videos, options, lock) if options.plan else run(profile, videos, options, lock)


def parser() -> argparse.ArgumentParser:
    found = parser_of("python curation/run.py", __doc__)
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
    found.add_argument(
        "--retry",
        nargs="?",
        const="failed",
        metavar="failed[:REASON]",
        type=retry_option,
        help="once more for sources that ended in an error, such as failed:worker_crash",
    )
    found.add_argument("--fork", action="store_true", help="go on with other settings or code; what is done stays")
    found.add_argument(
        "--drop-parts",
        action="store_true",
        help="remove OUT/parts once the shards are read back and whole: half the disk; dropped clips cannot come back",
    )
    found.add_argument(
        "--plan",
        action="store_true",
        help="curate a sample (1 %%, at least 20 sources) into OUT/plan and say what the whole will yield and need",
    )
    found.add_argument("--score-only", action="store_true", help="a dropped clip still gets all scores")
    return found


def refuse(error: Exception) -> int:
    print(printable(f"curation/run.py: {error}"), file=sys.stderr)
    return 2


def plan(profile: pipelines.Profile, videos: list[Path], options: argparse.Namespace, lock: Lock) -> int:
    """`--plan`: a run over a sample, and what follows from it for all videos."""
    from curation.plan import FOLDER, double_sample, draw, forecast, print_forecast, undecided_filters
    from curation.stage import build_stages

    drawn = draw(videos, profile.seed)
    options.output /= FOLDER
    (options.output / "logs").mkdir(parents=True, exist_ok=True)
    while (code := run(profile, drawn.drawn, options, lock)) == 0:
        names = undecided_filters(options.output, build_stages(profile.stages))
        if not names or len(drawn.drawn) == len(videos):
            break
        print(f"{', '.join(names)}: too few clips to judge by in {len(drawn.drawn)} sources; twice as many")
        drawn = double_sample(drawn, profile.seed)
    if code == 0:
        print_forecast(
            drawn, forecast(drawn, options.output), options.workers or os.cpu_count() or 1, worker_gpus(profile)
        )
    return code


def worker_gpus(profile: pipelines.Profile) -> float:
    return profile.workers.gpus if profile.device == "cuda" else 0.0


def run(profile: pipelines.Profile, videos: list[Path], options: argparse.Namespace, lock: Lock) -> int:
    """Identify the sources, curate them, finish the corpus."""
    from curation.corpus import finish
    from curation.ledger import Ledger, LedgerError, recipe_of
    from curation.pool import ClusterError, Pool, RayStartError
    from curation.source import OutputError
    from curation.stage import build_stages
    from manifests.summary import print_summary
    from shards.packer import PackError
    from shards.reader import ShardError

    signal.signal(signal.SIGTERM, interrupt)
    recipe = recipe_of(profile, options.score_only)
    try:
        logging.basicConfig(
            filename=options.output / "logs" / "run.log",
            encoding="utf-8",
            errors="backslashreplace",
            level=logging.INFO,
            format="%(asctime)s %(message)s",
            force=True,
        )
        ledger = Ledger(options.output, recipe, options.fork, lock.check)
        print("starting workers: Ray, then each loads its networks")
        pool = Pool(profile, options.output, recipe["hash"], options.score_only, options.workers)
        signal.signal(signal.SIGTERM, interrupt)  # again: Ray has put its own in place
    except RayStartError as error:
        return report_stop(str(error))
    except (LedgerError, ClusterError, OSError) as error:
        return refuse(error)
    except KeyboardInterrupt:
        return report_stop("stopped")
    try:
        try:
            curate(videos, ledger, pool, profile, options.retry)
        finally:
            try:
                ledger.flush()
            finally:
                pool.close()
        lock.check()
        stages = build_stages(profile.stages)
        table = finish(options.output, profile, stages, ledger, keep_parts=not options.drop_parts)
    except KeyboardInterrupt:
        return report_stop("stopped")
    except (ClusterError, LockError, OutputError, PackError, ShardError) as error:
        return report_stop(str(error))
    except OSError as error:
        return report_stop(f"{error.filename or options.output}: {error.strerror}")
    print_summary(table)
    print(f"manifests and shards: {options.output}")
    report(options.output)
    return 0


def report(output: Path) -> None:
    """Writes the report in a process of its own: it opens videos, and none of them can spoil a run that is finished."""
    with suppress(KeyboardInterrupt):
        subprocess.run([sys.executable, "-m", "curation.review.report", str(output)], cwd=ROOT, check=False)  # noqa: S603


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def report_stop(why: str) -> int:
    """Print why the run stopped; return its exit code."""
    text = f"curation/run.py: {why}; nothing that was finished is lost, the same command continues"
    print(printable(text), file=sys.stderr)
    return 1


def retry_option(text: str) -> str:
    """`failed` -> empty: all that failed; `failed:worker_crash` -> that kind of error."""
    failed, _, reason = text.partition(":")
    if failed != "failed":
        raise argparse.ArgumentTypeError(f"{text!r}: write failed, or failed:REASON")
    return reason.removeprefix("error:")


def curate(videos: list[Path], ledger: "Ledger", pool: "Pool", profile: pipelines.Profile, retry: str | None) -> None:
    """Bring every video that is not finished into the ledger."""
    from curation.pool import Lost
    from curation.source import duplicate, failed, unread

    waiting = [video for video in videos if not ledger.is_finished(video, retry)]
    waiting += ledger.orphans(videos, waiting)
    found: list[Identity] = []
    with Bar("reading headers", len(waiting)) as bar:
        for end in pool.map("identify", waiting, deadline_s=lambda _: HEADER_DEADLINE_S):
            found.append(unread(end.item, end.reason, end.detail) if isinstance(end, Lost) else end.result)
            bar.advance()

    found.sort(key=lambda identity: str(identity.path))
    originals = ledger.originals(waiting)
    work: list[Identity] = []
    copies: list[Identity] = []
    for identity in found:
        name = storable(identity.path)
        if identity.probe is None:
            ledger.add(identity, failed(identity, identity.reason, identity.detail))
        elif identity.source_id and originals.setdefault(identity.source_id, name) != name:
            copies.append(identity)
        else:
            work.append(identity)
    curate_all(work, ledger, pool, profile)

    spare = {}
    for identity in copies:
        original = ledger.done.get(originals[identity.source_id or ""])
        if original is None or not original.stands_for_copies:
            spare.setdefault(identity.source_id, identity)
    if spare:
        curate_all(list(spare.values()), ledger, pool, profile)
    for identity in copies:
        stand_in = spare.get(identity.source_id)
        if stand_in is not identity:
            original = storable(stand_in.path) if stand_in else originals[identity.source_id or ""]
            ledger.add(identity, duplicate(identity, Path(original)))


def curate_all(work: list["Identity"], ledger: "Ledger", pool: "Pool", profile: pipelines.Profile) -> None:
    """Curate these sources and add what came of them to the ledger."""
    from curation.pool import Lost
    from curation.source import failed

    # Longest first: no straggler at the end. Last of all what was under way when an earlier run died: it may be why.
    work = sorted(work, key=lambda each: (storable(each.path) in ledger.interrupted, -each.frames, str(each.path)))
    with Bar("curating", len(work), sum(identity.duration_s for identity in work)) as bar:
        for end in pool.map("curate", work, begin=ledger.begin, deadline_s=partial(deadline_s, profile.workers)):
            identity = end.item
            curated = failed(identity, end.reason, end.detail) if isinstance(end, Lost) else end.result
            ledger.add(identity, curated)
            bar.advance(identity.duration_s)
            print_account(identity, curated, bar.print)


def deadline_s(settings: pipelines.WorkerSettings, identity: "Identity") -> float:
    """Return how long a worker may take for a source, in seconds."""
    return settings.deadline_s + settings.deadline_factor * identity.duration_s


def print_account(identity: "Identity", curated: "Curated", say: Callable[[str], None]) -> None:
    """Log and print one line for a source: how many of its seconds were kept or dropped, by reason."""
    seconds: Counter[str] = Counter()
    for clip in curated.clips:
        seconds[clip["reason"]] += (clip["end_frame"] - clip["start_frame"]) / FPS
    parts = "  ".join(f"{reason} {value:.1f} s" for reason, value in sorted(seconds.items(), key=lambda p: -p[1]))
    detail = f" ({curated.source['detail']})" if curated.source["detail"] else ""
    log.info("%s: %s%s", printable(storable(identity.path)), parts, detail)
    say(f"{printable(storable(identity.path.name))}: {parts}")


if __name__ == "__main__":
    raise SystemExit(main())
