"""The sound of a source on the clock of its pictures: 16 kHz mono, sample n at n/16000 s after the first frame."""

from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.container import InputContainer
from av.error import FFmpegError

from clock import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from media.errors import MediaError
from media.probe import WITHOUT_PTS, Limits, Probe, audio_stream, open_media, packets

FULL_SCALE = 32768  # 16 bits
GAP_S = 1 / FPS  # sound that strays further than a frame from its time stamps is placed anew; less is jitter


class AudioTrack:
    """Samples kept as the 16-bit integers that they were resampled to; any part, as a slice, is float32 in -1..1.

    An hour takes 115 MB, half of what it takes as float32.
    """

    def __init__(self, samples: np.ndarray) -> None:
        assert samples.dtype == np.int16 and samples.ndim == 1
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, part: slice) -> np.ndarray:
        return self.samples[part].astype(np.float32) / FULL_SCALE


Samples = np.ndarray | AudioTrack  # [N] float32, whole or read part by part


FROM_THE_BEGINNING = (WITHOUT_PTS, "mpeg", "mpegts")  # containers in which a place is not found exactly
AROUND_S = 1.0  # of sound that is read on both sides of a part: decoders need some of it, clips may have margins


def read_audio(path: Path, probe: Probe, part: tuple[int, int] | None = None) -> AudioTrack | None:
    """The best audio track, or None if the file has none.

    All channels are mixed down by ffmpeg's default matrix, scaled so that nothing clips. Sound before the first frame
    is cut off, a late start and gaps are silence; what runs more than a second past the pictures' duration is cut off.
    Of a `part`, the grid frames [first, end), little else is decoded: further than AROUND_S outside it is silence.
    Raises MediaError("error:decode") if the track exists but nothing of it decodes.
    """
    first_frame, end_frame = part or (0, probe.frames)
    wanted = end_frame * SAMPLES_PER_FRAME + SAMPLE_RATE
    track = np.zeros(wanted, np.int16)
    end = 0
    with open_media(path, probe.end_byte) as container:
        stream = audio_stream(container)
        if stream is None:
            return None
        # an AVI begins with its first packets; `first_pts_s` there counts the frames that the decoder holds back
        origin_s = 0.0 if container.format.name == WITHOUT_PTS else probe.first_pts_s
        if container.format.name not in FROM_THE_BEGINNING:
            seek_sound(container, stream, origin_s + first_frame / FPS - AROUND_S)
        for start, chunk in place_on_clock(resample(decode(container, stream)), origin_s):
            if start >= wanted:
                break
            piece = chunk[max(0, -start) :][: wanted - max(start, 0)]
            track[max(start, 0) : max(start, 0) + len(piece)] = piece
            end = max(end, max(start, 0) + len(piece))
    if not end and part is None:
        raise MediaError("error:decode", f"{path}: the audio track cannot be decoded")
    return AudioTrack(track[:end])


def seek_sound(container: InputContainer, stream: av.AudioStream, time_s: float) -> None:
    """Go to the packet before a time of the container's clock, if it can be found; else all is decoded up to there."""
    if time_s > 0 and stream.time_base:
        with suppress(FFmpegError):
            container.seek(int(time_s / stream.time_base), stream=stream, backward=True)


def read_sound(path: Path, limits: Limits = Limits()) -> AudioTrack:
    """The best audio track of a sound or video file by itself: it begins at its own first sample.

    Raises MediaError("error:no_audio") or ("error:decode") if there is nothing to hear, ("error:limits") if it is
    longer than `limits.max_duration_s`, by its samples or by a gap between them.
    """
    with open_media(path) as container:
        stream = audio_stream(container) if len(container.streams) else None
        if stream is None:
            raise MediaError("error:no_audio", f"{path}: no audio stream")
        chunks, origin = [np.zeros(0, np.int16)], None
        for start, chunk in place_on_clock(resample(decode(container, stream)), 0.0):
            origin = start if origin is None else origin
            if start + len(chunk) - origin > limits.max_duration_s * SAMPLE_RATE:
                raise MediaError("error:limits", f"{path}: sound longer than {limits.max_duration_s:.0f} s")
            gap = start - origin - sum(map(len, chunks))
            chunks += [np.zeros(max(gap, 0), np.int16), chunk[max(-gap, 0) :]]
    track = np.concatenate(chunks)
    if not len(track):
        raise MediaError("error:decode", f"{path}: the audio track cannot be decoded")
    return AudioTrack(track)


def cut(track: Samples, start_sample: int, samples: int) -> np.ndarray:
    """[samples] float32 from `start_sample` on; what lies outside the track is silence."""
    piece = np.zeros(samples, np.float32)
    inside = track[max(0, start_sample) : max(0, start_sample + samples)]
    offset = max(0, -start_sample)
    piece[offset : offset + len(inside)] = inside
    return piece


def decode(container: InputContainer, stream: av.AudioStream) -> Iterator[AudioFrame]:
    """Yield the audio frames in order; packets that cannot be decoded are skipped."""
    for packet in packets(container, stream):
        try:
            yield from packet.decode()
        except FFmpegError:
            continue


def resample(frames: Iterator[AudioFrame]) -> Iterator[tuple[float | None, np.ndarray]]:
    """Yield 16 kHz mono int16 chunks, each with its time in the container's clock, or None if it follows the last.

    A new format or a jump in time starts a new run, so that a gap in the track stays a gap, and many small ones do too.
    """
    for starts_s, run in runs(frames):
        resampler = AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)  # integers: the mix is scaled to fit
        for frame in chain(run, [None]):
            for out in resampler.resample(frame):
                yield starts_s, out.to_ndarray()[0]
                starts_s = None


def runs(frames: Iterator[AudioFrame]) -> Iterator[tuple[float | None, Iterator[AudioFrame]]]:
    """Frames of one format that follow each other without a gap: (time of the first, the frames)."""
    waiting = next(frames, None)

    def run(first: AudioFrame) -> Iterator[AudioFrame]:
        nonlocal waiting
        form, expected_s = form_of(first), time_of(first)
        while waiting is not None and form_of(waiting) == form:
            time_s = time_of(waiting)
            if time_s is not None and expected_s is not None and abs(time_s - expected_s) > GAP_S:
                return
            expected_s = time_s if expected_s is None else expected_s
            expected_s = None if expected_s is None else expected_s + waiting.samples / waiting.sample_rate
            waiting.pts = None  # a run is placed by the time of its first frame; jitter inside it is not ours to follow
            yield waiting
            waiting = next(frames, None)

    while waiting is not None:
        yield time_of(waiting), run(waiting)


def time_of(frame: AudioFrame) -> float | None:
    return float(frame.pts * frame.time_base) if frame.pts is not None and frame.time_base else None


def form_of(frame: AudioFrame) -> tuple[str, str, int]:
    return frame.format.name, frame.layout.name, frame.sample_rate


def place_on_clock(
    chunks: Iterator[tuple[float | None, np.ndarray]], origin_s: float
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (first sample on the source's clock, chunk) of chunks with their times in the container's clock."""
    position = 0
    for time_s, chunk in chunks:
        if time_s is not None:
            position = round((time_s - origin_s) * SAMPLE_RATE)
        yield position, chunk
        position += len(chunk)
