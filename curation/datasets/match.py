"""Entries of a list -> the files that are there, their segments and labels, and what is not as the list promises."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import pandas as pd

from clock import FPS
from curation.clip import Segment
from curation.datasets.listed import Dataset, Entry, ListError
from curation.progress import printable
from curation.videos import storable
from manifests.labels import CORNERS, FOLDER, read_labels, write_labels
from media.errors import MediaError
from media.probe import Probe, probe
from storage.atomic_write import atomic_write

SHORTER_S = 0.5  # less is how a cutter rounds
OTHER_FPS = 0.1
WHOLE = 2**62  # frames: more than any file has
REPORT = "list.csv"
PROBLEMS = {
    "missing": "no file of that name",
    "several": "more than one file of that name; none is taken",
    "unreadable": "the file cannot be opened",
    "silent": "the file has no audio track",
    "shorter": "the file ends before the list says",
    "frame_rate": "the file has another frame rate than the list says",
    "overlap": "begins before another entry of the same file ends, whose frames it gives up",
}


@dataclass(frozen=True)
class Found:
    """An entry, its file and header if there is one, and which of PROBLEMS it has."""

    entry: Entry
    path: Path | None
    header: Probe | None
    is_cut: bool
    problems: tuple[str, ...]

    @property
    def start_s(self) -> float:
        return 0.0 if self.is_cut else self.entry.start_s


@dataclass(frozen=True)
class Matched:
    """A list, compared with the files: `others` is how many of these the list does not name."""

    name: str
    dataset: Dataset
    found: list[Found]
    others: int

    @property
    def videos(self) -> list[Path]:
        """The files that are curated, sorted."""
        return sorted({each.path for each in self.found if each.path is not None})


def match(name: str, dataset: Dataset, listed: Path, videos: Sequence[Path]) -> Matched:
    """Read a list and find its files among the videos. Raises ListError."""
    if not listed.exists():
        raise ListError(f"{listed}: does not exist; --list names the folder or file of the published list")
    entries = dataset.read(listed)
    if not entries:
        raise ListError(f"{listed}: is an empty list")
    places = places_of(dataset, videos)
    headers: dict[Path, Probe | None] = {}
    found = mark_overlaps([find(entry, places, headers) for entry in entries])
    matched = Matched(name, dataset, found, len({*videos} - {each.path for each in found}))
    if not matched.videos:
        raise ListError(
            f"{listed}: none of its {len(entries)} entries is among the videos; the first is looked for as "
            f"{' or '.join((*entries[0].cut_names, *entries[0].video_names))} with any suffix"
        )
    return matched


def places_of(dataset: Dataset, videos: Sequence[Path]) -> dict[str, list[Path]]:
    """The files by name without suffix, alone and with the folders before it."""
    places: defaultdict[str, list[Path]] = defaultdict(list)
    for path in videos:
        parts = (*path.parts[1:-1], dataset.name_of_stem(path.stem))
        for first in range(len(parts)):
            places["/".join(parts[first:])].append(path)
    return places


def find(entry: Entry, places: dict[str, list[Path]], headers: dict[Path, Probe | None]) -> Found:
    """The file of an entry: cut already, or the whole video."""
    for names, is_cut in ((entry.cut_names, True), (entry.video_names, False)):
        paths = next((places[name] for name in map(plain, names) if name in places), [])
        if len(paths) > 1:
            return Found(entry, None, None, is_cut, ("several",))
        if paths:
            header = header_of(paths[0], headers)
            problems = ("unreadable",) if header is None else tuple(compare(entry, header, is_cut))
            return Found(entry, paths[0], header, is_cut, problems)
    return Found(entry, None, None, False, ("missing",))


def plain(name: str) -> str:
    return "/".join(part for part in PurePath(name).parts if part not in ("/", "."))


def header_of(path: Path, headers: dict[Path, Probe | None]) -> Probe | None:
    if path not in headers:
        try:
            headers[path] = probe(path)
        except (MediaError, OSError, ValueError):
            headers[path] = None
    return headers[path]


def compare(entry: Entry, header: Probe, is_cut: bool) -> Iterator[str]:
    """What of a file is not as its entry says."""
    if not header.audio_tracks:
        yield "silent"
    if entry.end_s is not None:
        end_s = entry.end_s - (entry.start_s if is_cut else 0.0)
        if header.duration_s < end_s - SHORTER_S:
            yield "shorter"
    if entry.fps and abs(header.fps - entry.fps) > OTHER_FPS:
        yield "frame_rate"


def mark_overlaps(found: list[Found]) -> list[Found]:
    """Mark the entries of whole videos that begin before an earlier one of the same file ends."""
    ordered = sorted(range(len(found)), key=lambda i: (str(found[i].path), found[i].start_s, i))
    ends: dict[Path, float] = {}
    marked = list(found)
    for i in ordered:
        each = found[i]
        if each.path is None or each.is_cut:
            continue
        if each.start_s < ends.get(each.path, 0.0):
            marked[i] = Found(each.entry, each.path, each.header, each.is_cut, (*each.problems, "overlap"))
        ends[each.path] = max(ends.get(each.path, 0.0), float("inf") if each.entry.end_s is None else each.entry.end_s)
    return marked


def print_match(matched: Matched) -> None:
    """Print how many entries are there, what is wrong with how many, and the note of the data set."""
    counts = Counter(problem for each in matched.found for problem in each.problems)
    there = sum(each.path is not None for each in matched.found)
    print(f"{matched.name}: {there:,} of {len(matched.found):,} entries in {len(matched.videos):,} files")
    for problem, meaning in PROBLEMS.items():
        if counts[problem]:
            first = next(each for each in matched.found if problem in each.problems)
            print(printable(f"  {problem} {counts[problem]:,}: {meaning} (first: {first.entry.name})"))
    if matched.others:
        print(f"  {matched.others:,} videos are not named by the list, and left alone")
    print(f"  licence: {matched.dataset.licence}")
    if matched.dataset.note:
        print(f"  {matched.dataset.note}")


def store_match(output: Path, matched: Matched | None) -> dict[str, tuple[Segment, ...]]:
    """Write what a list says into the output, and return the segments of all its sources by path, earlier ones too."""
    if matched is not None:
        write_labels(output, [row_of(matched, each) for each in matched.found if each.path is not None])
        with atomic_write(output / FOLDER / REPORT) as file:
            report_of(matched).to_csv(file, index=False)
    return read_segments(output)


def row_of(matched: Matched, each: Found) -> dict[str, Any]:
    """The row of labels.parquet of an entry."""
    assert each.path is not None
    entry, row = each.entry, dict[str, Any](source=storable(each.path))
    if not each.is_cut and (entry.start_s or entry.end_s is not None):
        row["start_frame"] = round(entry.start_s * FPS)
        row["end_frame"] = None if entry.end_s is None else round(entry.end_s * FPS)
    if entry.crop is not None and each.header is not None and not (each.is_cut and entry.video_names):
        row |= zip(CORNERS, entry.crop.in_pixels(each.header.width, each.header.height), strict=True)
    return row | {**entry.labels, "entry": entry.name, "dataset": matched.name, "licence": matched.dataset.licence}


def report_of(matched: Matched) -> pd.DataFrame:
    """One row per entry of the list: its file, what it promises and has, and its problems."""
    rows = [
        {
            "entry": each.entry.name,
            "path": storable(each.path) if each.path else "",
            "start_s": each.entry.start_s,
            "end_s": each.entry.end_s,
            "file_s": each.header.duration_s if each.header else None,
            "fps": each.entry.fps,
            "file_fps": each.header.fps if each.header else None,
            "problems": " ".join(each.problems),
        }
        for each in matched.found
    ]
    return pd.DataFrame(rows)


def read_segments(output: Path) -> dict[str, tuple[Segment, ...]]:
    """The segments of each source that a list has cut or cropped, in order, from labels.parquet."""
    segments: defaultdict[str, list[Segment]] = defaultdict(list)
    for row in read_labels(output).to_dict("records"):
        crop = None if pd.isna(row["x0"]) else tuple(row[name] for name in CORNERS)
        if crop is not None or not pd.isna(row["start_frame"]):
            start = 0 if pd.isna(row["start_frame"]) else int(row["start_frame"])
            end = WHOLE if pd.isna(row["end_frame"]) else int(row["end_frame"])
            segments[row["source"]].append(Segment(start, end, crop))
    return {source: tuple(sorted(each, key=lambda one: one.start_frame)) for source, each in segments.items()}
