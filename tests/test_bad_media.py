"""Every bad and odd file that we could think of, and the rows that each must end in.

The files are made here; the stages are those that open them (sound, every scaled frame, full frames around a face),
with thresholds that drop nothing but what has no sound. A face is said to be everywhere, so that what is kept ends in
a sample. Beside each file lies a video that it must not reach; the kernel tells whether anybody opened it.
"""

import atexit
import ctypes
import os
import socket
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import yaml

from curation.clip import Clip
from curation.filters.source_speech import SourceSpeech
from curation.source import Curated, Identity, curate, duplicate, identify, part_path
from curation.stage import Step, collect_meanings
from curation.steps.crop import Crop
from curation.steps.faces import Faces
from curation.steps.shots import Shots
from curation.steps.voice_activity import VoiceActivity
from curation.steps.windows import Windows
from curation.verify.command import verify
from manifests.summary import write_summary
from manifests.writer import check_partition, write_manifests
from media.probe import Limits
from pipelines import recipe_hash
from shards.packer import pack
from shards.sample import AUDIO, BOXES, JSON, VIDEO
from tests.clips import track_of
from tests.videos import Pictures, Sound, click, number_of, numbered, tone, truncate, turn, write_video

FRAMES = 30
IN_OPEN = 0x20  # inotify.h
LISTENER = socket.create_server(("127.0.0.1", 0))  # would answer whom a file sends to this machine
LISTENER.setblocking(False)
atexit.register(LISTENER.close)
PORT = LISTENER.getsockname()[1]
SECRET = 201  # the number that the frames of the video show which no file may reach
LIMITS = Limits(max_duration_s=60, max_pixels=1920 * 1080, max_bytes=10**8)
Result = tuple[Identity, Curated]
Make = Callable[[Path], Path]  # folder, with `secret.mp4` in it -> the file


@dataclass(frozen=True)
class Gaze(Step):
    """Says that there is a face in the middle of every frame."""

    SCORES = Faces.SCORES

    def __call__(self, clip: Clip) -> Iterable[Clip]:
        yield replace(clip, track=track_of(np.ones(len(clip), bool), side=20.0, x=4.0))


STAGES = (VoiceActivity(), SourceSpeech(min_speech_s=0.0), Shots(), Gaze(), Windows(), Crop(size=32))


@dataclass(frozen=True)
class Case:
    """A file, and the rows that it must end in: their reasons, in order, and the frames of all of them together."""

    make: Make
    reasons: tuple[str, ...] = ("kept",)
    frames: int | range = FRAMES


def film(
    name: str, sounds: Iterable[Sound] | None = None, edit: Callable[[Path], object] = Path, **settings: Any
) -> Make:
    """A video of `FRAMES` numbered frames with a tone, unless `settings` of its pictures say otherwise."""
    options = settings.pop("options", {})

    def make(folder: Path) -> Path:
        pictures = Pictures(**{"frames": FRAMES, **settings})
        lossless = name.endswith((".avi", ".mov"))
        track = [Sound(tone(pictures.starts_s[-1] + 0.04), codec="pcm_s16le" if lossless else "aac")]
        path = write_video(folder / name, pictures, track if sounds is None else sounds, options=options)
        edit(path)
        return path

    return make


def torn(share: float, name: str = "torn.mp4", **settings: Any) -> Make:
    return film(name, edit=lambda path: truncate(path, share), **settings)


def holding(name: str, content: bytes | str) -> Make:
    """A file with this content; `{secret}` in a text is the path of the video that must not be reached."""

    def make(folder: Path) -> Path:
        secret = str(folder / "secret.mp4")
        path = folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.replace("{secret}", secret).encode())
        return path

    return make


def renamed(make: Make, name: str | bytes) -> Make:
    return lambda folder: make(folder).rename(folder / os.fsdecode(name))


def only_named(name: str) -> Make:
    return lambda folder: folder / name


def patched(name: str, old: bytes, new: bytes, **settings: Any) -> Make:
    """A film in which some bytes are replaced by as many others."""

    def edit(path: Path) -> None:
        data = path.read_bytes()
        assert old in data and len(old) == len(new)
        path.write_bytes(data.replace(old, new))

    return film(name, edit=edit, **settings)


