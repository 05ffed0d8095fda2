"""One source video: who it is, and through the stages to its part (a tar of samples) and its rows.

This is the unit of work, of commit and of failure. The way of a video:

1. `identify` reads its header and hashes it; what cannot be read is an Identity with a reason.
2. The driver (`curation/run.py`) hands it to a worker, which calls `curate`.
3. `run_stages` takes it through the profile's stages as one clip, then as the clips that steps cut from it. A filter
   measures a clip, `judge` compares its numbers with the filter's limits, and a dropped clip skips the stages left.
4. `write_part` encodes what comes out of the last stage, one clip at a time, into OUT/parts, and collects a row of
   every clip. The rows of a source cover each of its frames once.
5. The driver commits the rows to the ledger. Packing and the manifests follow after the last source
   (`curation/corpus.py`).

A file that cannot be used, or a stage that raises, becomes one row `error:...` over all of it.
"""

import hashlib
import math
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from clock import FPS, SAMPLE_RATE
from curation.clip import Clip, Segment, Source
from curation.filters.source_speech import voice_of
from curation.ledger_files import part_path
from curation.stage import Stage, Timer, run_stages
from curation.videos import Video, state_of, storable
from manifests.schema import KEPT
from manifests.writer import main_reason
from media.encode import encode_flac, encode_mp4
from media.errors import MediaError
from media.probe import Limits, Probe, probe
from media.regions import Regions
from shards.sample import AUDIO, BOXES, JSON, LANDMARKS, VIDEO, WHISPER, Sample, encode_json, encode_npy, sample_sha256
from shards.writer import ShardWriter
from storage.digest import sha256

UNLISTED = ("end_byte", "rest_s", "mirrored")  # of a Probe, no columns of sources.parquet


@dataclass(frozen=True)
class Identity:
    """A file before any work on it: its bytes' hash and its header, or why it cannot be used."""

    path: Video
    source_id: str | None
    bytes: int | None
    mtime_ns: int | None
    probe: Probe | None
    reason: str = ""
    detail: str = ""
    inode: int | None = None
    segments: tuple[Segment, ...] = ()  # what a data set's list names of it, in order; none: all of it

    @property
    def frames(self) -> int:
        return self.probe.frames if self.probe else 0

    @property
    def duration_s(self) -> float:
        return self.frames / FPS


@dataclass(frozen=True)
class Curated:
    """The result of one source: rows for the manifests, and the clips that have a sample in its part."""

    source: dict[str, Any]
    clips: list[dict[str, Any]]
    sampled: dict[str, str]  # key -> sha256 of the sample
    memory_gb: float = 0.0  # of the worker, when it was done


class OutputError(ValueError):
    """The output folder cannot be written; the run ends."""


def identify(path: Path, limits: Limits, known_sha256: str | None = None) -> Identity:
    """Read the header of a file and hash its bytes, if their hash is not known. Whatever is wrong with it becomes the
    reason; nothing is raised."""
    identity = unread(path, "", "")
    header, source_id, reason, detail = None, None, "", ""
    try:
        header = probe(path, limits)
    except MediaError as error:
        reason, detail = error.reason, str(error)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason, detail = "error:io", unreadable(path, error)
    except Exception as error:  # noqa: BLE001  one bad video never stops a run: it becomes a row
        reason, detail = "error:exception", last_words(error)
    if reason not in ("error:io", "error:limits"):
        try:
            source_id = known_sha256 or sha256(path)
            check_unchanged(identity)
        except MediaError as error:
            header, source_id, reason, detail = None, None, error.reason, str(error)
        except (OSError, ValueError) as error:
            header, reason, detail = None, "error:io", unreadable(path, error)
    return replace(identity, source_id=source_id, probe=header, reason=reason, detail=detail)


def unread(path: Video, reason: str, detail: str) -> Identity:
    """Return the identity of a file that was not read; without a size if it does not exist."""
    state = state_of(path)
    if state is None:
        return Identity(path, None, None, None, None, reason, detail)
    return Identity(path, None, state.bytes, state.mtime_ns, None, reason, detail, state.inode)


def unreadable(path: Video, error: Exception) -> str:
    return f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})"


def check_unchanged(identity: Identity) -> None:
    """Raise MediaError("error:changed") if the file is not the one that was identified, by size, time and inode."""
    before, now = identity, unread(identity.path, "", "")
    if (before.bytes, before.mtime_ns, before.inode) != (now.bytes, now.mtime_ns, now.inode):
        found = "is gone" if now.bytes is None else f"had {before.bytes} bytes, has {now.bytes}"
        text = f"{identity.path}: changed while it was read ({found}); the same command curates it again"
        raise MediaError("error:changed", text)


