"""Do lips and voice go together, and how far are they apart: SyncNet v2 (Chung and Zisserman, "Out of time", 2016).

Written for the authors' `syncnet_v2.model`, with the preprocessing and the score of their `syncnet_python`: 25 fps
frames of 224x224 in BGR 0..255, five at a time; 20 columns of MFCC beside them, four columns per frame; one embedding
of 1024 numbers for each, compared by euclidean distance over shifts of up to 15 frames.

What this gives up: the XVID and JPEG copies that the original makes on its way. Our frames are cleaner than the ones
behind its published numbers. Only the first kernel of the lip network reaches over time, so its five frames are folded
into channels here and every window is a picture for 2D convolutions: the same sums, a third cheaper on CPU.
"""

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from scipy.fft import dct
from scipy.ndimage import median_filter
from torch import Tensor, nn
from torch.nn.functional import pad, pairwise_distance

from clock import SAMPLE_RATE

SIZE = 224
FRAME_SAMPLES = 640  # 16 kHz at 25 fps: the network knows no other rates
WINDOW_FRAMES = 5
WINDOW_MFCC = 20
MFCC_PER_FRAME = 4
VSHIFT = 15  # frames each way; the default of the original's run_syncnet.py
BATCH_WINDOWS = 16  # about 250 MB, whatever the length of the clip
AUDIO_BATCH_WINDOWS = 64  # an audio window is a 13x20 picture

CROP_SCALE = 0.40  # the original's margin around the face box
MEDIAN_FRAMES = 13
GREY = 110  # what the original shows beyond the edge of the picture


@dataclass(frozen=True)
class SyncScore:
    """SyncNet's scores of one clip; `offset_frames` has the sign of the original's printed "AV offset".

    offset_frames > 0: the sound comes that many frames too early (what is seen in frame i is heard at i - offset), and
    is in sync after it is delayed by `offset_frames`. offset_frames < 0: too late, advance it. In other words: the
    number of frames to add to the time of the sound. Delaying the sound by k frames lowers the offset by k.
    `distances` [2 * VSHIFT + 1] are means over the clip, for sounds `VSHIFT - index` frames early: index 0 first.
    `confidence` is their median minus their minimum, `min_distance` the minimum.
    """

    offset_frames: int
    confidence: float
    min_distance: float
    distances: np.ndarray