def picture_file(name: str, codec: str, pixel_format: str) -> Make:
    """One encoded picture, under the name of a video."""

    def make(folder: Path) -> Path:
        context = av.CodecContext.create(codec, "w")
        assert isinstance(context, av.VideoCodecContext)
        context.width, context.height, context.pix_fmt, context.time_base = 64, 48, pixel_format, Fraction(1, 25)
        frame = av.VideoFrame.from_ndarray(numbered(1), format="rgb24").reformat(format=pixel_format)
        packets = [*context.encode(frame), *context.encode(None)]
        (folder / name).write_bytes(b"".join(bytes(packet) for packet in packets))
        return folder / name

    return make


def sound_file(name: str, codec: str, container: str | None = None) -> Make:
    return lambda folder: write_video(folder / name, None, [Sound(tone(1), codec=codec)], container=container)


def without_duration(path: Path) -> None:
    """Sets every duration in an MP4's headers to zero."""
    data = bytearray(path.read_bytes())
    for box, offset in ((b"mvhd", 16), (b"mdhd", 16), (b"tkhd", 20)):
        at = data.find(box)
        while at >= 0:
            data[at + 4 + offset : at + 8 + offset] = bytes(4)
            at = data.find(box, at + 4)
    path.write_bytes(data)


def with_size(width: int, height: int) -> Callable[[Path], None]:
    """Sets the picture size in an AVI's headers."""

    def edit(path: Path) -> None:
        path.write_bytes(path.read_bytes().replace(struct.pack("<II", 64, 48), struct.pack("<II", width, height)))

    return edit


