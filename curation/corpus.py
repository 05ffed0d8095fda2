"""What needs all sources: corpus filters, packing, manifests, the funnel. Runs after the last source is done.

Its result depends on the set of finished sources only, never on their order or on who curated them.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from clock import FPS
from curation.ledger import Ledger
from curation.ledger_files import part_path
from curation.margin import cut_to_clip
from curation.source import Curated, finite
from curation.stage import CorpusFilter, Stage, collect_meanings
from curation.verdicts import judge
from curation.verify.command import verify
from manifests.schema import KEPT
from manifests.summary import write_summary
from manifests.writer import main_reason, write_manifests
from pipelines import Profile
from shards.index import INDEX_NAME, read_index
from shards.packer import Do, Need, pack, retire, write_shards
from shards.reader import extents, read_extent
from shards.sample import AUDIO, BOXES, JSON, LANDMARKS, VIDEO, WHISPER, Sample


class LostParts(ValueError):
    """Sources whose samples are needed and gone; they can be curated again."""

    def __init__(self, paths: Sequence[str]) -> None:
        super().__init__(f"{len(paths)} sources whose samples are gone, the first {paths[0]}")
        self.paths = frozenset(paths)


TIMES = ("start_s", "end_s")  # floats in a row that are no scores
OF_STEP = {"steps/landmarks": LANDMARKS, "steps/whisper": WHISPER}


def finish(
    output: Path,
    profile: Profile,
    stages: Sequence[Stage],
    ledger: Ledger,
    keep_parts: bool = True,
    say: Callable[[str], None] = print,
    do: Do = write_shards,
) -> pd.DataFrame:
    """Run the corpus filters, pack the shards, write the manifests and the summary; return the funnel.

    `do` writes the shards. Raises LostParts, before anything is packed, if the samples of some sources are gone.

    Without `keep_parts`, parts that no later run needs are removed once the shards were read back and found whole.
    """
    curated = [replace(each, clips=[dict(clip) for clip in each.clips]) for each in ledger.read_curated()]
    clips = [clip for each in curated for clip in each.clips]
    parts = {key: part_path(output, each.source["source_id"]) for each in curated for key in each.sampled}
    sha256 = {key: value for each in curated for key, value in each.sampled.items()}
    check_parts(output, curated, stages, ledger)
    for stage in stages:
        if isinstance(stage, CorpusFilter):
            say(f"{stage.name}: {sum(clip['kept'] for clip in clips)} clips")
            apply_corpus_filter(stage, clips, parts, sha256, output, ledger)
    sources = [recount_source(each.source, each.clips) for each in curated]
    kept = {clip["key"]: clip for clip in clips if clip["kept"]}
    required = {VIDEO, AUDIO, BOXES, JSON} | {OF_STEP[stage.name] for stage in stages if stage.name in OF_STEP}
    retire_packed(output, kept, ledger, say)
    index = pack(
        {key: parts[key] for key in kept},
        output / "shards",
        sha256=sha256,
        seed=profile.seed,
        shard_bytes=profile.shard_bytes,
        edit=lambda key: partial(
            cut_to_clip, audio_shift_frames=kept[key]["audio_shift_frames"], scores=scores_in(kept[key])
        ),
        required=required,
        announce=lambda need: say(describe_need(need)),
        do=do,
    )
    for key, shard in zip(index["key"], index["shard"], strict=True):
        kept[key]["shard"] = shard
    scores, reasons = collect_meanings(stages)
    names = [stage.name for stage in stages]
    write_manifests(output, clips, sources, scores=scores, reasons=reasons, stages=names)
    funnel = write_summary(output)
    if not keep_parts:
        corpus_filters = [stage.name for stage in stages if isinstance(stage, CorpusFilter)]
        drop_parts(output, parts, corpus_filters, ledger, say)
    return funnel


def check_parts(output: Path, curated: Sequence[Curated], stages: Sequence[Stage], ledger: Ledger) -> None:
    """Raise LostParts unless there is the part of each source with a clip that is not packed or not judged yet."""
    there = {part.stem for part in output.glob("parts/*/*.tar")}
    packed = set(read_index(output / "shards")["key"]) if (output / "shards" / INDEX_NAME).exists() else set()
    settled = [ledger.scores(stage.name).keys() for stage in stages if isinstance(stage, CorpusFilter)]
    lost = []
    for each in curated:
        if each.sampled and each.source["source_id"] not in there:
            unpacked = {clip["key"] for clip in each.clips if clip["kept"]} - packed
            if unpacked or any(key not in keys for key in each.sampled for keys in settled):
                lost.append(each.source["path"])
    if lost:
        raise LostParts(lost)


def retire_packed(output: Path, kept: Collection[str], ledger: Ledger, say: Callable[[str], None]) -> None:
    """Take the clips of sources that were replaced since out of the shards, and their parts away; say which."""
    ledger.guard()
    stale = retire(output / "shards", kept)
    if not len(stale):
        return
    current = {entry.source_id for entry in ledger.done.values()}
    parts = {part_path(output, source_id) for source_id in set(stale["source_id"]) - current}
    ledger.drop_parts(part for part in parts if part.exists())
    shown = ", ".join(f"{key} of {shard}" for key, shard in zip(stale["key"][:5], stale["shard"][:5], strict=True))
    more = f" and {len(stale) - 5} more" if len(stale) > 5 else ""
    say(f"{len(stale)} packed clips are retired, because their sources have other bytes or rows now: {shown}{more}")


def describe_need(need: Need) -> str:
    """Return a line such as `packing 1,234 clips, 45.6 GB (812.3 GB free)`."""
    return f"packing {need.clips:,} clips, {need.bytes / 1e9:.1f} GB ({need.free / 1e9:.1f} GB free)"


def drop_parts(
    output: Path,
    parts: Mapping[str, Path],
    corpus_filters: Iterable[str],
    ledger: Ledger,
    say: Callable[[str], None],
) -> None:
    """Remove the parts in which every clip has its final scores, if the shards are whole.

    What is kept of them lies in sealed shards then. A later run takes their scores from the ledger and fits on new
    clips only, or not at all; what it can no longer do is to take in a clip that was dropped.
    """
    say("reading the shards back")
    wrong = [finding.text for finding in verify(output, sample=0) if finding.kind != "unfinished"]
    if wrong:
        say(f"parts are kept, because {wrong[0]} (python -m curation.verify says more)")
        return
    settled = [ledger.scores(name).keys() for name in corpus_filters]
    needed = {part for key, part in parts.items() if any(key not in keys for keys in settled)}
    removed = {part for part in parts.values() if part not in needed and part.exists()}
    size = sum(part.stat().st_size for part in removed)
    ledger.drop_parts(removed)
    later = f"; {len(needed)} are kept for clips that more clips may help to judge" if needed else ""
    say(f"{len(removed):,} parts removed, {size / 1e9:.1f} GB{later}")


def apply_corpus_filter(
    stage: CorpusFilter,
    clips: list[dict[str, Any]],
    parts: Mapping[str, Path],
    sha256: Mapping[str, str],
    output: Path,
    ledger: Ledger,
) -> None:
    """Add a corpus filter's scores to the rows, and drop the clips that it rejects.

    Clips of an earlier run keep their scores, so that sealed shards stay true; new ones are measured by what was
    fitted then.
    """
    sampled = {clip["key"]: clip for clip in clips if clip["key"] in parts}
    settled = ledger.scores(stage.name)
    waiting = sampled.keys() - settled.keys()
    read = partial(read_samples, parts=parts, sha256=sha256)
    found = stage.measure_all(waiting, read, output, fitted=bool(settled)) if waiting else {}
    for key, clip in sorted(sampled.items()):
        clip.update(settled.get(key) or found[key])
        verdict = judge({**clip, "duration_s": (clip["end_frame"] - clip["start_frame"]) / FPS}, [stage])
        if clip["kept"] and verdict.keep:
            clip["audio_shift_frames"] += stage.shift_frames(clip)
        elif clip["kept"]:
            clip.update(verdict.columns())
    known = {key: row for key, row in found.items() if sampled[key]["kept"] or not stage.is_undecided(row)}
    ledger.settle(stage.name, known)


def read_samples(keys: Iterable[str], parts: Mapping[str, Path], sha256: Mapping[str, str]) -> Iterator[Sample]:
    """Yield the samples of these clips from their parts, in order of part; of others only headers are read.

    Raises ShardError for one that is not as it was written.
    """
    wanted = set(keys)
    for part in sorted({parts[key] for key in wanted}):
        yield from (read_extent(part, extent, sha256[extent.key]) for extent in extents(part) if extent.key in wanted)


def recount_source(source: dict[str, Any], clips: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return a source's row with the status that follows from its clips after corpus filters."""
    if source["status"] != KEPT or any(clip["kept"] for clip in clips):
        return source
    return {**source, "status": "dropped", "reason": main_reason(clips)}


def scores_in(clip: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the scores of a clip's row for its JSON member."""
    return finite({name: clip[name] for name in clip if isinstance(clip[name], float) and name not in TIMES})
