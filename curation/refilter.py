"""New thresholds for a finished run: new verdicts, shards and manifests from stored scores, without any network.

    python -m curation.refilter OUT --set filters/niqe.max_niqe=9.5 --to OUT2

OUT2 becomes what a fresh run with these thresholds would give, or nothing is written. What stored scores cannot decide
is refused: a clip that a filter would now let pass, and that the filters behind it never measured (`--score-only` runs
measure everything), a setting that changes what is measured or how a source is cut. The sources to curate again are
then written to OUT2.recompute.csv, a list for `--videos`.

A run that did not measure everything leaves one row for a source that a filter drops as a whole; here its rows stay as
they were cut, with all their scores: the same seconds, the same reasons. Exit code 0: done; 2: refused.
"""

import json
import math
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from command import parser_of
from curation.ledger_files import part_path, read_finished
from curation.limits import ORIGIN, read_recipe, run_folder, stages_of
from curation.margin import cut_to_clip
from curation.stage import Filter, Stage
from curation.verdicts import KEEP, Verdict, drop, judge
from manifests.reader import ManifestError, read_clips, read_run_notes, read_sources
from manifests.schema import KEPT
from manifests.summary import print_summary, write_summary
from manifests.writer import main_reason, write_manifests
from shards.index import read_index
from shards.packer import PackError, pack
from shards.reader import ShardError, extents
from shards.sample import AUDIO, BOXES, JSON, VIDEO, Sample, encode_json
from storage.atomic_write import atomic_folder, atomic_write
from storage.table import TableError

Row = dict[str, Any]
Stages = Mapping[str, Stage]  # by name, in the order of work
PACKING = ("seed", "shard_bytes")  # settings of the profile that decide how shards are filled, and nothing else
SHOWN = 10


class RefilterError(ValueError):
    """The stored scores cannot give the new verdicts; the text says why, and what to do."""


class NotMeasured(Exception):
    """A clip reached a filter that never measured it; holds the filter's name."""


@dataclass(frozen=True)
class Missing:
    """A row that must be measured before it can be judged."""

    row: Row
    stage: str

    def __str__(self) -> str:
        row = self.row
        return f"{row['source']} {row['start_s']:.2f}-{row['end_s']:.2f} s ({row['reason']}): no {self.stage}"


def refilter(output: Path, overrides: Sequence[str], to: Path) -> pd.DataFrame:
    """Write `to` and return its funnel. Raises RefilterError, ManifestError, PackError or ShardError before the end."""
    old, new = read_recipe(output), read_recipe(output, overrides)
    check_settings(old, new)
    if to.exists() and any(to.iterdir()):
        raise RefilterError(f"{to}: is not empty; give a new folder")
    notes, clips, sources = read_run_notes(output), read_clips(output), read_sources(output)
    rows, before = records(clips), by_name(old)
    check_replay(rows, before, old["score_only"])
    verdicts = replay_all(rows, by_name(new), new["score_only"], Path(f"{to}.recompute.csv"))
    changed = [apply_verdict(row, verdict, before) for row, verdict in zip(rows, verdicts, strict=True)]
    of_sources = judge_sources(records(sources), changed)
    with atomic_folder(to) as folder:
        place_samples(output, folder, rows, changed, new, list(notes.scores))
        write_manifests(folder, changed, of_sources, scores=notes.scores, reasons=notes.reasons, stages=notes.stages)
        with atomic_write(folder / "recipe.yaml") as file:
            file.write(yaml.safe_dump({**new, ORIGIN: str(run_folder(output, old))}, sort_keys=False).encode())
        return write_summary(folder)


