"""How well does a lip probe tell synchronous clips from others, on people whom it was not fitted on?

    python curation/run.py --profile embedded --videos CLIPS --output OUT --score-only
    python benchmarks/lip_probe.py --clips CLIPS --output OUT [--drawn OUT2] [--probe FILE] [--calibrate FILE]

`CLIPS/labels.csv` has the columns file, class, sync, audio. The probe (the shipped one, or --probe) is compared with
one that was fitted on the other half of the people, as a run could on its own clips; with --drawn, a curation of drawn
talkers, also with one fitted on both. Controls: an unfitted probe, and sound that was rolled within its clip.
--calibrate writes the probe with the thresholds that the foreign voices of these clips set.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pandas as pd

import weights
from curation.filters.lip_audio import read_record
from models.lip_probe import COMPONENTS, LAGS, NULL_FRAMES, REGRESSORS, ROWS_PER_FRAME, LipProbe, LipRecord, LipScore
from models.lip_probe_fit import calibrate, fit_probe, keys_in, records_in
from models.mouth import MOTIONS
from shards.reader import iterate
from shards.sample import WHISPER

# Clips that show the same person, or may: never in different halves, never each other's foreign voice.
SAME_PERSON = {
    "dub_obama": "obama", "dub_brit": "brit", "kim": "kim", "syncnet_example": "news", "dub_lemon": "news",
    "grid_pwij3p": "grid", "grid_swwp2s": "grid", "RD_Radio": "radio",
}  # fmt: skip
GOOD = ("in_sync", "in_sync_generated")
REPAIRABLE = 6  # frames; what lies further off counts as not in sync
SHIFTS = (-15, -10, -8, 8, 10, 15)
VOICES = 6  # foreign ones to each clip
LENGTHS = {"2-4 s": (50, 100), "4-8 s": (100, 200), "> 8 s": (200, 10**9)}
HALVES = 2


@dataclass(frozen=True)
class Labelled:
    """A clip, its file, and what the label of its file says; the record's source_id is the person."""

    record: LipRecord
    file: str
    sync: str
    kind: str


def read_labelled(clips: Path, output: Path) -> list[Labelled]:
    """The clips of files with speech that a curation left in its parts, with their labels."""
    labels = pd.read_csv(clips / "labels.csv").set_index("file").to_dict("index")
    samples = (sample for part in sorted(output.glob("parts/*/*.tar")) for sample in iterate(part))
    found = []
    for sample in (sample for sample in samples if {"mouth.npy", WHISPER} <= sample.members.keys()):
        record, file = read_record(sample), sample.json["source"]
        label = labels[file]
        person = next((name for part, name in SAME_PERSON.items() if part in file), file)
        if label["audio"] == "speech":
            found.append(Labelled(replace(record, source_id=person), file, str(label["sync"]), str(label["class"])))
    return sorted(found, key=lambda clip: clip.record.key)


def half_of(person: str, people: Sequence[str]) -> int:
    return sorted(set(people)).index(person) % HALVES


def cut(record: LipRecord, frames: int) -> LipRecord:
    """The first frames of a record."""
    return replace(record, channels=record.channels[:frames])


def foreign(lips: LipRecord, voice: LipRecord) -> LipRecord:
    """The lips of one clip with another's sound, both as long as the shorter."""
    frames = min(len(lips.channels), len(voice.channels))
    rows = voice.rows[: ROWS_PER_FRAME * (frames + 2 * voice.margin)]
    return replace(cut(lips, frames), rows=rows, margin=voice.margin)


