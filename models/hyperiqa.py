"""How good a picture looks to people: HyperIQA (Su et al., CVPR 2020), by pyiqa's network and KonIQ-10k weights.

`HyperIQA-resnet50-koniq10k-c96c41b1.pth` was trained again by pyiqa's author and is not the file of the paper's
authors, who score 0..100: thresholds found with one of the two hold only roughly for the other.
What this gives up: the 25 overlapping crops of pyiqa. One view of the whole picture costs 1/25 and, for a face crop
hardly larger than the network's 224 pixels, sees the same.
"""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import timm
import torch
from pyiqa.archs import hypernet_arch
from torch import Tensor
from torch.nn.functional import interpolate

SIZE = 224
CUDA_BATCH = 64


class HyperIQA:
    """HyperIQA with the KonIQ-10k weights of pyiqa. Raises ValueError if `weights` is something else."""

    def __init__(self, weights: Path, device: str = "cpu") -> None:
        self.device = torch.device(device)
        self.batch = CUDA_BATCH if self.device.type == "cuda" else 1  # a batch gains little on CPU
        self.network = load_network(weights).to(self.device)

    def score(self, images: np.ndarray) -> np.ndarray:
        """Quality of each of [N, H, W, 3] uint8 RGB images: float32 [N] in 0..1, higher is better.

        pyiqa states the range of this network as about 0..1, but its last layer is linear: what falls outside is
        clipped. Every picture is resized to 224x224.
        """
        if images.dtype != np.uint8 or images.shape[3:] != (3,):
            raise ValueError(f"HyperIQA takes uint8 [N, H, W, 3] images, not {images.dtype} {list(images.shape)}")
        batches = (images[start : start + self.batch] for start in range(0, len(images), self.batch))
        scores = [self.score_batch(batch) for batch in batches]
        return np.concatenate([np.empty(0, np.float32), *scores]).clip(0, 1)

    @torch.inference_mode()
    def score_batch(self, images: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(np.array(images, order="C")).to(self.device).permute(0, 3, 1, 2)
        # Not forward(), which even with one crop scales the picture to 225 pixels and cuts off a row and a column.
        return self.network.forward_patch(resize(pixels.float() / 255))[:, 0].float().cpu().numpy()


def resize(pixels: Tensor) -> Tensor:
    """Pictures [N, 3, H, W] in 0..1 as [N, 3, 224, 224], without the moire of a plain reduction."""
    if pixels.shape[2:] == (SIZE, SIZE):
        return pixels
    return interpolate(pixels, (SIZE, SIZE), mode="bilinear", antialias=True)


def load_network(path: Path) -> hypernet_arch.HyperNet:
    """pyiqa's network with the weights of a file, name by name. Raises ValueError, naming the file and what differs."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)["params"]
        network = build_network()
        network.load_state_dict(state, strict=True)
    except (RuntimeError, TypeError, KeyError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path}: not the KonIQ-10k weights of pyiqa's HyperIQA: {error}") from error
    return network.eval()


def build_network() -> hypernet_arch.HyperNet:
    """pyiqa's HyperNet with random weights, built without the network."""
    with timm_without_downloads():
        return hypernet_arch.HyperNet(num_crop=1, pretrained=False)


@contextmanager
def timm_without_downloads() -> Iterator[None]:
    """Within, HyperNet gets an untrained backbone. It would load ImageNet's weights from timm, and overwrite them."""

    def create_model(name: str, pretrained: bool, features_only: bool) -> torch.nn.Module:
        return timm.create_model(name, pretrained=False, features_only=features_only)

    hypernet_arch.__dict__["timm"] = SimpleNamespace(create_model=create_model)
    try:
        yield
    finally:
        hypernet_arch.__dict__["timm"] = timm
