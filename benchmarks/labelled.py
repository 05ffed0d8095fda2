"""What a curation made of labelled clips: class against reason, and the shares that the labels allow to judge.

    python curation/run.py --profile embedded --videos CLIPS --output OUT
    python benchmarks/labelled.py --clips CLIPS --output OUT

`CLIPS/labels.csv` has the columns file, class, sync, audio and face_w_x_h_px.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from curation.filters.lip_audio import LipAudio
from manifests.reader import read_clips

UNHEARD = {"none": "no_audio", "silent": "silent", "non_speech": "no_speech", "unreadable": "error:probe"}
SYNC_STAGE = "filters/lip_audio"
MIN_FACE_PX = 228


def join_labels(clips: Path, output: Path) -> pd.DataFrame:
    """One row per clip of the manifest, with the labels of its file beside it."""
    labels = pd.read_csv(clips / "labels.csv")
    rows = read_clips(output)
    rows["file"] = rows["source"].str.rsplit("/", n=1).str[-1]
    joined = rows.merge(labels, on="file", how="outer", indicator=True)
    lost = joined[joined["_merge"] != "both"]
    assert lost.empty, f"not accounted for: {lost['file'].tolist()}"
    width = joined["face_w_x_h_px"].str.extract(r"(\d+)x")[0].astype(float)
    return joined.assign(large=width >= MIN_FACE_PX)


def where(rows: pd.DataFrame, chosen: Any) -> pd.DataFrame:
    """The rows for which it is true."""
    return rows.loc[chosen]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    rows = join_labels(options.clips, options.output)
    pd.set_option("display.width", 250, "display.max_columns", 30, "display.max_rows", 200)

    print("seconds by class and reason")
    table = rows.pivot_table("duration_s", ["class", "sync"], "reason", "sum", observed=True).fillna(0).round(1)
    print(table.to_string(), "\n")

    print("files without audible speech, by label: reason")
    for label, reason in UNHEARD.items():
        files = where(rows, rows["audio"] == label)
        kept = where(files, files["kept"])["file"].tolist()
        others = sorted({(row["file"], row["reason"]) for row in files.to_dict("records") if row["reason"] != reason})
        print(f"  {label}: {len(set(files['file']))} files, kept {kept}, another reason than {reason}: {others}")

    real = where(rows, (rows["class"] == "real") & (rows["sync"] == "in_sync") & rows["large"])
    before = set(where(real, real["kept"] | (real["stage"] == SYNC_STAGE))["file"])
    missing = sorted(set(real["file"]) - before)
    print(f"\nin-sync real files with a face of {MIN_FACE_PX} px and more: {len(set(real['file']))}, ", end="")
    print(f"kept before the sync filter: {len(before)}; not: {missing}")

    print("\nsync filter alone, clips by label (a --score-only run measures all of them): verdict, confidence, offset")
    judge = LipAudio()
    judged = where(rows, rows["lip_confidence"].notna()).copy()
    judged["verdict"] = [judge.decide(row).reason for row in judged.to_dict("records")]
    print(judged.pivot_table("file", "sync", "verdict", "count", observed=True).fillna(0).astype(int).to_string())
    spread = judged.groupby("sync")[["lip_confidence", "lip_offset_frames"]].agg(["count", "min", "median", "max"])
    print(spread.round(2).to_string())
    columns = ["file", "start_s", "duration_s", "verdict", "lip_confidence", "lip_threshold", "lip_offset_frames"]
    print(where(judged, judged["verdict"] != "kept").to_string(columns=columns, index=False, float_format="%.2f"))
    offsets = dict(zip(judged["file"], judged["lip_offset_frames"], strict=True))
    example = {file: offset for file, offset in offsets.items() if "syncnet_example" in file}
    print(f"\nsyncnet_example and its copy 12 frames later: {example}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
