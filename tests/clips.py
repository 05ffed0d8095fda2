"""Clips, face tracks and headers for tests of stages, without a file behind them."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from curation.clip import Clip, FaceTrack, Source
from media.probe import Probe

HEADER = Probe(
    duration_s=4.0,
    first_pts_s=0.0,
    width=640,
    height=360,
    fps=25.0,
    variable_frame_rate=False,
    rotation=0,
    sample_aspect=1.0,
    video_codec="h264",
    pixel_format="yuv420p",
    bit_depth=8,
    hdr=None,
    audio_codec="aac",
    audio_sample_rate=48000,
    audio_channels=2,
    audio_tracks=1,
)


def clip_of(length: int, audio: np.ndarray | None = None, **fields: object) -> Clip:
    """A clip over a whole source of so many grid frames, with this sound."""
    source = Source("ab" * 32, Path("/nowhere/a.mp4"), replace(HEADER, duration_s=length / 25))
    source.__dict__["audio"] = audio  # what the cached property would have read
    return Clip(source, 0, length, **fields)  # type: ignore[arg-type]


def track_of(found: np.ndarray | list[bool], side: float = 250.0, x: np.ndarray | float = 100.0) -> FaceTrack:
    """A face of one size, found where `found` is true, with its left edge at `x`."""
    mask = np.asarray(found, bool)
    left = np.broadcast_to(np.asarray(x, np.float32), mask.shape)
    boxes = np.stack([left, np.full(mask.shape, 50.0), left + side, np.full(mask.shape, 50.0 + side)], 1)
    boxes = (boxes * mask[:, None]).astype(np.float32)
    return FaceTrack(boxes, mask * np.float32(0.9), mask, mask.astype(np.uint8), np.zeros(len(mask), np.float32))