def curate(
    identity: Identity, stages: Sequence[Stage], output: Path, limits: Limits, recipe: str, score_only: bool = False
) -> Curated:
    """Take one source through the stages; its part appears by one rename, its rows are returned for the ledger."""
    if identity.probe is None or identity.source_id is None:
        return failed(identity, identity.reason, identity.detail)
    assert isinstance(identity.path, Path), "of an object its copy is curated"
    source = Source(identity.source_id, identity.path, identity.probe, limits)
    timer = Timer()
    part = part_path(output, identity.source_id)
    part.unlink(missing_ok=True)  # what an interrupted run left
    try:
        clips = with_rest(source, run_segments(source, identity.segments, stages, timer, score_only))
        rows, sampled = write_part(part, clips, recipe)
        check_unchanged(identity)
    except (MediaError, OSError) as error:
        part.unlink(missing_ok=True)
        return failed(identity, *reason_of(identity.path, error))
    except OutputError:
        raise
    except Exception as error:  # noqa: BLE001  one bad video never stops a run: it becomes a row
        return failed(identity, "error:exception", last_words(error))
    cpu_s = {f"cpu_s_{name}": seconds for name, seconds in timer.cpu_s.items()}
    return Curated({**source_row(identity, rows), **cpu_s}, rows, sampled)


def reason_of(path: Path, error: MediaError | OSError) -> tuple[str, str]:
    """Return (reason, detail) of a failure: what a decoder says counts only if the file can still be read."""
    if isinstance(error, MediaError) and error.reason == "error:changed":
        return error.reason, str(error)
    try:
        sha256(path)
    except OSError as unread:
        return "error:io", unreadable(path, unread)
    if isinstance(error, MediaError):
        return error.reason, str(error)
    return "error:exception", last_words(error)


def last_words(error: Exception) -> str:
    """The end of an exception's traceback."""
    return "".join(traceback.format_exception(error)[-3:]).strip()


def whole(source: Source) -> Clip:
    return Clip(source, 0, source.probe.frames)


def run_segments(
    source: Source, segments: Sequence[Segment], stages: Sequence[Stage], timer: Timer, score_only: bool
) -> Iterator[Clip]:
    """Yield the clips of each segment of a source, and a dropped one for what lies before, between and behind them.

    Without segments those of the whole source. A segment is a source of its own for every stage: a filter of whole
    sources judges it, and nothing outside is decoded but what seeking needs.
    """
    if not segments:
        yield from run_stages(whole(source), stages, timer, score_only)
        return
    done, end = 0, source.probe.frames
    for segment in segments:
        start, stop = max(segment.start_frame, done), min(segment.end_frame, end)
        if start >= stop:
            continue
        if start > done:
            yield Clip(source, done, start).drop("outside_segments")
        part = replace(source, regions=Regions(), segment=replace(segment, start_frame=start, end_frame=stop))
        try:
            yield from run_stages(Clip(part, start, stop), stages, timer, score_only)
        finally:
            part.reader.close()
        done = stop
    if done < end:
        yield Clip(source, done, end).drop("outside_segments")


def with_rest(source: Source, clips: Iterable[Clip]) -> Iterator[Clip]:
    """Yield the clips of a source, then a dropped one over what a joined file holds behind its first recording."""
    end, header = 0, source.probe
    for clip in clips:
        end = max(end, clip.end_frame)
        yield clip
    if header.end_byte is not None:
        text = f"another recording begins at byte {header.end_byte}; split the file there and give both parts"
        yield Clip(source, end, end + header.rest_frames).drop("error:joined", text)


