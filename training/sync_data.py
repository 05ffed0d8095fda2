"""Stretches of clips for `training/sync.py`: what a mouth does in a window, and the sound from before to after it.

Landmarks are not in the shards; their clips are read from the parts of a curation (`OUT/parts`, before --drop-parts),
as models/lip_probe_fit.py does, and stay in memory. Pictures come from the shards, by the loader of training/data.py.
Which stretch a sample is follows from its number and the seed: the same for any number of ranks.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from clock import WHISPER_ROWS_PER_FRAME
from models.lip_probe import WHISPER_LAYER, LipRecord, is_usable
from models.lip_probe_fit import choose_clips, keys_in, records_in
from models.mask import MaskSettings
from models.mouth import MOTIONS, motion
from training.batch import Batch
from training.cache import open_cache
from training.data import DataError, Dataset, held_out_sources, loader
from training.distributed import Ranks
from training.mixture import Weighted, open_mixture, parts_of
from training.settings import DataSettings
from training.sync_settings import SyncSettings

FITTED_ROWS = 40_000  # of Whisper, to whiten them
TRIES = 8


@dataclass(frozen=True)
class Stretches:
    """B windows of W frames, and the sound from R frames before each to R frames behind it."""

    seen: Tensor  # float32 [B, W, 56], motion of landmarks; or uint8 [B, W, 3/2 size, size], planes
    rows: Tensor  # float32 [B, 2 (W + 2R), dim], of Whisper
    share_words: Tensor  # bool [B, B]: mouth b may say what is heard in sound c, so that the two are no negatives

    def shuffled(self) -> Self:
        """The same mouths, each with the sound of another: nothing can be learned from it. The control."""
        by = len(self.rows) // 2
        return replace(self, rows=self.rows.roll(by, 0), share_words=self.share_words.roll(by, 1))

    def to(self, device: torch.device) -> Self:
        return replace(self, **{name: value.to(device) for name, value in vars(self).items()})


class SyncData(Protocol):
    """Where stretches come from."""

    audio_dim: int

    def describe(self) -> str: ...

    def batches(self, first_sample: int, validation: bool = False) -> Iterator[Stretches]:
        """One rank's share of global batches, without end; of the sources held out for `validation`."""
        ...

    def audio_rows(self) -> Tensor:
        """Whisper rows of training, [N, dim] float32: the same on every rank."""
        ...


@dataclass(frozen=True)
class SyncClip:
    """Motion [T, 56], Whisper rows [N, dim] from `margin` frames before the clip on, and whose voice it is."""

    motion: np.ndarray
    rows: np.ndarray
    margin: int
    source_id: str

    @classmethod
    def of(cls, record: LipRecord) -> Self:
        return cls(motion(record.channels), record.rows, record.margin, record.source_id)


class ClipSet(list[SyncClip]):
    """Clips that are drawn from, the longer the likelier: of all of them, or of one source."""

    def __init__(self, clips: Iterable[SyncClip]) -> None:
        super().__init__(clips)
        self.lengths = np.array([len(clip.motion) for clip in self], float)
        self.of_source: dict[str, list[int]] = {}
        for i, clip in enumerate(self):
            self.of_source.setdefault(clip.source_id, []).append(i)

    def pick_source(self, random: np.random.Generator) -> str:
        return self[int(random.choice(len(self), p=self.lengths / self.lengths.sum()))].source_id

    def pick_clip(self, source_id: str, random: np.random.Generator) -> int:
        among = self.of_source[source_id]
        return int(random.choice(among, p=self.lengths[among] / self.lengths[among].sum()))


