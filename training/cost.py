"""What a clip costs: floating point operations and memory, counted on the meta device without computing anything."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from training.latents import LatentCodec
from training.network import Conditions, SayAnything, constructor_arguments
from training.settings import TrainingSettings

PEAK_BF16 = {  # dense, as the makers state; the first name that is in the device's name counts
    "H200": 989.5e12, "H800": 989.5e12, "H100": 989.5e12, "H20": 148e12, "A100": 312e12, "A800": 312e12,
    "L40S": 362e12, "B200": 2250e12, "4090": 165.2e12, "A6000": 154.8e12,
}  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """Of one clip of a training step."""

    step_flops: float  # forward and backward; what checkpointing computes again is not counted, as is usual for MFU
    encode_flops: float  # the VAE, ground truth and masked video
    activation_bytes: float  # what autograd holds between forward and backward, in the precision trained in


def clip_cost(network: SayAnything, codec: LatentCodec, settings: TrainingSettings) -> Cost:
    """Counted at the profile's frames and size."""
    dtype = torch.bfloat16 if settings.run.precision == "bf16" else torch.float32
    with torch.device("meta"):
        meta = SayAnything.from_configs(network.unet.config, network.id_guider.config, network.audio.config)
        vae = type(codec.vae)(**constructor_arguments(codec.vae.config))
    modules: tuple[nn.Module, ...] = (meta, vae)
    for module in modules:  # diffusers makes a few parameters on the CPU whatever the default device
        nn.Module.to(module, device="meta", dtype=dtype)
    frames, side = settings.data.frames, settings.data.size
    small = side // codec.factor
    like = {"device": "meta", "dtype": dtype}
    latents = torch.zeros(1, frames, codec.channels, small, small, **like)
    per_frame = settings.model.fusion == "video_fusion"
    identity_side = small if settings.model.fusion == "vae_feature" else side
    identity = torch.zeros(
        frames if per_frame else 1, meta.id_guider.config["in_channels"], identity_side, identity_side, **like
    )
    keep = torch.ones(1, **like)
    conditions = Conditions(latents, identity, torch.zeros(1, *meta.audio.rows_shape(frames), **like), keep, keep)
    own = {id(parameter) for parameter in meta.parameters()}
    held: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if id(tensor) not in own:
            storage = tensor.untyped_storage()
            held[storage._cdata] = storage.nbytes()
        return tensor

    with (
        FlopCounterMode(display=False) as counter,
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
    ):
        meta(latents, keep, conditions)
    with FlopCounterMode(display=False) as encoder, torch.no_grad():
        vae.encode(torch.zeros(1, 3, side, side, **like))
    return Cost(3.0 * counter.get_total_flops(), 2.0 * frames * encoder.get_total_flops(), float(sum(held.values())))


def peak_flops(device: torch.device) -> float | None:
    """Dense bf16 operations a second of a GPU, None if it is not in the table."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for key, peak in PEAK_BF16.items() if key in name), None)
