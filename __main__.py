"""`sayanything`: the programs of this repository by one name, where `pip install .` put them.

    sayanything curate|train|generate|report|verify|doctor|refilter|explain ...

Each is the program of the checkout (`python curation/run.py`, ...) with the same options. An installation holds the
code in the one package `sayanything`; its folder is put first on the path when a program starts, so names such as
`media` or `models` belong to that process alone.
"""

import runpy
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

ROOT = Path(__file__).resolve().parent
PROGRAMS = {
    "curate": "curation/run.py",
    "train": "training/train.py",
    "generate": "training/generate.py",
    "report": "curation/review/report.py",
    "explain": "curation/review/explain.py",
    "refilter": "curation/refilter.py",
    "verify": "curation/verify/__main__.py",
    "doctor": "curation/doctor.py",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a program to its end; it leaves by its own exit code. Returns 2 for a name that is none."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("-h", "--help"):
        print(f"usage: sayanything {{{','.join(PROGRAMS)}}} ...; each has --help")
        return 0
    if name not in PROGRAMS:
        close = get_close_matches(name, PROGRAMS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there is {', '.join(PROGRAMS)}"
        print(f"sayanything: no program {name!r}; {hint}", file=sys.stderr)
        return 2
    sys.path.insert(0, str(ROOT))
    sys.argv = [str(ROOT / PROGRAMS[name]), *rest]
    runpy.run_path(sys.argv[0], run_name="__main__")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
