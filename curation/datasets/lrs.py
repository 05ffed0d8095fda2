"""LRS2-BBC and LRS3-TED (Afouras et al., 2018): SPLIT/VIDEO/00001.txt beside SPLIT/VIDEO/00001.mp4.

A text has `Text:`, `Conf:`, in LRS3 also `Ref:` and rows FRAME X Y W H at 25 frames a second of that YouTube video,
then perhaps `WORD START END ASDSCORE` (as read by public loaders). SPLIT is pretrain, trainval, test (LRS3) or
pretrain, main (LRS2, whose train.txt, val.txt and test.txt say which of main are which: `VIDEO/00001` in a line).
"""

from pathlib import Path

from clock import FPS
from curation.datasets.listed import Dataset, Entry, find_lists, read_words, wrong
from curation.datasets.voxceleb2 import around, read_track

SPLITS = ("pretrain", "trainval", "main", "train", "val", "test")


def read(path: Path) -> list[Entry]:
    """The entries of the texts below a folder. Raises ListError."""
    named = read_splits(path) if path.is_dir() else {}
    texts = [file for file in find_lists(path, "*/*.txt") if file.stem.isdigit()]
    return [read_utterance(file, named) for file in texts]


def read_splits(folder: Path) -> dict[str, str]:
    """{`VIDEO/00001`: split} of LRS2's lists."""
    lists = {split: sorted(folder.rglob(f"{split}.txt")) for split in ("train", "val", "test")}
    return {words[0].text: split for split, files in lists.items() for file in files for words in read_words(file)}


def read_utterance(path: Path, named: dict[str, str]) -> Entry:
    header, boxes = read_track(path)
    if "Text" not in header:
        raise wrong(path, 1, 1, "has no line Text:")
    parts = path.with_suffix("").parts
    split = named.get("/".join(parts[-2:]), parts[-3] if parts[-3] in SPLITS else "")
    labels = {"identity": parts[-2], "language": "english", "split": split, "transcript": header["Text"]}
    name = "/".join(parts[-3:])
    if not boxes or "Ref" not in header:
        return Entry(name, (name,), labels=labels)
    first, last = boxes[0][0] / FPS, (boxes[-1][0] + 1) / FPS
    return Entry(name, (name,), (header["Ref"],), first, last, around(boxes), labels=labels)


DATASET = Dataset(
    read,
    "by agreement with the BBC (LRS2) and TED (LRS3): look into yours",
    "The release's cut videos are 160 (LRS2) and 224 (LRS3) pixels wide, below the 228 of filters/face_size.",
)
