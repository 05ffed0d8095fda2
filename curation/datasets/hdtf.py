"""HDTF (Zhang et al., CVPR 2021): RD, WDA and WRA, each with four texts in the folder HDTF_dataset of MRzzm/HDTF.

`xx_annotion_time.txt` has a video and the times of its clips, `xx_crop_wh.txt` a clip and min_width, width, min_height,
height in pixels of the resolution in `xx_resolution.txt`. Clip i of Radio11.mp4 is Radio11_i.mp4 (README there), or
RD_Radio11_00i.mp4 after universome/HDTF. A few clips have no crop, which then is the whole picture.
"""

import re
from pathlib import Path

from curation.datasets.listed import Crop, Dataset, Entry, Word, check_times, find_lists, read_words

TIMES = "_annotion_time.txt"  # spelled so in the repository


def read(path: Path) -> list[Entry]:
    """The entries of HDTF's texts in a folder. Raises ListError."""
    return [entry for times in find_lists(path, f"*{TIMES}") for entry in read_subset(times)]


def read_subset(times: Path) -> list[Entry]:
    subset = times.name.removesuffix(TIMES)
    heights = {words[0].text: words[1].number() for words in read_beside(times, "resolution", 2)}
    crops = {words[0].text: [word.number() for word in words[1:5]] for words in read_beside(times, "crop_wh", 5)}
    entries = []
    for words in read_words(times, 2):
        video = words[0].text.removesuffix(".mp4")
        for i, word in enumerate(words[1:]):
            start_s, end_s = parse_times(word)
            entries.append(
                Entry(
                    f"{video}_{i}",
                    (f"{video}_{i}", f"{subset}_{video}_{i:03d}"),
                    (video, f"{subset}_{video}"),
                    start_s,
                    end_s,
                    crop_of(crops.get(f"{video}_{i}.mp4"), heights.get(f"{video}.mp4")),
                    labels={"identity": re.sub(r"\d+$", "", video) if subset != "RD" else video, "subset": subset},
                )
            )
    return entries


def read_beside(times: Path, kind: str, minimum: int) -> list[list[Word]]:
    """The words of another text of the same subset; none if it is not there."""
    path = times.with_name(times.name.replace("annotion_time", kind))
    return list(read_words(path, minimum)) if path.is_file() else []


def parse_times(word: Word) -> tuple[float, float]:
    """`01:05-02:15` in seconds."""
    found = re.fullmatch(r"((?:\d+:)?\d+:\d\d)-((?:\d+:)?\d+:\d\d)", word.text)
    if not found:
        raise word.wrong("times such as 01:05-02:15")
    return check_times(seconds(found[1]), seconds(found[2]), word.wrong("an end after the start"))


def seconds(text: str) -> float:
    total = 0
    for part in text.split(":"):
        total = 60 * total + int(part)
    return float(total)


def crop_of(numbers: list[float] | None, height: float | None) -> Crop | None:
    if numbers is None or height is None:
        return None
    left, width, top, high = numbers
    return Crop(left, top, left + width, top + high, height)


DATASET = Dataset(read, "none stated in MRzzm/HDTF; the videos are their uploaders'")
