"""How well does the sync network tell lips with their own sound from others, at 1 to 8 s, beside the lip probe?

    python curation/run.py --profile embedded --videos CLIPS --output OUT --score-only
    python -m benchmarks.sync --clips CLIPS --output OUT [--drawn OUT2] [--model FILE] [--calibrate FILE]
        [--figure PNG] [--json FILE]

`CLIPS/labels.csv` as for benchmarks/lip_probe.py; `--drawn` is a curation of drawn talkers that were not trained on,
whose true offset is 0. Windows are cut as clips are, without sight of the rest of their clip. In real clips the offset
that the lip probe reads of the whole clip counts as true. Intervals: 95 %, over clips.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from matplotlib.figure import Figure

import weights
from benchmarks.lip_probe import GOOD, Labelled, read_labelled
from benchmarks.result import write_json
from clock import FPS
from models.lip_probe import LAGS, MAX_LAG, ROWS_PER_FRAME, LipProbe, LipRecord, find_peak, lag_curve
from models.lip_probe_fit import foreign_thresholds, keys_in, records_in
from models.mouth import motion, valid_share
from models.sync import SyncModel
from storage.atomic_write import atomic_write

SECONDS = (1, 2, 4, 8)
SHIFTS = (1, 2, 3, 5, 10)
VOICES = 4  # foreign ones to each window
RESAMPLES = 300

Curve = Callable[[LipRecord], np.ndarray]  # correlation at LAGS


@dataclass(frozen=True)
class Clip:
    """A good clip, and by how many frames its sound is late."""

    record: LipRecord
    offset: int


def curves(probe: LipProbe, model: SyncModel) -> dict[str, Curve]:
    ones = np.ones(len(model.arrays["mouth.3.bias"]))

    def by_probe(record: LipRecord) -> np.ndarray:
        predicted = probe.predict(record.rows)
        return lag_curve(motion(record.channels), predicted, record.margin, probe.channel_weights)

    def by_network(record: LipRecord) -> np.ndarray:
        seen, heard = model.embed_mouth(record.channels), model.embed_audio(record.rows)
        return lag_curve(seen, heard, record.margin, ones)

    return {
        "lip probe": by_probe,
        "sync network": by_network,
        "mean of both": lambda record: (by_probe(record) + by_network(record)) / 2,
    }


def windows(record: LipRecord, frames: int) -> list[LipRecord]:
    """Windows of a clip side by side, each with the sound that its lags need as far as there is any."""
    found = []
    for start in range(0, len(record.channels) - frames + 1, frames):
        margin = min(MAX_LAG, record.margin + start)
        first = record.margin + start - margin
        rows = record.rows[ROWS_PER_FRAME * first : ROWS_PER_FRAME * (first + margin + frames + MAX_LAG)]
        found.append(LipRecord(record.key, record.source_id, record.channels[start : start + frames], rows, margin))
    return [window for window in found if valid_share(window.channels) >= 0.5]


@dataclass(frozen=True)
class Scores:
    """Numbers of windows, and the clip of each."""

    values: np.ndarray
    clips: np.ndarray


def scores(pairs: Sequence[tuple[float, str]]) -> Scores:
    return Scores(np.array([value for value, _ in pairs]), np.array([key for _, key in pairs]))


def auc(good: np.ndarray, bad: np.ndarray) -> float:
    """Share of pairs in which the good one is higher."""
    ranked = np.sort(bad)
    below, up_to = np.searchsorted(ranked, good, "left"), np.searchsorted(ranked, good, "right")
    return float((below + up_to).mean() / (2 * len(bad)))


def interval(good: Scores, bad: Scores) -> tuple[float, float, float]:
    """AUC with its 95 % interval over clips."""
    random, keys = np.random.default_rng(0), np.unique(good.clips)
    goods = {key: good.values[good.clips == key] for key in keys}
    bads = {key: bad.values[bad.clips == key] for key in keys}
    drawn = []
    for _ in range(RESAMPLES):
        chosen = random.choice(keys, len(keys))
        drawn.append(auc(np.concatenate([goods[k] for k in chosen]), np.concatenate([bads[k] for k in chosen])))
    low, high = np.percentile(drawn, (2.5, 97.5))
    return auc(good.values, bad.values), float(low), float(high)


def measure(clips: Sequence[Clip], curve: Curve, frames: int) -> dict:
    """AUCs, offsets and thresholds of windows of one length, and the mean curves for the figure."""
    cut = [(window, clip.offset) for clip in clips for window in windows(clip.record, frames)]
    random = np.random.default_rng(0)
    own, foreign, offsets, own_curves, foreign_curves = [], [], [], [], []
    shifted: dict[int, tuple[list, list]] = {shift: ([], []) for shift in SHIFTS}
    for lips, true in cut:
        found = curve(lips)
        offset, confidence = find_peak(found)
        own.append((confidence, lips.key))
        offsets.append(offset - true)
        own_curves.append(moved(found, true))
        for shift, (good, bad) in shifted.items():
            for place in (true - shift, true + shift):
                if abs(place) <= MAX_LAG and np.isfinite(found[[true + MAX_LAG, place + MAX_LAG]]).all():
                    bad.append((found[place + MAX_LAG], lips.key))
            good.append((found[true + MAX_LAG], lips.key))
        others = [voice for voice, _ in cut if voice.source_id != lips.source_id]
        for i in random.choice(len(others), min(VOICES, len(others)), replace=False):
            pair = LipRecord(lips.key, lips.source_id, lips.channels, others[i].rows, others[i].margin)
            strange = curve(pair)
            foreign.append((find_peak(strange)[1], lips.key))
            foreign_curves.append(strange)
    good, bad, off = scores(own), scores(foreign), np.array(offsets)
    limits = {share: float(np.percentile(good.values, 100 * share)) for share in (0.01, 0.05)}
    return {
        "windows": len(own),
        "clips": len(set(good.clips)),
        "auc_foreign": interval(good, bad),
        "auc_shift": {k: interval(scores(a), scores(b)) for k, (a, b) in shifted.items()},
        "offset_within_1": float((abs(off) <= 1).mean()),
        "offset_error": float(np.median(abs(off))),
        "threshold": limits,
        "false_acceptance": {share: float((bad.values >= limit).mean()) for share, limit in limits.items()},
        "curve": np.nanmean(own_curves, 0).tolist(),
        "foreign_curve": np.nanmean(foreign_curves, 0).tolist(),
    }


def moved(curve: np.ndarray, offset: int) -> np.ndarray:
    """The curve with another lag in its middle; NaN beyond its ends."""
    places = np.arange(len(curve)) + offset
    inside = (places >= 0) & (places < len(curve))
    return np.where(inside, curve[np.clip(places, 0, len(curve) - 1)], np.nan)


def print_table(title: str, rows: dict[tuple[int, str], dict]) -> None:
    print(f"\n{title}\n")
    shifts = " | ".join(f"{shift}" for shift in SHIFTS)
    print(f"| s | windows (clips) | | AUC, foreign voice | AUC, shifted by {shifts} | offset within 1 | "
          "threshold 1 % (lets in) | 5 % (lets in) |")  # fmt: skip
    print("|---|---|---|---|" + "---|" * len(SHIFTS) + "---|---|---|")
    for (seconds, name), row in rows.items():
        mean, low, high = row["auc_foreign"]
        moved_by = " | ".join(f"{row['auc_shift'][shift][0]:.3f}" for shift in SHIFTS)
        lets_in = " | ".join(f"{row['threshold'][p]:.2f} ({row['false_acceptance'][p]:.3f})" for p in (0.01, 0.05))
        print(f"| {seconds} | {row['windows']} ({row['clips']}) | {name} | {mean:.3f} ({low:.3f} to {high:.3f}) | "
              f"{moved_by} | {row['offset_within_1']:.3f} | {lets_in} |")  # fmt: skip


def print_dubs(clips: Sequence[Labelled], judges: dict[str, Curve]) -> None:
    """Whole clips: good ones against those labelled as dubbed, one by one."""
    print("\nwhole clips: good against dubbed")
    for name, curve in judges.items():
        found = [(clip, find_peak(curve(clip.record))[1]) for clip in clips if len(clip.record.channels) >= 2 * FPS]
        good = scores([(value, clip.record.key) for clip, value in found if clip.sync in GOOD])
        dubs = {clip.file: value for clip, value in found if clip.sync == "dubbed"}
        retimed = [value for clip, value in found if clip.sync == "dubbed_retimed"]
        print(f"  {name}: good {len(good.values)}, 5 %, median {np.percentile(good.values, (5, 50)).round(3)}; "
              f"dubbed {({file: round(value, 3) for file, value in dubs.items()})}; "
              f"dubbed, mouths retimed: {np.sort(retimed).round(2)}")  # fmt: skip
        for clip, value in sorted(found, key=lambda pair: pair[1])[:8]:
            print(f"    {value:.3f} {clip.sync:<18} {clip.file}")


def draw(results: dict[str, dict[tuple[int, str], dict]], path: Path) -> None:
    """Mean correlation of 2 s windows against the offset of the sound from the true one."""
    figure = Figure(figsize=(5 * len(results), 4), layout="constrained")
    all_axes = np.atleast_1d(figure.subplots(1, len(results), sharey=True))
    for axes, (title, rows) in zip(all_axes, results.items(), strict=True):
        for name, colour in (("lip probe", "tab:orange"), ("sync network", "tab:blue")):
            row = rows[2, name]
            axes.plot(LAGS, row["curve"], label=name, color=colour)
            axes.plot(LAGS, row["foreign_curve"], label=f"{name}, foreign voice", color=colour, linestyle=":")
        axes.set(title=f"{title}, windows of 2 s", xlabel="sound later than the true offset by, frames")
        axes.axhline(0, color="grey", linewidth=0.5)
    all_axes[0].set_ylabel("mean correlation")
    all_axes[0].legend()
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=110)


def main() -> None:
    options = parser().parse_args()
    found = weights.require("lip_probe", options.model)
    probe, model = LipProbe.load(found["lip_probe"]), SyncModel.load(found[options.model])
    labelled = read_labelled(options.clips, options.output)
    good = [clip.record for clip in labelled if clip.sync in GOOD]
    if options.calibrate:
        ones = np.ones(len(model.arrays["mouth.3.bias"]))
        thresholds = foreign_thresholds(good, model.embed_mouth, model.embed_audio, ones)
        model = SyncModel(model.arrays, thresholds)
        model.save(options.calibrate)
        print(f"thresholds at 2, 3, 4, 6, 8 s: {thresholds.round(3)}")
    judges = curves(probe, model)
    sets = {"labelled clips": [Clip(record, find_peak(judges["lip probe"](record))[0]) for record in good]}
    if options.drawn:
        parts = sorted(options.drawn.glob("parts/*/*.tar"))
        sets["drawn strangers"] = [Clip(record, 0) for record in records_in(parts, keys_in(parts))]
    results = {}
    for title, clips in sets.items():
        lengths = [s for s in SECONDS if sum(len(clip.record.channels) >= s * FPS for clip in clips) >= 5]
        results[title] = {(s, name): measure(clips, curve, s * FPS) for s in lengths for name, curve in judges.items()}
        print_table(f"{title}: {len(clips)}", results[title])
    print_dubs(labelled, judges)
    if options.figure:
        draw(results, options.figure)
    plain = {
        title: {f"{seconds} s, {name}": row for (seconds, name), row in rows.items()} for title, rows in results.items()
    }
    write_json(options.json, plain)


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    found.add_argument("--clips", type=Path, required=True, help="folder with labels.csv")
    found.add_argument("--output", type=Path, required=True, help="their curation with --score-only")
    found.add_argument("--drawn", type=Path, help="a curation of drawn talkers that were not trained on")
    found.add_argument("--model", default="sync_small", help="RUN/export/sync.safetensors instead of the shipped one")
    found.add_argument("--calibrate", type=Path, help="write the model with thresholds from the labelled clips")
    found.add_argument("--figure", type=Path)
    found.add_argument("--json", type=Path, help="file for the numbers")
    return found


if __name__ == "__main__":
    main()
