"""MultiTalk (Sung-Bin et al., Interspeech 2024): annotations/LANGUAGE.json of postech-ami/MultiTalk, MultiTalk_dataset.

{clip: {youtube_id, duration: {start_sec, end_sec}, bbox: {top, bottom, left, right} in shares, language, transcript}};
its script leaves raw_video/LANGUAGE/YOUTUBE_ID.mp4 and multitalk_dataset/LANGUAGE/CLIP.mp4 at 25 frames a second.
"""

from pathlib import Path

from curation.datasets.listed import Dataset, Entry, Fields, check_times, find_lists, read_objects, shares


def read(path: Path) -> list[Entry]:
    """The entries of all languages whose file is there. Raises ListError."""
    return [entry_of(clip) for file in find_lists(path, "*.json") for clip in read_objects(file)]


def entry_of(clip: Fields) -> Entry:
    video, language, duration = clip.words("youtube_id"), clip.words("language"), clip.fields("duration")
    error = duration.wrong("end_sec does not come after start_sec")
    start_s, end_s = check_times(duration.number("start_sec"), duration.number("end_sec"), error)
    return Entry(
        clip.name,
        (f"{language}/{clip.name}", clip.name),
        (f"{language}/{video}", video),
        start_s,
        end_s,
        shares(clip.fields("bbox")),
        labels={"language": language, "transcript": str(clip.value.get("transcript", ""))},
    )


DATASET = Dataset(read, "look at multi-talk.github.io before use; the videos are their uploaders'")
