"""Files that hold one recording after another, as `cat a.ts b.ts` makes them: where the second one begins.

Its clock starts anew there, so a reader that went on would lay its sound under the pictures of the first. Containers
with headers are walked by their structure, without reading what the headers enclose; in the others the time stamps of
all packets tell. What this gives up: recordings whose time stamps go on are one recording.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet

CLOCKED = {"mpeg", "mpegts", "mpegvideo", "nut", "ogg", "asf"}  # ffmpeg's names of containers that are not walked
BACK_S = 0.3  # time stamps that fall behind by more are no jitter, and at a keyframe no reordering
REORDERED_S = 2.0  # 16 frames, the most that H.264 reorders, at 8 fps
CONFIRMING = 5  # packets of the stream that stay behind: one wrong time stamp is no new clock
NEIGHBOURS = 200  # packets in which the other streams start anew as well
SIGNATURES = (b"nut/multimedia container\0", b"OggS\0\2", bytes.fromhex("3026b2758e66cf11"))  # the last: ASF
TS_PACKET, TS_SYNC = 188, 0x47  # H.222.0, 2.4.3.2
HEADER_BYTES = 1 << 16  # that a header of those takes, before the first packet

EBML, SEGMENT, CLUSTER = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75"
FLV_TAGS = (8, 9, 18)  # sound, pictures, data


def second_header(path: Path, start: int = 0) -> int | None:
    """Return the byte at which another MP4, Matroska, AVI or FLV file begins behind the one at `start`, or None."""
    with path.open("rb") as file:
        file.seek(start)
        head = file.read(12)
        file.seek(start)
        if head[:4] == EBML:
            return second_matroska(file)
        if head[:3] == b"FLV":
            return second_flv(file)
        if head[:4] == b"RIFF" and head[8:] == b"AVI ":
            return second_avi(file)
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
            return second_mp4(file)
    return None


def second_mp4(file: BinaryIO) -> int | None:
    """Another `ftyp` behind a `moov`, or another `moov` with what stands before it since the first was complete."""
    seen: set[bytes] = set()
    complete = None
    while len(head := file.read(8)) == 8:
        at, size, kind = file.tell() - 8, int.from_bytes(head[:4], "big"), head[4:]
        if kind == b"ftyp" and b"moov" in seen:
            return at
        if kind == b"moov" and kind in seen:
            return at if complete is None else complete
        if size == 1:
            size = int.from_bytes(file.read(8), "big")
        if size < 8:  # 0: it reaches to the end of the file
            return None
        seen.add(kind)
        file.seek(at + size)
        if complete is None and {b"moov", b"mdat"} <= seen:
            complete = at + size
    return None


def second_avi(file: BinaryIO) -> int | None:
    """Another RIFF chunk that begins an AVI; those that continue a large one are called AVIX."""
    first = file.tell()
    while len(head := file.read(12)) == 12 and head[:4] == b"RIFF":
        at = file.tell() - 12
        if at > first and head[8:] == b"AVI ":
            return at
        size = int.from_bytes(head[4:8], "little")
        file.seek(at + 8 + size + size % 2)
    return None


def second_flv(file: BinaryIO) -> int | None:
    """Another header between two tags."""
    file.seek(9 + 4, 1)  # the header, and the size of the tag before the first: none
    while len(head := file.read(11)) == 11:
        at = file.tell() - 11
        if head[:3] == b"FLV":
            return at
        if head[0] & 0x1F not in FLV_TAGS:
            return None
        file.seek(int.from_bytes(head[1:4], "big") + 4, 1)
    return None


def second_matroska(file: BinaryIO) -> int | None:
    """Another EBML header; segments and clusters of unknown size, as browsers write them, are looked into."""
    first = file.tell()
    while (element := element_head(file)) is not None:
        at, name, size = element
        if name == EBML and at > first:
            return at
        if size is None and name not in (SEGMENT, CLUSTER):
            return None
        file.seek(size or 0, 1)
    return None


def element_head(file: BinaryIO) -> tuple[int, bytes, int | None] | None:
    """(position, name, size of the content or None if unknown) of the EBML element here; None at the end of it all."""
    at, name = file.tell(), file.read(1)
    width = 9 - name[0].bit_length() if name else 9
    if width > 4:
        return None
    name += file.read(width - 1)
    size = file.read(1)
    width = 9 - size[0].bit_length() if size else 9
    if width > 8:
        return None
    digits = int.from_bytes(size + file.read(width - 1), "big") & ((1 << 7 * width) - 1)
    return at, name, None if digits == (1 << 7 * width) - 1 else digits


@dataclass
class Clock:
    """The time stamps of one stream, in the order of its packets."""

    last_s: float = -math.inf
    latest_s: float = -math.inf  # that another one confirms: one far ahead is no clock
    behind: list[int | None] = field(default_factory=list)  # where the packets lie that are behind it, in a row

    @property
    def begins(self) -> int | None:
        return min((place for place in self.behind if place is not None), default=None)

    @property
    def restarted(self) -> bool:
        return len(self.behind) >= CONFIRMING and self.begins is not None

    def take(self, packet: Packet) -> None:
        """Look at the next packet, until it is sure that the clock began again."""
        assert packet.pts is not None and packet.time_base is not None
        if self.restarted:
            return
        time_s = float(packet.pts * packet.time_base)
        late_s = self.latest_s - time_s
        if late_s > (0 if self.behind else BACK_S if packet.is_keyframe else REORDERED_S):
            self.behind.append(packet.pos)
        else:
            self.behind.clear()
        self.latest_s, self.last_s = max(self.latest_s, min(self.last_s, time_s)), time_s


def clock_restart(container: InputContainer) -> int | None:
    """Return the byte from which on the time stamps of a stream begin again, or None; nothing is decoded."""
    clocks: dict[int, Clock] = {}
    left = NEIGHBOURS
    for packet in stamped_packets(container):
        clock = clocks.setdefault(packet.stream.index, Clock())
        clock.take(packet)
        left -= clock.restarted or left < NEIGHBOURS
        if not left:
            break
    return min((clock.begins for clock in clocks.values() if clock.begins is not None), default=None)


def header_before(path: Path, begins: int, start: int) -> int:
    """Return where the header of the recording begins whose first packet lies at `begins`, or that, if it has none."""
    with path.open("rb") as file:
        first = max(start + 1, begins - HEADER_BYTES)
        file.seek(first)
        before = file.read(begins - first)
    while is_table(before[-TS_PACKET:]):
        before = before[:-TS_PACKET]
    return first + min((at for name in SIGNATURES if (at := before.find(name)) >= 0), default=len(before))


def is_table(packet: bytes) -> bool:
    """Whether these bytes are a packet of a transport stream that begins a table, not a part of pictures or sound."""
    if len(packet) < TS_PACKET or packet[0] != TS_SYNC or not packet[1] & 0x40:
        return False
    payload = 4 + (1 + packet[4] if packet[3] & 0x20 else 0)
    return packet[payload : payload + 3] != b"\0\0\1"


def packets_span_s(container: InputContainer) -> float:
    """Return the seconds from the first to the last time stamp of all packets."""
    first_s, last_s = math.inf, -math.inf
    for packet in stamped_packets(container):
        first_s = min(first_s, float(packet.pts * packet.time_base))  # type: ignore[operator]
        last_s = max(last_s, float((packet.pts + (packet.duration or 0)) * packet.time_base))  # type: ignore[operator]
    return max(0.0, last_s - first_s)


def stamped_packets(container: InputContainer) -> Iterator[Packet]:
    """The packets of all pictures and sounds that have a time stamp, as far as the file can be read."""
    streams = [*container.streams.video, *container.streams.audio]
    packets = container.demux(*streams)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, FFmpegError):
            return
        if packet.pts is not None and packet.time_base:
            yield packet
