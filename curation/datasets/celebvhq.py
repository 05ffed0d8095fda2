"""CelebV-HQ (Zhu et al., ECCV 2022): celebvhq_info.json of CelebV-HQ/CelebV-HQ.

{"meta_info": {"appearance_mapping": [names], "action_mapping": [names]}, "clips": {clip: {ytb_id, duration: {start_sec,
end_sec}, bbox: {top, bottom, left, right} in shares, attributes: {appearance: [0 or 1], action: [...], emotion}}}}. Its
script leaves raw/YTB_ID.mp4 and processed/CLIP.mp4.
"""

from pathlib import Path

from curation.datasets.listed import Dataset, Entry, Fields, check_times, find_lists, read_json, shares


def read(path: Path) -> list[Entry]:
    """The entries of celebvhq_info.json. Raises ListError."""
    entries = []
    for file in find_lists(path, "celebvhq_info*.json"):
        text, content = read_json(file)
        whole = Fields(file, text, "clips", content)
        names = whole.value.get("meta_info", {})
        clips = whole.fields("clips")
        entries += [entry_of(clips.fields(name), names) for name in clips.value]
    return entries


def entry_of(clip: Fields, names: dict[str, list[str]]) -> Entry:
    duration = clip.fields("duration")
    error = duration.wrong("end_sec does not come after start_sec")
    start_s, end_s = check_times(duration.number("start_sec"), duration.number("end_sec"), error)
    crop, video = shares(clip.fields("bbox")), clip.words("ytb_id")
    labels = labels_of(clip.value.get("attributes", {}), names)
    return Entry(clip.name, (clip.name,), (video,), start_s, end_s, crop, labels=labels)


def labels_of(attributes: dict, names: dict[str, list[str]]) -> dict[str, str]:
    """`appearance` and `action` as the names of what is marked, `emotion` if it is one for the whole clip."""
    labels = {}
    for kind in ("appearance", "action"):
        marked = zip(names.get(f"{kind}_mapping", ()), attributes.get(kind, ()), strict=False)
        labels[kind] = " ".join(name for name, value in marked if value)
    emotion = attributes.get("emotion", {})
    labels["emotion"] = "" if emotion.get("sep_flag") else str(emotion.get("labels", ""))
    return labels


DATASET = Dataset(read, "non-commercial research, no copies outside one organisation (its README)")
