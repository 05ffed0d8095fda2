"""What the pool tells of dead workers; how it treats them is shown by tests/test_chaos.py on a real Ray."""

import argparse
from pathlib import Path

import pytest

from curation.pool import LAST_WORDS_LINES, ClusterError, last_words, start_ray
from curation.run import retry_option
from curation.worker import log_path


def test_last_words_are_the_innermost_calls_without_addresses(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("Fatal Python error: Aborted\n\nThread 0x00007f12ab (most recent call first):\n" + "  File x\n" * 50)
    words = last_words(log)
    assert words.startswith("Fatal Python error: Aborted\n\nThread 0x… (most recent call first):\n  File x")
    assert len(words.splitlines()) == LAST_WORDS_LINES


def test_a_worker_that_was_killed_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.log").touch()
    assert last_words(tmp_path / "a.log") == "the worker process was killed"
    assert last_words(tmp_path / "b.log") == "the worker process left no log"


def test_every_item_has_a_log_of_its_own_whatever_its_name(tmp_path: Path) -> None:
    names = [Path("/v/a.mp4"), Path("/w/a.mp4"), Path("/v/\udce9.mp4"), Path("/v/" + "x" * 250)]
    assert len({log_path(tmp_path, name) for name in names}) == 4


@pytest.mark.parametrize(
    ("option", "reason"),
    [("failed", ""), ("failed:timeout", "timeout"), ("failed:error:timeout", "timeout")],
)
def test_retry_names_a_reason_or_none(option: str, reason: str) -> None:
    assert retry_option(option) == reason


def test_retry_of_anything_else_is_refused() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="write failed"):
        retry_option("dropped")


def test_a_ray_that_cannot_start_is_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise RuntimeError("no node\ncould not be reached")

    monkeypatch.setattr("ray.init", refuse)
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    with pytest.raises(ClusterError, match="Ray at head:6379 cannot start or be joined: could not be reached"):
        start_ray()
