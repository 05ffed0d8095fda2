import os
from fractions import Fraction
from pathlib import Path

import pytest

from media.errors import MediaError
from media.probe import Limits, probe
from tests.videos import Pictures, Sound, corners, tone, truncate, turn, write_video


def small(frames: int = 10, **settings: object) -> Pictures:
    return Pictures(frames, **settings)  # type: ignore[arg-type]


def reason_of(path: Path, limits: Limits = Limits()) -> str:
    with pytest.raises(MediaError) as caught:
        probe(path, limits)
    return caught.value.reason


def test_the_header_of_a_plain_file(tmp_path: Path) -> None:
    found = probe(write_video(tmp_path / "a.mp4", small(50), [Sound(tone(2, channels=2), codec="aac")]))
    assert (found.width, found.height, found.fps, found.duration_s, found.frames) == (64, 48, 25, 2, 50)
    assert (found.rotation, found.sample_aspect, found.variable_frame_rate, found.first_pts_s) == (0, 1, False, 0)
    assert (found.video_codec, found.pixel_format, found.bit_depth, found.hdr) == ("h264", "yuv420p", 8, None)
    assert (found.audio_codec, found.audio_sample_rate, found.audio_channels, found.audio_tracks) == (
        "aac",
        48000,
        2,
        1,
    )


def test_a_file_without_sound_says_so(tmp_path: Path) -> None:
    found = probe(write_video(tmp_path / "a.mp4", small()))
    assert (found.audio_codec, found.audio_tracks) == (None, 0)


@pytest.mark.parametrize(("clockwise", "size"), [(90, (48, 64)), (180, (64, 48)), (270, (48, 64))])
def test_sizes_are_those_shown_after_rotation(tmp_path: Path, clockwise: int, size: tuple[int, int]) -> None:
    found = probe(turn(write_video(tmp_path / "a.mp4", small()), clockwise))
    assert (found.width, found.height) == size
    assert found.rotation == (360 - clockwise) % 360


def test_sizes_are_those_shown_with_square_pixels(tmp_path: Path) -> None:
    wide = write_video(tmp_path / "wide.mp4", small(aspect=Fraction(4, 3)))
    assert (probe(wide).width, probe(wide).height) == (85, 48)
    turned = probe(turn(wide, 90))
    assert (turned.width, turned.height) == (48, 85)


def test_ten_bits_and_hdr_are_named(tmp_path: Path) -> None:
    deep = small(pixel_format="yuv420p10le", colour={"color_trc": 16})
    found = probe(write_video(tmp_path / "a.mp4", deep))
    assert (found.pixel_format, found.bit_depth, found.hdr) == ("yuv420p10le", 10, "pq")


