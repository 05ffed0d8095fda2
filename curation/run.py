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
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

# The corpus' sums must not depend on the number of cores; read by BLAS when numpy is imported.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

ROOT = Path(__file__).resolve().parent.parent
if sys.path[0] != str(ROOT):  # run as a script, the first place is this file's own folder
    sys.path[0] = str(ROOT)

import pipelines  # noqa: E402
import weights  # noqa: E402
from clock import FPS  # noqa: E402
from command import option_of, parser_of  # noqa: E402
from curation.datasets.listed import dataset_names  # noqa: E402
from curation.doctor import examine, fails, unwell  # noqa: E402
from curation.lock import Lock, LockError  # noqa: E402
from curation.mirror import Mirror, MirrorError, parse_target  # noqa: E402
from curation.outcome import UNREADABLE, Outcome, StorageError, warn_of_errors  # noqa: E402
from curation.progress import Bar, Minutes, accept_every_name, printable  # noqa: E402
from curation.videos import (  # noqa: E402
    Video,
    VideoListError,
    find_again,
    list_videos,
    local_files,
    refuse_as_output,
    storable,
)
from storage.scratch import default_folder  # noqa: E402
from storage.store import parse_place  # noqa: E402

if TYPE_CHECKING:  # ray, torch and the stages are imported when a run is certain to start: refusing takes a second
    from curation.clip import Segment
    from curation.datasets.match import Matched
    from curation.ledger import Ledger
    from curation.pool import Pool
    from curation.schedule import Task
    from curation.source import Curated, Identity
    from shards.packer import ShardJob

PACK_DEADLINE_S = 600.0  # to write a shard, and
PACK_BYTES_PER_S = 1e6  # so many of its bytes a second
log = logging.getLogger("curation")


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    accept_every_name()
    with ExitStack() as held:
        try:
            profile = pipelines.load(options.profile, options.set)
            videos, ignored = list_videos(options.videos)
            listed = match_list(options, videos)
            videos = listed.videos if listed else videos
            weights.ensure(*pipelines.weights_of(profile))
            options.output = lasting_folder(options.output)
            refuse_as_output(options.output, options.videos)
            (options.output / "logs").mkdir(parents=True, exist_ok=True)
            lock = held.enter_context(Lock(options.output))
            findings = examine(profile, options.output, options.workers)
            if fails(findings):
                raise ValueError("this machine cannot run it: " + "; ".join(unwell(findings)))
            mirror = Mirror(options.output, options.mirror) if options.mirror and not options.plan else None
            if mirror:
                held.callback(mirror.close)
        except (ValueError, OSError) as error:  # ProfileError, VideoListError, WeightsError, LockError, MirrorError
            return refuse(error)
        for line in unwell(findings):
            print(f"warning: {line}")
        if ignored:
            names = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in sorted(ignored.items()))
            print(printable(f"not videos by name, left alone: {names}"))
        if options.plan:
            return plan(profile, videos, options, lock, listed)
        return run(profile, videos, options, lock, listed, mirror)


def parser() -> argparse.ArgumentParser:
    found = parser_of("python curation/run.py", __doc__)
    found.add_argument("--profile", required=True, help="a profile of pipelines.yaml, such as embedded or sayanything")
    found.add_argument(
        "--videos",
        required=True,
        nargs="+",
        type=option_of(parse_place),
        help="folders (with all below), video files, or lists of them (.txt, .csv or .parquet with a column `path`); "
        "each may be a URL: s3://, gs://, az://, https://",
    )
    found.add_argument(
        "--dataset",
        metavar="NAME",
        help=f"curate what a data set's list names of the videos: {', '.join(dataset_names())} (docs/data_sets.md)",
    )
    found.add_argument("--list", type=Path, help="folder or file of that list; default: the first of --videos")
    found.add_argument("--output", required=True, type=Path, help="folder of the results; continued if it exists")
    found.add_argument("--workers", type=int, help="processes that curate; default: one per CPU that Ray sees")
    found.add_argument(
        "--scratch",
        type=Path,
        help=f"folder on each node for copies of objects, one a worker at a time; default: {default_folder()}",
    )
    found.add_argument("--set", action="append", default=[], metavar="STAGE.SETTING=VALUE", help="override the profile")
    found.add_argument(
        "--retry",
        nargs="?",
        const="failed",
        metavar="failed[:REASON]",
        type=retry_option,
        help="once more for sources that ended in an error, such as failed:worker_crash",
    )
    found.add_argument(
        "--accept-unreadable",
        action="store_true",
        help="do not stop when many files cannot be read; each becomes a row error:io",
    )
    found.add_argument("--fork", action="store_true", help="go on with other settings or code; what is done stays")
    found.add_argument(
        "--drop-parts",
        action="store_true",
        help="remove OUT/parts once the shards are read back and whole: half the disk; dropped clips cannot come back",
    )
    found.add_argument(
        "--mirror",
        type=option_of(parse_target),
        metavar="URL",
        help="s3://BUCKET/PREFIX, gs://... or az://...: copy shards there as they are sealed, and tables and report",
    )
    found.add_argument(
        "--plan",
        action="store_true",
        help="curate a sample (1 %%, at least 20 sources) into OUT/plan and say what the whole will yield and need",
    )
    found.add_argument("--score-only", action="store_true", help="a dropped clip still gets all scores")
    return found


