"""VFHQ (Xie et al., 2022): a text for each clip in meta_info, `Clip+VIDEO+P0+C0+F1537-1825.txt`: person, clip, frames.

Its lines are `H`, `W` and `FPS` of the video that was labelled and `CROP` x0 y0 x1 y1 in its pixels, each after the
last blanks of its line (as read by yunyu/vfhq-downloader, vfhq_dl/parse_meta_info.py, and liangbinxie's own script).
"""

import re
from pathlib import Path

from curation.datasets.listed import Crop, Dataset, Entry, Word, check_times, find_lists, read_words, wrong

NAME = re.compile(r"Clip\+(?P<video>.+)\+P(?P<person>\d+)\+C(?P<clip>\d+)\+F(?P<first>\d+)-(?P<last>\d+)")
KEYS = {"H": 1, "FPS": 1, "CROP": 4}


def read(path: Path) -> list[Entry]:
    """The entries of the texts in meta_info. Raises ListError."""
    return [read_clip(file) for file in find_lists(path, "Clip+*.txt")]


def read_clip(path: Path) -> Entry:
    found = NAME.fullmatch(path.stem)
    if not found:
        raise wrong(path, 1, 1, "is named otherwise than Clip+VIDEO+P0+C0+F1537-1825.txt")
    values: dict[str, list[Word]] = {}
    for words in read_words(path):
        key = words[0].text.rstrip(":")
        if key in KEYS:
            if len(words) <= KEYS[key]:
                raise words[-1].wrong(f"{KEYS[key]} numbers after {key}")
            values[key] = words[-KEYS[key] :]
    if missing := [key for key in KEYS if key not in values]:
        raise wrong(path, 1, 1, f"has no line {missing[0]}")
    fps = values["FPS"][0].number()
    if not fps:
        raise values["FPS"][0].wrong("more than 0 frames a second")
    start_s, end_s = int(found["first"]) / fps, int(found["last"]) / fps
    check_times(start_s, end_s, wrong(path, 1, 1, "its name has a last frame that does not come after the first"))
    x0, y0, x1, y1 = (word.number() for word in values["CROP"])
    crop = Crop(x0, y0, x1, y1, values["H"][0].number())
    labels = {"identity": f"{found['video']}_P{found['person']}"}
    return Entry(path.stem, (path.stem,), (found["video"],), start_s, end_s, crop, fps, labels)


DATASET = Dataset(
    read,
    "look at liangbinxie.github.io/projects/vfhq before use",
    "VFHQ publishes pictures without sound, so nothing of its cut clips can be kept. Give the whole videos that the "
    "lists name (Clip+VIDEO+...), with their sound, as VIDEO.mp4; they are cut by these lists.",
)
