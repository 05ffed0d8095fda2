"""How a command describes itself: the first paragraph of its module above the options, the rest below them."""

import argparse
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def option_of(parse: Callable[[str], T]) -> Callable[[str], T]:
    """Return `parse` as a `type` of argparse: the text of its ValueError is what the user reads."""

    def read(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return read


def parser_of(prog: str, doc: str | None) -> argparse.ArgumentParser:
    """A parser without options yet; `doc` is the module's docstring."""
    head, _, rest = (doc or "").partition("\n\n")
    return argparse.ArgumentParser(
        prog=prog, description=head, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