def inflated(path: Path) -> None:
    """Gives a movie of PNG pictures, all the same, one of 2000 x 2000 without telling its header."""
    content = zlib.compress(bytes(2000 * (1 + 3 * 2000)))
    chunks = {b"IHDR": struct.pack(">IIBBBBB", 2000, 2000, 8, 2, 0, 0, 0), b"IDAT": content, b"IEND": b""}
    png = b"\x89PNG\r\n\x1a\n"
    for name, data in chunks.items():
        png += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    path.unlink()
    with av.open(str(path), "w") as output:
        stream = output.add_stream("png", rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
        packet = av.Packet(png)
        packet.stream, packet.pts, packet.dts, packet.is_keyframe = stream, 0, 0, True
        output.mux(packet)


def reference_movie(folder: Path) -> Path:
    """A QuickTime movie without media: its tracks point, by a Macintosh alias, to `secret.mp4` beside it."""
    data = (folder / "secret.mp4").read_bytes()
    moov = data[data.index(b"moov") - 4 :]
    target = b"volume:secret.mp4"
    alias = (
        bytes(10) + bytes([6]) + b"volume".ljust(27, b"\0") + bytes(12) + bytes([10]) + b"secret.mp4".ljust(63, b"\0")
    )
    alias += bytes(16) + struct.pack(">hh", 1, 1) + bytes(16)
    alias += struct.pack(">hH", 2, len(target)) + target + b"\0" * (len(target) % 2) + struct.pack(">hH", -1, 0)
    record = struct.pack(">I4sI", 12 + len(alias), b"alis", 0) + alias
    own = struct.pack(">I4sI", 12, b"url ", 1)
    path = folder / "reference.mov"
    path.write_bytes(struct.pack(">I4s4sI4s", 20, b"ftyp", b"qt  ", 0, b"qt  ") + enlarged(moov, own, record))
    return path


def enlarged(box: bytes, old: bytes, new: bytes) -> bytes:
    """A box with `old` replaced by `new` in it, and the sizes of all boxes around it corrected."""
    containers = (b"moov", b"trak", b"mdia", b"minf", b"dinf")
    size, kind = struct.unpack(">I4s", box[:8])
    content = box[8:size]
    if kind == b"dref":
        content = content.replace(old, new)
    elif kind in containers:
        parts, at = [], 0
        while at < len(content):
            (length,) = struct.unpack(">I", content[at : at + 4])
            parts.append(enlarged(content[at : at + length], old, new))
            at += length
        content = b"".join(parts)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def link(name: str, target: str) -> Make:
    def make(folder: Path) -> Path:
        (folder / name).symlink_to(folder / target)
        return folder / name

    return make


def fifo(folder: Path) -> Path:
    os.mkfifo(folder / "pipe.mp4")
    return folder / "pipe.mp4"


def directory(folder: Path) -> Path:
    (folder / "folder.mp4").mkdir()
    return folder / "folder.mp4"


def small_sound(codec: str = "aac", seconds: float = FRAMES / 25, **settings: Any) -> list[Sound]:
    form = {name: settings.pop(name) for name in ("rate", "channels") if name in settings}
    return [Sound(tone(seconds, **form), codec=codec, rate=form.get("rate", 48000), **settings)]


HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{address}\n#EXT-X-ENDLIST\n"
DASH = (
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S">'
    '<Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>{address}</BaseURL>'
    "</Representation></AdaptationSet></Period></MPD>"
)
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
ADDRESSES = {
    "a path": "{secret}",
    "a file url": "file://{secret}",
    "http": f"http://127.0.0.1:{PORT}/secret.mp4",
    "hostname": "file:///etc/hostname",
    "concat": "concat:{secret}|{secret}",
    "subfile": "subfile,,start,0,end,0,,:{secret}",
}
SCRIPTS = {"hls": HLS, "ffconcat": "ffconcat version 1.0\nfile '{address}'\n", "dash": DASH}
PROBE, NO_VIDEO, DECODE, LIMIT, IO = "error:probe", "error:no_video", "error:decode", "error:limits", "error:io"
FASTSTART = {"movflags": "faststart"}
FRAGMENTED = {"movflags": "frag_keyframe+empty_moov"}
PART = range(1, FRAMES + 1)


def bad(make: Make, reason: str) -> Case:
    return Case(make, (reason,), 0)


CASES = {
    "torn at once, header at the end": bad(torn(0.01), PROBE),
    "torn in the middle, header at the end": bad(torn(0.5), PROBE),
    "torn inside the header at the end": bad(torn(0.9), DECODE),
    "torn inside the sound's header": Case(torn(0.98), (DECODE,)),
    "torn in the middle, header in front": Case(torn(0.5, options=FASTSTART), ("kept", DECODE)),
    "torn near the end, header in front": Case(torn(0.9, options=FASTSTART), ("kept", DECODE)),
    "torn before the first stream's header": bad(torn(0.01, options=FASTSTART), PROBE),
    "torn inside the header in front": bad(torn(0.1, options=FASTSTART), PROBE),
    "torn after the header in front": bad(torn(0.15, options=FASTSTART), DECODE),
    "torn fragments": Case(torn(0.7, options=FRAGMENTED | {"frag_duration": "200000"}), frames=PART),
    "torn mkv": Case(torn(0.5, "torn.mkv"), ("kept", DECODE)),
    "torn ts": Case(torn(0.5, "torn.ts"), frames=PART),
    "torn avi": Case(torn(0.5, "torn.avi", codec="mpeg4"), frames=PART),
    "torn flv": Case(torn(0.5, "torn.flv"), frames=PART),
    "no bytes": bad(holding("empty.mp4", b""), PROBE),
    "one byte": bad(holding("one.mp4", b"\0"), PROBE),
    "zeros": bad(holding("zeros.mp4", bytes(50_000)), PROBE),
    "noise": bad(holding("noise.mp4", np.random.default_rng(0).bytes(50_000)), PROBE),
    "text": bad(holding("text.mp4", "not a video\n" * 100), PROBE),
    "html": bad(holding("page.mp4", "<!DOCTYPE html><html><body>404 not found</body></html>"), PROBE),
    "a table of paths": bad(holding("list.mp4", "path\n{secret}\n"), PROBE),
    "only an MP4 signature": bad(holding("ftyp.mp4", struct.pack(">I4s4sI", 16, b"ftyp", b"isom", 0)), PROBE),
    "mp4 named avi": Case(renamed(film("a.mp4"), "a.avi")),
    "mkv named mp4": Case(renamed(film("a.mkv"), "a.mp4")),
    "avi named mp4": Case(renamed(film("a.avi", codec="mpeg4"), "a.mp4")),
    "mp4 without a suffix": Case(renamed(film("a.mp4"), "a")),
    "png named mp4": bad(picture_file("a.mp4", "png", "rgb24"), PROBE),
    "jpeg named mp4": bad(picture_file("a.mp4", "mjpeg", "yuvj420p"), PROBE),
    "mp3 named mp4": bad(sound_file("a.mp4", "libmp3lame", "mp3"), NO_VIDEO),
    "wav named mp4": bad(sound_file("a.mp4", "pcm_s16le", "wav"), NO_VIDEO),
    **{
        f"{script} with {address}": bad(holding(f"list.{script}.mp4", text.replace("{address}", target)), PROBE)
        for script, text in SCRIPTS.items()
        for address, target in ADDRESSES.items()
    },
    "m3u8 by its own name": bad(holding("list.m3u8", HLS.replace("{address}", "secret.mp4")), PROBE),
    "sdp": bad(holding("stream.sdp", SDP), PROBE),
    "reference movie": bad(reference_movie, DECODE),
    "an address for a name": bad(only_named(f"http://127.0.0.1:{PORT}/a.mp4"), IO),
    "concat for a name": bad(only_named("concat:secret.mp4|secret.mp4"), IO),
    "subfile for a name": bad(only_named("subfile,,start,0,end,0,,:secret.mp4"), IO),
    "sound only": bad(sound_file("a.m4a", "aac", "mp4"), NO_VIDEO),
    "pictures only": Case(film("a.mp4", ()), ("no_audio",)),
    "silence": Case(film("a.mp4", [Sound(np.zeros((1, 57600), np.float32), codec="aac")]), ("silent",)),
    "one frame": Case(film("a.mp4", small_sound(seconds=0.5), frames=1), frames=1),
    "no duration anywhere": Case(film("a.mp4", edit=without_duration)),
    "longer than the limit": bad(film("a.mp4", (), frames=3, times_s=[0.0, 1.0, 61.0]), LIMIT),
    "huge pictures in the header": bad(film("a.avi", codec="rawvideo", edit=with_size(16_000, 9_000)), LIMIT),
    "impossible pictures in the header": bad(film("a.avi", codec="rawvideo", edit=with_size(60_000, 40_000)), DECODE),
    "huge pictures behind a modest header": bad(film("a.mov", codec="png", pixel_format="rgb24", edit=inflated), LIMIT),
    "codec unknown": bad(patched("a.mov", b"avc1", b"zzzz"), DECODE),
    "sound codec unknown": Case(patched("a.mov", b"sowt", b"zzzz"), ("no_audio",)),
    "120 fps": Case(film("a.mp4", fps=120, frames=120), frames=25),
    "1 fps": Case(film("a.mp4", fps=1, frames=3), frames=75),
    "ntsc": Case(film("a.mp4", fps=Fraction(30000, 1001), frames=60), frames=50),
    "variable rate": Case(film("a.mp4", frames=6, times_s=[0, 0.04, 0.2, 0.28, 0.8, 1.16]), frames=range(29, 32)),
    "two frames at one time": Case(film("a.mkv", frames=4, times_s=[0, 0.04, 0.0401, 0.08]), frames=range(2, 5)),
    **{f"turned by {angle}": Case(film("a.mp4", edit=partial(turn, clockwise=angle))) for angle in (90, 180, 270)},
    "wide pixels": Case(film("a.mp4", aspect=Fraction(4, 3))),
    "10 bit": Case(film("a.mp4", pixel_format="yuv420p10le")),
    "10 bit 4:2:2": Case(film("a.mkv", pixel_format="yuv422p10le")),
    "gray": Case(film("a.mkv", codec="ffv1", pixel_format="gray")),
    "gray 16 bit": Case(film("a.mkv", codec="ffv1", pixel_format="gray16le")),
    "4:4:4": Case(film("a.mp4", pixel_format="yuv444p")),
    "4:2:2": Case(film("a.mp4", pixel_format="yuv422p")),
    "full range": Case(film("a.avi", codec="mjpeg", pixel_format="yuvj420p")),
    "rgb": Case(film("a.mp4", codec="libx264rgb", pixel_format="rgb24")),
    "rgb with alpha": Case(film("a.mov", codec="png", pixel_format="rgba")),
    "odd size": Case(film("a.mkv", codec="ffv1", pixel_format="yuv420p", draw=lambda i: numbered(i, 101, 57))),
    "odd size 4:4:4": Case(film("a.mp4", pixel_format="yuv444p", draw=lambda i: numbered(i, 101, 57))),
    "two pixels": Case(film("a.mkv", codec="ffv1", draw=lambda i: np.zeros((2, 2, 3), np.uint8))),
    "very tall": Case(film("a.mp4", draw=lambda i: numbered(i, 16, 2000))),
    "5.1": Case(film("a.mp4", small_sound(channels=6))),
    "8 kHz mono": Case(film("a.mov", small_sound("pcm_s16le", rate=8000))),
    "96 kHz stereo": Case(film("a.mov", small_sound("pcm_s16le", rate=96000, channels=2))),
    "two tracks, silence first": Case(
        film("a.mp4", [Sound(np.zeros((1, 57600), np.float32), codec="aac"), replace(small_sound()[0], default=True)])
    ),
    "sound begins before the pictures": Case(film("a.mkv", small_sound("pcm_s16le", 2.0), start_s=0.5)),
    "sound begins late": Case(film("a.mkv", small_sound("pcm_s16le", 0.8, start_s=0.4))),
    "sound with holes": Case(film("a.mkv", small_sound("pcm_s16le", 0.9, gaps=((0.3, 0.1), (0.6, 0.2))))),
    "sound much longer": Case(film("a.mp4", small_sound(seconds=5.0))),
    "a click": Case(film("a.mp4", [Sound(click(1.2, 0.5), codec="aac")]), ("silent",)),
    **{
        f"named {name!r}": Case(renamed(film("plain.mp4"), name))
        for name in (
            "with space.mp4", "quote's.mp4", 'double"quote.mp4', "new\nline.mp4", "tab\t.mp4", "back\\slash.mp4",
            "-i.mp4", "--help.mp4", "ünï¢ødé 影片.mp4", b"not-utf8-\xff\xfe.mp4", "%03d.mp4", "*?[a].mp4",
            "$(id);`id`.mp4", "x" * 251 + ".mp4", "concat:a|b.mp4", "http:--host?a=b#c.mp4", "file:secret.mp4",
            "a.b.mp4", ".hidden.mp4",
        )
    },
    "a link to a video": Case(link("link.mp4", "secret.mp4")),
    "a link to nothing": bad(link("link.mp4", "nothing.mp4"), IO),
    "a link to itself": bad(link("link.mp4", "link.mp4"), IO),
    "a folder": bad(directory, IO),
    "a pipe": bad(fifo, IO),
    "a file that is gone": bad(only_named("gone.mp4"), IO),
}  # fmt: skip


@contextmanager
def opened_in(folder: Path) -> Iterator[set[str]]:
    """The names of the files in a folder that anybody opened meanwhile, as Linux' inotify tells; filled at the end."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_NONBLOCK)
    names: set[str] = set()
    try:
        assert libc.inotify_add_watch(descriptor, os.fsencode(folder), IN_OPEN) > 0, os.strerror(ctypes.get_errno())
        yield names
        with suppress(BlockingIOError):
            while events := os.read(descriptor, 1 << 20):
                at = 0
                while at < len(events):
                    (length,) = struct.unpack_from("I", events, at + 12)
                    names.add(os.fsdecode(events[at + 16 : at + 16 + length].rstrip(b"\0")))
                    at += 16 + length
    finally:
        os.close(descriptor)
    names.discard("")  # the folder itself


def with_secret(folder: Path) -> Path:
    """The folder, with a video in it whose frames are known by their number."""
    folder.mkdir(parents=True)
    film("secret.mp4", draw=lambda i: numbered(SECRET), options=FASTSTART)(folder)
    return folder


def curated(path: Path, output: Path) -> Result:
    identity = identify(path, LIMITS)
    return identity, curate(identity, STAGES, output, LIMITS, "recipe")


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("output")


@pytest.fixture(scope="module")
def results() -> dict[str, Result]:
    """What has come of the cases so far, for the last test."""
    return {}


@pytest.mark.parametrize("name", CASES)
def test_a_file_ends_in_the_rows_it_should_have_and_no_other_is_opened(
    name: str, tmp_path: Path, output: Path, results: dict[str, Result]
) -> None:
    case, folder = CASES[name], with_secret(tmp_path / "in")
    path = case.make(folder)
    with opened_in(folder) as opened:
        results[name] = curated(path, output)
    found = results[name][1]
    assert opened <= {path.name, path.readlink().name if path.is_symlink() else ""}
    with pytest.raises(BlockingIOError):
        LISTENER.accept()
    check_partition(found.clips, found.source)
    assert tuple(clip["reason"] for clip in found.clips) == case.reasons, found.source["detail"]
    frames = found.clips[-1]["end_frame"]
    assert frames in case.frames if isinstance(case.frames, range) else frames == case.frames
    assert [clip["key"] for clip in found.clips if clip["kept"]] == list(found.sampled)


HLS_OPTIONS = {"allowed_extensions": "ALL", "extension_picky": "0"}
TRAPS: dict[str, tuple[str | None, dict[str, str]]] = {  # a case -> what ffmpeg must be told to walk into it
    "hls with a path": ("hls", HLS_OPTIONS),
    "hls with a file url": ("hls", HLS_OPTIONS),
    "m3u8 by its own name": (None, HLS_OPTIONS),
    "ffconcat with a path": (None, {"safe": "0"}),
    "reference movie": (None, {"enable_drefs": "1"}),
}


@pytest.mark.parametrize("name", TRAPS)
def test_the_traps_are_armed(name: str, tmp_path: Path) -> None:
    """The files that reach for others do reach them when ffmpeg is let, and then the watch sees it."""
    folder, (form, options) = with_secret(tmp_path / "in"), TRAPS[name]
    path = CASES[name].make(folder)
    options = {"protocol_whitelist": "file,crypto,data", **options}
    with opened_in(folder) as opened, av.open(str(path), format=form, options=options) as container:
        frame = next(container.decode(video=0))
        assert number_of(frame.to_ndarray(format="rgb24")) == SECRET
    assert opened == {path.name, "secret.mp4"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_a_row(tmp_path: Path) -> None:
    path = CASES["10 bit"].make(tmp_path)
    path.chmod(0)
    assert [clip["reason"] for clip in curated(path, tmp_path)[1].clips] == [IO]


def test_all_of_it_makes_an_output_that_verifies(output: Path, results: dict[str, Result], tmp_path: Path) -> None:
    """Names, formats and failures of every kind together in shards and manifests."""
    for i, name in enumerate(CASES.keys() - results.keys()):  # none, unless the cases ran in another process
        results[name] = curated(CASES[name].make(with_secret(tmp_path / str(i))), output)
    first: dict[str, Path] = {}
    everything = []
    for identity, found in results.values():
        assert isinstance(identity.path, Path)
        original = first.setdefault(identity.source_id or str(identity.path), identity.path)
        everything.append(found if original == identity.path else duplicate(identity, original))
    clips = [dict(clip) for found in everything for clip in found.clips]
    parts = {key: part_path(output, found.source["source_id"]) for found in everything for key in found.sampled}
    index = pack(parts, output / "shards", required={VIDEO, AUDIO, BOXES, JSON})
    shards = dict(zip(index["key"], index["shard"], strict=True))
    for clip in clips:
        clip["shard"] = shards[clip["key"]] if clip["kept"] else None
    scores, reasons = collect_meanings(STAGES)
    write_manifests(output, clips, [found.source for found in everything], scores=scores, reasons=reasons)
    write_summary(output)
    deciding = {"profile": {}, "score_only": False, "weights": {}, "code": ""}
    (output / "recipe.yaml").write_text(yaml.safe_dump({**deciding, "hash": recipe_hash(deciding)}))
    assert verify(output) == []
    assert (len(everything), len(index)) == (len(CASES), 43)
