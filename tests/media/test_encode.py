import io

import av
import numpy as np
import pytest

from media.encode import GOP_FRAMES, decode_flac, decode_mp4, encode_flac, encode_mp4
from tests.videos import corners, number_of, numbered

FRAMES = np.stack([numbered(i) for i in range(40)])


def test_every_frame_comes_back_in_order() -> None:
    decoded = decode_mp4(encode_mp4(FRAMES))
    assert decoded.shape == FRAMES.shape and decoded.dtype == np.uint8
    assert [number_of(frame) for frame in decoded] == list(range(40))


def test_colours_come_back() -> None:
    decoded = decode_mp4(encode_mp4(np.stack([corners()] * 3)))[1].astype(int)
    for y, x in ((12, 16), (12, 48), (36, 16), (36, 48)):
        assert np.abs(decoded[y, x] - corners()[y, x]).max() <= 4


def test_equal_frames_give_equal_bytes() -> None:
    assert encode_mp4(FRAMES) == encode_mp4(iter(FRAMES))
    assert encode_mp4(FRAMES) != encode_mp4(FRAMES[:-1])


def test_the_stream_is_as_the_format_says() -> None:
    calm = [corners()] * 40
    with av.open(io.BytesIO(encode_mp4(calm)), "r") as container:
        (stream,) = container.streams
        assert isinstance(stream, av.VideoStream)
        packets = [packet for packet in container.demux(stream) if packet.pts is not None]
        context = stream.codec_context
        found = (stream.average_rate, stream.frames, context.name, context.pix_fmt, context.profile)
        assert found == (25, 40, "h264", "yuv420p", "High")
        assert (int(context.colorspace), int(context.color_range), context.has_b_frames) == (1, 1, 0)
    assert [packet.pts for packet in packets] == [packet.dts for packet in packets]
    assert [i for i, packet in enumerate(packets) if packet.is_keyframe] == [*range(0, 40, GOP_FRAMES)]
    assert len({packet.duration for packet in packets}) == 1


def test_keyframes_are_never_further_apart_than_a_gop() -> None:
    with av.open(io.BytesIO(encode_mp4(FRAMES)), "r") as container:
        keyframes = [i for i, packet in enumerate(container.demux(video=0)) if packet.is_keyframe]
    assert np.diff([*keyframes, 40]).max() <= GOP_FRAMES


def test_bytes_hold_no_time_and_no_version() -> None:
    data = encode_mp4(FRAMES[:3])
    assert b"Lavf" not in data
    header = data.index(b"mvhd") + 8
    assert data[header : header + 8] == bytes(8)


def test_no_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        encode_mp4([])


def test_flac_returns_every_sample() -> None:
    values = np.array([-32768, -32767, -1, 0, 1, 12345, 32767], np.float32)
    audio = np.resize(values, 640 * 50 + 13) / 32768
    np.testing.assert_array_equal(decode_flac(encode_flac(audio)), audio)


def test_flac_is_16_khz_mono_and_equal_twice() -> None:
    audio = np.random.default_rng(0).uniform(-0.5, 0.5, 16000).astype(np.float32)
    data = encode_flac(audio)
    assert data == encode_flac(audio.copy())
    assert b"Lavf" not in data
    with av.open(io.BytesIO(data), "r") as container:
        context = container.streams.audio[0].codec_context
        assert (context.sample_rate, context.channels, context.format.name) == (16000, 1, "s16")
    assert np.abs(decode_flac(data) - audio).max() <= 0.5 / 32768


def test_too_loud_sound_is_clipped_not_wrapped() -> None:
    assert decode_flac(encode_flac(np.array([1.5, -1.5] * 100, np.float32)))[:2].tolist() == [32767 / 32768, -1]
