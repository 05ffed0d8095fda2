"""The columns of the manifests and the reasons for which clips are dropped: one definition to write, check and print.

`python -m manifests.schema` prints it as markdown, `python -m manifests.schema OUT` with the columns and reasons of a
run. Score columns and the reasons of filters come from the filters themselves, with their meaning, and are stored in
the files.
"""

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType

from storage.table import TableError, TableFormat, read_notes

FOLDER = "manifests"  # of an output folder

CLIPS_FORMAT = TableFormat("manifests.clips", 1)
SOURCES_FORMAT = TableFormat("manifests.sources", 1)
TIMINGS_FORMAT = TableFormat("manifests.timings", 1)

KEPT = "kept"

REASONS: dict[str, str] = {
    "error:probe": "the file is not a media file, or its header cannot be read",
    "error:no_video": "the file has no video stream",
    "error:decode": "the video or audio cannot be decoded",
    "error:joined": "another recording begins here, in the middle of the file",
    "error:changed": "the file changed while it was read",
    "error:limits": "size, duration or dimensions pass the limits of the profile",
    "error:exception": "a stage raised an exception",
    "error:worker_crash": "the worker process died twice with this source",
    "error:timeout": "the source took longer than its deadline, twice",
    "error:memory": "the source needed more memory than a worker may use, twice",
    "error:io": "the file could not be read: vanished, no permission, disk error",
    "duplicate": "same bytes as another source, which is curated instead",
    "outside_segments": "not among the segments that the data set's list names",
    "no_audio": "there is no audio stream",
    "silent": "there is an audio stream, and its sound stays below the audible level",
    "no_speech": "there is sound, and too little or no speech in it",
    "no_face": "more than the tolerated number of frames without a face",
    "short": "a steady span of one face, shorter than the shortest clip of the profile",
    "face_size": "no face of the source ever exceeds the minimum size",
}

STATUSES: dict[str, str] = {
    "kept": "at least one clip is kept",
    "dropped": "every clip was dropped by a stage",
    "error": "the source could not be curated (reasons error:...)",
    "duplicate": "same bytes as another source, see duplicate_of",
}

DTYPES = ("str", "category", "bool", "boolean", "int64", "Int64", "float64")
REASON_PATTERN = re.compile(r"[a-z][a-z0-9_]*(:[a-z][a-z0-9_]*)?")
SCORE_PATTERN = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


class SchemaError(ValueError):
    """A row, a column or a reason is not as the schema says; names it."""


@dataclass(frozen=True)
class Column:
    """A column: pandas dtype, unit, meaning; `optional` if a row may lack it (NA or NaN then)."""

    name: str
    dtype: str
    unit: str
    meaning: str
    optional: bool = False

    @property
    def description(self) -> str:
        return f"{self.meaning} [{self.unit}]" if self.unit else self.meaning


CLIPS = (
    Column("key", "str", "", "name of the clip; key of its sample in the shards if kept"),
    Column("source_id", "str", "", "sha256 of the source file", optional=True),
    Column("source", "str", "", "path of the source; column path of sources.parquet"),
    Column("start_frame", "int64", "frames", "first frame, on the source's 25 fps grid (0: its first video frame)"),
    Column("end_frame", "int64", "frames", "frame after the last, on the same grid"),
    Column("start_s", "float64", "s", "start_frame / 25"),
    Column("end_s", "float64", "s", "end_frame / 25"),
    Column("duration_s", "float64", "s", "end_s - start_s"),
    Column("kept", "bool", "", "True if the clip is kept"),
    Column("reason", "category", "", "'kept', or why the clip was dropped"),
    Column("stage", "category", "", "stage that dropped the clip; missing if kept", optional=True),
    Column("detail", "str", "", "more about the reason, such as the last line of an exception", optional=True),
    Column("remainder", "category", "", "step and reason that would drop it if the filter had not", optional=True),
    Column("shard", "str", "", "tar in shards/ with the sample; missing if dropped or not packed", optional=True),
    Column("audio_shift_frames", "Int64", "frames", "sound taken this much later, to offset 0", optional=True),
)

SOURCES = (
    Column("source_id", "str", "", "sha256 of the file; missing if it could not be read", optional=True),
    Column("path", "str", "", "path of the file; column source of clips.parquet"),
    Column("bytes", "Int64", "bytes", "size of the file", optional=True),
    Column("status", "category", "", "; ".join(f"{name}: {text}" for name, text in STATUSES.items())),
    Column("reason", "category", "", "'kept', or the reason that took most of the source"),
    Column("duplicate_of", "str", "", "path of the source with the same bytes", optional=True),
    Column("frames", "Int64", "frames", "length on the 25 fps grid; missing if it was never found", optional=True),
    Column("duration_s", "float64", "s", "length that the probe found", optional=True),
    Column("width", "Int64", "px", "display width, after rotation and sample aspect ratio", optional=True),
    Column("height", "Int64", "px", "display height", optional=True),
    Column("fps", "float64", "1/s", "average frame rate", optional=True),
    Column("variable_frame_rate", "boolean", "", "True if frames are not evenly spaced", optional=True),
    Column("rotation", "Int64", "degrees", "rotation in the header", optional=True),
    Column("sample_aspect", "float64", "", "width / height of a stored pixel", optional=True),
    Column("video_codec", "category", "", "codec of the video", optional=True),
    Column("pixel_format", "category", "", "pixel format, in ffmpeg's words", optional=True),
    Column("bit_depth", "Int64", "bits", "bits per colour", optional=True),
    Column("hdr", "boolean", "", "True for PQ or HLG", optional=True),
    Column("audio_codec", "category", "", "codec of the audio track used; missing if there is none", optional=True),
    Column("audio_sample_rate", "Int64", "Hz", "its sample rate", optional=True),
    Column("audio_channels", "Int64", "", "its channels", optional=True),
    Column("audio_tracks", "Int64", "", "audio tracks in the file", optional=True),
    Column("start_offset_s", "float64", "s", "PTS of the first video frame, which is time 0 here", optional=True),
    Column("clips_kept", "int64", "", "clips kept of this source"),
    Column("kept_s", "float64", "s", "their length together"),
    Column("detail", "str", "", "what went wrong: last lines of the error or of the worker's log", optional=True),
)

