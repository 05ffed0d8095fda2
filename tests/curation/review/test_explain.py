"""One video: every second, its stage, its numbers."""

import io
import re
from pathlib import Path
from typing import Any

import cv2
import pytest
from rich.console import Console

from curation.review.explain import explain, find_source, main, print_explained, thumbnails, timeline
from manifests.reader import ManifestError
from tests.curation.outputs import made_output


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_output(tmp_path_factory.mktemp("explained"))


def printed(output: Path, video: str) -> str:
    text = io.StringIO()
    print_explained(explain(output, video), Console(file=text, width=160))
    return text.getvalue()


def test_spans_cover_the_video_and_name_the_number_that_decided(output: Path) -> None:
    found = explain(output, "videos/anna.mp4")
    assert [(span.row["start_frame"], span.row["end_frame"]) for span in found.spans] == [
        (0, 60),
        (60, 75),
        (75, 140),
        (140, 200),
    ]
    told = [span.deciding_number for span in found.spans]
    assert told[0] == "nearest: blur 0.4 <= 0.68, 41% to spare"
    assert told[1] == "max_displacement 0.25, max_gap_frames 8, min_s 2.0"
    assert told[2] == "blur 0.7 > 0.68"
    assert told[3] == "nearest: blur 0.65 <= 0.68, 4% to spare"


def test_a_verdict_that_rests_on_two_numbers_tells_both(output: Path) -> None:
    assert explain(output, "berta").spans[0].deciding_number == "source_speech_s 1 < 3; source_speech_share 0.1 < 0.3"


def test_the_terminal_shows_every_second_once(output: Path) -> None:
    found = explain(output, "videos/anna.mp4")
    line = timeline(found, 40).plain
    assert re.fullmatch("█{12}░{16}█{12}", line)
    text = printed(output, "videos/anna.mp4")
    assert "0:00:04.80 of 0:00:08.00 kept" in text and "steps/stable_spans" in text and "blur 0.7 > 0.68" in text


def test_a_source_that_killed_its_worker_shows_its_log_and_is_never_opened(output: Path) -> None:
    assert "Segmentation fault" in printed(output, "cleo")
    assert thumbnails(explain(output, "cleo")) == []


def test_thumbnails_are_pictures_of_their_time(output: Path) -> None:
    pictures = thumbnails(explain(output, "videos/anna.mp4"), 4)
    assert [second for second, _ in pictures] == [1.0, 3.0, 5.0, 7.0]
    assert pictures[0][1].shape == (64, 64, 3)


def test_page_and_picture_are_whole_files_of_their_own(output: Path, tmp_path: Path, capsys: Any) -> None:
    for suffix in (".html", ".png"):
        assert main([str(output), "videos/anna.mp4", "--to", str(tmp_path / f"anna{suffix}")]) == 0
    page = (tmp_path / "anna.html").read_text(encoding="utf-8")
    assert (
        page.count("<section") == 4 and page.count("data:image/webp") == 16 and "http" not in page.split("</head>")[1]
    )
    picture = cv2.imread(str(tmp_path / "anna.png"))
    assert picture is not None and picture.shape[1] > 1000
    assert main([str(output), "cleo", "--to", str(tmp_path / "cleo.html")]) == 0
    assert "</script>" not in (tmp_path / "cleo.html").read_text(encoding="utf-8")


def test_a_name_stands_for_one_source() -> None:
    paths = ["/raw/a/anna.mp4", "/raw/b/anna.mp4", "/raw/b/berta.mp4", "/raw/b/berta.mp4.mkv"]
    assert find_source("/raw/a/anna.mp4", paths) == paths[0]
    assert find_source("b/anna.mp4", paths) == paths[1]
    assert find_source("berta.mp4", paths) == paths[2]
    with pytest.raises(ManifestError, match="2 sources"):
        find_source("anna", paths)
    with pytest.raises(ManifestError, match="no source"):
        find_source("cleo", paths)


def test_the_command_says_what_is_wrong_in_one_line(output: Path, tmp_path: Path, capsys: Any) -> None:
    assert main([str(output), "nobody"]) == 1
    assert capsys.readouterr().err.startswith("python -m curation.review.explain: nobody: no source")
    assert main([str(tmp_path), "anna"]) == 1
    with pytest.raises(SystemExit):
        main([str(output), "anna", "--to", "anna.pdf"])