def rolled(record: LipRecord, random: np.random.Generator) -> LipRecord:
    """A clip with its own sound, begun somewhere in its middle third."""
    count = len(record.rows)
    return replace(record, rows=np.roll(record.rows, int(random.integers(count // 3, 2 * count // 3)), 0))


def delayed(record: LipRecord, frames: int) -> LipRecord:
    """A clip whose sound comes so many frames later; what is missing at an end is repeated."""
    places = np.arange(len(record.rows)) - ROWS_PER_FRAME * frames
    return replace(record, rows=record.rows[np.clip(places, 0, len(record.rows) - 1)])


def unfitted() -> LipProbe:
    """A probe of random numbers."""
    random = np.random.default_rng(0)
    basis, ridge = (random.normal(size=shape) for shape in ((384, COMPONENTS), (REGRESSORS, MOTIONS)))
    thresholds = np.full(len(NULL_FRAMES), 0.2)
    return LipProbe(basis, ridge, np.ones(MOTIONS), thresholds, clips=0, sources=0, voters=0)


def auc(good: Sequence[float], bad: Sequence[float]) -> float:
    """Share of pairs in which the good one is higher."""
    if not good or not bad:
        return float("nan")
    pairs = np.subtract.outer(np.array(good), np.array(bad))
    return float((pairs > 0).mean() + (pairs == 0).mean() / 2)


def near(score: LipScore) -> float:
    """Height of the best lag that could be repaired, over the median of all: low for what is shifted far."""
    return float(np.nanmax(score.curve[np.abs(LAGS) <= REPAIRABLE]) - np.nanmedian(score.curve))


Judge = Callable[[LipRecord], LipScore | None]


@dataclass(frozen=True)
class Result:
    """Scores by kind of pair, with the length of each."""

    own: list[LipScore]
    others: dict[str, list[LipScore]]


def measure(clips: Sequence[Labelled], judge: Judge) -> Result:
    """The scores of good clips with their own sound, and of all kinds of bad ones."""

    def scores(records: Iterable[LipRecord]) -> list[LipScore]:
        return [score for record in records if (score := judge(record)) is not None]

    good = [clip.record for clip in clips if clip.sync in GOOD]
    pairs = []
    for i, lips in enumerate(good):
        others = (good[(i + step) % len(good)] for step in range(1, len(good)))
        pairs += [foreign(lips, voice) for voice in others if voice.source_id != lips.source_id][:VOICES]
    random = np.random.default_rng(0)
    return Result(
        scores(good),
        {
            "foreign voice": scores(pairs),
            "shifted 8 to 15 frames": scores(delayed(record, shift) for record in good for shift in SHIFTS),
            "own sound rolled": scores(rolled(record, random) for record in good),
            "labelled dubbed": scores(clip.record for clip in clips if clip.sync == "dubbed"),
            "speech, not of these lips": scores(clip.record for clip in clips if clip.kind == "reject"),
        },
    )


def print_auc(results: dict[str, Result]) -> None:
    kinds = list(next(iter(results.values())).others)
    print(f"\nAUC, good clips against\n{'':<34}" + " ".join(f"{kind:>26}" for kind in kinds))
    for name, result in results.items():
        cells = []
        for kind in kinds:
            by = near if kind.startswith("shifted") else lambda score: score.confidence
            good, bad = [by(score) for score in result.own], [by(score) for score in result.others[kind]]
            cells.append(f"{auc(good, bad):>19.3f} ({len(bad):>4})")
        print(f"{name:<34}" + " ".join(cells))
    print("\nconfidence: good 5 %, median; foreign voice 95 %, 99 %; offsets of good clips: quartiles, within 1 of 0")
    for name, result in ((name, result) for name, result in results.items() if result.own):
        own = np.array([score.confidence for score in result.own])
        bad = np.array([score.confidence for score in result.others["foreign voice"]])
        offsets = np.array([score.offset_frames for score in result.own])
        numbers = [*np.percentile(own, (5, 50)), *np.percentile(bad, (95, 99))]
        quartiles = " ".join(f"{value:+.0f}" for value in np.percentile(offsets, (25, 50, 75)))
        print(
            f"{name:<34}"
            + " ".join(f"{value:>6.2f}" for value in numbers)
            + f"   {quartiles}  {np.mean(abs(offsets) <= 1):.2f}"
        )


def print_rates(name: str, clips: Sequence[Labelled], probe: LipProbe) -> None:
    """What thresholds that half of the people set do to the other half: shares over the threshold, by length."""
    people = [clip.record.source_id for clip in clips]
    own: list[tuple[int, bool]] = []
    bad: list[tuple[int, bool]] = []
    for half in range(HALVES):
        taught = [clip.record for clip in clips if half_of(clip.record.source_id, people) == half and clip.sync in GOOD]
        set_here = calibrate(probe, taught)
        tested = [clip for clip in clips if half_of(clip.record.source_id, people) != half]
        result = measure(tested, lambda record, probe=set_here: judge_with(probe, record))
        for into, scores in ((own, result.own), (bad, result.others["foreign voice"])):
            into += [(score.frames, score.confidence >= max(0.2, set_here.threshold(score.frames))) for score in scores]
    print(f"\n{name}, thresholds from the other half of the people: share accepted")
    for length, (low, high) in LENGTHS.items():
        cells = [[over for frames, over in scores if low <= frames < high] for scores in (own, bad)]
        shown = ", ".join(
            f"{what} {np.mean(cell):.3f} of {len(cell)}"
            for what, cell in zip(("good", "foreign"), cells, strict=True)
            if cell
        )
        print(f"  {length:<6} {shown}")


def judge_with(probe: LipProbe, record: LipRecord) -> LipScore | None:
    return probe.score(record.channels, record.rows, record.margin)


def of_other_half(clips: Sequence[Labelled], drawn: Sequence[LipRecord]) -> Judge:
    """Judges each clip by a probe that was fitted on the clips of the other half of the people, and on drawn ones.

    It says nothing where those clips are too few to fit on.
    """
    people = [clip.record.source_id for clip in clips]
    probes: list[LipProbe | None] = []
    for half in range(HALVES):
        taught = [clip.record for clip in clips if half_of(clip.record.source_id, people) != half]
        fit = fit_probe(lambda taught=taught: iter([*taught, *drawn]))
        probes.append(fit.probe if fit else None)

    def judge(record: LipRecord) -> LipScore | None:
        probe = probes[half_of(record.source_id, people)]
        return judge_with(probe, record) if probe else None

    return judge


def print_clips(clips: Sequence[Labelled], probe: LipProbe) -> None:
    print(f"\n{'label':<18} {'file':<44} {'s':>5} {'offset':>6} {'conf.':>6} {'needs':>6} {'4 s':>6} {'agree':>6}")
    for clip in sorted(clips, key=lambda clip: (clip.sync, clip.file)):
        score = judge_with(probe, clip.record)
        numbers = "unknown"
        if score:
            numbers = f"{score.offset_frames:>+6d} {score.confidence:>6.2f} {probe.threshold(score.frames):>6.2f}"
            numbers += f" {score.window_confidence:>6.2f} {score.window_agreement:>6.2f}"
        print(f"{clip.sync:<18} {clip.file[:44]:<44} {len(clip.record.channels) / 25:>5.1f} {numbers}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--clips", type=Path, required=True, help="folder with labels.csv")
    parser.add_argument("--output", type=Path, required=True, help="their curation with --score-only")
    parser.add_argument("--drawn", type=Path, help="a curation of drawn talkers, to fit on both")
    parser.add_argument("--probe", type=Path, help="another probe than the shipped one")
    parser.add_argument("--calibrate", type=Path, help="write the probe with thresholds from these clips")
    options = parser.parse_args()
    probe = LipProbe.load(options.probe or weights.require("lip_probe")["lip_probe"])
    clips = read_labelled(options.clips, options.output)
    good = [clip.record for clip in clips if clip.sync in GOOD]
    print(f"{len(clips)} clips, {len(good)} of them good, of {len({record.source_id for record in good})} people")
    if options.calibrate:
        probe = calibrate(probe, good)
        probe.save(options.calibrate)
    cells = " ".join(f"{n / 25:.0f} s: {t:.2f} " for n, t in zip(NULL_FRAMES, probe.null_thresholds, strict=True))
    print(f"thresholds of the probe: {cells}; zero {probe.zero_frames}; fitted on {probe.clips} clips")
    judges: dict[str, Judge] = {
        "the probe": lambda record: judge_with(probe, record),
        "fitted on the other half": of_other_half(clips, []),
    }
    if options.drawn:
        parts = sorted(options.drawn.glob("parts/*/*.tar"))
        judges["fitted on that half and on drawn"] = of_other_half(clips, list(records_in(parts, keys_in(parts))))
    chance = unfitted()
    judges["unfitted"] = lambda record: judge_with(chance, record)
    results = {name: measure(clips, judge) for name, judge in judges.items()}
    print_auc(results)
    print_rates("the probe", clips, probe)
    print_clips(clips, probe)


if __name__ == "__main__":
    main()
