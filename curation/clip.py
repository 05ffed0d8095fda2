"""The one thing that flows through curation: a clip, from a whole video to 2 seconds of one face."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clock import FPS, SAMPLES_PER_FRAME
from curation.verdicts import KEEP, Verdict, drop
from media.audio import AudioTrack, cut, read_audio
from media.frames import GridReader
from media.probe import Limits, Probe
from media.regions import Regions

if TYPE_CHECKING:
    from models.face_landmarks import FaceMesh


@dataclass(frozen=True)
class Segment:
    """The grid frames [start_frame, end_frame) of a source that a data set's list names.

    `crop` (x0, y0, x1, y1 in source pixels) is where the list says that the person is: faces beside it do not count.
    """

    start_frame: int
    end_frame: int
    crop: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class Source:
    """One video file, or one segment of it. Its sound is read when it is first used, its frames as clips are cut out.

    The sound of a segment is silent further than a second outside it.
    """

    id: str  # sha256 of the bytes
    path: Path
    probe: Probe
    limits: Limits = field(default_factory=Limits)
    regions: Regions = field(default_factory=Regions, compare=False, repr=False)  # what a scan kept around faces
    segment: Segment | None = None  # None: all of the file

    @cached_property
    def audio(self) -> AudioTrack | None:
        """The whole track at 16 kHz on the clock of the pictures, or None without an audio stream."""
        part = (self.segment.start_frame, self.segment.end_frame) if self.segment else None
        return read_audio(self.path, self.probe, part)

    @cached_property
    def reader(self) -> GridReader:
        """Its frames; clips in a row are read in one go."""
        return GridReader(self.path, self.probe, self.limits)


# The columns that every row with a face track gets.
TRACK_SCORES = {
    "face_share": "share of the frames in which a face was found",
    "face_max_px": "shorter side of the largest face, its maximum over the frames, source pixels",
    "face_median_px": "the same, median",
    "face_p10_px": "the same, 10th percentile",
    "face_score": "mean detector score of the largest face, 0 to 1",
    "faces_mean": "mean number of faces in a frame",
    "second_face_px": "shorter side of the second largest face, its maximum over the frames, source pixels",
}


@dataclass(frozen=True)
class FaceTrack:
    """The largest face of each frame, in source pixels."""

    boxes: np.ndarray  # [T, 4] float32 x0, y0, x1, y1; interpolated where `found` is False, once gaps are bridged
    score: np.ndarray  # [T] float32 detector score, 0 where not found
    found: np.ndarray  # [T] bool
    count: np.ndarray  # [T] uint8 faces in the frame
    second: np.ndarray  # [T] float32 shorter side of the second largest face, 0 if there is none

    def __len__(self) -> int:
        return len(self.boxes)

    def cut(self, start: int, end: int) -> "FaceTrack":
        return FaceTrack(*(part[start:end] for part in self.parts))

    @property
    def parts(self) -> tuple[np.ndarray, ...]:
        return self.boxes, self.score, self.found, self.count, self.second

    @property
    def shorter_side(self) -> np.ndarray:
        """[F] the shorter side in source pixels of each face that was found."""
        boxes = self.boxes[self.found]
        return (boxes[:, 2:] - boxes[:, :2]).min(axis=1) if len(boxes) else np.zeros(0, np.float32)

    def scores(self) -> dict[str, float]:
        """TRACK_SCORES of this track."""
        side = self.shorter_side
        if not len(self):
            return {}
        return {
            "face_share": float(self.found.mean()),
            "face_max_px": float(side.max()) if len(side) else float("nan"),
            "face_median_px": float(np.median(side)) if len(side) else float("nan"),
            "face_p10_px": float(np.percentile(side, 10)) if len(side) else float("nan"),
            "face_score": float(self.score[self.found].mean()) if len(side) else float("nan"),
            "faces_mean": float(self.count.mean()),
            "second_face_px": float(self.second.max()),
        }


@dataclass(frozen=True)
class Clip:
    """The grid frames [start_frame, end_frame) of a source, with what the stages measured and attached.

    A stage never changes a clip; it returns a new one.
    """

    source: Source
    start_frame: int
    end_frame: int
    verdict: Verdict = KEEP
    scores: dict[str, float] = field(default_factory=dict)
    cuts: tuple[int, ...] = ()  # grid frames at which a new shot begins
    voice: np.ndarray | None = None  # [M] float32 speech probability of the whole track, one per 512 samples
    track: FaceTrack | None = None
    frames: np.ndarray | None = None  # [T, S, S, 3] uint8 RGB face crops
    crop_boxes: np.ndarray | None = None  # [T, 4] float32 face box in crop pixels
    mesh: "FaceMesh | None" = None  # all 478 points and the blendshapes, while the clip is being worked on
    landmarks: np.ndarray | None = None  # [T, K, 2] float16 lips and face oval in crop pixels
    whisper: np.ndarray | None = None  # [2 * (T + 2 * margin), layers, dim] float16
    audio_shift_frames: int = 0  # the clip's sound is taken this many frames later in the track than its pictures
    margin_frames: int = 0  # sound and features reach this far beyond the clip, for a later shift
    collected: dict[str, np.ndarray] = field(default_factory=dict)  # arrays to keep in its part, by name

    def __len__(self) -> int:
        return self.end_frame - self.start_frame

    @property
    def key(self) -> str:
        """`<source id, 16 digits>-<start ms>-<end ms>`: no dots, because WebDataset cuts keys at the first."""
        return f"{self.source.id[:16]}-{round(self.start_s * 1000):08d}-{round(self.end_s * 1000):08d}"

    @property
    def start_s(self) -> float:
        return self.start_frame / FPS

    @property
    def end_s(self) -> float:
        return self.end_frame / FPS

    def cut(self, start_frame: int, end_frame: int) -> "Clip":
        """Return the part of this clip between two grid frames of the source; only before it is cropped."""
        assert self.start_frame <= start_frame < end_frame <= self.end_frame and self.frames is None
        first = self.start_frame
        track = self.track.cut(start_frame - first, end_frame - first) if self.track else None
        cuts = tuple(cut for cut in self.cuts if start_frame < cut < end_frame)
        return replace(self, start_frame=start_frame, end_frame=end_frame, track=track, cuts=cuts)

    def drop(self, reason: str, detail: str = "") -> "Clip":
        return replace(self, verdict=drop(reason, detail))

    def add_scores(self, scores: dict[str, float]) -> "Clip":
        return replace(self, scores={**self.scores, **scores})

    def numbers(self) -> dict[str, float]:
        """Return the numbers that filters judge by: the scores and `duration_s`."""
        return {**self.scores, "duration_s": self.end_s - self.start_s}

    def audio(self, margin_frames: int = 0) -> np.ndarray:
        """The clip's sound, [640 * (T + 2 * margin)] float32, shifted by `audio_shift_frames`; silence outside."""
        track = self.source.audio
        start = (self.start_frame + self.audio_shift_frames - margin_frames) * SAMPLES_PER_FRAME
        samples = (len(self) + 2 * margin_frames) * SAMPLES_PER_FRAME
        return cut(track if track is not None else np.zeros(0, np.float32), start, samples)
