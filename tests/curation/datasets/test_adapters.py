"""Each data set's list, as published, beside tiny videos in the folders that its own scripts leave."""

import json
from pathlib import Path

import pandas as pd
import pytest

from curation.clip import Segment
from curation.datasets.listed import ListError, dataset_names, dataset_of
from curation.datasets.match import REPORT, Matched, match, store_match
from curation.videos import list_videos, local_files
from manifests.labels import FOLDER, add_labels, read_labels
from tests.videos import Pictures, Sound, tone, write_video


def video(path: Path, seconds: float = 4.0, fps: int = 25, silent: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_video(path, Pictures(round(seconds * fps), fps), [] if silent else [Sound(tone(seconds))])


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def matched(name: str, listed: Path, videos: Path) -> Matched:
    return match(name, dataset_of(name), listed, local_files(list_videos([videos])[0]))


def problems(found: Matched) -> dict[str, tuple[str, ...]]:
    return {each.entry.name: each.problems for each in found.found}


def segments(found: Matched, output: Path) -> dict[str, tuple[Segment, ...]]:
    return {Path(source).stem: each for source, each in store_match(output, found).items()}


def test_hdtf_cuts_whole_videos_by_its_texts_and_takes_cut_ones_as_they_are(tmp_path: Path) -> None:
    lists, raw = tmp_path / "HDTF_dataset", tmp_path / "raw"
    text(lists / "WRA_annotion_time.txt", "AnnWagner0.mp4 00:01-00:02 00:03-00:09 \nGone1.mp4 00:05-01:20\n")
    text(lists / "WRA_crop_wh.txt", "AnnWagner0_0.mp4 20 30 10 30\n")
    text(lists / "WRA_resolution.txt", "AnnWagner0.mp4 96\n")
    text(lists / "RD_annotion_time.txt", "Radio1.mp4 00:10-00:14\n")
    video(raw / "AnnWagner0.mp4")
    video(raw / "cut" / "RD_Radio1_000.mp4")
    video(raw / "not_named.mp4")
    found = matched("hdtf", lists, raw)
    assert problems(found) == {
        "AnnWagner0_0": (),
        "AnnWagner0_1": ("shorter",),
        "Gone1_0": ("missing",),
        "Radio1_0": (),
    }
    assert found.others == 1
    assert segments(found, tmp_path / "out") == {  # the list's pixels are those of 96 lines, the file has 48
        "AnnWagner0": (Segment(25, 50, (10.0, 5.0, 25.0, 20.0)), Segment(75, 225, None))
    }
    labels = read_labels(tmp_path / "out").set_index("entry")
    assert labels.identity.to_dict() == {"AnnWagner0_0": "AnnWagner", "AnnWagner0_1": "AnnWagner", "Radio1_0": "Radio1"}
    report = pd.read_csv(tmp_path / "out" / FOLDER / REPORT).set_index("entry")
    assert (report.problems["Gone1_0"], report.file_s["AnnWagner0_1"]) == ("missing", 4.0)


def test_ava_speech_has_a_segment_for_each_row_with_speech(tmp_path: Path) -> None:
    rows = "-5KQ66,0.00,1.20,NO_SPEECH\n-5KQ66,1.2,2.0,CLEAN_SPEECH\n-5KQ66,2.0,3.0,SPEECH_WITH_MUSIC\n"
    listed = text(tmp_path / "ava_speech_labels_v1.csv", rows)
    video(tmp_path / "videos" / "-5KQ66.mp4")
    found = matched("avaspeech", listed, tmp_path / "videos")
    assert segments(found, tmp_path) == {"-5KQ66": (Segment(30, 50), Segment(50, 75))}
    assert read_labels(tmp_path).speech.tolist() == ["clean_speech", "speech_with_music"]


def test_vfhq_says_that_its_clips_are_silent_and_cuts_whole_videos_by_frames(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    meta = "H {h}\nW 64\nFPS 24.0\n\nCROP 8 0 40 32\n".replace("{h}", "48")
    for name in ("Clip+a_B+P0+C0+F24-48", "Clip+x+P1+C2+F0-24"):
        text(tmp_path / "meta_info" / f"{name}.txt", meta)
    video(tmp_path / "raw" / "a_B.mp4")
    video(tmp_path / "raw" / "Clip+x+P1+C2+F0-24.mp4", 1.0, silent=True)
    found = matched("vfhq", tmp_path / "meta_info", tmp_path / "raw")
    assert problems(found) == {"Clip+a_B+P0+C0+F24-48": ("frame_rate",), "Clip+x+P1+C2+F0-24": ("silent", "frame_rate")}
    assert segments(found, tmp_path) == {"a_B": (Segment(25, 50, (8.0, 0.0, 40.0, 32.0)),)}
    from curation.datasets.match import print_match

    print_match(found)
    said = capsys.readouterr().out
    assert "silent 1:" in said and "without sound" in said and "Give the whole videos" in said


CLIP = {"duration": {"start_sec": 1.0, "end_sec": 3.0}, "bbox": {"top": 0.0, "bottom": 0.5, "left": 0.25, "right": 1.0}}


def test_multitalk_knows_the_language_and_the_words(tmp_path: Path) -> None:
    clip = CLIP | {"youtube_id": "QrDZ", "language": "czech", "transcript": "ahoj tady anička"}
    text(tmp_path / "annotations" / "czech.json", json.dumps({"QrDZ_0": clip, "QrDZ_1": clip}, ensure_ascii=False))
    video(tmp_path / "raw" / "raw_video" / "czech" / "QrDZ.mp4")
    video(tmp_path / "raw" / "multitalk_dataset" / "czech" / "QrDZ_1.mp4", 2.0)
    found = matched("multitalk", tmp_path / "annotations", tmp_path / "raw")
    assert segments(found, tmp_path) == {"QrDZ": (Segment(25, 75, (16.0, 0.0, 64.0, 24.0)),)}
    assert set(read_labels(tmp_path).transcript) == {"ahoj tady anička"}


def test_celebvhq_names_what_is_marked(tmp_path: Path) -> None:
    attributes = {"appearance": [0, 1], "action": [1], "emotion": {"sep_flag": False, "labels": "happy"}}
    clips = {"M2_1": CLIP | {"ytb_id": "M2", "attributes": attributes}}
    meta = {"appearance_mapping": ["Blurry", "Male"], "action_mapping": ["talk"]}
    text(tmp_path / "celebvhq_info.json", json.dumps({"meta_info": meta, "clips": clips}))
    video(tmp_path / "raw" / "M2.mp4")
    found = matched("celebvhq", tmp_path, tmp_path / "raw")
    assert segments(found, tmp_path)["M2"][0].start_frame == 25
    row = read_labels(tmp_path).iloc[0]
    assert (row.appearance, row.action, row.emotion) == ("Male", "talk", "happy")


TALKVID = {
    "id": "videovideoTr6-scene1",
    "fps": 24.0,
    "start-time": 0.1,
    "end-time": 3.141666,
    "info": {"Person ID": "597", "Language": "English", "Video Link": "https://www.youtube.com/watch?v=Tr6"},
}


def test_talkvid_finds_the_files_of_its_script_by_their_times(tmp_path: Path) -> None:
    listed = text(tmp_path / "input.json", json.dumps([TALKVID]))
    video(tmp_path / "raw" / "Tr6" / "Tr6_001_0.100_3.142.mp4", 3.0, fps=24)
    found = matched("talkvid", listed, tmp_path / "raw")
    assert problems(found) == {"videovideoTr6-scene1": ()}
    assert segments(found, tmp_path) == {}
    assert (read_labels(tmp_path).identity[0], read_labels(tmp_path).language[0]) == ("597", "English")


VOX = """Identity  : \tid00017
Reference : \t_mjZ
Offset    : \t2
FV Conf   : \t16.140\t(1)
ASD Conf  : \t5.142

FRAME \tX \tY \tW \tH
{rows}"""


def test_voxceleb2_cuts_the_whole_video_by_the_frames_of_the_track(tmp_path: Path) -> None:
    rows = "000025 \t0.125 \t0.25 \t0.5 \t0.5\n000074 \t0.25 \t0.25 \t0.5 \t0.5\n"
    text(tmp_path / "txt" / "id00017" / "_mjZ" / "00001.txt", VOX.format(rows=rows))
    text(tmp_path / "vox2_meta.csv", "VoxCeleb2 ID ,VGGFace2 ID ,Gender ,Set \nid00017 ,n000017 ,f ,test \n")
    video(tmp_path / "raw" / "_mjZ.mp4")
    found = matched("voxceleb2", tmp_path, tmp_path / "raw")
    assert segments(found, tmp_path) == {"_mjZ": (Segment(25, 75, (8.0, 12.0, 48.0, 36.0)),)}
    row = read_labels(tmp_path).iloc[0]
    assert (row.identity, row.gender, row.split) == ("id00017", "f", "test")


def test_voxceleb2_cut_files_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for person in ("id00017", "id00018"):
        text(tmp_path / "txt" / person / "_mjZ" / "00001.txt", VOX.format(rows="000000 .1 .1 .2 .2\n"))
        video(tmp_path / "dev" / "mp4" / person / "_mjZ" / "00001.mp4")
    assert [len(each) for each in problems(matched("voxceleb2", tmp_path, tmp_path / "dev")).values()] == [0, 0]


def test_lrs_knows_its_splits_and_words(tmp_path: Path) -> None:
    words = "Text:  AND THIS IS\nConf:  4\n\nWORD START END ASDSCORE\nAND 0.1 0.3 4.0\n"
    for place in ("main/63303/00011", "pretrain/63303/00012"):
        text(tmp_path / "mvlrs_v1" / f"{place}.txt", words)
        video(tmp_path / "mvlrs_v1" / f"{place}.mp4")
    text(tmp_path / "mvlrs_v1" / "test.txt", "63303/00011 NF\n")
    found = matched("lrs", tmp_path / "mvlrs_v1", tmp_path / "mvlrs_v1")
    assert segments(found, tmp_path) == {}
    labels = read_labels(tmp_path).set_index("entry")
    assert labels.split.to_dict() == {"main/63303/00011": "test", "pretrain/63303/00012": "pretrain"}
    assert set(labels.transcript) == {"AND THIS IS"}


def test_a_table_has_segments_crops_and_any_labels(tmp_path: Path) -> None:
    heading = "path,start_s,end_s,x0,y0,x1,y1,language\n"
    rows = "mine/a.mp4,1,2,0,0,30,40,de\nmine/a.mp4,1.5,3,,,,,fr\nmine/b.mkv,,,,,,,\n"
    text(tmp_path / "videos" / "table.csv", heading + rows)
    video(tmp_path / "videos" / "mine" / "a.mp4")
    video(tmp_path / "videos" / "mine" / "b.mkv", fps=30)
    found = matched("table", tmp_path / "videos", tmp_path / "videos")
    assert problems(found) == {"mine/a.mp4#1": (), "mine/a.mp4#1.5": ("overlap",), "mine/b.mkv": ()}
    assert segments(found, tmp_path) == {"a": (Segment(25, 50, (0.0, 0.0, 30.0, 40.0)), Segment(38, 75, None))}


WRONG = {
    "hdtf": ("RD_annotion_time.txt", "Radio1.mp4 00:10-00:14\nRadio2.mp4 00:10-00:14 0:20-xx\n", ":2:24:"),
    "avaspeech": ("ava_speech_labels_v1.csv", "a,0,1,CLEAN_SPEECH\na,1,2,SINGING\n", ":2:4:"),
    "vfhq": ("Clip+a+P0+C0+F0-9.txt", "H 48\nW 64\nFPS none\nCROP 0 0 1 1\n", ":3:5:"),
    "multitalk": ("a.json", '{"a_0": {\n "youtube_id": "a", "language": "",\n "duration": {"start_sec": 2}}}', ":3:2:"),
    "celebvhq": ("celebvhq_info.json", '{"clips": {\n"a": {"ytb_id": "a", "duration": 3}}}', ":2:"),
    "talkvid": ("input.json", '[{"id": "a", "info": {}},\n]', ":2:1:"),
    "voxceleb2": ("id1/v/00001.txt", "Identity : id1\nReference : v\nFRAME X Y W H\n000001 .1 .1 oops .2\n", ":4:14:"),
    "lrs": ("main/v/00001.txt", "Conf: 4\n", ":1:1:"),
    "table": ("t.csv", "path,start_s,end_s\na.mp4,3,2\n", ":2:3:"),
}  # fmt: skip


@pytest.mark.parametrize("name", dataset_names())
def test_a_wrong_list_is_refused_with_its_line_and_column(tmp_path: Path, name: str) -> None:
    file, content, place = WRONG[name]
    path = text(tmp_path / file, content)
    with pytest.raises(ListError) as error:
        dataset_of(name).read(tmp_path)
    assert str(error.value).startswith(f"{path}{place}"), error.value


def test_a_list_of_other_videos_is_refused_with_what_was_looked_for(tmp_path: Path) -> None:
    listed = text(tmp_path / "RD_annotion_time.txt", "Radio1.mp4 00:10-00:14\n")
    with pytest.raises(ListError, match="none of its 1 entries .* Radio1_0 or RD_Radio1_000 or Radio1"):
        match("hdtf", dataset_of("hdtf"), listed, [video(tmp_path / "other.mp4")])


def test_labels_reach_the_clips_that_lie_in_their_segment(tmp_path: Path) -> None:
    text(tmp_path / "t.csv", "path,start_s,end_s,language\na.mp4,1,2,de\na.mp4,2,3,fr\n")
    found = matched("table", tmp_path, video(tmp_path / "a.mp4").parent)
    store_match(tmp_path, found)
    source = str(found.videos[0])
    clips = pd.DataFrame({"source": source, "start_frame": [0, 25, 50], "end_frame": [25, 50, 75]})
    assert add_labels(clips, read_labels(tmp_path)).language.fillna("none").tolist() == ["none", "de", "fr"]
    store_match(tmp_path, found)
    assert len(read_labels(tmp_path)) == 2
