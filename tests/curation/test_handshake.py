"""Whether a node sees the storage."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from curation.handshake import FOLDER, Handshake, HandshakeError, answer, check_reply, end, offer


@pytest.fixture
def offered(tmp_path: Path) -> Handshake:
    videos = [tmp_path / f"{i}.mp4" for i in range(40)]
    for video in videos[1:]:
        video.write_bytes(b"x" * 10)
    return offer(tmp_path / "out", videos)


def test_a_node_that_sees_all_is_welcome(offered: Handshake, tmp_path: Path) -> None:
    for reply in ("1", "2"):
        answer(offered, reply)
        check_reply(offered, reply)
    assert [path.name for path in offered.folder.iterdir()] == ["token"]
    end(tmp_path / "out")
    assert not (tmp_path / "out" / FOLDER).exists()


def test_videos_from_the_whole_list_are_looked_at_but_for_those_that_are_not_here(offered: Handshake) -> None:
    assert [path.name for path, _ in offered.videos] == ["8.mp4", "16.mp4", "24.mp4", "32.mp4"]


def test_a_node_blind_to_the_output_says_so(offered: Handshake) -> None:
    shutil.rmtree(offered.folder)
    with pytest.raises(HandshakeError, match="does not see the output folder: .*token: No such file"):
        answer(offered, "1")


def test_another_folder_of_the_same_name_is_not_the_output(offered: Handshake) -> None:
    with pytest.raises(HandshakeError, match="another token"):
        answer(replace(offered, token="0"), "1")


def test_an_output_that_cannot_be_written_says_so(offered: Handshake) -> None:
    (offered.folder / "1").mkdir()
    with pytest.raises(HandshakeError, match="cannot write into the output folder"):
        answer(offered, "1")


def test_what_a_node_writes_must_arrive(offered: Handshake) -> None:
    with pytest.raises(HandshakeError, match="is not seen by the driver"):
        check_reply(offered, "1")


def test_a_node_blind_to_the_videos_says_which(offered: Handshake, tmp_path: Path) -> None:
    (tmp_path / "16.mp4").unlink()
    with pytest.raises(HandshakeError, match="does not see the videos: .*16.mp4: No such file"):
        answer(offered, "1")


def test_other_videos_of_the_same_name_are_not_the_videos(offered: Handshake, tmp_path: Path) -> None:
    (tmp_path / "24.mp4").write_bytes(b"")
    with pytest.raises(HandshakeError, match="24.mp4 has 0 bytes there, 10 here"):
        answer(offered, "1")
