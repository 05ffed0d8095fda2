"""Do these lips speak this sound? Two small towers that `training/sync.py` learned, on landmarks and Whisper rows.

Not SyncNet: the confidence lies between 0 and 1, so SyncNet's thresholds mean nothing here. What the probe of
`models/lip_probe.py` does with a regression, this does with two convolutions on either side; numbers, offsets and
windows are counted alike. numpy only.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from clock import WHISPER_ROWS_PER_FRAME
from models.lip_probe import NULL_FRAMES, LipRecord, LipScore, check_record, is_usable, score_motion, threshold_of
from models.mouth import MOTIONS, motion
from storage.atomic_write import atomic_write

TOWERS = ("mouth", "audio")
ARRAYS = ("basis", *(f"{tower}.{layer}.{kind}" for tower in TOWERS for layer in (0, 3) for kind in ("weight", "bias")))
FORMAT = "sync 1"  # the only key of the file's metadata, as their order is not kept; null_thresholds as JSON


@dataclass(frozen=True)
class SyncModel:
    """The weights of the two towers by name, float32, and how high the confidence of a foreign voice gets.

    null_thresholds [5], at NULL_FRAMES; NaN where it was not measured.
    """

    arrays: dict[str, np.ndarray]
    null_thresholds: np.ndarray

    def embed_mouth(self, channels: np.ndarray) -> np.ndarray:
        """Channels of `mouth_channels`, [T, 28] -> [T, dim] float32."""
        return self._tower("mouth", motion(channels))

    def embed_audio(self, rows: np.ndarray) -> np.ndarray:
        """Whisper rows [2A, 384] of WHISPER_LAYER -> [A, dim] float32."""
        whole = len(rows) // WHISPER_ROWS_PER_FRAME * WHISPER_ROWS_PER_FRAME
        reduced = rows[:whole].astype(np.float32) @ self.arrays["basis"]
        return self._tower("audio", reduced.reshape(whole // WHISPER_ROWS_PER_FRAME, -1))

    def score(self, channels: np.ndarray, rows: np.ndarray, margin: int = 0) -> LipScore | None:
        """Score of a clip, as in LipRecord; None: too few frames with a face."""
        record = LipRecord("clip", "", channels, rows, margin)
        check_record(record)
        if not is_usable(channels):
            return None
        seen, heard = self.embed_mouth(channels), self.embed_audio(rows)
        return score_motion(record, seen, heard, np.ones(seen.shape[1]))

    def threshold(self, frames: int) -> float:
        """Confidence that 99 of 100 foreign voices stay below at this length; NaN if it was not measured."""
        return threshold_of(self.null_thresholds, frames)

    def save(self, path: Path) -> None:
        """Write safetensors; the same model gives the same bytes."""
        thresholds = {
            str(n): float(t) for n, t in zip(NULL_FRAMES, self.null_thresholds, strict=True) if np.isfinite(t)
        }
        metadata = {FORMAT: json.dumps(thresholds, sort_keys=True)}
        with atomic_write(path) as file:
            file.write(save({name: np.ascontiguousarray(self.arrays[name]) for name in ARRAYS}, metadata))

    @staticmethod
    def load(path: Path) -> "SyncModel":
        """Read a saved model. Raises ValueError if the file is not one."""
        try:
            with safe_open(path, "np") as file:
                metadata = file.metadata() or {}
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            thresholds = json.loads(metadata.get(FORMAT, "{}"))
        except (SafetensorError, ValueError) as error:
            raise ValueError(f"{path}: not a sync model ({error}); python training/sync.py makes them") from error
        fits = set(ARRAYS) == arrays.keys() and arrays["mouth.0.weight"].shape[1] == MOTIONS
        if FORMAT not in metadata or not fits:
            raise ValueError(f"{path}: no sync model on landmarks of this version; python training/sync.py makes them")
        return SyncModel(arrays, np.array([thresholds.get(str(n), np.nan) for n in NULL_FRAMES], float))

    def _tower(self, tower: str, x: np.ndarray) -> np.ndarray:
        hidden = convolve(x, self.arrays[f"{tower}.0.weight"], self.arrays[f"{tower}.0.bias"])
        hidden = hidden / (1 + np.exp(-hidden))  # SiLU
        return convolve(hidden, self.arrays[f"{tower}.3.weight"], self.arrays[f"{tower}.3.bias"])


def convolve(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """torch's conv1d of [T, in] by [out, in, k], with zeros around, to [T, out]."""
    reach = weight.shape[2] // 2
    around = sliding_window_view(np.pad(x, ((reach, reach), (0, 0))), weight.shape[2], 0)  # [T, in, k]
    return around.reshape(len(x), -1) @ weight.reshape(len(weight), -1).T + bias
