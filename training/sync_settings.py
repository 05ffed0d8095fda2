"""What `training/sync.yaml` may say."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from pipelines import ROOT, load_section

SYNC_YAML = ROOT / "training" / "sync.yaml"
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class SyncModelSettings:
    """The two towers of training/sync_net.py."""

    size: Literal["small", "stable"] = "small"
    mouth: Literal["landmarks", "pixels"] = "landmarks"
    window_frames: PositiveInt = 16  # that are compared at once in training
    audio_numbers: PositiveInt = 128  # principal components of a Whisper row
    width: PositiveInt = 96
    dim: PositiveInt = 32
    size_px: PositiveInt = 64  # of a picture
    dropout: Share = 0.3


@dataclass(frozen=True)
class SyncDataSettings:
    """What is compared with what."""

    reach_frames: PositiveInt = 15  # offsets within the clip, to either side
    near_from: PositiveInt = 15  # the nearest offset that is a negative at first ...
    near_share: Share = 0.3  # ... and over this share of the steps it comes down to one frame
    same_voice: PositiveInt = 2  # stretches of one source in a batch: other words of the same voice
    gain: NonNegativeFloat = 0.2  # standard deviation of a random gain of each channel of the landmarks
    noise: NonNegativeFloat = 0.15  # of noise on the landmarks' motion, whose own deviation is 1
    most_clips: PositiveInt = 4000  # held in memory, with landmarks
    crop: Literal["face", "mouth"] = "mouth"  # what pictures show
    seed: NonNegativeInt = 0
    validation_share: Share = 0.1  # of the sources
    workers: NonNegativeInt = 0  # of the loader of pictures


@dataclass(frozen=True)
class SyncOptimizerSettings:
    steps: PositiveInt = 400
    global_batch: PositiveInt = 32
    learning_rate: NonNegativeFloat = 2.0e-3
    warmup_steps: NonNegativeInt = 20
    decay_share: Share = 0.4
    weight_decay: NonNegativeFloat = 0.01
    clip_norm: NonNegativeFloat = 1.0
    ema_decay: Share = 0.98


@dataclass(frozen=True)
class SyncRunSettings:
    device: Literal["cpu", "cuda"] = "cpu"
    threads: NonNegativeInt = 1
    log_every: PositiveInt = 10
    validate_every: PositiveInt = 50
    save_every: PositiveInt = 100
    keep: PositiveInt = 2
    stuck_steps: PositiveInt = 200  # after which a loss at chance is said


@dataclass(frozen=True)
class SyncSettings:
    model: SyncModelSettings
    data: SyncDataSettings
    optimizer: SyncOptimizerSettings
    run: SyncRunSettings


def load_sync_settings(name: str, overrides: Sequence[str] = (), path: Path = SYNC_YAML) -> SyncSettings:
    """The settings of one of the sizes of `sync.yaml`. Raises ProfileError with the line and a suggestion."""
    return load_section(name, "sync", SyncSettings, overrides, path)
