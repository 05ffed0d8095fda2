from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.filter import Graph

from media import frames
from media.errors import MediaError
from media.frames import GridReader, keyframes, planes_of, read_crops, read_pictures, rgb_matrix, scan
from media.probe import Limits, Probe, probe
from tests.clips import HEADER
from tests.videos import Pictures, corners, number_of, numbered, show, truncate, turn, write_video

CORNERS = np.array([corners()[y, x] for y in (12, 36) for x in (16, 48)]).astype(int)


def numbers(path: Path) -> list[int]:
    """What `scan` shows on the grid, by the numbers drawn."""
    shown = list(scan(path, probe(path)))
    assert [i for i, _ in shown] == list(range(len(shown)))
    return [number_of(picture) for _, picture in shown]


def fps_filter(path: Path) -> list[int]:
    """What ffmpeg's own `fps=25` filter makes of a file: another's opinion of the same question."""
    graph, found = Graph(), []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        chain = [graph.add_buffer(template=stream), graph.add("fps", "25:start_time=0"), graph.add("buffersink")]
        graph.link_nodes(*chain).configure()
        for frame in [*container.decode(stream), None]:
            graph.push(frame)
            while True:
                try:
                    found.append(number_of(graph.pull().to_ndarray(format="rgb24")))  # type: ignore[union-attr]
                except (BlockingIOError, EOFError):
                    break
    return found


@pytest.mark.parametrize("fps", [25, 12, 50, 60, Fraction(30000, 1001), Fraction(24000, 1001), 10, Fraction(119, 8)])
def test_every_rate_comes_to_25_as_ffmpeg_brings_it(tmp_path: Path, fps: Fraction | int) -> None:
    path = write_video(tmp_path / "a.mp4", Pictures(48, fps=fps))
    assert numbers(path) == fps_filter(path)
    assert len(numbers(path)) == probe(path).frames


def test_a_variable_rate_shows_at_each_time_the_frame_of_that_time(tmp_path: Path) -> None:
    times = [0.0, 0.04, 0.12, 0.13, 0.32, 0.36, 0.4, 1.0, 1.2]
    path = write_video(tmp_path / "a.mkv", Pictures(len(times), times_s=times))
    shown = numbers(path)
    nearest = [max(k for k, t in enumerate(times) if round(t * 25) <= i) for i in range(len(shown))]
    assert shown == nearest
    assert shown[:9] == [0, 1, 1, 3, 3, 3, 3, 3, 4]