def test_variable_rate_is_seen_and_ntsc_is_not_taken_for_it(tmp_path: Path) -> None:
    times = [0.0, 0.04, 0.08, 0.2, 0.5, 0.54, 0.9, 1.3]
    assert probe(write_video(tmp_path / "a.mp4", small(len(times), times_s=times))).variable_frame_rate
    steady = probe(write_video(tmp_path / "b.mp4", small(60, fps=Fraction(30000, 1001))))
    assert not steady.variable_frame_rate
    assert steady.fps == pytest.approx(29.97, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {}),
        ("frag.mp4", "libx264", {"movflags": "frag_keyframe+empty_moov"}),
        ("a.mkv", "libx264", {}),
        ("live.mkv", "libx264", {"live": "1"}),  # as a browser records: no duration anywhere
        ("a.ts", "libx264", {}),
        ("a.flv", "libx264", {}),
        ("a.avi", "mpeg4", {}),
        ("a.mpg", "mpeg2video", {}),
    ],
)
def test_the_promised_frames_are_those_of_the_pictures_not_of_a_longer_sound(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    sound = Sound(tone(3, rate=44100), rate=44100, codec="mp2" if name.endswith("mpg") else "libmp3lame")
    path = write_video(tmp_path / name, small(50, codec=codec), [sound], options=options)
    assert abs(probe(path).frames - 50) <= 1  # AVI and fragments round up


def test_a_late_first_frame_is_time_zero(tmp_path: Path) -> None:
    for name in ("a.mp4", "a.mkv"):
        found = probe(write_video(tmp_path / name, small(50, start_s=0.5), [Sound(tone(2.5))]))
        assert found.first_pts_s == pytest.approx(0.5, abs=1e-3)
        assert found.frames == 50


@pytest.mark.parametrize("name", ["a.mkv", "a.webm", "live.mkv"])
@pytest.mark.parametrize("start_s", [0.5, 5.0])
def test_pictures_that_begin_late_promise_what_they_have(tmp_path: Path, name: str, start_s: float) -> None:
    pictures = small(60, start_s=start_s, codec="libvpx" if name == "a.webm" else "libx264")
    options = {"live": "1"} if name == "live.mkv" else {}
    path = write_video(tmp_path / name, pictures, [Sound(tone(start_s + 2.4), codec="libopus")], options=options)
    assert (probe(path).frames, probe(path).first_pts_s) == (60, pytest.approx(start_s, abs=1e-3))


def test_a_half_frame_at_the_end_counts_as_ffmpeg_rounds(tmp_path: Path) -> None:
    assert probe(write_video(tmp_path / "a.mp4", small(30, fps=12))).frames == 63


def test_cover_art_is_not_a_video(tmp_path: Path) -> None:
    import io

    import av
    from PIL import Image

    picture = io.BytesIO()
    Image.fromarray(corners()).save(picture, "PNG")
    with av.open(str(tmp_path / "song.mp4"), "w") as output:
        art = output.add_stream("png", rate=1)
        assert isinstance(art, av.VideoStream)
        art.width, art.height, art.pix_fmt = 64, 48, "rgb24"
        art.disposition = av.stream.Disposition.attached_pic  # type: ignore[attr-defined]
        packet = av.Packet(picture.getvalue())
        packet.stream, packet.pts, packet.dts = art, 0, 0
        output.mux(packet)
    assert reason_of(tmp_path / "song.mp4") == "error:no_video"


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    assert reason_of(write_video(tmp_path / "a.mp4", None, [Sound(tone(1), codec="aac")])) == "error:no_video"


def test_text_empty_and_torn_files_are_no_media(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video")
    (tmp_path / "empty.mp4").touch()
    torn = truncate(write_video(tmp_path / "torn.mp4"), 0.5)  # its index was at the end
    assert [reason_of(p) for p in (tmp_path / "text.mp4", tmp_path / "empty.mp4", torn)] == ["error:probe"] * 3


def test_missing_files_folders_pipes_and_devices_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    for path in (tmp_path / "missing.mp4", tmp_path, tmp_path / "pipe.mp4", Path("/dev/zero")):
        assert reason_of(path) == "error:io"


def test_codecs_that_ffmpeg_cannot_decode_are_a_reason_for_pictures_and_silence_for_sound(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mov", small(), [Sound(tone(1)), Sound(tone(1))])
    data = path.read_bytes()
    path.write_bytes(data.replace(b"sowt", b"zzzz", 1))  # as one of the tracks of a phone's spatial sound
    assert (probe(path).audio_codec, probe(path).audio_tracks) == ("pcm_s16le", 2)
    path.write_bytes(data.replace(b"sowt", b"zzzz"))
    assert probe(path).audio_codec is None
    path.write_bytes(data.replace(b"avc1", b"zzzz"))
    assert reason_of(path) == "error:decode"


def test_limits_bound_size_duration_and_pixels(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", small(50))
    size = path.stat().st_size
    for limits in (Limits(max_duration_s=1.99), Limits(max_pixels=64 * 48 - 1), Limits(max_bytes=size - 1)):
        assert reason_of(path, limits) == "error:limits"
    assert probe(path, Limits(max_duration_s=2, max_pixels=64 * 48, max_bytes=size)).frames == 50


def test_a_small_file_that_claims_hours_is_refused(tmp_path: Path) -> None:
    times = [0.0, 3600.0]
    assert reason_of(write_video(tmp_path / "a.mp4", small(2, times_s=times))) == "error:limits"
    assert reason_of(write_video(tmp_path / "a.ts", small(2, times_s=times))) == "error:limits"
    assert probe(write_video(tmp_path / "b.mp4", small(2, times_s=[0.0, 500.0]))).frames >= 12_500


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nfile:{secret}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{secret}'\n",
        "ffconcat version 1.0\nfile 'http://127.0.0.1:9/x.mp4'\n",
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
        '<Representation id="1" bandwidth="1"><BaseURL>file:{secret}</BaseURL></Representation></AdaptationSet>'
        "</Period></MPD>",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    ],
)
@pytest.mark.parametrize("suffix", [".mp4", ".m3u8", ".ffconcat", ".mpd", ".sdp"])
def test_playlists_open_no_other_file(tmp_path: Path, text: str, suffix: str) -> None:
    secret = write_video(tmp_path / "secret.mp4", small())
    playlist = tmp_path / f"list{suffix}"
    playlist.write_text(text.format(secret=secret))
    assert reason_of(playlist) == "error:probe"


def test_names_are_files_never_addresses_or_patterns(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.mp4", small()).read_bytes()
    for name in ("http:--x?y#z.mp4", "%03d.mp4", "concat:a|b.mp4", "-i.mp4", "new\nline.mp4", "\udcff.mp4"):
        path = tmp_path / name
        path.write_bytes(whole)
        assert probe(path).frames == 10
