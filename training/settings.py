"""What a profile's `training:` section may say: frozen dataclasses, one per module that reads it.

A default stands here only where the paper gives the number or every peer agrees; `pipelines.yaml` sets the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Protocol

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from models.mask import MaskSettings
from pipelines import PIPELINES, ROOT, Pixels, load_section

Share = Annotated[float, Field(ge=0, le=1)]
Fusion = Literal["paper", "video_fusion", "vae_feature"]
SHIPPED = {"speaker": ROOT / "training" / "speaker"}  # exports that have a name instead of a place


@dataclass(frozen=True)
class DataSettings:
    """What a training window is and how it is read."""

    frames: PositiveInt = 16  # section 4.1
    size: Pixels = 320  # section 4.1: shards of another size are scaled
    cache: Literal["none", "pictures", "latents"] = "none"  # made once, beside the run: training/cache.py
    window_frames: NonNegativeInt = 2  # k of section 3.4: frames of sound heard on each side
    reference: Literal["source", "clip"] = "source"  # section 4.1: from the corresponding complete video
    weight: Literal["length", "clip"] = "length"  # how often a clip comes in an epoch
    flip: Share = 0.0  # off the paper: share of the windows that are mirrored, with masks and reference
    mode: Literal["index", "stream"] = "index"
    seed: NonNegativeInt = 0
    workers: NonNegativeInt = 4  # processes of the loader, per rank
    max_bad_share: float = 0.01  # of samples that could not be read, above which the run fails
    validation_share: float = 0.0  # of the sources, never trained on; which ones follows from their hash alone


@dataclass(frozen=True)
class ModelSettings:
    """What is built on SVD; `base` is a diffusers folder with `unet/` and `vae/`."""

    base: str = "weights/stable-video-diffusion-img2vid-xt"
    audio_layers: Literal["all", "last", "weighted"] = "all"
    audio_numbers: int = 0  # 0: a LayerNorm of each Whisper row. Else, off the paper: so many, whitened over the data
    audio_joined: bool = False  # off the paper: the window of a frame is one token, with nothing to attend to
    audio_in_mid: bool = False
    norm_groups: int = 32  # of all GroupNorms, SVD's number; with 32 channels each would be its own group
    # The paper's 98 M, its text taken literally, or, off the paper, a stem of a quarter: training/id_guider.py
    id_guider: Literal["size", "text", "small"] = "size"
    fusion: Fusion = "paper"  # the others: Table 3
    lora_rank: NonNegativeInt = 0  # off the paper: 0 trains all weights; else only adapters: training/lora.py


@dataclass(frozen=True)
class NoiseSettings:
    """How a clip is made noisy and which conditions it loses."""

    P_mean: float = 0.7  # the paper is silent; the community's values for SVD (SVD_Xtend, CameraCtrl)
    P_std: float = 1.6
    drop_audio: float = 0.05  # section 3.5; 0 and 0: Table 3, "w/o Cfg"
    drop_identity: float = 0.15


@dataclass(frozen=True)
class LossSettings:
    """How the squared errors of equation 5 are averaged."""

    outside: float = 1.0  # weight outside the mask; 1 is the paper. Less, off the paper, spends the steps on the lips


@dataclass(frozen=True)
class SamplingSettings:
    """How a video is generated if the command does not say otherwise; goes with the checkpoint."""

    steps: PositiveInt = 15  # appendix B
    guidance: float = 3.0  # appendix B; 1 needs one pass instead of two
    # Off the paper: a scale of the sound's own, and `guidance` is the identity's; three passes. training/guidance.py
    audio_guidance: float | None = None
    sigma_max: float = 700.0  # SVD's scheduler; less spends no steps where training hardly was
    sigma_min: float = 0.002  # SVD's scheduler
    noise: Literal["frame", "shared"] = "frame"  # "shared": the same for all frames, for windows too short for calm


class Rates(Protocol):
    """Settings that a learning rate follows from."""

    @property
    def steps(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def warmup_steps(self) -> int: ...
    @property
    def decay_share(self) -> float: ...


def learning_rate_at(step: int, chosen: Rates) -> float:
    """Linear warm-up, then constant (section 4.1: fixed), then, off the paper, falling linearly to 0."""
    left = (chosen.steps - step) / max(chosen.decay_share * chosen.steps, 1e-9)
    return chosen.learning_rate * min(1.0, (step + 1) / max(chosen.warmup_steps, 1), left)


@dataclass(frozen=True)
class OptimizerSettings:
    """Section 4.1 where it speaks; `global_batch` is the sum over ranks and accumulation."""

    steps: PositiveInt = 200_000
    global_batch: PositiveInt = 16
    micro_batch: PositiveInt = 2  # clips in a forward pass of a rank at most; the rest of the batch is accumulated
    learning_rate: NonNegativeFloat = 6.0e-5
    warmup_steps: NonNegativeInt = 1000  # linear, then constant
    decay_share: float = 0.0  # of the steps, the last ones: the rate falls to 0 linearly. 0: constant, section 4.1
    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    ema_decay: float = 0.9999


@dataclass(frozen=True)
class RunSettings:
    """How the work is done; of these only `precision` can change a result."""

    device: Literal["cuda", "cpu"] = "cuda"
    precision: Literal["bf16", "fp32"] = "bf16"  # of autocast and VAE; parameters are fp32 always
    checkpointing: bool = True  # of gradients: 1.3 GiB of activations a clip instead of 15
    compile: bool = False
    fsdp: bool = False  # FSDP2 instead of DDP: for cards of 24 to 48 GB
    bf16_gradients: bool = False  # halves what is sent between GPUs
    threads: NonNegativeInt = 0  # of torch on a CPU, per rank; 0: all cores
    log_every: PositiveInt = 10
    save_every: PositiveInt = 1000
    keep: NonNegativeInt = 3  # newest checkpoints
    validate_every: int = 1000
    validation_windows: int = 16
    listening_sigmas: Sequence[float] = (2.0, 5.0, 20.0)  # noise levels of training/listening.py
    listening_patience: int = 5  # validations after which listening must be above its error, or the log warns
    listening_flat_steps: NonNegativeInt = 5000  # without a rise of listening, after which the log warns; 0: never
    stop_after_flat_steps: NonNegativeInt = 0  # without one, after which the run ends, decay_share or not; 0: never
    validation_steps: int = 15
    wandb: bool = False


@dataclass(frozen=True)
class TrainingSettings:
    model: ModelSettings
    mask: MaskSettings
    data: DataSettings
    noise: NoiseSettings
    loss: LossSettings
    optimizer: OptimizerSettings
    sampling: SamplingSettings
    run: RunSettings


def load_settings(profile: str, overrides: Sequence[str] = (), path: Path = PIPELINES) -> TrainingSettings:
    """The `training:` section of a profile. Raises ProfileError with the line and a suggestion, before any work."""
    return load_section(profile, "training", TrainingSettings, overrides, path)
