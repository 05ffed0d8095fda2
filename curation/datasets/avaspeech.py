"""AVA-Speech (Chaudhuri et al., arXiv 1808.00606): ava_speech_labels_v1.csv, rows `video id, start_s, end_s, label`.

Label is NO_SPEECH, CLEAN_SPEECH, SPEECH_WITH_MUSIC or SPEECH_WITH_NOISE; the videos are YouTube's, labelled from 900 to
1800 s. Segments are the rows with speech; a heading `video_id,label_start_timestamp_seconds,...` may be there or not.
"""

from pathlib import Path

from curation.datasets.listed import Dataset, Entry, check_times, find_lists, read_csv

LABELS = ("NO_SPEECH", "CLEAN_SPEECH", "SPEECH_WITH_MUSIC", "SPEECH_WITH_NOISE")


def read(path: Path) -> list[Entry]:
    """The entries with speech. Raises ListError."""
    return [entry for file in find_lists(path, "ava_speech_labels*.csv") for entry in read_file(file)]


def read_file(path: Path) -> list[Entry]:
    entries = []
    for words in read_csv(path):
        if words[0].text == "video_id":
            continue
        if len(words) != 4:
            raise words[-1].wrong(f"four fields in the row, not {len(words)}")
        video, start, end, label = words
        if label.text not in LABELS:
            raise label.wrong(f"one of {', '.join(LABELS)}")
        start_s, end_s = check_times(start.number(), end.number(), end.wrong("an end after the start"))
        if label.text != LABELS[0]:
            name = f"{video.text}_{start_s:.2f}"
            entries.append(Entry(name, (), (video.text,), start_s, end_s, labels={"speech": label.text.lower()}))
    return entries


DATASET = Dataset(read, "look at research.google.com/ava before use; the films are their owners'")
