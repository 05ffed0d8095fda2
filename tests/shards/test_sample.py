import json
import re
from dataclasses import replace

import numpy as np
import pytest

from shards.sample import (
    Sample,
    decode_npy,
    encode_json,
    encode_npy,
    flac_header,
    npy_header,
    problems,
    sample_sha256,
)
from tests.shards.conftest import Make, encoded_audio


def test_arrays_come_back_as_they_were() -> None:
    for array in (
        np.array([[1, np.nan]], np.float16),
        np.arange(6, dtype=">i4").reshape(2, 3).T,
        np.zeros((0, 4), np.float32),
    ):
        back = decode_npy(encode_npy(array))
        assert back.dtype == array.dtype.newbyteorder("<")
        np.testing.assert_array_equal(back, array)


def test_equal_arrays_give_equal_bytes_whatever_their_memory_layout() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert encode_npy(array) == encode_npy(np.asfortranarray(array)) == encode_npy(array.astype(">f4"))


def test_objects_are_refused_because_they_would_need_pickle() -> None:
    with pytest.raises(ValueError, match="pickle|Object"):
        encode_npy(np.array([{}], dtype=object))


def test_json_is_sorted_and_takes_numpy_numbers() -> None:
    data = encode_json({"b": np.float32(0.5), "a": np.int64(3), "c": None, "d": "é"})
    assert data == b'{"a": 3, "b": 0.5, "c": null, "d": "\\u00e9"}'
    assert json.loads(data)["d"] == "é"


def test_json_refuses_nan_and_names_it() -> None:
    with pytest.raises(ValueError, match=r"scores\.niqe not finite"):
        encode_json({"scores": {"niqe": np.float32("nan"), "hyperiqa": 0.5}})


def test_sha256_is_the_documented_one() -> None:
    # printf 'a\0\2\0\0\0\0\0\0\0xyb.c\0\0\0\0\0\0\0\0\0' | sha256sum
    assert sample_sha256({"b.c": b"", "a": b"xy"}) == "38611e6a0a5c12f33517639b8743e259908ffbb0a808d07460324474170fcbef"
    assert sample_sha256({"a": b"xy"}) != sample_sha256({"ax": b"y"})


def test_a_whole_sample_has_no_problems(make_sample: Make) -> None:
    assert problems(make_sample("clip-1")) == []


def test_headers_are_read_as_written() -> None:
    assert flac_header(encoded_audio(3200)) == (16000, 1, 3200)
    assert npy_header(encode_npy(np.zeros((3, 2), np.float16))) == ((3, 2), np.dtype("float16"))


@pytest.mark.parametrize(
    ("member", "data", "said"),
    [
        ("flac", encoded_audio(640 * 5 - 1), "flac: 3199 samples for 5 frames, expected 3200"),
        ("flac", encoded_audio(640 * 5, rate=48000), "flac: 48000 Hz, 1 channels"),
        ("flac", b"RIFF", "flac: not a FLAC file"),
        ("mp4", b"", "mp4: not an MP4 file"),
        ("whisper.npy", encode_npy(np.zeros((9, 3, 4), np.float16)), r"whisper.npy: float16 \[9, 3, 4\], expected"),
        ("whisper.npy", encode_npy(np.zeros((10, 3, 4), np.float32)), "whisper.npy: float32"),
        ("landmarks.npy", encode_npy(np.zeros((4, 7, 2), np.float16)), "landmarks.npy: "),
        ("boxes.npy", encode_npy(np.zeros((5, 5), np.float32)), r"boxes.npy: .* expected float32 \[5, 4\]"),
        ("boxes.npy", encode_npy(np.zeros((5, 4), np.float32))[:-1], "boxes.npy: 207 bytes, its header asks for 208"),
        ("boxes.npy", b"", "boxes.npy: "),
        ("json", b"{", "json: "),
        ("json", b"[]", "json: not an object"),
        ("json", b'{"frames": 5}', "json: no source_id, start_frame, end_frame"),
        ("json", b'{"source_id": "a", "start_frame": 0, "end_frame": 6, "frames": 5}', "json: frames 5 from"),
        ("json", b'{"source_id": "a", "start_frame": 0, "end_frame": 5.0, "frames": 5}', "json: .* integers"),
    ],
)
def test_a_wrong_member_is_named(make_sample: Make, member: str, data: bytes, said: str) -> None:
    whole = make_sample("clip-1")
    (found,) = problems(Sample("clip-1", {**whole.members, member: data}))
    assert re.match(said, found), found


def test_missing_members_are_problems_unless_not_required(make_sample: Make) -> None:
    whole = make_sample("clip-1")
    without = replace(whole, members={k: v for k, v in whole.members.items() if k != "whisper.npy"})
    assert problems(without) == ["has no member whisper.npy"]
    assert problems(without, required=("mp4", "flac", "json")) == []


def test_a_key_with_a_dot_is_a_problem(make_sample: Make) -> None:
    assert "key 'a.b'" in problems(make_sample("a.b"))[0]