# Apart from sources.parquet, which must come out the same however a run was interrupted. read_sources joins the two.
TIMINGS = (
    Column("path", "str", "", "path of the source"),
    Column("wall_s", "float64", "s", "from dispatch to commit", optional=True),
    Column("worker", "str", "", "worker that curated it", optional=True),
    # then cpu_s_<stage> for every stage
)
CPU_PREFIX = "cpu_s_"
UNITS = {
    "s": "s",
    "px": "px",
    "frames": "frames",
    "db": "dB",
    "deg": "degrees",
    "hz": "Hz",
}  # by the last word of a score's name


def declared_reasons(extra: Mapping[str, str]) -> dict[str, str]:
    """The closed list of a run: the base reasons, then those of its filters, reason -> meaning."""
    for reason, meaning in extra.items():
        if not REASON_PATTERN.fullmatch(reason) or reason == KEPT:
            raise SchemaError(f"reason {reason!r}: write it as face_size or syncnet:offset")
        if REASONS.get(reason, meaning) != meaning:
            raise SchemaError(f"reason {reason} is declared twice: {REASONS[reason]!r} and {meaning!r}")
    return REASONS | dict(extra)


def score_columns(scores: Mapping[str, str]) -> tuple[Column, ...]:
    """A float64 column for each score, name -> meaning."""
    taken = {column.name for column in CLIPS}
    for name in scores:
        if name in taken or not SCORE_PATTERN.fullmatch(name):
            raise SchemaError(f"score {name!r}: taken by a column, or not a name of letters, digits and _")
    return tuple(Column(name, "float64", unit_of(name), meaning, optional=True) for name, meaning in scores.items())


def unit_of(score: str) -> str:
    """The unit that a score's name ends in; none for shares, confidences and the like."""
    return UNITS.get(score.rpartition("_")[2], "")


def stage_of_cpu_column(name: str) -> str | None:
    """`cpu_s_faces` -> `faces`; None for other columns."""
    return name.removeprefix(CPU_PREFIX) if name.startswith(CPU_PREFIX) else None


def suggest(name: str, known: list[str]) -> str:
    """Return ' (did you mean x?)' if a known name is close, else nothing."""
    close = get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def markdown(scores: Mapping[str, str] = MappingProxyType({}), reasons: Mapping[str, str] = REASONS) -> str:
    """This file as documentation, with the scores and reasons of a run."""
    parts = []
    for title, columns in (("clips", CLIPS), ("sources", SOURCES), ("timings", TIMINGS)):
        lines = [f"| {c.name} | {c.dtype} | {c.unit} | {c.meaning} |" for c in columns]
        if columns is CLIPS:
            lines += [f"| {c.name} | {c.dtype} | {c.unit} | {c.meaning} |" for c in score_columns(scores)]
            lines += (
                [] if scores else ["| *scores* | float64 | | as the filters document them; missing if not measured |"]
            )
        if columns is TIMINGS:
            lines.append(f"| {CPU_PREFIX}*stage* | float64 | s | CPU time of the stage on this source |")
        head = [f"## {title}.parquet\n", "| column | dtype | unit | meaning |", "|---|---|---|---|"]
        parts.append("\n".join([*head, *lines]))
    lines = [f"| {reason} | {meaning} |" for reason, meaning in reasons.items()]
    parts.append("\n".join(["## Reasons\n", "| reason | meaning |", "|---|---|", *lines]))
    if not scores:
        parts.append(
            "Filters add their own reasons, such as `syncnet:offset`; those of a run are stored in clips.parquet."
        )
    return "\n\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m manifests.schema", description="Print what every column means.")
    parser.add_argument("output", type=Path, nargs="?", help="output folder, to print its scores and reasons too")
    output = parser.parse_args(arguments).output
    try:
        notes = read_notes(output / FOLDER / "clips.parquet", CLIPS_FORMAT) if output else {}
    except TableError as error:
        print(f"{error}; not an output folder, or its run has not ended yet", file=sys.stderr)
        return 1
    print(markdown(*(json.loads(notes[name]) for name in ("scores", "reasons") if name in notes)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