class LandmarkData:
    """Stretches of clips that lie in memory."""

    def __init__(self, clips: Sequence[SyncClip], settings: SyncSettings, ranks: Ranks) -> None:
        """Raises DataError if there is too little to compare."""
        self.settings, self.ranks = settings, ranks
        self.window, self.reach = settings.model.window_frames, settings.data.reach_frames
        fitting = [clip for clip in clips if len(self.starts(clip)) > 0]
        held_out = held_out_sources([clip.source_id for clip in fitting], settings.data.validation_share)
        self.training = ClipSet(clip for clip in fitting if clip.source_id not in held_out)
        self.held_out = ClipSet(clip for clip in fitting if clip.source_id in held_out)
        self.left_out = len(clips) - len(fitting)
        if len(self.training.of_source) < 2:
            raise DataError(
                f"{len(clips)} clips, {self.left_out} of them without a face or shorter than the "
                f"{self.window + 2 * self.reach} frames of a comparison: at least two sources are needed"
            )
        self.audio_dim = self.training[0].rows.shape[1]

    def starts(self, clip: SyncClip) -> range:
        """First frames of windows whose sound is there, from `reach` frames before to `reach` behind."""
        heard = len(clip.rows) // WHISPER_ROWS_PER_FRAME - clip.margin
        last = min(len(clip.motion), heard - self.reach) - self.window
        return range(max(0, self.reach - clip.margin), last + 1)

    def describe(self) -> str:
        frames = sum(len(clip.motion) for clip in self.training)
        sources = len(self.training.of_source)
        return (
            f"{len(self.training)} clips of {sources} sources, {frames / 1500:.1f} min; {len(self.held_out)} clips "
            f"held out; {self.left_out} without a face or too short"
        )

    def batches(self, first_sample: int, validation: bool = False) -> Iterator[Stretches]:
        clips = self.held_out if validation else self.training
        share = self.settings.optimizer.global_batch // self.ranks.world
        for first in count(first_sample, share * self.ranks.world):
            begin = first + self.ranks.rank * share
            yield self.stretches(clips, range(begin, begin + share), validation)

    def stretches(self, clips: ClipSet, samples: range, plain: bool) -> Stretches:
        """The stretches of these numbers; without noise if `plain`."""
        places = [self.place(clips, sample) for sample in samples]
        seen = np.stack([clips[i].motion[start : start + self.window] for i, start in places])
        rows = np.stack([self.heard(clips[i], start) for i, start in places])
        if not plain:
            seen = self.disturb(seen, samples.start)
        i, start = np.array(places).T
        share = (i[:, None] == i) & (abs(start[:, None] - start) < self.window)
        return Stretches(torch.from_numpy(seen), torch.from_numpy(rows).float(), torch.from_numpy(share))

    def place(self, clips: ClipSet, sample: int) -> tuple[int, int]:
        """The clip and the first frame of a stretch; `same_voice` samples in a row are of one source."""
        seed, group = self.settings.data.seed, sample // self.settings.data.same_voice
        source_id = clips.pick_source(np.random.default_rng((seed, group)))
        random = np.random.default_rng((seed, group, sample))
        i = clips.pick_clip(source_id, random)
        return i, int(random.choice(self.starts(clips[i])))

    def heard(self, clip: SyncClip, start: int) -> np.ndarray:
        first = WHISPER_ROWS_PER_FRAME * (clip.margin + start - self.reach)
        return clip.rows[first : first + WHISPER_ROWS_PER_FRAME * (self.window + 2 * self.reach)]

    def disturb(self, seen: np.ndarray, sample: int) -> np.ndarray:
        chosen, random = self.settings.data, np.random.default_rng((self.settings.data.seed, sample))
        gain = 1 + chosen.gain * random.normal(size=(len(seen), 1, MOTIONS))
        return (seen * gain + chosen.noise * random.normal(size=seen.shape)).astype(np.float32)

    def audio_rows(self) -> Tensor:
        """Centred clip by clip: what differs between recordings is no speech."""
        rows = [clip.rows.astype(np.float32) - clip.rows.mean(0, dtype=np.float32) for clip in self.training]
        every = max(1, sum(map(len, rows)) // FITTED_ROWS)
        return torch.from_numpy(np.concatenate(rows)[::every])


class PixelData:
    """Stretches of pictures, by the loader of the shards."""

    def __init__(self, given: Sequence[Weighted], run: Path, settings: SyncSettings, ranks: Ranks) -> None:
        self.settings, self.ranks, data = settings, ranks, settings.data
        self.window, self.reach = settings.model.window_frames, data.reach_frames
        mask = MaskSettings(crop=data.crop)
        chosen = DataSettings(
            frames=self.window + 2 * self.reach,
            size=settings.model.size_px,
            cache="pictures" if data.workers == 0 else "none",
            window_frames=0,
            reference="clip",
            seed=data.seed,
            workers=data.workers,
            validation_share=data.validation_share,
        )
        self.data = open_mixture(given, chosen, mask)
        if self.data.layers <= WHISPER_LAYER:
            raise DataError(f"Whisper features of {self.data.layers} layers; layer {WHISPER_LAYER} is needed")
        self.audio_dim, self.validation = self.data.dim, self.data.validation()
        no_codec: Any = None  # pictures are kept as they are
        for k, part in enumerate(parts_of(self.data) if chosen.cache == "pictures" else ()):
            part.cache = open_cache(run / "cache" / str(k), part.clips(), part.content, chosen, mask, no_codec, ranks)

    def describe(self) -> str:
        return f"{len(self.data)} windows of {self.data.settings.frames} frames an epoch"

    def batches(self, first_sample: int, validation: bool = False) -> Iterator[Stretches]:
        chosen = self.validation if validation else self.data
        if chosen is None:
            return iter(())
        batch = self.settings.optimizer.global_batch
        share = min(batch, len(chosen)) // self.ranks.world
        found = loader(
            chosen,
            share,
            rank=self.ranks.rank,
            world=self.ranks.world,
            start_sample=first_sample,
            workers=0 if validation else self.settings.data.workers,
        )
        return map(self.stretches, found)

    def stretches(self, batch: Batch) -> Stretches:
        seen = batch.video[:, self.reach : self.reach + self.window]
        keys = np.array(batch.keys)
        share = torch.from_numpy(keys[:, None] == keys)  # where in a clip a window lies, its batch does not say
        return Stretches(seen, batch.whisper[:, :, WHISPER_LAYER].float(), share)

    def audio_rows(self) -> Tensor:
        found, size = [], 0
        data: Dataset = self.data
        for batch in loader(data, 16, workers=0):
            rows = batch.whisper[:, :, WHISPER_LAYER].float()
            found.append((rows - rows.mean(1, keepdim=True)).flatten(0, 1))
            size += len(found[-1])
            if size >= FITTED_ROWS:
                return torch.cat(found)
        raise AssertionError("a loader never ends")


def open_sync_data(given: Sequence[Weighted], run: Path, settings: SyncSettings, ranks: Ranks) -> SyncData:
    """The data of one or several curated outputs. Raises ValueError or OSError, with what to do."""
    if settings.optimizer.global_batch % (ranks.world * settings.data.same_voice):
        raise DataError(
            f"optimizer.global_batch {settings.optimizer.global_batch} is no multiple of {ranks.world} ranks x "
            f"{settings.data.same_voice} stretches of a voice (data.same_voice)"
        )
    if settings.model.mouth == "pixels":
        return PixelData(given, run, settings, ranks)
    parts = sorted(part for folder, _ in given for part in folder.glob("parts/*/*.tar"))
    if not parts:
        raise DataError(f"{given[0][0]}: no parts/*/*.tar; landmarks need a curation without --drop-parts")
    keys = choose_clips(keys_in(parts), settings.data.most_clips)
    clips = [SyncClip.of(record) for record in records_in(parts, keys) if is_usable(record.channels)]
    return LandmarkData(clips, settings, ranks)
