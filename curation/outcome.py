"""What has come of the sources of a run so far, in sentences; and when it is too bad to go on."""

from collections import Counter
from collections.abc import Mapping

UNREADABLE = "error:io"
MIN_UNREADABLE = 20  # fewer are bad files, however few others there are
MAX_UNREADABLE_SHARE = 0.1


class StorageError(ValueError):
    """So many files cannot be read that the storage is to blame."""


class Outcome:
    """Counts of the sources that have got their rows in this run, and their hours."""

    def __init__(self) -> None:
        self.sources, self.hours, self.errors = 0, 0.0, Counter[str]()

    def count(self, reason: str, seconds: float) -> None:
        """Count one source."""
        self.sources += 1
        self.hours += seconds / 3600
        if reason.startswith("error:"):
            self.errors[reason] += 1

    def check(self, detail: str) -> None:
        """Raise StorageError if too many sources cannot be read; `detail` is what went wrong with the last."""
        unreadable = self.errors[UNREADABLE]
        if unreadable >= MIN_UNREADABLE and unreadable > MAX_UNREADABLE_SHARE * self.sources:
            raise StorageError(
                f"{unreadable:,} of {self.sources:,} sources cannot be read (the last: {detail}), so the storage may "
                "be to blame: is it there, on every node? Run again with --retry failed:io to open these once more, or "
                "with --accept-unreadable if they are really gone"
            )

    def speed(self, elapsed_s: float) -> str:
        return f"{self.hours / elapsed_s * 3600:.1f} source-hours/hour" if elapsed_s else ""

    def describe(self, sources: int, elapsed_s: float, share_done: float) -> str:
        """Return a line such as `12 of 40 sources, 1.3 h of video, 4 source-hours/hour, 2:10:00 left, errors: 2 io`."""
        left = f"{show_time(elapsed_s * (1 - share_done) / share_done)} left" if share_done else "time left unknown"
        return (
            f"{self.sources:,} of {sources:,} sources, {self.hours:.1f} h of video, {self.speed(elapsed_s)}, {left}, "
            f"errors: {list_errors(self.errors) or 'none'}"
        )


def list_errors(reasons: Mapping[str, int]) -> str:
    """Return `2 io, 1 timeout`, the most frequent first."""
    ordered = sorted(reasons.items(), key=lambda each: (-each[1], each[0]))
    return ", ".join(f"{count:,} {reason.removeprefix('error:')}" for reason, count in ordered if count)


def warn_of_errors(reasons: Mapping[str, int], sources: int) -> str:
    """Return what a run says at its end of sources that ended in an error, or nothing; `reasons` of all sources."""
    errors = {reason: count for reason, count in reasons.items() if reason.startswith("error:")}
    if not errors:
        return ""
    return (
        f"WARNING: {sum(errors.values()):,} of {sources:,} sources ended in an error and gave no clip: "
        f"{list_errors(errors)}. manifests/sources.parquet says what went wrong with each; the same command with "
        "--retry failed, or failed:REASON, opens them again"
    )


def show_time(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
