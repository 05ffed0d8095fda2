"""InfoNCE between windows of mouths and of sound, and what a loss at chance means.

For a mouth the candidates are its own sound at every offset (hard negatives: the same words, moved) and the sound of
all others in the batch (other words of the same voice, and other voices); for a sound, the mouths of the batch. Own
sound that is one frame off is nearly right: it has a tenth of the target on either side.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.sync_data import Stretches
from training.sync_net import MAX_TEMPERATURE
from training.sync_settings import SyncDataSettings

NEIGHBOUR = 0.1
AT_CHANCE = 0.97  # of the loss of guessing: above it nothing was learned
WINDOW = 20  # losses that are averaged for it
STUCK = (
    "stuck: after {step} steps the loss is {loss:.3f}, and guessing has {chance:.3f}. Look, in this order, at: the "
    "sound (is it that of these lips? a conversion may have shuffled it); its offset (the same in all clips? curate "
    "with a sync filter); the number of clips ({clips}; a handful is learned by heart or not at all); the learning "
    "rate ({rate:g}; try a third, and three times as much). docs/sync.md"
)


@dataclass(frozen=True)
class SyncLoss:
    """A batch's loss, what guessing would have, and the share of mouths whose own sound in time came first."""

    loss: Tensor
    chance: Tensor
    correct: Tensor


class Comparison(nn.Module):
    """The towers and the loss in one forward pass, so that DDP sees all parameters."""

    def __init__(self, towers: nn.Module) -> None:
        super().__init__()
        self.towers = towers

    def forward(self, batch: Stretches, near: int) -> SyncLoss:
        towers = self.towers
        mouths, sounds = towers.mouth_windows(batch.seen), towers.audio_windows(batch.rows)  # pyright: ignore
        scale = towers.temperature.exp().clamp(max=MAX_TEMPERATURE)  # pyright: ignore
        return compare(mouths, sounds, batch.share_words, near, scale)


def compare(mouths: Tensor, sounds: Tensor, share_words: Tensor, near: int, scale: Tensor) -> SyncLoss:
    """`mouths` [B, E] and `sounds` [B, 2R + 1, E], unit length; own sound less than `near` frames off is left out."""
    reach, itself = sounds.shape[1] // 2, torch.eye(len(mouths), dtype=torch.bool, device=mouths.device)
    offsets = torch.arange(-reach, reach + 1, device=mouths.device)
    own = torch.einsum("be,ble->bl", mouths, sounds)
    others = mouths @ sounds[:, reach].T
    too_near = (offsets != 0) & (offsets.abs() < near)
    hidden = torch.cat([too_near.expand(len(own), -1), share_words | itself], 1)
    candidates = torch.cat([own, others], 1) * scale
    target = F.pad(one_hot(offsets, near), (0, len(mouths))).expand_as(candidates)
    of_mouth = cross_entropy(candidates.masked_fill(hidden, -torch.inf), target)
    of_sound = cross_entropy((others.T * scale).masked_fill(share_words.T & ~itself, -torch.inf), itself.float())
    counts = (~hidden).sum(1), (~share_words.T | itself).sum(1)
    chance = sum((count.double().log().mean() for count in counts), torch.zeros((), dtype=torch.double))
    best = candidates.masked_fill(hidden, -torch.inf).argmax(1)
    return SyncLoss(of_mouth + of_sound, chance, ((best - reach).abs() <= 1).float().mean())


def one_hot(offsets: Tensor, near: int) -> Tensor:
    """The target over offsets, [2R + 1]: all on 0, or, where neighbours are candidates, a tenth on each."""
    neighbour = NEIGHBOUR if near <= 1 else 0.0
    return (offsets == 0) * (1 - 2 * neighbour) + (offsets.abs() == 1) * neighbour


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    logs = logits.log_softmax(1)
    return -torch.where(target > 0, target * logs, 0.0).sum(1).mean()


def nearest_negative(step: int, steps: int, settings: SyncDataSettings) -> int:
    """The curriculum: from `near_from` frames down to 1 over the first `near_share` of the steps."""
    left = 1 - step / max(settings.near_share * steps, 1)
    return max(1, min(settings.reach_frames, round(1 + (settings.near_from - 1) * left)))


@dataclass
class Stuck:
    """Says once that a run has learned nothing."""

    steps: int
    losses: list[float] = field(default_factory=list)
    said: bool = False

    def add(self, step: int, loss: float, chance: float, clips: str, rate: float) -> str | None:
        """Take a step into account; the message, if it is time for it."""
        self.losses = [*self.losses[1 - WINDOW :], loss / chance]
        mean = sum(self.losses) / len(self.losses)
        if self.said or step < self.steps or len(self.losses) < WINDOW or mean < AT_CHANCE:
            return None
        self.said = True
        return STUCK.format(step=step, loss=mean * chance, chance=chance, clips=clips, rate=rate)
