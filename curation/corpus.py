"""What needs all sources: corpus filters, packing, manifests, the funnel. Runs after the last source is done.

Its result depends on the set of finished sources only, never on their order or on who curated them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from curation.clip import KEPT
from curation.ledger import Ledger
from curation.source import finite, part_path
from curation.stage import CorpusFilter, Stage, documented
from manifests.summary import write_summary
from manifests.writer import write_manifests
from media.audio import SAMPLES_PER_FRAME
from media.encode import decode_flac, encode_flac
from media.probe import FPS
from pipelines import Profile
from shards.packer import pack
from shards.reader import iterate
from shards.sample import (
    AUDIO,
    BOXES,
    JSON,
    LANDMARKS,
    VIDEO,
    WHISPER,
    WHISPER_ROWS_PER_FRAME,
    Sample,
    decode_npy,
    encode_json,
    encode_npy,
)

OF_STEP = {"steps/landmarks": LANDMARKS, "steps/whisper": WHISPER}


def finish(
    output: Path,
    profile: Profile,
    stages: Sequence[Stage],
    ledger: Ledger,
    say: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Verdicts that need the whole corpus, then shards and manifests of all its sources; gives the funnel."""
    curated = [replace(each, clips=[dict(clip) for clip in each.clips]) for each in ledger.curated()]
    clips = [clip for each in curated for clip in each.clips]
    parts = {key: part_path(output, each.source["source_id"]) for each in curated for key in each.sampled}
    for stage in stages:
        if isinstance(stage, CorpusFilter):
            say(f"{stage.name}: {sum(clip['kept'] for clip in clips)} clips")
            judge(stage, clips, parts, output, ledger)
    sources = [recounted(each.source, each.clips) for each in curated]
    kept = {clip["key"]: clip for clip in clips if clip["kept"]}
    say(f"packing {len(kept)} clips")
    required = {VIDEO, AUDIO, BOXES, JSON} | {OF_STEP[stage.name] for stage in stages if stage.name in OF_STEP}
    index = pack(
        {key: parts[key] for key in kept},
        output / "shards",
        seed=profile.seed,
        shard_bytes=profile.shard_bytes,
        edit=lambda sample: finished(sample, kept[sample.key]),
        required=required,
    )
    for key, shard in zip(index["key"], index["shard"], strict=True):
        kept[key]["shard"] = shard
    scores, reasons = documented(stages)
    names = [stage.name for stage in stages]
    write_manifests(output, clips, sources, scores=scores, reasons=reasons, stages=names)
    return write_summary(output)


def judge(
    stage: CorpusFilter, clips: list[dict[str, Any]], parts: Mapping[str, Path], output: Path, ledger: Ledger
) -> None:
    """Adds a corpus filter's scores to the rows, and drops what it rejects.

    Clips of an earlier run keep their scores, so that sealed shards stay true; new ones are measured by what was
    fitted then.
    """
    sampled = {clip["key"]: clip for clip in clips if clip["key"] in parts}
    settled = ledger.scores(stage.name)
    waiting = sampled.keys() - settled.keys()
    found = stage.measure_all(lambda: samples(waiting, parts), output, fitted=bool(settled)) if waiting else {}
    for key, clip in sorted(sampled.items()):
        clip.update(settled.get(key) or found[key])
        verdict = stage.decide({**clip, "duration_s": (clip["end_frame"] - clip["start_frame"]) / FPS})
        if clip["kept"] and verdict.keep:
            clip["audio_shift_frames"] += stage.shift_frames(clip)
        elif clip["kept"]:
            clip.update(kept=False, reason=verdict.reason, stage=stage.name, detail=verdict.detail or None)
    known = {key: row for key, row in found.items() if sampled[key]["kept"] or not stage.undecided(row)}
    ledger.settle(stage.name, known)


def samples(keys: Iterable[str], parts: Mapping[str, Path]) -> Iterator[Sample]:
    """The samples of these clips from their parts, in order of key; one in memory."""
    wanted = set(keys)
    for part in sorted({parts[key] for key in wanted}):
        yield from (sample for sample in iterate(part) if sample.key in wanted)


def recounted(source: dict[str, Any], clips: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A source's row after corpus filters: its status follows from its clips."""
    if source["status"] != KEPT or any(clip["kept"] for clip in clips):
        return source
    last = max(clips, key=lambda clip: clip["end_frame"] - clip["start_frame"])
    return {**source, "status": "dropped", "reason": last["reason"]}


def finished(sample: Sample, clip: Mapping[str, Any]) -> Sample:
    """A sample as it lies in a shard: margins cut off, sound and features shifted, all scores in its JSON."""
    fields = sample.json
    frames, shift = fields["frames"], clip["audio_shift_frames"] - fields["audio_shift_frames"]
    members = dict(sample.members)
    margin = fields.get("margin_frames", 0)
    if margin:
        first = margin + shift
        assert 0 <= first <= 2 * margin, f"{sample.key}: shifted by {shift} frames, the margin is {margin}"
        audio = decode_flac(members[AUDIO])[first * SAMPLES_PER_FRAME :][: frames * SAMPLES_PER_FRAME]
        members[AUDIO] = encode_flac(audio)
        rows = decode_npy(members[WHISPER])[first * WHISPER_ROWS_PER_FRAME :][: frames * WHISPER_ROWS_PER_FRAME]
        members[WHISPER] = encode_npy(rows)
    scores = {name: clip[name] for name in clip if isinstance(clip[name], float) and name not in ("start_s", "end_s")}
    fields.pop("margin_frames", None)
    fields |= {"audio_shift_frames": clip["audio_shift_frames"], "scores": finite(scores)}
    members[JSON] = encode_json(fields)
    return Sample(sample.key, members)