def check_settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Raises RefilterError for a change of anything but thresholds and packing."""
    before, after = old["profile"], new["profile"]
    other = [key for key in before if key not in (*PACKING, "stages") and before[key] != after[key]]
    if other:
        raise RefilterError(f"{other[0]}: changes more than verdicts; curate again")
    for (name, stage), was, now in zip(by_name(old).items(), before["stages"], after["stages"], strict=True):
        settings, changed = was[name], now[name]
        for key in settings:
            if settings[key] != changed[key] and key not in stage.deciding_settings():
                what = (
                    "what is measured" if isinstance(stage, Filter) else "how sources are cut or what is made of them"
                )
                raise RefilterError(
                    f"{stage.name}.{key}: changes {what}, which stored scores cannot tell; curate again"
                )


def by_name(recipe: Mapping[str, Any]) -> Stages:
    return {stage.name: stage for stage in stages_of(recipe)}


def records(table: pd.DataFrame) -> list[Row]:
    """Return the rows of a table with None for missing text and NaN for missing numbers."""
    found: Any = table.to_dict("records")
    return [{name: None if value is pd.NA or value is None else value for name, value in row.items()} for row in found]


def check_replay(rows: Sequence[Row], stages: Stages, score_only: bool) -> None:
    """Raises RefilterError unless the stored scores give the stored verdicts at the old settings."""
    for row in rows:
        try:
            verdict = replay(row, stages, score_only)
            stated = f"{verdict.reason} ({verdict.stage})"
        except (NotMeasured, KeyError) as error:
            verdict, stated = None, f"no number of {error.args[0]}"
        if verdict is None or (verdict.reason, verdict.stage) != (row["reason"], text(row["stage"])):
            raise RefilterError(
                f"{row['source']} {row['start_s']:.2f} s: is {row['reason']} ({text(row['stage'])}), and its scores "
                f"say {stated}: its verdict is of other code or of another recipe (--fork); curate again"
            )


def replay(row: Row, stages: Stages, score_only: bool) -> Verdict:
    """Return the verdict on a row by these stages, from its scores. Raises NotMeasured."""
    if not row["kept"] and text(row["stage"]) == "":  # an error or a duplicate, which no filter saw
        return drop(row["reason"], text(row["detail"]))
    left = left_aside(row)
    verdict = judge(row, measured_filters(row, stages, score_only, left.stage))
    return left if verdict.keep and left.stage in stages else verdict


def left_aside(row: Row) -> Verdict:
    """Return the verdict of the step that cut this row off; KEEP if none did."""
    if text(row["stage"]).startswith("steps/"):
        stage, reason = row["stage"], row["reason"]
    else:
        stage, _, reason = text(row.get("remainder")).partition(":")
    return Verdict(False, reason, stage, text(row["detail"])) if stage else KEEP


def measured_filters(row: Row, stages: Stages, score_only: bool, left: str) -> Iterator[Filter]:
    """Yield the filters before the step `left` that cut the row off. Raises NotMeasured at one without its numbers."""
    for name, stage in stages.items():
        if name == left:
            return
        if isinstance(stage, Filter):
            if not (score_only or was_measured(row, name, stages)):
                raise NotMeasured(name)
            yield stage


def was_measured(row: Row, name: str, stages: Stages) -> bool:
    """Whether a filter has measured a row: it came so far, or it has one of the filter's numbers."""
    return has_reached(row, name, stages) or any(not math.isnan(row[score]) for score in stages[name].SCORES)


def has_reached(row: Row, name: str, stages: Stages) -> bool:
    """Whether a row came as far as this stage, in a run that stops measuring when a clip is dropped."""
    names = list(stages)
    return row["kept"] or row["stage"] in names[names.index(name) :]


def replay_all(rows: Sequence[Row], stages: Stages, score_only: bool, listed: Path) -> list[Verdict]:
    """Return the verdicts on all rows. Raises RefilterError, after writing the sources to curate again to `listed`."""
    verdicts, missing = [], []
    for row in rows:
        try:
            verdicts.append(replay(row, stages, score_only))
        except NotMeasured as error:
            missing.append(Missing(row, error.args[0]))
    if missing:
        raise RefilterError(refusal(missing, listed))
    return verdicts


def refusal(missing: Sequence[Missing], listed: Path) -> str:
    """Return the message about rows that must be measured first; writes their sources to a list for `--videos`."""
    sources = sorted({each.row["source"] for each in missing})
    with atomic_write(listed) as file:
        file.write(pd.DataFrame({"path": sources}).to_csv(index=False).encode("utf-8"))
    seconds = sum(each.row["duration_s"] for each in missing)
    lines = [f"  {each}" for each in missing[:SHOWN]]
    more = [f"  and {len(missing) - SHOWN} more"] if len(missing) > SHOWN else []
    head = f"{len(missing)} rows ({seconds / 3600:.2f} h) would now pass, and were never measured further:"
    tail = (
        f"Curate their sources with these settings and --score-only (--videos {listed} lists all {len(sources)}), or "
        "curate the whole again with --score-only once, after which every threshold can be moved."
    )
    return "\n".join([head, *lines, *more, tail])


def apply_verdict(row: Row, verdict: Verdict, stages: Stages) -> Row:
    """Return a row with its new verdict, and its sound shifted as the filters that keep it say."""
    shift: int | None = row["audio_shift_frames"]
    for stage in stages.values():
        if isinstance(stage, Filter) and shift is not None:
            shift += stage.shift_frames(row) * (int(verdict.keep) - int(row["kept"]))
    left = left_aside(row)
    remainder = f"{left.stage}:{left.reason}" if left.stage and left.stage != verdict.stage else None
    return {**row, **verdict.columns(), "remainder": remainder, "audio_shift_frames": shift, "shard": None}