def write_part(part: Path, clips: Iterator[Clip], recipe: str) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Write the samples one at a time; return the rows of all clips, and key -> sha256 of the samples."""
    rows, sampled, writer = [], {}, None
    with ExitStack() as stack:
        for clip in clips:
            rows.append(clip_row(clip))
            if clip.frames is None or not (clip.verdict.keep or clip.collected):
                continue  # dropped before the last filter, whose other thresholds might keep it
            sample = sample_of(clip, recipe)
            with writing(part):
                if writer is None:
                    part.parent.mkdir(parents=True, exist_ok=True)
                    writer = stack.enter_context(ShardWriter(part))
                writer.write(sample)
            sampled[clip.key] = sample_sha256(sample.members)
        with writing(part):
            stack.close()
    return rows, sampled


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise OutputError for an OSError inside the `with` block: the disk fails there, not the source."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path.parent}: cannot be written ({error.strerror})") from error


def sample_of(clip: Clip, recipe: str) -> Sample:
    """Return the sample of a clip with what filters collected; audio and features still have their margin."""
    assert clip.frames is not None and clip.crop_boxes is not None
    members = {
        VIDEO: encode_mp4(clip.frames),
        AUDIO: encode_flac(clip.audio(clip.margin_frames)),
        BOXES: encode_npy(clip.crop_boxes),
        JSON: encode_json(sample_json(clip, recipe)),
    }
    if clip.landmarks is not None:
        members[LANDMARKS] = encode_npy(clip.landmarks)
    if clip.whisper is not None:
        members[WHISPER] = encode_npy(clip.whisper)
    if clip.voice is not None:  # for the report's waveform; no member of a shard
        members["voice.npy"] = encode_npy(voice_of(clip).astype(np.float16))
    members |= {f"{name}.npy": encode_npy(array) for name, array in clip.collected.items()}
    return Sample(clip.key, members)


def sample_json(clip: Clip, recipe: str) -> dict[str, Any]:
    header = clip.source.probe
    assert clip.frames is not None
    return {
        "source_id": clip.source.id,
        "source": storable(clip.source.path.name),
        "source_width": header.width,
        "source_height": header.height,
        "source_fps": header.fps,
        "start_frame": clip.start_frame,
        "end_frame": clip.end_frame,
        "frames": len(clip),
        "start_s": clip.start_s,
        "end_s": clip.end_s,
        "fps": FPS,
        "size": clip.frames.shape[1],
        "sample_rate": SAMPLE_RATE,
        "audio_shift_frames": clip.audio_shift_frames,
        "margin_frames": clip.margin_frames,
        "recipe": recipe,
        "scores": finite(scores_of(clip)),
    }


def scores_of(clip: Clip) -> dict[str, float]:
    return {**clip.scores, **(clip.track.scores() if clip.track is not None else {})}


def finite(scores: dict[str, float]) -> dict[str, float | None]:
    """Scores as JSON can hold them: None for a number that could not be measured."""
    return {name: value if math.isfinite(value) else None for name, value in scores.items()}


def clip_row(clip: Clip) -> dict[str, Any]:
    return {
        "key": clip.key,
        "source_id": clip.source.id,
        "source": storable(clip.source.path),
        "start_frame": clip.start_frame,
        "end_frame": clip.end_frame,
        **clip.verdict.columns(),
        "audio_shift_frames": clip.audio_shift_frames,
        **scores_of(clip),
    }


def failed(identity: Identity, reason: str, detail: str) -> Curated:
    """Return one row over a source that could not be curated."""
    name = identity.source_id or hashlib.sha256(str(identity.path).encode("utf-8", "surrogateescape")).hexdigest()
    end = identity.frames + (identity.probe.rest_frames if identity.probe else 0)
    row = {
        "key": f"{name[:16]}-{0:08d}-{end * 1000 // FPS:08d}",
        "source_id": identity.source_id,
        "source": storable(identity.path),
        "start_frame": 0,
        "end_frame": end,
        "kept": False,
        "reason": reason,
        "stage": None,
        "detail": detail,
    }
    return Curated(source_row(identity, [row]), [row], {})


def source_row(identity: Identity, clips: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the row of sources.parquet that follows from a file's header and its clips."""
    reason = main_reason(clips)
    status = KEPT if reason == KEPT else "error" if reason.startswith("error:") else "dropped"
    header = asdict(identity.probe) if identity.probe else {}
    for name in UNLISTED:
        header.pop(name, None)
    return {
        "source_id": identity.source_id,
        "path": storable(identity.path),
        "bytes": identity.bytes,
        "status": status,
        "reason": reason,
        "frames": max((clip["end_frame"] for clip in clips), default=0) or None,
        "detail": next((clip["detail"] for clip in clips if clip.get("detail")), None),
        **{("start_offset_s" if name == "first_pts_s" else name): value for name, value in header.items()},
        "hdr": None if identity.probe is None else identity.probe.hdr is not None,
    }


def duplicate(identity: Identity, original: Video | str) -> Curated:
    """Return one row for a file with the same bytes as another, which is curated instead."""
    curated = failed(identity, "duplicate", f"same bytes as {original}")
    curated.source.update(status="duplicate", duplicate_of=str(original))
    return curated
