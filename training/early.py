"""Refuses wrong arguments before torch is loaded: a second instead of ten.

The programs check everything again when they run; here stands what needs no network and no file to be opened.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from training.settings import SHIPPED, load_settings


def refuse_early(arguments: Sequence[str] | None = None) -> None:
    """End the process with exit code 2 and a message if settings are wrong or a file is not there."""
    words = sys.argv[1:] if arguments is None else arguments
    if {"-h", "--help"} & set(words):
        return
    given = parse(words)
    try:
        check(given)
    except ValueError as error:
        print(f"refused: {error}", file=sys.stderr)
        raise SystemExit(2) from error


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options that can be checked at once; all others are left to the program."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--profile")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--data", nargs="+", default=[])
    for name in ("--init", "--checkpoint", "--video", "--audio", "--list"):
        parser.add_argument(name)
    return parser.parse_known_args(arguments)[0]


def check(given: argparse.Namespace) -> None:
    """Raises ValueError, ProfileError included."""
    if given.profile is not None:
        load_settings(given.profile, given.set)
    for folder in (word.partition("=")[0] for word in given.data):
        if "://" not in folder and not Path(folder).exists():
            raise ValueError(f"--data {folder}: there is no such folder; it takes the output of curation/run.py")
    for name in ("init", "checkpoint"):
        value = getattr(given, name)
        if value is not None and value not in SHIPPED and not Path(value).exists():
            raise ValueError(f"--{name} {value}: there is no such folder; a run, its export, or {', '.join(SHIPPED)}")
    for name in ("video", "audio", "list"):
        value = getattr(given, name)
        if value is not None and not Path(value).exists():
            raise ValueError(f"--{name} {value}: there is no such file")