class SyncNet:
    """SyncNet v2 with the weights of `syncnet_v2.model`. Raises ValueError if that file is something else."""

    def __init__(self, weights: Path, device: str = "cpu") -> None:
        model = load_model(weights)
        self.device = torch.device(device)
        self.lip = nn.Sequential(fold_time(model.netcnnlip), nn.Flatten(), model.netfclip)
        self.lip = self.lip.eval().to(self.device).to(memory_format=torch.channels_last)
        self.audio = nn.Sequential(model.netcnnaud, nn.Flatten(), model.netfcaud).eval().to(self.device)

    def measure(self, frames: np.ndarray, audio: np.ndarray) -> SyncScore:
        """Offset and confidence of [T, 224, 224, 3] uint8 RGB frames at 25 fps and [N] float32 sound at 16 kHz.

        The frames are `syncnet_crops`; both begin at the same instant, and the longer one is cut. Raises ValueError
        for less than six frames; the original scores no track of less than 100.
        """
        if frames.dtype != np.uint8 or frames.shape[1:] != (SIZE, SIZE, 3):
            raise ValueError(f"SyncNet takes uint8 [T, {SIZE}, {SIZE}, 3] frames, not {frames.dtype} {frames.shape}")
        # The original stops one window short of the last complete one.
        windows = min(len(frames), len(audio) // FRAME_SAMPLES) - WINDOW_FRAMES
        if windows < 1:
            raise ValueError(f"SyncNet needs 6 frames and their sound, not {len(frames)} and {len(audio)} samples")
        return compare(self.embed_lips(frames, windows), self.embed_audio(audio, windows))

    def embed_lips(self, frames: np.ndarray, windows: int) -> Tensor:
        """One embedding for each of the first `windows` runs of five frames: [windows, 1024]."""

        def batch(start: int, end: int) -> Tensor:
            pixels = torch.from_numpy(np.array(frames[start : end + WINDOW_FRAMES - 1], order="C"))
            return time_to_channels(pixels.to(self.device).permute(0, 3, 1, 2).float())

        return embed(self.lip, batch, windows, BATCH_WINDOWS)

    def embed_audio(self, audio: np.ndarray, windows: int) -> Tensor:
        """One embedding of the 0.2 s of sound from the start of each of the first `windows` frames: [windows, 1024]."""
        columns = torch.from_numpy(mfcc(to_int16(audio)).T.astype(np.float32))
        pictures = columns.unfold(1, WINDOW_MFCC, MFCC_PER_FRAME).permute(1, 0, 2)[:, None]  # [windows, 1, 13, 20]
        return embed(self.audio, lambda start, end: pictures[start:end].to(self.device), windows, AUDIO_BATCH_WINDOWS)


class SyncNetModel(nn.Module):
    """The two networks under the names and in the shapes of `syncnet_v2.model`; layer sizes are the authors'."""

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *convolve2d(1, 64, 3, padding=1),
            nn.Identity(),  # a 1x1 pooling in the original, kept for the numbering
            *convolve2d(64, 192, 3, padding=1),
            nn.MaxPool2d(3, stride=(1, 2)),
            *convolve2d(192, 384, 3, padding=1),
            *convolve2d(384, 256, 3, padding=1),
            *convolve2d(256, 256, 3, padding=1),
            nn.MaxPool2d(3, stride=2),
            *convolve2d(256, 512, (5, 4)),
        )
        self.netfcaud = embedding_head()
        self.netcnnlip = nn.Sequential(
            *convolve3d(3, 96, (5, 7, 7), stride=2),
            nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2)),
            *convolve3d(96, 256, (1, 5, 5), stride=2, padding=1),
            nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
            *convolve3d(256, 256, (1, 3, 3), padding=1),
            *convolve3d(256, 256, (1, 3, 3), padding=1),
            *convolve3d(256, 256, (1, 3, 3), padding=1),
            nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2)),
            *convolve3d(256, 512, (1, 6, 6)),
        )
        self.netfclip = embedding_head()


def convolve2d(inputs: int, outputs: int, kernel: int | tuple[int, int], padding: int = 0) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, kernel, padding=padding), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def convolve3d(
    inputs: int, outputs: int, kernel: tuple[int, int, int], stride: int = 1, padding: int = 0
) -> list[nn.Module]:
    """Convolution over time, height and width whose stride and padding are spatial only."""
    conv = nn.Conv3d(inputs, outputs, kernel, stride=(1, stride, stride), padding=(0, padding, padding))
    return [conv, nn.BatchNorm3d(outputs), nn.ReLU(inplace=True)]


def embedding_head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(inplace=True), nn.Linear(512, 1024))


