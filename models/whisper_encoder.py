"""Whisper's encoder in torch, with all its hidden states: what runs on a GPU, and what is exported for CPUs."""

import logging
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from whisper.model import AudioEncoder, ModelDimensions


class HiddenStates(nn.Module):
    """log-mel [1, mels, 3000] -> [1500, layers, dim]: see `models/whisper_features.py`."""

    def __init__(self, weights: Path) -> None:
        super().__init__()
        checkpoint = torch.load(weights, map_location="cpu", weights_only=True, mmap=True)
        dims = ModelDimensions(**checkpoint["dims"])
        encoder = AudioEncoder(dims.n_mels, dims.n_audio_ctx, dims.n_audio_state, dims.n_audio_head, dims.n_audio_layer)
        state = checkpoint["model_state_dict"]
        encoder.load_state_dict(
            {name.removeprefix("encoder."): value for name, value in state.items() if name.startswith("encoder.")}
        )
        self.mels: int = dims.n_mels
        self.layers: int = dims.n_audio_layer + 1
        self.dim: int = dims.n_audio_state
        self.encoder = encoder.float().eval()

    def forward(self, mel: Tensor) -> Tensor:
        encoder = self.encoder
        x = functional.gelu(encoder.conv1(mel))
        x = functional.gelu(encoder.conv2(x)).permute(0, 2, 1) + encoder.get_buffer("positional_embedding")
        states = [x]
        for block in encoder.blocks:
            states.append(block(states[-1]))
        states[-1] = encoder.ln_post(states[-1])
        return torch.cat(states).permute(1, 0, 2)


class TorchEncoder:
    """The encoder on a GPU, or wherever torch can be."""

    def __init__(self, weights: Path, device: str) -> None:
        self._network = HiddenStates(weights).to(device)
        self._device = device
        self.mels, self.layers, self.dim = self._network.mels, self._network.layers, self._network.dim

    @torch.inference_mode()
    def __call__(self, mel: np.ndarray) -> np.ndarray:
        return self._network(torch.from_numpy(mel).to(self._device)[None]).cpu().numpy()


def export(weights: Path) -> bytes:
    """The network as ONNX: `mel` [1, mels, 3000] -> `rows` [1500, layers, dim]."""
    network = HiddenStates(weights)
    logging.disable()  # the exporter tells what it does
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network, (torch.zeros(1, network.mels, 3000),), input_names=["mel"], output_names=["rows"], verbose=False
        )
    assert program is not None
    return program.model_proto.SerializeToString()