def lasting_folder(output: Path) -> Path:
    """Return the absolute path of --output. Raises ValueError for one that a submitted job would lose."""
    if not output.is_absolute() and "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        raise ValueError(
            f"--output {output} is relative: a submitted job runs in a temporary folder of Ray's; give the path of a "
            "folder that every node sees"
        )
    return output.absolute()


def refuse(error: Exception) -> int:
    print(printable(f"curation/run.py: {error}"), file=sys.stderr)
    return 2


def match_list(options: argparse.Namespace, videos: Sequence[Video]) -> "Matched | None":
    """What the list of `--dataset` names of the videos, after saying what is not as it promises. Raises ValueError."""
    if options.dataset is None:
        if options.list is not None:
            raise ValueError("--list: says what a data set's list is, and needs --dataset")
        return None
    from curation.datasets.listed import dataset_of
    from curation.datasets.match import match, print_match

    if options.dataset not in dataset_names():
        raise ValueError(f"--dataset {options.dataset}{pipelines.suggestion(options.dataset, dataset_names())}")
    files, listed = local_files(videos), options.list or options.videos[0]
    if len(files) < len(videos) or not isinstance(listed, Path):
        raise ValueError(
            f"--dataset {options.dataset}: some videos lie in a store; copy them and their list to a folder"
        )
    found = match(options.dataset, dataset_of(options.dataset), listed, files)
    print_match(found)
    return found


def plan(
    profile: pipelines.Profile,
    videos: Sequence[Video],
    options: argparse.Namespace,
    lock: Lock,
    listed: "Matched | None",
) -> int:
    """`--plan`: a run over a sample, and what follows from it for all videos."""
    from curation.plan import FOLDER, draw, estimate, forecast, print_forecast

    drawn = draw(videos, profile.seed)
    options.output /= FOLDER
    (options.output / "logs").mkdir(parents=True, exist_ok=True)
    code = run(profile, drawn.drawn, options, lock, listed)
    if code == 0:
        drawn = estimate(drawn, options.output)
        print_forecast(
            drawn, forecast(drawn, options.output), options.workers or os.cpu_count() or 1, worker_gpus(profile)
        )
    return code


def worker_gpus(profile: pipelines.Profile) -> float:
    return profile.workers.gpus if profile.device == "cuda" else 0.0


def run(
    profile: pipelines.Profile,
    videos: Sequence[Video],
    options: argparse.Namespace,
    lock: Lock,
    listed: "Matched | None",
    mirror: Mirror | None = None,
) -> int:
    """Identify the sources, curate them, finish the corpus, copy it to its mirror."""
    from curation import handshake
    from curation.corpus import LostParts, finish
    from curation.datasets.match import store_match
    from curation.ledger import Ledger, LedgerError, recipe_of
    from curation.pool import ClusterError, Pool, RayStartError
    from curation.source import OutputError
    from curation.stage import build_stages
    from manifests.summary import print_summary
    from shards.packer import PackError
    from shards.reader import ShardError
    from storage.table import TableError

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
        segments = store_match(options.output, listed)
        print("starting workers: Ray, then each loads its networks", flush=True)
        pool = Pool(
            profile,
            options.output,
            recipe["hash"],
            options.score_only,
            options.workers,
            sources=len(videos),
            handshake=handshake.offer(options.output, videos),
            scratch=options.scratch and options.scratch.absolute(),
        )
        signal.signal(signal.SIGTERM, interrupt)  # again: Ray has put its own in place
    except RayStartError as error:
        return report_stop(str(error))
    except (LedgerError, TableError, ClusterError, OSError) as error:
        return refuse(error)
    except KeyboardInterrupt:
        return report_stop("stopped")
    try:
        try:
            curate(videos, ledger, pool, profile, options.retry, options.accept_unreadable, segments=segments)
            ledger.flush()
            lock.check()
            stages = build_stages(profile.stages)
            do = partial(write_shards, pool, mirror=mirror)
            try:
                table = finish(options.output, profile, stages, ledger, not options.drop_parts, do=do)
            except LostParts as lost:
                print(printable(f"{lost}: they are curated again"), flush=True)
                others = find_again(lost.paths - {storable(video) for video in videos})
                videos = [*videos, *others]
                curate(videos, ledger, pool, profile, None, options.accept_unreadable, lost.paths, segments)
                ledger.flush()
                table = finish(options.output, profile, stages, ledger, not options.drop_parts, do=do)
        finally:
            try:
                ledger.flush()
            finally:
                pool.close()
                handshake.end(options.output)
    except KeyboardInterrupt:
        return report_stop("stopped")
    except (
        ClusterError,
        LockError,
        LostParts,
        OutputError,
        PackError,
        ShardError,
        StorageError,
        VideoListError,
    ) as error:
        return report_stop(str(error))
    except OSError as error:
        return report_stop(f"{error.filename or options.output}: {error.strerror}")
    print_summary(table)
    print(f"manifests and shards: {options.output}", flush=True)
    report(options.output)
    warning = warn_of_errors(Counter(entry.reason for entry in ledger.done.values()), len(ledger.done))
    if warning:
        print(warning, file=sys.stderr)
    return 0 if mirror is None else finish_mirror(mirror)


