"""What needs all sources: packing, manifests, the funnel. Runs after the last source is done.

Its result depends on the set of finished sources only, never on their order or on who curated them. Memory: about
1.5 KB per kept clip; rows are read from the ledger twice, and no more than some hundred sources' are held.
"""

import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from curation.ledger import Ledger
from curation.ledger_files import part_path
from curation.margin import cut_to_clip
from curation.stage import Stage, collect_meanings, filters_of
from curation.verify.command import verify
from manifests.schema import stage_of_cpu_column
from manifests.summary import write_summary
from manifests.writer import Account, write_accounts
from pipelines import Profile
from shards.index import INDEX_NAME, read_index
from shards.packer import Do, Need, pack, retire, write_shards
from shards.sample import AUDIO, BOXES, JSON, LANDMARKS, VIDEO, WHISPER


class LostParts(ValueError):
    """Sources whose samples are needed and gone; they can be curated again."""

    def __init__(self, paths: Sequence[str]) -> None:
        super().__init__(f"{len(paths)} sources whose samples are gone, the first {paths[0]}")
        self.paths = frozenset(paths)


OF_STEP = {"steps/landmarks": LANDMARKS, "steps/whisper": WHISPER}


class KeptClip(NamedTuple):
    """What packing and the manifest need of a kept clip."""

    source_id: str
    sha256: str
    audio_shift_frames: int


def finish(
    output: Path,
    profile: Profile,
    stages: Sequence[Stage],
    ledger: Ledger,
    keep_parts: bool = True,
    say: Callable[[str], None] = print,
    do: Do = write_shards,
) -> pd.DataFrame:
    """Pack the shards, write the manifests and the summary; return the funnel.

    `do` writes the shards. Raises LostParts, before anything is packed, if the samples of some sources are gone.

    Without `keep_parts`, parts that no later run needs are removed once the shards were read back and found whole.
    """
    kept, sources, parts, cpu_columns = {}, {}, set(), set()
    for each in ledger.read():
        source_id = each.source["source_id"]
        cpu_columns |= {name for name in each.source if stage_of_cpu_column(name)}
        parts |= {part_path(output, source_id)} if each.sampled else set()
        for clip in each.clips:
            if clip["kept"]:
                sources[source_id] = each.source["path"]
                kept[clip["key"]] = KeptClip(source_id, each.sampled[clip["key"]], final_shift(clip, stages))
    check_parts(output, kept, sources)
    required = {VIDEO, AUDIO, BOXES, JSON} | {OF_STEP[stage.name] for stage in stages if stage.name in OF_STEP}
    retire_packed(output, kept, ledger, say)
    paths = {source_id: part_path(output, source_id) for source_id in sources}
    index = pack(
        {key: paths[clip.source_id] for key, clip in kept.items()},
        output / "shards",
        sha256={key: clip.sha256 for key, clip in kept.items()},
        seed=profile.seed,
        shard_bytes=profile.shard_bytes,
        edit=lambda key: partial(cut_to_clip, audio_shift_frames=kept[key].audio_shift_frames),
        required=required,
        announce=lambda need: say(describe_need(need)),
        do=do,
    )
    shards = dict(zip(index["key"], map(sys.intern, index["shard"]), strict=True))

    def place(clip: Mapping[str, Any]) -> Mapping[str, Any]:
        if not clip["kept"]:
            return clip
        key = clip["key"]
        return {**clip, "audio_shift_frames": kept[key].audio_shift_frames, "shard": shards[key]}

    accounts = (Account(each.source, [place(clip) for clip in each.clips]) for each in ledger.read_in_order())
    scores, reasons = collect_meanings(stages)
    names = [stage.name for stage in stages]
    write_accounts(output, accounts, scores=scores, reasons=reasons, stages=names, cpu_columns=cpu_columns)
    funnel = write_summary(output)
    if not keep_parts:
        drop_parts(output, parts, ledger, say)
    return funnel


def final_shift(clip: Mapping[str, Any], stages: Sequence[Stage]) -> int:
    """Return by how many frames the sound of a kept clip is taken later, in the end."""
    return clip["audio_shift_frames"] + sum(stage.shift_frames(clip) for stage in filters_of(stages))


def check_parts(output: Path, kept: Mapping[str, KeptClip], sources: Mapping[str, str]) -> None:
    """Raise LostParts unless there is the part of each source with a kept clip that is not packed yet."""
    there = {part.stem for part in output.glob("parts/*/*.tar")}
    packed = set(read_index(output / "shards")["key"]) if (output / "shards" / INDEX_NAME).exists() else set()
    lost = {sources[clip.source_id] for key, clip in kept.items() if clip.source_id not in there and key not in packed}
    if lost:
        raise LostParts(sorted(lost))


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


def drop_parts(output: Path, parts: Iterable[Path], ledger: Ledger, say: Callable[[str], None]) -> None:
    """Remove all parts if the shards are whole. A clip that was dropped cannot be taken in any more then."""
    say("reading the shards back")
    wrong = [finding.text for finding in verify(output, sample=0) if finding.kind != "unfinished"]
    if wrong:
        say(f"parts are kept, because {wrong[0]} (python -m curation.verify says more)")
        return
    removed = {part for part in parts if part.exists()}
    size = sum(part.stat().st_size for part in removed)
    ledger.drop_parts(removed)
    say(f"{len(removed):,} parts removed, {size / 1e9:.1f} GB")
