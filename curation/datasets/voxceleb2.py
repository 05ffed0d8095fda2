"""VoxCeleb2 (Chung et al., Interspeech 2018): txt/id00017/VIDEO/00001.txt of each utterance, and vox2_meta.csv.

A text has lines `Identity : id00017`, `Reference : VIDEO`, ..., then `FRAME X Y W H` and a row for each frame at 25
frames a second of the whole video, the box in shares. (Layout as read by public loaders of the robots.ox.ac.uk release;
the release's own mp4/id00017/VIDEO/00001.mp4 are 224 x 224 pixels, below the paper's 228.)
"""

from pathlib import Path

from clock import FPS
from curation.datasets.listed import Crop, Dataset, Entry, Word, find_lists, read_csv, read_words, wrong

META = "vox2_meta.csv"
Box = tuple[int, float, float, float, float]


def read(path: Path) -> list[Entry]:
    """The entries of the texts below a folder. Raises ListError."""
    people = read_meta(path) if path.is_dir() else {}
    return [read_utterance(file, people) for file in find_lists(path, "id*/*/*.txt")]


def read_meta(folder: Path) -> dict[str, dict[str, str]]:
    """{identity: gender and split} of vox2_meta.csv, if it is there: VoxCeleb2 ID, VGGFace2 ID, Gender, Set."""
    people = {}
    for file in sorted(folder.rglob(META)):
        for words in list(read_csv(file))[1:]:
            if len(words) != 4:
                raise words[-1].wrong(f"four fields in the row, not {len(words)}")
            people[words[0].text] = {"gender": words[2].text, "split": words[3].text}
    return people


def read_utterance(path: Path, people: dict[str, dict[str, str]]) -> Entry:
    header, boxes = read_track(path)
    for key in ("Identity", "Reference"):
        if key not in header:
            raise wrong(path, 1, 1, f"has no line {key}")
    if not boxes:
        raise wrong(path, 1, 1, "has no row of a frame behind FRAME X Y W H")
    identity = header["Identity"]
    return Entry(
        "/".join(path.with_suffix("").parts[-3:]),
        ("/".join(path.with_suffix("").parts[-3:]),),
        (header["Reference"],),
        boxes[0][0] / FPS,
        (boxes[-1][0] + 1) / FPS,
        around(boxes),
        labels={"identity": identity, **people.get(identity, {})},
    )


def read_track(path: Path) -> tuple[dict[str, str], list[Box]]:
    """The lines `key: value` of a text of VoxCeleb2 or LRS3, and its rows of frames. Raises ListError."""
    header: dict[str, str] = {}
    boxes: list[Box] = []
    rows = False
    for words in read_words(path):
        key, colon, value = " ".join(word.text for word in words).partition(":")
        if words[0].text in ("FRAME", "WORD"):
            rows = words[0].text == "FRAME"
        elif rows:
            boxes.append(box_of(words))
        elif colon and not boxes:
            header[key.strip()] = value.strip()
    return header, boxes


def box_of(words: list[Word]) -> Box:
    if len(words) != 5:
        raise words[-1].wrong(f"five numbers in the row, not {len(words)}")
    frame, x, y, width, height = (word.number() for word in words)
    return int(frame), x, y, width, height


def around(boxes: list[Box]) -> Crop:
    """The smallest crop, in shares, with all boxes in it."""
    return Crop(
        min(box[1] for box in boxes),
        min(box[2] for box in boxes),
        max(box[1] + box[3] for box in boxes),
        max(box[2] + box[4] for box in boxes),
    )


DATASET = Dataset(
    read,
    "look at robots.ox.ac.uk/~vgg/data/voxceleb before use; the videos are their uploaders'",
    "The release's cut videos are 224 pixels wide, and filters/face_size asks for 228: give the whole videos, or lower "
    "filters/keyframe_face_size.min_px, filters/face_size.min_px and filters/clip_face_size.min_px.",
)