def place_samples(
    output: Path,
    to: Path,
    rows: Sequence[Row],
    changed: Sequence[Row],
    recipe: Mapping[str, Any],
    scores: Sequence[str],
) -> None:
    """Pack the kept clips into `to`/shards, and write their shard into their rows."""
    kept = {row["key"]: row for row in changed if row["kept"]}
    moved = {new["key"] for old, new in zip(rows, changed, strict=True) if shifts(old) != shifts(new)}

    def edit(key: str) -> Callable[[Sample], Sample]:
        row = kept[key]
        own = {name: finite(row[name]) for name in scores}
        return partial(cut_anew, audio_shift_frames=row["audio_shift_frames"], scores=own, recipe=recipe["hash"])

    profile = recipe["profile"]
    found, sha256 = find_samples(output, run_folder(output, recipe), kept, moved)
    packed = pack(
        found,
        to / "shards",
        sha256=sha256,
        seed=profile["seed"],
        shard_bytes=profile["shard_bytes"],
        edit=edit,
        required={VIDEO, AUDIO, BOXES, JSON},
    )
    for key, shard in zip(packed["key"], packed["shard"], strict=True):
        kept[key]["shard"] = shard


def cut_anew(sample: Sample, audio_shift_frames: int, scores: Mapping[str, float | None], recipe: str) -> Sample:
    """A sample as `cut_to_clip` cuts it, under another recipe."""
    done = cut_to_clip(sample, audio_shift_frames, scores)
    return Sample(done.key, {**done.members, JSON: encode_json({**done.json, "recipe": recipe})})


def find_samples(
    output: Path, run: Path, kept: Mapping[str, Row], moved: Collection[str]
) -> tuple[dict[str, Path], dict[str, str]]:
    """Return tar and sha256 of each kept clip: of its old shard if its sound was not moved, else of its part."""
    index = read_index(output / "shards")
    index = index.loc[index["key"].isin(list(kept.keys() - set(moved)))]
    found = {key: output / "shards" / shard for key, shard in zip(index["key"], index["shard"], strict=True)}
    sha256 = dict(zip(index["key"], index["sha256"], strict=True))
    sources = {row["source_id"] for key, row in kept.items() if key not in found}
    for part in (part_path(run, source) for source in sorted(sources)):
        if part.exists():
            found |= {extent.key: part for extent in extents(part) if extent.key in kept and extent.key not in found}
    for _, row in read_finished(run) if sources else ():
        if row["source_id"] in sources:
            sha256 = {**json.loads(row["curated"])["sampled"], **sha256}
    gone = [row for key, row in kept.items() if key not in found]
    if gone:
        raise RefilterError(
            f"{gone[0]['source']} {gone[0]['start_s']:.2f} s: would be kept, and {run / 'parts'} has no sample of it "
            f"({len(gone)} such clips): of a dropped clip a run stores one only for filters that need all clips. "
            "Curate again with these settings"
        )
    return found, sha256


def shifts(row: Row) -> tuple[bool, int | None]:
    return row["kept"], row["audio_shift_frames"]


def finite(value: float) -> float | None:
    return None if math.isnan(value) else value


def judge_sources(sources: Sequence[Row], clips: Sequence[Row]) -> list[Row]:
    """Return the rows of sources with the states that follow from their clips."""
    of_source: dict[str, list[Row]] = {}
    for clip in clips:
        of_source.setdefault(clip["source"], []).append(clip)
    found = []
    for source in sources:
        row = {name: value for name, value in source.items() if name not in ("clips_kept", "kept_s")}
        if row["status"] in (KEPT, "dropped"):
            reason = main_reason(of_source[row["path"]])
            row |= {"reason": reason, "status": KEPT if reason == KEPT else "dropped"}
        found.append(row)
    return found


def text(value: Any) -> str:
    """A value of a text column; empty if it is missing."""
    return value if isinstance(value, str) else ""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("python -m curation.refilter", __doc__)
    parser.add_argument("output", type=Path, help="output folder of curation/run.py")
    parser.add_argument("--set", action="append", required=True, metavar="STAGE.SETTING=VALUE", help="a new threshold")
    parser.add_argument("--to", type=Path, required=True, help="new folder for shards and manifests")
    options = parser.parse_args(arguments)
    try:
        table = refilter(options.output, options.set, options.to)
    except (RefilterError, ManifestError, TableError, PackError, ShardError, OSError) as error:
        print(f"python -m curation.refilter: {error}", file=sys.stderr)
        return 2
    print_summary(table)
    print(f"manifests and shards: {options.to}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
