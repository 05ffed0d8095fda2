"""One record of a shard: a key and its members, encoded.

Only headers are read here (JSON, npy, FLAC); whether video and audio decode is for `curation.verify` to say.
"""

import hashlib
import io
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib import format as npy_format

from clock import SAMPLE_RATE, SAMPLES_PER_FRAME, WHISPER_ROWS_PER_FRAME

VIDEO = "mp4"
AUDIO = "flac"
WHISPER = "whisper.npy"
LANDMARKS = "landmarks.npy"
BOXES = "boxes.npy"
JSON = "json"
MEMBERS = (BOXES, AUDIO, JSON, LANDMARKS, VIDEO, WHISPER)  # sorted: the order inside a tar

# What the index and this file read from the JSON member; curation adds path, scores, sizes, recipe, ...
JSON_FIELDS = ("source_id", "start_frame", "end_frame", "frames")

FLAC_HEADER_BYTES = 42  # magic, block header, STREAMINFO

# WebDataset cuts a name at its first dot; short ASCII names keep the tar free of PAX headers
KEY_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
MEMBER_PATTERN = re.compile(r"[a-z0-9][a-z0-9_.-]{0,31}")


@dataclass(frozen=True)
class Sample:
    """A key without dots and the bytes of its members, by name: `mp4`, `whisper.npy`, ..."""

    key: str
    members: dict[str, bytes]

    @property
    def json(self) -> dict[str, Any]:
        return decode_json(self.members[JSON])