def load_model(path: Path) -> SyncNetModel:
    """The network with the weights of a file, name by name. Raises ValueError, naming the file and what differs."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        model = SyncNetModel()
        # The authors' file is older than BatchNorm's `num_batches_tracked`, which scoring does not use.
        counters = {name: value for name, value in model.state_dict().items() if name.endswith("num_batches_tracked")}
        model.load_state_dict(counters | dict(state), strict=True)
    except (RuntimeError, TypeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path}: not the weights of SyncNet v2 (syncnet_v2.model): {error}") from error
    return model.eval()


def fold_time(network: nn.Sequential) -> nn.Sequential:
    """The lip network as a network of pictures: [N, 5 * 3, H, W] RGB windows instead of [N, 3, 5, H, W] in BGR.

    The channel index is 3 * frame + colour. The kernels that see one frame only lose their axis of time.
    """
    return nn.Sequential(*(fold_layer(layer) for layer in network))


def fold_layer(layer: nn.Module) -> nn.Module:
    if isinstance(layer, nn.Conv3d):
        weight = layer.weight.flip(1) if layer.kernel_size[0] > 1 else layer.weight  # the first: BGR to RGB
        weight = weight.transpose(1, 2).flatten(1, 2)
        outputs, inputs = weight.shape[:2]
        size = spatial(layer.kernel_size)
        folded = nn.Conv2d(inputs, outputs, size, spatial(layer.stride), spatial(layer.padding))
        folded.load_state_dict({"weight": weight, "bias": layer.bias})
        return folded
    if isinstance(layer, nn.BatchNorm3d):
        folded = nn.BatchNorm2d(layer.num_features)
        folded.load_state_dict(layer.state_dict())
        return folded
    if isinstance(layer, nn.MaxPool3d):
        return nn.MaxPool2d(spatial(layer.kernel_size), spatial(layer.stride), spatial(layer.padding))
    return layer


def spatial(setting: Any) -> tuple[int, int]:
    """Height and width out of what a layer holds for time, height and width."""
    _, height, width = setting if isinstance(setting, tuple) else (setting,) * 3
    return height, width


def time_to_channels(frames: Tensor) -> Tensor:
    """Runs of five of [T, 3, H, W] frames, one per starting frame, as the channels of [T - 4, 15, H, W] pictures."""
    frames = frames.contiguous()
    height, width = frames.shape[2:]
    windows = len(frames) - WINDOW_FRAMES + 1
    # Five frames in a row lie in memory as one 15-channel picture: a view, copied once for the layout that is fast.
    runs = frames.as_strided(
        (windows, WINDOW_FRAMES * 3, height, width), (3 * height * width, height * width, width, 1)
    )
    return runs.contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def embed(network: nn.Module, batch: Callable[[int, int], Tensor], windows: int, size: int) -> Tensor:
    starts = range(0, windows, size)
    return torch.cat([network(batch(start, min(start + size, windows))).cpu() for start in starts])


def compare(lips: Tensor, sounds: Tensor) -> SyncScore:
    """The score of [T, 1024] embeddings of lips and of sounds; the sound beyond the clip counts as zeros."""
    padded = pad(sounds, (0, 0, VSHIFT, VSHIFT))
    distances = torch.stack(
        [pairwise_distance(lips, padded[shift : shift + len(lips)]).mean() for shift in range(2 * VSHIFT + 1)]
    )
    best = int(distances.argmin())
    return SyncScore(
        offset_frames=VSHIFT - best,
        confidence=float(distances.median() - distances[best]),
        min_distance=float(distances[best]),
        distances=distances.numpy(),
    )


def to_int16(audio: np.ndarray) -> np.ndarray:
    """Sound from -1..1 to whole numbers as in a 16-bit file, still float: what SyncNet's MFCC were made from."""
    return np.clip(np.rint(audio.astype(np.float64) * 32768), -32768, 32767)


