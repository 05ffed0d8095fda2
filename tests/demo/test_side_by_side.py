from pathlib import Path

import numpy as np
import pytest

from demo.side_by_side import COLUMNS, MARGIN, TILE, draw_strip, main, write_film
from media.audio import read_sound
from media.frames import scan
from media.probe import probe
from tests.videos import Pictures, Sound, number_of, numbered, tone, write_video
from training.plan import source_frames


def numbered_film(path: Path, frames: int, width: int = 320, height: int = 160) -> Path:
    """A video whose frames say their number, with a tone as long."""
    pictures = Pictures(frames, draw=lambda i: numbered(i, width, height))
    write_video(path, pictures, [Sound(tone(frames / 25), codec="aac")])
    return path


def test_each_generated_frame_is_beside_the_one_it_was_made_of_also_where_the_video_runs_back(tmp_path):
    source, generated = numbered_film(tmp_path / "a.mp4", 20), numbered_film(tmp_path / "b.mp4", 34, 160, 80)
    output = tmp_path / "folder" / "both.mp4"
    assert write_film(source, generated, generated, output) == 34
    described = probe(output)
    assert (described.width, described.height, described.frames) == (320, 80, 34)
    found = [frame for _, frame in scan(output, described, 320)]
    left, right = ([number_of(frame[40:, part]) for frame in found] for part in (slice(0, 160), slice(160, 320)))
    assert left == source_frames(20, 34).tolist()
    assert left[:12] == list(range(12)) and left[-1] < 12  # 34 frames of 20: it has turned round
    assert right == list(range(34))
    assert len(read_sound(output)) == pytest.approx(34 * 640, abs=2100)  # copied AAC: whole packets


def test_a_strip_shows_a_row_for_each_video_cut_where_the_sources_mouth_is(talkers, tmp_path):
    folder = talkers("talker_a", "silence")
    output = tmp_path / "strip.png"
    strip = draw_strip(folder / "talker_a.mp4", [folder / "talker_a.mp4", folder / "silence.mp4"], ["a", "b", "c"])
    assert strip.shape == (3 * TILE, MARGIN + COLUMNS * TILE, 3)
    rows = strip[:, MARGIN:].reshape(3, TILE, COLUMNS * TILE, 3).astype(int)
    assert np.array_equal(rows[0], rows[1])
    assert np.abs(rows[0] - rows[2]).mean() > 5
    assert main([str(folder / "silence.mp4"), str(folder / "silence.mp4"), "-o", str(output)]) == 0
    assert output.read_bytes()[1:4] == b"PNG"


def test_what_cannot_be_shown_is_told(tmp_path, capsys):
    film = str(numbered_film(tmp_path / "a.mp4", 12))
    assert main([film, film, "-o", str(tmp_path / "strip.png")]) == 2
    assert "no face found" in capsys.readouterr().err
    assert main([film, str(tmp_path / "no.mp4"), "-o", str(tmp_path / "o.mp4")]) == 2
    with pytest.raises(SystemExit):
        main([film, film, film, "-o", str(tmp_path / "o.mp4")])
    with pytest.raises(SystemExit):
        main([film, film, "-o", str(tmp_path / "o.avi")])
