"""The long run of tests/test_chaos.py: many runs are killed at many moments, and each ends with the same bytes.

    python benchmarks/chaos.py --rounds 25

A round starts the same command four times on one output and kills a worker, the driver, the raylet or everything each
time. Whenever the command gets to its end, at the latest when nobody disturbs it any more, all that a user gets is
compared with an undisturbed run, and `curation.verify` is asked.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.chaos import Kill, Whole, build_house, build_videos, damage, kill_round, sweep, undisturbed_run

ROW = "{:>5}  {:<26} {:<11} {:<9} {}"


def describe_moment(moment: float | str) -> str:
    return f"after {moment:.0%} of a run" if isinstance(moment, float) else f"at {moment}"


def one_round(
    house: Path, videos: Path, output: Path, number: int, whole: Whole, patience_s: float
) -> tuple[list[Kill], str]:
    """The kills of a round, printed as they come, and what was wrong in the end."""
    kills = []
    for kill in kill_round(house, videos, output, number, whole, patience_s):
        print(ROW.format(number, describe_moment(kill.moment), kill.victim, kill.outcome, kill.wrong), flush=True)
        kills.append(kill)
    wrong = damage(house, videos, output, whole, patience_s)
    print(ROW.format(number, "to the end", "nobody", "", wrong or "the same bytes, verify finds nothing"), flush=True)
    return kills, wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--first", type=int, default=0, help="number of the first round: its seed")
    parser.add_argument("--patience", type=float, default=180.0, help="seconds until a run is said to hang")
    options = parser.parse_args()
    began, kills, failed = time.monotonic(), list[Kill](), list[int]()
    print(ROW.format("round", "moment", "killed", "the run", ""))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        places = [Path(folder) / name for name in ("house", "videos", "undisturbed")]
        for place in places:
            place.mkdir()
        house, videos = build_house(places[0], deadline_s=options.patience), build_videos(places[1])
        whole = undisturbed_run(house, videos, places[2], options.patience)
        print(f"an undisturbed run takes {whole.seconds:.0f} s", flush=True)
        for number in range(options.first, options.first + options.rounds):
            output = Path(folder) / str(number)
            output.mkdir()
            struck, wrong = one_round(house, videos, output, number, whole, options.patience)
            sweep()
            kills += struck
            if wrong or any(kill.wrong for kill in struck):
                failed.append(number)
    counts = Counter((kill.victim, kill.outcome) for kill in kills)
    print(
        "\n" + "\n".join(f"{victim:<11} {outcome:<9} {count:>4}" for (victim, outcome), count in sorted(counts.items()))
    )
    dead = sum(kill.victim != "nobody" for kill in kills)
    print(f"{dead} kills in {options.rounds} rounds, {(time.monotonic() - began) / 60:.0f} minutes; ", end="")
    print(f"rounds that did not end well: {failed}" if failed else "every round ended with the same bytes")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
