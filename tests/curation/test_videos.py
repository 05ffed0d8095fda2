from pathlib import Path

import pandas as pd
import pytest

from curation.videos import VideoListError, list_videos, local_files, refuse_as_output, storable


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.mp4", "a.MOV", "deep/er/c.mkv", "notes.txt", "deep/d.jpg", ".hidden.mp4", ".git/e.mp4"):
        path = tmp_path / "raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "raw"


def test_a_folder_gives_the_videos_below_it_sorted_and_counts_the_rest(folder: Path) -> None:
    videos, ignored = list_videos([folder])
    assert videos == [folder / "a.MOV", folder / "b.mp4", folder / "deep/er/c.mkv"]
    assert ignored == {".txt": 1, ".jpg": 1}


def test_what_is_given_twice_is_taken_once(folder: Path) -> None:
    assert list_videos([folder, folder / "b.mp4", folder / "deep"])[0] == list_videos([folder])[0]


def test_a_file_that_is_named_is_taken_whatever_it_is_called(folder: Path) -> None:
    assert list_videos([folder / "deep/d.jpg"]) == ([folder / "deep/d.jpg"], {})


def test_paths_become_absolute(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert list_videos([Path("b.mp4")])[0] == list_videos([Path("../raw/b.mp4").resolve()])[0]


def test_lists_of_all_kinds_name_files_beside_them(folder: Path) -> None:
    names = ["b.mp4", "gone.mp4", str(folder / "a.MOV")]
    wanted = sorted([folder / "b.mp4", folder / "gone.mp4", folder / "a.MOV"])
    (folder / "list.txt").write_text("\ufeff" + "\r\n".join([*names, "", "  "]), encoding="utf-8")
    pd.DataFrame({"id": [1, 2, 3], "path": names}).to_csv(folder / "list.csv", index=False)
    pd.DataFrame({"anything": names}).to_parquet(folder / "list.parquet")
    for suffix in ("txt", "csv", "parquet"):
        assert list_videos([folder / f"list.{suffix}"])[0] == wanted, suffix


def test_names_that_pandas_would_read_as_something_else_stay_names(folder: Path) -> None:
    (folder / "list.csv").write_text("path\n007\nNA\nNone\n\n1e5\n")
    assert [path.name for path in list_videos([folder / "list.csv"])[0]] == ["007", "1e5", "NA", "None"]


def test_names_need_not_be_utf8(folder: Path) -> None:
    (folder / "list.txt").write_bytes(b"caf\xe9.mp4\n")
    assert list_videos([folder / "list.txt"])[0] == [folder / "caf\udce9.mp4"]


def listed(folder: Path, text: str | bytes, suffix: str = "csv") -> list[str]:
    """The entries of a list with this text, as paths relative to its folder."""
    path = folder / f"list.{suffix}"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return [str(video.relative_to(folder)) for video in local_files(list_videos([path])[0])]


@pytest.mark.parametrize(
    ("text", "names"),
    {
        "a.mp4\nb.mp4\n": ["a.mp4", "b.mp4"],  # no heading
        "a.mp4\n": ["a.mp4"],
        "b.mp4\nNA\n": ["NA", "b.mp4"],
        "deep/one\ntwo\n": ["deep/one", "two"],
        "video\na.mp4\nb.mp4\n": ["a.mp4", "b.mp4"],
        "path;lang\na,1.mp4;en\nb.mp4;de\n": ["a,1.mp4", "b.mp4"],
        "lang\tpath\nen\ta.mp4\n": ["a.mp4"],
        'path\n"a,1.mp4"\n"say ""hi"".mp4"\n': ["a,1.mp4", 'say "hi".mp4'],
        "\ufeffpath,lang\r\na.mp4,en\r\n\r\n": ["a.mp4"],
        "path\n007\n": ["007"],
    }.items(),
)
def test_a_csv_is_read_with_or_without_a_heading_and_with_any_separator(
    folder: Path, text: str, names: list[str]
) -> None:
    assert listed(folder, text) == names


def test_a_first_line_that_is_an_existing_file_is_no_heading(folder: Path) -> None:
    (folder / "one").touch()
    assert listed(folder, "one\ntwo\n") == ["one", "two"]


@pytest.mark.parametrize(
    ("text", "message"),
    {
        "path\na,1.mp4\n": "line 2 has 2 fields, the heading has 1: quote",
        "path,lang\na.mp4,en\nb,2.mp4,de\n": "line 3 has 3 fields, the heading has 2: quote",
        "path,lang\na.mp4\n": "line 2 has 1 fields, the heading has 2: quote",
        "a.mp4,en\nb.mp4,de\n": "needs a column 'path'; it has a.mp4, en",
        "a.mp4;en\nb.mp4;de\n": "needs a column 'path'",
        "one\ntwo\n": "line 1, 'one', may be a heading or a video",
        "path,path\na.mp4,b.mp4\n": "more than one column 'path'",
        "path\na.mp4\n".encode("utf-16"): "is UTF-16",
    }.items(),
)
def test_a_csv_that_can_be_read_in_two_ways_is_refused(folder: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(VideoListError, match=message):
        listed(folder, text)


def test_lines_of_a_text_end_at_line_feeds_only(folder: Path) -> None:
    assert listed(folder, "a\u2028b.mp4\nc\x0b.mp4\r\n", "txt") == ["a\u2028b.mp4", "c\x0b.mp4"]


def test_names_in_a_table_may_be_bytes(folder: Path) -> None:
    pd.DataFrame({"path": [b"caf\xe9.mp4"]}).to_parquet(folder / "list.parquet")
    assert list_videos([folder / "list.parquet"])[0] == [folder / "caf\udce9.mp4"]


def test_every_name_is_stored_as_another_text() -> None:
    names = [
        "a\udcff.mp4",
        "a\\udcff.mp4",
        "a\\\\udcff.mp4",
        "a\\\udcff.mp4",
        "a\\b.mp4",
        "a\\\\b.mp4",
        "\udce9\udcff",
        "ü",
    ]
    stored = [storable(name) for name in names]
    assert len(set(stored)) == len(names)
    assert (stored[0], stored[4], stored[7]) == ("a\\udcff.mp4", "a\\b.mp4", "ü")
    assert all(text.encode("utf-8") for text in stored)


def test_a_table_without_the_column_is_refused(folder: Path) -> None:
    pd.DataFrame({"video": ["a"], "label": ["b"]}).to_csv(folder / "list.csv", index=False)
    with pytest.raises(VideoListError, match="needs a column 'path'; it has video, label"):
        list_videos([folder / "list.csv"])


def test_what_does_not_exist_and_folders_without_a_video_are_refused(tmp_path: Path) -> None:
    with pytest.raises(VideoListError, match=r"nowhere: does not exist"):
        list_videos([tmp_path / "nowhere"])
    with pytest.raises(VideoListError, match=r"no video below .*\.mp4"):
        list_videos([tmp_path])


def test_links_are_followed_but_not_in_a_circle(folder: Path, tmp_path: Path) -> None:
    (folder / "deep" / "up").symlink_to(folder)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "z.mp4").touch()
    (folder / "linked").symlink_to(tmp_path / "other")
    names = [str(path.relative_to(folder)) for path in local_files(list_videos([folder])[0])]
    assert names == ["a.MOV", "b.mp4", "deep/er/c.mkv", "linked/z.mp4"]


def test_a_folder_of_videos_is_refused_as_the_output_under_any_name(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(VideoListError, match="a folder of their own"):
        refuse_as_output(tmp_path, [tmp_path / "link"])
    refuse_as_output(tmp_path / "out", [tmp_path, tmp_path / "one.mp4"])
