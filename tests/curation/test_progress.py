"""What reaches the terminal."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from curation.progress import Bar, printable
from pipelines import ROOT


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ünï 影.mp4", "plain ünï 影.mp4"),
        ("\x1b]0;title\x07.mp4", "\\x1b]0;title\\x07.mp4"),
        ("\x1b[2J\r.mp4", "\\x1b[2J\\r.mp4"),
        ("a\u202egpm.mp4", "a\\u202egpm.mp4"),
        ("a\udcff.mp4", "a\\udcff.mp4"),
        ("\x9b31m", "\\x9b31m"),
        ("two\nlines", "two\nlines"),
    ],
)
def test_what_would_steer_a_terminal_is_spelled_out(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_names_reach_a_strict_terminal_spelled_out(tmp_path: Path) -> None:
    """An ASCII terminal that raises, as a job under cron has it: names that are not UTF-8, not ASCII, or steer it."""
    program = (
        "import os, sys\n"
        f"sys.path[0] = {str(ROOT)!r}\n"
        "from types import SimpleNamespace as Some\n"
        "from pathlib import Path\n"
        "from curation.progress import Bar, accept_every_name\n"
        "from curation.run import print_account, refuse\n"
        "accept_every_name()\n"
        "for name in ('\\udcff.mp4', 'ü.mp4', '\\x1b[2J.mp4'):\n"
        "    with Bar('curating', 1, 1.0) as bar:\n"
        "        row = {'reason': 'kept', 'start_frame': 0, 'end_frame': 25}\n"
        "        print_account(Some(path=Path(name)), Some(clips=[row], source={'detail': None}), bar.print)\n"
        "    refuse(ValueError(name))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii:strict", "TERM": "dumb"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name in (b"\\udcff.mp4: kept 1.0 s", b"\\xfc.mp4: kept 1.0 s", b"\\x1b[2J.mp4: kept 1.0 s"):
        assert name in done.stdout
    assert b"\x1b[2J" not in done.stdout + done.stderr


def test_the_bar_counts_sources() -> None:
    bar = Bar("curating", 2)
    bar.bar.console.file = io.StringIO()
    with bar:
        bar.advance()
    assert "1/2 sources" in bar.bar.console.file.getvalue()
