"""How a command describes itself: the first paragraph of its module above the options, the rest below them."""

import argparse


def parser_of(prog: str, doc: str | None) -> argparse.ArgumentParser:
    """A parser without options yet; `doc` is the module's docstring."""
    head, _, rest = (doc or "").partition("\n\n")
    return argparse.ArgumentParser(
        prog=prog, description=head, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