def mfcc(signal: np.ndarray) -> np.ndarray:
    """13 cepstra every 10 ms of 16 kHz sound: float64 [frames, 13], the first replaced by the log energy.

    The method and the numbers of `mfcc` in python_speech_features 0.6 with its defaults: pre-emphasis 0.97, 25 ms
    rectangular windows, 26 mel filters from 0 to 8 kHz over a 512-point spectrum, lifter 22.
    """
    length, hop, points, cepstra, lifter = 400, 160, 512, 13, 22
    count = 1 + max(0, -(-(len(signal) - length) // hop))
    emphasised = np.zeros((count - 1) * hop + length)
    emphasised[: len(signal)] = np.append(signal[0], signal[1:] - 0.97 * signal[:-1])
    windows = np.lib.stride_tricks.sliding_window_view(emphasised, length)[::hop]
    power = np.abs(np.fft.rfft(windows, points)) ** 2 / points
    spectra = np.asarray(dct(log_or_least(power @ mel_filters().T), type=2, axis=1, norm="ortho"))
    features = spectra[:, :cepstra] * (1 + lifter / 2 * np.sin(np.pi * np.arange(cepstra) / lifter))
    features[:, 0] = log_or_least(power.sum(axis=1))
    return features


def log_or_least(values: np.ndarray) -> np.ndarray:
    """Logarithm in which silence is the smallest step of a float64, not minus infinity."""
    return np.log(np.where(values == 0, np.finfo(float).eps, values))


@cache
def mel_filters(count: int = 26, points: int = 512) -> np.ndarray:
    """Triangles evenly spaced on the mel scale from 0 to 8 kHz, corners on whole FFT bins: [count, points / 2 + 1]."""
    mels = np.linspace(0, 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700), count + 2)
    corners = np.floor((points + 1) * 700 * (10 ** (mels / 2595) - 1) / SAMPLE_RATE)
    bins = np.arange(points // 2 + 1)
    left, peak, right = (corners[k : k + count, None] for k in range(3))
    rising = (bins >= left) & (bins < peak)
    falling = (bins >= peak) & (bins < right)
    with np.errstate(divide="ignore", invalid="ignore"):  # an empty side divides by zero, and is not taken
        return np.where(rising, (bins - left) / (peak - left), np.where(falling, (right - bins) / (right - peak), 0.0))


def syncnet_boxes(boxes: np.ndarray) -> np.ndarray:
    """The squares that SyncNet's authors cut out around face boxes [T, 4]: int64 [T, 4], x0, y0, x1, y1.

    With s half the longer side of the face, median-filtered over 13 frames like its centre: 1.4 s to the left and
    right, 1 s up, 1.8 s down. The filter takes what lies beyond the clip for zeros, as theirs does: the first and last
    six frames lean to the smallest of their neighbours. Raises ValueError for less than seven frames.
    """
    if len(boxes) <= MEDIAN_FRAMES // 2:
        raise ValueError(f"SyncNet's crop needs {MEDIAN_FRAMES // 2 + 1} frames, not {len(boxes)}")
    x0, y0, x1, y1 = boxes.astype(np.float64).T
    tracks = np.maximum(x1 - x0, y1 - y0) / 2, (x0 + x1) / 2, (y0 + y1) / 2
    s, x, y = (median_filter(track, MEDIAN_FRAMES, mode="constant", cval=0) for track in tracks)
    edges = (x - s * (1 + CROP_SCALE), y - s, x + s * (1 + CROP_SCALE), y + s * (1 + 2 * CROP_SCALE))
    return np.floor(np.stack(edges, axis=1)).astype(np.int64)


def syncnet_crops(frames: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return SyncNet's input, [T, 224, 224, 3] uint8, from frames [T, H, W, 3] with face boxes [T, 4].

    Cut by `syncnet_boxes` and resized; beyond the edge of the frames everything is grey.
    """
    squares = syncnet_boxes(boxes)
    return np.stack([crop(frame, square) for frame, square in zip(frames, squares, strict=True)])


def crop(frame: np.ndarray, square: np.ndarray) -> np.ndarray:
    x0, y0, x1, y1 = (int(edge) for edge in square)
    height, width = frame.shape[:2]
    if min(x1, width) <= max(x0, 0) or min(y1, height) <= max(y0, 0):
        raise ValueError(f"face at {x0},{y0},{x1},{y1} lies outside of its {width}x{height} frame")
    inside = frame[max(y0, 0) : y1, max(x0, 0) : x1]
    margins = max(-y0, 0), max(y1 - height, 0), max(-x0, 0), max(x1 - width, 0)
    bordered = cv2.copyMakeBorder(inside, *margins, cv2.BORDER_CONSTANT, value=(GREY, GREY, GREY))
    return cv2.resize(bordered, (SIZE, SIZE))