def encode_npy(array: np.ndarray) -> bytes:
    """An array as an npy file, C order, little endian. Raises ValueError for objects (they would need pickle)."""
    array = np.asarray(array)
    file = io.BytesIO()
    np.save(file, np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C"), allow_pickle=False)
    return file.getvalue()


def decode_npy(data: bytes) -> np.ndarray:
    return np.load(io.BytesIO(data), allow_pickle=False)


def encode_json(fields: Mapping[str, Any]) -> bytes:
    """Sorted JSON on one line. numpy scalars are numbers; NaN and infinity are refused (None: not measured)."""
    try:
        text = json.dumps(fields, sort_keys=True, allow_nan=False, ensure_ascii=True, default=_scalar)
    except ValueError as error:
        bad = [name for name, value in _numbers(fields) if not np.isfinite(value)]
        raise ValueError(f"json member: {', '.join(bad)} not finite; write None for a number not measured") from error
    return text.encode("ascii")


def decode_json(data: bytes) -> dict[str, Any]:
    return json.loads(data)


def sample_sha256(members: Mapping[str, bytes]) -> str:
    """SHA-256 over the members in name order, each as: name in ASCII, NUL, size as 8 bytes little endian, the bytes."""
    digest = hashlib.sha256()
    for name in sorted(members):
        digest.update(name.encode("ascii") + b"\0" + len(members[name]).to_bytes(8, "little"))
        digest.update(members[name])
    return digest.hexdigest()


def problems(sample: Sample, required: Collection[str] = MEMBERS) -> list[str]:
    """What is wrong with a sample, as sentences; empty if nothing is. Reads headers only."""
    found = [f"has no member {name}" for name in sorted(required) if name not in sample.members]
    if not KEY_PATTERN.fullmatch(sample.key):
        found.append(f"key {sample.key!r} is not 1 to 64 of A-Z a-z 0-9 _ -")
    if JSON not in sample.members:
        return found
    try:
        fields = sample.json
    except ValueError as error:
        return [*found, f"json: {error}"]
    wrong = _json_problems(fields)
    if wrong:
        return [*found, *wrong]
    for name, data in sorted(sample.members.items()):
        found += [f"{name}: {text}" for text in _member_problems(name, data, fields["frames"])]
    return found


def npy_header(data: bytes) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of an npy file. Raises ValueError if it is not one, holds objects, or is cut short."""
    file = io.BytesIO(data[:4096])
    version = npy_format.read_magic(file)
    if version != (1, 0):
        raise ValueError(f"npy version {version}, expected (1, 0)")
    shape, _, dtype = npy_format.read_array_header_1_0(file)
    if dtype.hasobject:
        raise ValueError("holds Python objects")
    expected = file.tell() + int(np.prod(shape)) * dtype.itemsize
    if len(data) != expected:
        raise ValueError(f"{len(data)} bytes, its header asks for {expected}")
    return shape, dtype


def flac_header(data: bytes) -> tuple[int, int, int]:
    """Sample rate, channels and number of samples that a FLAC file states (0: unknown). Raises ValueError."""
    # RFC 9639, section 8.2: the first metadata block is STREAMINFO, 34 bytes
    if len(data) < FLAC_HEADER_BYTES or data[:4] != b"fLaC" or data[4] & 0x7F != 0:
        raise ValueError("not a FLAC file")
    packed = int.from_bytes(data[18:26], "big")  # 20 bits rate, 3 channels - 1, 5 depth - 1, 36 samples
    return packed >> 44, (packed >> 41 & 0x7) + 1, packed & 0xFFFFFFFFF


def _json_problems(fields: Any) -> list[str]:
    if not isinstance(fields, dict):
        return ["json: not an object"]
    missing = [name for name in JSON_FIELDS if name not in fields]
    if missing:
        return [f"json: no {', '.join(missing)}"]
    frames, start, end = fields["frames"], fields["start_frame"], fields["end_frame"]
    if not all(type(number) is int for number in (frames, start, end)):
        return ["json: frames, start_frame and end_frame must be integers"]
    if frames < 1 or start < 0 or end - start != frames:
        return [f"json: frames {frames} from start_frame {start} to end_frame {end}"]
    return []


def _member_problems(name: str, data: bytes, frames: int) -> list[str]:
    try:
        if name == VIDEO and data[4:8] != b"ftyp":
            return ["not an MP4 file"]
        if name == AUDIO:
            return _audio_problems(*flac_header(data), frames)
        if name in ARRAYS:
            return _array_problems(*npy_header(data), name, frames)
    except ValueError as error:
        return [str(error)]
    return []


def _audio_problems(rate: int, channels: int, samples: int, frames: int) -> list[str]:
    found = []
    if (rate, channels) != (SAMPLE_RATE, 1):
        found.append(f"{rate} Hz, {channels} channels; expected {SAMPLE_RATE} Hz mono")
    if samples != frames * SAMPLES_PER_FRAME:
        found.append(f"{samples} samples for {frames} frames, expected {frames * SAMPLES_PER_FRAME}")
    return found


# name -> dtype, rows per frame, the other axes (None: any size)
ARRAYS: dict[str, tuple[str, int, tuple[int | None, ...]]] = {
    WHISPER: ("float16", WHISPER_ROWS_PER_FRAME, (None, None)),
    LANDMARKS: ("float16", 1, (None, 2)),
    BOXES: ("float32", 1, (4,)),
}


def _array_problems(shape: tuple[int, ...], dtype: np.dtype, name: str, frames: int) -> list[str]:
    kind, rows, axes = ARRAYS[name]
    wanted = (frames * rows, *axes)
    fits = len(shape) == len(wanted) and all(b in (None, a) for a, b in zip(shape, wanted, strict=True))
    if fits and dtype == np.dtype(kind):
        return []
    shown = ", ".join("any" if size is None else str(size) for size in wanted)
    return [f"{dtype} {list(shape)}, expected {kind} [{shown}] for {frames} frames"]


def _scalar(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no place in JSON")


def _numbers(value: Any, name: str = "") -> list[tuple[str, float]]:
    if isinstance(value, Mapping):
        return [pair for key in value for pair in _numbers(value[key], f"{name}.{key}".lstrip("."))]
    if isinstance(value, list | tuple):
        return [pair for i, item in enumerate(value) for pair in _numbers(item, f"{name}[{i}]")]
    return [(name, float(value))] if isinstance(value, float | np.floating) else []
