"""Whether the video and sound of a sample decode to what its JSON promises."""

import io
from fractions import Fraction

import av
from av.error import FFmpegError
from av.video.frame import PictureType

from clock import FPS, SAMPLES_PER_FRAME
from shards.sample import AUDIO, VIDEO, Sample


def check_streams(sample: Sample) -> list[str]:
    """What comes out of the decoders of a sample without other problems, where it is not what its JSON promises."""
    fields = sample.json
    checks = (
        (VIDEO, lambda: check_video(sample.members[VIDEO], fields["frames"], fields.get("size"))),
        (AUDIO, lambda: check_audio(sample.members[AUDIO], fields["frames"])),
    )
    found = []
    for name, check in checks:
        try:
            found += [f"{name}: {text}" for text in check()]
        except (FFmpegError, IndexError, ValueError) as error:
            found.append(f"{name}: does not decode ({error})")
    return found


def check_video(data: bytes, frames: int, size: int | None) -> list[str]:
    """`frames` square pictures, of `size` if it is known, each 1/25 s after the last, and no B-frames."""
    pictures: set[tuple[int, int]] = set()
    count, uneven, predicted = 0, False, 0
    with av.open(io.BytesIO(data), "r", format="mp4") as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {"err_detect": "explode"}
        for frame in container.decode(stream):
            pictures.add((frame.width, frame.height))
            uneven |= frame.pts is None or frame.pts * (frame.time_base or 0) != Fraction(count, FPS)
            predicted += frame.pict_type == PictureType.B
            count += 1
    found = []
    if count != frames:
        found.append(f"{count} frames decode, expected {frames}")
    wanted = {(size, size)} if size else {(width, width) for width, _ in pictures}
    if count and (pictures != wanted or len(pictures) != 1):
        shown = ", ".join(f"{width}x{height}" for width, height in sorted(pictures))
        found.append(f"pictures of {shown}, expected {f'{size}x{size}' if size else 'a square'}")
    if uneven:
        found.append(f"frame times are not multiples of 1/{FPS} s")
    if predicted:
        found.append(f"{predicted} B-frames")
    return found


def check_audio(data: bytes, frames: int) -> list[str]:
    """Sound exactly as long as the frames, whatever its header says."""
    with av.open(io.BytesIO(data), "r", format="flac") as container:
        stream = container.streams.audio[0]
        stream.codec_context.options = {"err_detect": "crccheck+explode"}
        count = sum(frame.samples for frame in container.decode(stream))
    wanted = frames * SAMPLES_PER_FRAME
    return [] if count == wanted else [f"{count} samples decode, expected {wanted}"]