def finish_mirror(mirror: Mirror) -> int:
    """Copy to the store what is not there yet; return the exit code of the run."""
    try:
        mirror.finish()
    except KeyboardInterrupt:
        return report_stop("stopped")
    except (MirrorError, OSError) as error:
        print(printable(f"curation/run.py: {error}"), file=sys.stderr)
        return 1
    print(f"mirror: {mirror.describe()}", flush=True)
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


def curate(
    videos: Sequence[Video],
    ledger: "Ledger",
    pool: "Pool",
    profile: pipelines.Profile,
    retry: str | None,
    accept_unreadable: bool = False,
    again: Collection[str] = (),
    segments: "Mapping[str, tuple[Segment, ...]]" = MappingProxyType({}),
) -> None:
    """Bring every video that is not finished, or is among `again`, into the ledger, by its segments if it has any.

    Raises StorageError if too many cannot be read.
    """
    from curation.intake import Intake
    from curation.pool import Lost
    from curation.source import failed, unread

    outcome = Outcome()

    def finish(identity: "Identity", curated: "Curated") -> None:
        ledger.add(identity, curated)
        outcome.count(curated.source["reason"], identity.duration_s)
        bar.advance(intake.bytes[identity.path], outcome.speed(bar.elapsed_s))
        print_account(identity, curated, bar.print)
        if not accept_unreadable:
            outcome.check(curated.source["detail"])

    def describe() -> str:
        return f"{outcome.describe(len(tasks), bar.elapsed_s, bar.share_done)}; {pool.describe_places()}"

    def begin(task: "Task") -> None:
        if task.method == "curate":
            ledger.begin(task.item)

    intake = Intake(videos, ledger, profile.workers, finish, retry, again, segments)
    tasks = intake.tasks()
    minutes = Minutes(describe)
    with Bar("curating", len(tasks), sum(intake.bytes.values())) as bar:
        for end in pool.map(tasks, begin=begin, refused=is_unreadable, tick=minutes.tick):
            if isinstance(end.item, Video):
                read = unread(end.item, end.reason, end.detail) if isinstance(end, Lost) else end.result
                more = intake.take(read)
            else:
                curated = failed(end.item, end.reason, end.detail) if isinstance(end, Lost) else end.result
                more = intake.end(end.item, curated)
            for task in more:
                pool.add_first(task)


def write_shards(
    pool: "Pool", jobs: Iterable["ShardJob"], mirror: Mirror | None = None
) -> Iterator[list[dict[str, Any]]]:
    """Let the pool's workers write shards, two for each worker under way; yield the rows of each. Raises PackError."""
    from curation.pool import Lost
    from curation.schedule import Task
    from shards.packer import PackError

    waiting = (Task("pack", job, PACK_DEADLINE_S + job.bytes / PACK_BYTES_PER_S) for job in jobs)
    for end in pool.map(islice(waiting, 2 * max(1, pool.limit()))):
        if isinstance(end, Lost):
            raise PackError(f"{end.item.path}: cannot be written ({end.reason}: {end.detail})")
        for task in islice(waiting, 1):
            pool.add_first(task)
        if mirror:
            mirror.copy_later(f"shards/{end.item.path.name}")
        yield end.result


def is_unreadable(result: "Identity | Curated") -> bool:
    """Whether a worker could not read the file, or it was gone in the middle: another node may see it."""
    from curation.source import Identity

    reason = result.reason if isinstance(result, Identity) else result.source["reason"]
    return reason in (UNREADABLE, "error:changed")


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