def test_a_repeated_frame_is_the_same_object(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", Pictures(4, fps=5))
    pictures = [picture for _, picture in scan(path, probe(path))]
    assert len(pictures) == 20
    assert len({id(picture) for picture in pictures}) == 4


def test_time_zero_is_the_first_frame(tmp_path: Path) -> None:
    for name in ("a.mp4", "a.mkv", "a.ts"):
        path = write_video(tmp_path / name, Pictures(30, start_s=0.3))
        assert numbers(path) == list(range(30))


OPEN_GOP = {"preset": "veryfast", "x264-params": "open-gop=1:bframes=3:keyint=12:min-keyint=12:scenecut=0"}
B_FRAMES = {"preset": "veryfast", "bf": "3", "g": "12"}
TRIMMED = {"avoid_negative_ts": "disabled", "use_editlist": "1"}  # the first frames lie before the edit list's start


def test_what_an_edit_list_cuts_off_is_not_shown(tmp_path: Path) -> None:
    pictures = Pictures(60, start_s=-0.2, options=B_FRAMES)
    path = write_video(tmp_path / "a.mp4", pictures, options=TRIMMED)
    assert numbers(path) == list(range(5, 60))
    assert probe(path).frames == 55
    whole = np.tile(np.array([0, 0, 64, 48], np.float32), (3, 1))
    assert [number_of(crop) for crop in read_crops(GridReader(path, probe(path)), 30, whole, 64)] == [35, 36, 37]


def test_a_change_of_size_on_the_way_changes_no_shape(tmp_path: Path) -> None:
    parts = [
        write_video(tmp_path / "a.ts", Pictures(30)),
        write_video(tmp_path / "b.ts", Pictures(30, start_s=1.2, draw=lambda i: numbered(30 + i, 128, 96))),
    ]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    shown = [picture for _, picture in scan(joined, probe(joined))]
    assert {picture.shape for picture in shown} == {(48, 64, 3)}
    assert [number_of(picture) for picture in shown][20:40] == list(range(20, 40))


SEEKS = {
    "b.mp4": ("libx264", B_FRAMES, None),
    "open.mp4": ("libx264", OPEN_GOP, None),
    "open.mkv": ("libx264", OPEN_GOP, None),
    "open.ts": ("libx264", OPEN_GOP, None),
    "b.avi": ("libx264", B_FRAMES, None),
    "asp.avi": ("mpeg4", {"bf": "2", "g": "12"}, None),
    "a.mpg": ("mpeg1video", {"bf": "2", "g": "12"}, None),
    "dvd.mpg": ("mpeg2video", {"bf": "2", "g": "12"}, "vob"),
    "a.wmv": ("wmv2", {"g": "12"}, None),
    "a.flv": ("libx264", B_FRAMES, None),
    "a.webm": ("libvpx-vp9", {"g": "12", "deadline": "realtime", "cpu-used": "8"}, None),
}


@pytest.mark.parametrize("name", SEEKS)
def test_seeking_gives_what_decoding_from_the_top_gives(tmp_path: Path, name: str) -> None:
    codec, options, container = SEEKS[name]
    path = write_video(tmp_path / name, Pictures(60, codec=codec, options=options), container=container)
    header = probe(path)
    assert numbers(path) == list(range(60))
    whole = np.tile(np.array([0, 0, 64, 48], np.float32), (60, 1))
    top = read_crops(GridReader(path, header), 0, whole, 48)
    reader = GridReader(path, header)
    for start in (1, 2, 5, 11, 12, 13, 23, 30, 46, 49, 57):
        afresh = read_crops(GridReader(path, header), start, whole[:3], 48)
        np.testing.assert_array_equal(afresh, top[start : start + 3])
        np.testing.assert_array_equal(read_crops(reader, start, whole[:3], 48), top[start : start + 3])


def test_seeking_far_into_files_without_an_index(tmp_path: Path) -> None:
    for name, codec in (("a.mpg", "mpeg2video"), ("a.ts", "libx264")):
        path = write_video(tmp_path / name, Pictures(240, codec=codec, options={"g": "12"}))
        boxes = np.tile(np.array([0, 0, 48, 48], np.float32), (3, 1))
        whole = np.tile(np.array([0, 0, 64, 48], np.float32), (3, 1))
        crops = read_crops(GridReader(path, probe(path)), 201, whole, 64)
        assert [number_of(crop) for crop in crops] == [201, 202, 203]
        assert read_crops(GridReader(path, probe(path)), 237, boxes, 8).shape == (3, 8, 8, 3)


def test_seeking_in_the_real_clips(media_clips: Path) -> None:
    for name in ("real__grid_bbaf2n.mpg", "real__syncnet_example.avi"):
        path = media_clips / name
        header = probe(path)
        box = np.array([[0, 0, header.width, header.height]], np.float32)
        top = read_crops(GridReader(path, header), 0, np.tile(box, (40, 1)), 64)
        for start in (1, 7, 30):
            np.testing.assert_array_equal(read_crops(GridReader(path, header), start, box, 64)[0], top[start])


@pytest.fixture
def media_clips() -> Path:
    folder = Path(__file__).resolve().parents[3] / "shared" / "media"
    if not folder.is_dir():
        pytest.skip("the real clips are not here")
    return folder


def corner_colours(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    return picture[[height // 4] * 2 + [3 * height // 4] * 2, [width // 4, 3 * width // 4] * 2].astype(int)


def drawn(tmp_path: Path, name: str, size: tuple[int, int] = (64, 48), **settings: object) -> np.ndarray:
    pictures = Pictures(3, draw=lambda i: corners(*size), **settings)  # type: ignore[arg-type]
    path = write_video(tmp_path / name, pictures)
    return next(picture for _, picture in scan(path, probe(path)))


BT709, BT601, BT2020, FULL = {"colorspace": 1}, {"colorspace": 6}, {"colorspace": 9}, {"color_range": 2}


@pytest.mark.parametrize(
    ("name", "settings"),
    {
        "bt601.mp4": {"colour": BT601},
        "bt709.mp4": {"colour": BT709},
        "full.mp4": {"colour": BT709 | FULL},
        "unmarked.mp4": {},
        "422.mp4": {"pixel_format": "yuv422p", "colour": BT709},
        "444.mp4": {"pixel_format": "yuv444p"},
        "10bit.mp4": {"pixel_format": "yuv420p10le", "colour": BT709},
        "10bit_full.mp4": {"pixel_format": "yuv422p10le", "colour": BT709 | FULL},
        "rgb.mp4": {"codec": "libx264rgb", "pixel_format": "rgb24"},
        "png.mov": {"codec": "png", "pixel_format": "rgb24"},
        "upside_down.avi": {"codec": "rawvideo", "pixel_format": "bgr24"},
        "raw.avi": {"codec": "rawvideo", "pixel_format": "yuv420p"},
        "webcam.avi": {"codec": "mjpeg", "pixel_format": "yuvj422p", "options": {"qscale": "2"}},
        "odd.mkv": {"codec": "ffv1", "pixel_format": "yuv420p", "size": (63, 47)},
        "odd444.mp4": {"pixel_format": "yuv444p", "size": (63, 47)},
    }.items(),
)
def test_colours_come_out_as_drawn(tmp_path: Path, name: str, settings: dict) -> None:
    assert np.abs(corner_colours(drawn(tmp_path, name, **settings)) - CORNERS).max() <= 4


def test_unmarked_high_definition_is_bt709_as_players_assume(tmp_path: Path) -> None:
    marked = drawn(tmp_path, "a.mp4", (1280, 720), colour=BT709)
    assert np.abs(corner_colours(marked) - CORNERS).max() <= 4
    np.testing.assert_array_equal(
        rgb_matrix(2, 1, "yuv420p", sized(1280, 720)), rgb_matrix(1, 1, "yuv420p", sized(9, 9))
    )
    np.testing.assert_array_equal(
        rgb_matrix(2, 1, "yuv420p", sized(720, 576)), rgb_matrix(5, 1, "yuv420p", sized(9, 9))
    )


def sized(width: int, height: int) -> Probe:
    return replace(HEADER, width=width, height=height)


def test_bt2020_has_its_own_matrix() -> None:
    """H.273: K_r 0.2627, K_b 0.0593; full red is Y 0.2627, C_b -0.1396, C_r 0.5."""
    red = np.array([16 + 219 * 0.2627, 128 - 224 * 0.2627 / (2 * (1 - 0.0593)), 128 + 112, 1])
    np.testing.assert_allclose(rgb_matrix(9, 1, "yuv420p10le", sized(9, 9)) @ red, [255, 0, 0], atol=1e-3)


def test_gray_stays_gray(tmp_path: Path) -> None:
    picture = drawn(tmp_path, "a.mov", codec="png", pixel_format="gray")
    assert np.ptp(picture.astype(int), axis=2).max() <= 1
    assert abs(int(picture[36, 48, 0]) - 220) <= 3


# Quarters clockwise from the upper left, as they stand after the turn.
TURNED = {90: [2, 0, 3, 1], 180: [3, 2, 1, 0], 270: [1, 3, 0, 2]}


@pytest.mark.parametrize("clockwise", TURNED)
@pytest.mark.parametrize("aspect", [None, Fraction(2, 1)])
def test_turned_pictures_stand_upright(tmp_path: Path, clockwise: int, aspect: Fraction | None) -> None:
    pictures = Pictures(3, draw=lambda i: corners(), aspect=aspect)
    path = turn(write_video(tmp_path / "a.mp4", pictures), clockwise)
    header = probe(path)
    picture = next(picture for _, picture in scan(path, header))
    assert picture.shape[:2] == (header.height, header.width)
    assert np.abs(corner_colours(picture) - CORNERS[TURNED[clockwise]]).max() <= 4
    whole = np.array([[0, 0, header.width, header.height]], np.float32)
    crop = read_crops(GridReader(path, header), 0, whole, 32)[0]
    assert np.abs(corner_colours(crop) - CORNERS[TURNED[clockwise]]).max() <= 4


# A display matrix, and the quarters (as above) as they stand when it is applied: the eight ways to lay a rectangle.
LAID = {
    (1, 0, 0, 1): [0, 1, 2, 3],
    (-1, 0, 0, 1): [1, 0, 3, 2],  # as the front camera of a phone
    (1, 0, 0, -1): [2, 3, 0, 1],
    (-1, 0, 0, -1): [3, 2, 1, 0],
    (0, 1, -1, 0): [2, 0, 3, 1],
    (0, -1, 1, 0): [1, 3, 0, 2],
    (0, 1, 1, 0): [0, 2, 1, 3],
    (0, -1, -1, 0): [3, 1, 2, 0],
}


@pytest.mark.parametrize("matrix", LAID)
def test_a_display_matrix_is_applied_with_its_mirror(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    path = show(write_video(tmp_path / "a.mp4", Pictures(3, draw=lambda i: corners())), matrix)
    header, wanted = probe(path), CORNERS[LAID[matrix]]
    assert (header.width, header.height) == ((64, 48) if matrix[0] else (48, 64))
    picture = next(picture for _, picture in scan(path, header))
    assert np.abs(corner_colours(picture) - wanted).max() <= 4
    whole = np.array([[0, 0, header.width, header.height]], np.float32)
    assert np.abs(corner_colours(read_crops(GridReader(path, header), 0, whole, 32)[0]) - wanted).max() <= 4
    drawn = read_pictures(GridReader(path, header), 0, 1)[0].crop(whole[0], header, 32)
    assert np.abs(corner_colours(drawn) - wanted).max() <= 4
    keyframe = next(picture for _, picture in keyframes(path, header, 64, 1))
    assert np.abs(corner_colours(keyframe) - wanted).max() <= 4


def test_pictures_are_scaled_to_the_long_side_and_never_enlarged(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", Pictures(2))
    shapes = [next(scan(path, probe(path), side))[1].shape for side in (32, 640)]
    assert shapes == [(24, 32, 3), (48, 64, 3)]


def test_wide_pixels_are_shown_wide(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", Pictures(2, aspect=Fraction(2, 1)))
    assert next(scan(path, probe(path)))[1].shape == (48, 128, 3)


def test_a_crop_is_the_square_in_source_pixels(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", Pictures(2, draw=lambda i: corners(), aspect=Fraction(2, 1)))
    squares = np.array([[0, 0, 24, 24], [104, 24, 128, 48]], np.float32)  # in the 128 x 48 that is shown
    first, second = read_crops(GridReader(path, probe(path)), 0, squares, 24)
    assert np.abs(first[4:-4, 4:-4].astype(int) - CORNERS[0]).max() <= 6
    assert np.abs(second[4:-4, 4:-4].astype(int) - CORNERS[3]).max() <= 6


def test_what_lies_outside_the_picture_repeats_its_border(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", Pictures(2, draw=lambda i: corners()))
    squares = np.array([[-40, -40, -8, -8], [30, 20, 130, 120]], np.float32)
    outside, beyond = read_crops(GridReader(path, probe(path)), 0, squares, 32)
    assert np.abs(outside.astype(int) - CORNERS[0]).max() <= 6
    assert np.abs(beyond[-1, -1].astype(int) - CORNERS[3]).max() <= 6


def test_crops_follow_the_grid(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", Pictures(60, fps=50))
    whole = np.tile(np.array([0, 0, 64, 48], np.float32), (10, 1))
    shown = [number_of(picture) for _, picture in scan(path, probe(path))][15:25]
    assert [number_of(crop) for crop in read_crops(GridReader(path, probe(path)), 15, whole, 64)] == shown


def test_crops_past_the_end_are_an_error_that_counts_them(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", Pictures(20))
    with pytest.raises(MediaError, match="ends at frame 20, 5 too early") as caught:
        read_crops(GridReader(path, probe(path)), 15, np.tile(np.array([0, 0, 8, 8], np.float32), (10, 1)), 8)
    assert caught.value.reason == "error:decode"


def test_a_torn_file_ends_where_its_bytes_do(tmp_path: Path) -> None:
    for name, options in (("a.mp4", {"movflags": "faststart"}), ("a.mkv", {})):
        path = truncate(write_video(tmp_path / name, Pictures(100, options={"g": "10"}), options=options), 0.6)
        shown = numbers(path)
        assert 40 < len(shown) < 80
        assert shown == list(range(len(shown)))
        assert probe(path).frames == 100


def test_damage_in_the_middle_costs_only_what_is_damaged(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.ts", Pictures(100, options={"g": "10"}))
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 376] = bytes(376)
    path.write_bytes(data)
    shown = numbers(path)
    assert len(shown) == 100
    assert sum(a != b for a, b in zip(shown, range(100), strict=True)) <= 20


def test_a_later_frame_past_the_limit_of_pixels_is_not_decoded(tmp_path: Path) -> None:
    parts = [
        write_video(tmp_path / "a.ts", Pictures(30)),
        write_video(tmp_path / "b.ts", Pictures(30, start_s=1.2, draw=lambda i: numbered(30 + i, 640, 480))),
    ]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    limits = Limits(max_pixels=10_000)
    assert [number_of(picture) for _, picture in scan(path, probe(path, limits), limits=limits)] == list(range(30))
    assert len(list(scan(path, probe(path)))) == 60


def test_time_stamps_past_the_limit_are_an_error(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", Pictures(30))
    with pytest.raises(MediaError) as caught:
        list(scan(path, probe(path), limits=Limits(max_duration_s=1.0)))
    assert caught.value.reason == "error:limits"


def test_a_last_frame_is_shown_as_long_as_the_header_says(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", Pictures(3, times_s=[0.0, 3.0, 6.0], last_s=3.0))
    assert len(numbers(path)) == probe(path).frames == 225


def test_planes_of_420_are_not_copied(tmp_path: Path) -> None:
    frame = av.VideoFrame.from_ndarray(numbered(3), format="rgb24").reformat(format="yuv420p")
    assert planes_of(frame)[0].base is not None
    assert [plane.shape for plane in planes_of(frame)] == [(48, 64), (24, 32), (24, 32)]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".avi"])
def test_keyframes_are_the_files_own_in_their_places_and_far_enough_apart(tmp_path: Path, suffix: str) -> None:
    closed = {"g": "10", "keyint_min": "10", "bf": "0" if suffix == ".avi" else "2", "sc_threshold": "0"}
    path = write_video(tmp_path / f"a{suffix}", Pictures(60, options=closed))

    def shown(apart_frames: int) -> list[tuple[int, int]]:
        return [(i, number_of(picture)) for i, picture in keyframes(path, probe(path), 640, apart_frames)]

    assert shown(1) == [(i, i) for i in (0, 10, 20, 30, 40, 50)]
    assert shown(15) == [(0, 0), (20, 20), (40, 40)]


def test_keyframes_that_do_not_decode_are_passed_over(tmp_path: Path) -> None:
    closed = {"g": "10", "keyint_min": "10", "sc_threshold": "0"}
    path = write_video(tmp_path / "a.ts", Pictures(60, options=closed))
    header = probe(path)
    truncate(path, 0.5)
    found = [i for i, _ in keyframes(path, header, 640, 1)]
    assert found in ([0, 10], [0, 10, 20], [0, 10, 20, 30])


@pytest.mark.parametrize("fps", [25, 10, Fraction(30000, 1001)])
def test_pieces_in_a_row_are_decoded_once(tmp_path: Path, fps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", Pictures(80, fps=fps, options={"g": "60"}))
    whole = [number_of(picture) for _, picture in scan(path, probe(path))]
    decoded, count = frames.decode, []
    monkeypatch.setattr(frames, "decode", lambda *given: (count.append(1) or frame for frame in decoded(*given)))
    reader = GridReader(path, probe(path))
    boxes = np.tile(np.array([0, 0, 64, 48], np.float32), (13, 1))
    pieces = [read_crops(reader, start, boxes, 64) for start in (0, 13, 26, 41)]  # two frames are left out
    shown = [[number_of(crop) for crop in piece] for piece in pieces]
    assert shown == [whole[start : start + 13] for start in (0, 13, 26, 41)]
    assert len(count) <= 54 * fps / 25 + 3
    (back,) = read_crops(reader, 30, boxes[:1], 64)  # a keyframe before it is sought again
    assert number_of(back) == whole[30]
