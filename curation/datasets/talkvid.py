"""TalkVid (Chen et al., arXiv 2508.13618): a JSON list of objects, as in the README of FreedomIntelligence/TalkVid.

{id, fps, start-time, end-time, info: {Person ID, Ethnicity, Age Group, Gender, Video Link, Language, Video Category}}.
Its script leaves VIDEO/VIDEO_001_START_END.mp4, cut near keyframes (data_pipeline/0_video_download/download_clips.py).
"""

import re
from pathlib import Path

from curation.datasets.listed import Dataset, Entry, Fields, check_times, find_lists, read_json, wrong

LABELS = {
    "Person ID": "identity",
    "Language": "language",
    "Gender": "gender",
    "Age Group": "age_group",
    "Ethnicity": "ethnicity",
    "Video Category": "category",
}


def read(path: Path) -> list[Entry]:
    """The entries of TalkVid's JSON files. Raises ListError."""
    return [entry for file in find_lists(path, "*.json") for entry in read_file(file)]


def read_file(path: Path) -> list[Entry]:
    text, items = read_json(path)
    if not isinstance(items, list):
        raise wrong(path, 1, 1, "expected a list of clips")
    start, entries = 0, []
    for i, item in enumerate(items):
        if not isinstance(item, dict) or "id" not in item:
            raise wrong(path, text.count("\n", 0, start) + 1, 1, f"clip {i + 1} behind this line has no 'id'")
        clip = Fields(path, text, str(item["id"]), item, start)
        start = clip.start
        entries.append(entry_of(clip))
    return entries


def entry_of(clip: Fields) -> Entry:
    info = clip.fields("info")
    video = video_of(info)
    error = clip.wrong("end-time does not come after start-time")
    start_s, end_s = check_times(clip.number("start-time"), clip.number("end-time"), error)
    cut = f"{video}_{start_s:.3f}_{end_s:.3f}"
    fps = clip.number("fps") if "fps" in clip.value else None
    labels = {ours: str(info.value[theirs]) for theirs, ours in LABELS.items() if info.value.get(theirs)}
    return Entry(clip.name, (clip.name, cut), (video,), start_s, end_s, None, fps, labels)


def video_of(info: Fields) -> str:
    found = re.search(r"(?:v=|youtu\.be/|/shorts/)([\w-]+)", info.words("Video Link"))
    if not found:
        raise info.wrong(f"Video Link is {info.value['Video Link']!r}, expected one of YouTube's")
    return found[1]


def name_of_stem(stem: str) -> str:
    """The name of a file of TalkVid's script without the number that it counts sections by."""
    return re.sub(r"_\d{3}(_\d+\.\d{3}_\d+\.\d{3})$", r"\1", stem)


DATASET = Dataset(read, "CC BY-NC 4.0 (its README)", name_of_stem=name_of_stem)
