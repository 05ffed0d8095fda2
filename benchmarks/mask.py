"""Does the mask cover mouth and chin, and does it tell what the mouth does? A table and a sheet of pictures.

python benchmarks/mask.py --data OUT [OUT ...] --sheet mask.png

Covered: share of frames whose lips and chin all lie inside; least room left, in face heights. Tells: how well a linear
probe that sees the rectangle's movement in 9 frames (what is faster than a second, in face heights) guesses the opening
of the mouth in other clips (R2; 0: nothing, 1: everything). What the head alone tells is no fault of a mask: it is seen
above it.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from media.encode import decode_mp4
from media.geometry import smooth
from models.mask import HEAD, POINTS, MaskSettings, look_ahead, mask_boxes, median_face
from shards.index import read_index
from shards.reader import read_sample
from shards.sample import BOXES, LANDMARKS, VIDEO, Sample, decode_npy

CHIN = [POINTS.index(p) for p in (400, 377, 152, 148, 176)]
LIPS = list(range(40))
INNER = [POINTS.index(p) for p in (13, 14)]
AROUND = 4  # frames on each side that the probe sees
SLOW_FRAMES = 12.0  # sigma of what is taken away: the probe sees what is faster


@dataclass(frozen=True)
class Clip:
    sample: Sample
    landmarks: np.ndarray  # float32 [T, K, 2]
    face: np.ndarray  # [4]

    @property
    def height(self) -> float:
        return float(self.face[3] - self.face[1])

    @property
    def opening(self) -> np.ndarray:
        """[T] distance of the inner lips in face heights."""
        return np.linalg.norm(np.diff(self.landmarks[:, INNER], axis=1)[:, 0], axis=1) / self.height


def read_clips(outputs: list[Path]) -> Iterator[Clip]:
    for output in outputs:
        for _, row in read_index(output / "shards").iterrows():
            sample = read_sample(output / "shards", row)
            landmarks = decode_npy(sample.members[LANDMARKS]).astype(np.float32)
            if np.isfinite(landmarks).all():
                yield Clip(sample, landmarks, median_face(decode_npy(sample.members[BOXES])))


def adaptive(clip: Clip) -> np.ndarray:
    return mask_boxes(clip.landmarks, clip.face, MaskSettings())


def fixed(clip: Clip) -> np.ndarray:
    return mask_boxes(clip.landmarks, clip.face, replace(MaskSettings(), kind="fixed"))


def outline(clip: Clip) -> np.ndarray:
    """What equation 6 gives for the box around lips and chin of each frame, .05 face heights larger."""
    points = clip.landmarks[:, LIPS + CHIN]
    boxes = np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)
    return look_ahead(boxes + np.array([-1, -1, 1, 1]) * 0.05 * clip.height, 0.75)


def head(clip: Clip) -> np.ndarray:
    return np.tile(clip.landmarks[:, HEAD].mean(axis=1), (1, 2))


MASKS: dict[str, Callable[[Clip], np.ndarray]] = {
    "adaptive": adaptive,
    "fixed": fixed,
    "box of lips and chin, equation 6": outline,
    "the head alone (forehead, temples)": head,
}


def room(clip: Clip, boxes: np.ndarray) -> np.ndarray:
    """[T] how far the nearest point of lips and chin is inside the rectangle, in face heights; negative: outside."""
    points = clip.landmarks[:, LIPS + CHIN]
    inside = np.concatenate([points - boxes[:, None, :2], boxes[:, None, 2:] - points], axis=2)
    return inside.min(axis=(1, 2)) / clip.height


def fast(values: np.ndarray) -> np.ndarray:
    """What is left of [T, C] without its slow part."""
    return values - smooth(values, SLOW_FRAMES)


def probe_r2(clips: list[Clip], boxes: list[np.ndarray]) -> float:
    """R2 of the opening guessed from the rectangle, fitted on one half of the clips and tried on the other."""
    seen, asked = [], []
    for clip, rectangles in zip(clips, boxes, strict=True):
        moved = np.pad(fast(rectangles / clip.height), [(AROUND, AROUND), (0, 0)], mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(moved, 2 * AROUND + 1, axis=0)
        seen.append(windows.reshape(len(rectangles), -1))
        asked.append(fast(clip.opening[:, None])[:, 0])
    left, total = 0.0, 0.0
    for fold in (0, 1):
        x, y = np.concatenate(seen[fold::2]), np.concatenate(asked[fold::2])
        weights = np.linalg.solve(x.T @ x + 1e-4 * np.eye(x.shape[1]), x.T @ y)
        other, truth = np.concatenate(seen[1 - fold :: 2]), np.concatenate(asked[1 - fold :: 2])
        left += float(((truth - other @ weights) ** 2).sum())
        total += float((truth**2).sum())
    return 1 - left / total


def correlation(clip: Clip, boxes: np.ndarray) -> float:
    """Of the steps of the rectangle's lower edge with those of the opening."""
    steps, opened = np.diff(boxes[:, 3]), np.diff(clip.opening)
    return float(np.corrcoef(steps, opened)[0, 1]) if steps.std() else 0.0


def report(clips: list[Clip]) -> None:
    print(f"{len(clips)} clips, {sum(len(clip.landmarks) for clip in clips)} frames")
    print(f"{'':36} {'covered':>8} {'least room':>10} {'area':>6} {'tells R2':>9} {'correlation':>12} {'5-95 %':>12}")
    for name, mask in MASKS.items():
        boxes = [mask(clip) for clip in clips]
        rooms = np.concatenate([room(clip, b) for clip, b in zip(clips, boxes, strict=True)])
        area = np.median([np.prod(b[0, 2:] - b[0, :2]) / c.height**2 for c, b in zip(clips, boxes, strict=True)])
        related = [correlation(clip, b) for clip, b in zip(clips, boxes, strict=True)]
        low, high = np.percentile(related, [5, 95])
        print(
            f"{name:36} {np.mean(rooms >= 0):8.2%} {rooms.min():10.3f} {area:6.2f} {probe_r2(clips, boxes):9.3f}"
            f" {np.median(related):12.2f} {low:6.2f}{high:6.2f}"
        )


def telling_frames(clip: Clip) -> list[int]:
    """The frames with the mouth most closed and most open, and with the head furthest left, right, up and down."""
    at = clip.landmarks[:, HEAD].mean(axis=1) - clip.landmarks[:, CHIN].mean(axis=1)
    return [
        int(clip.opening.argmin()), int(clip.opening.argmax()),
        int(at[:, 0].argmin()), int(at[:, 0].argmax()), int(at[:, 1].argmin()), int(at[:, 1].argmax()),
    ]  # fmt: skip


def sheet(clips: list[Clip], path: Path, width: int = 160) -> None:
    """One row per clip: telling frames, each with its adaptive (white) and fixed (grey) rectangle."""
    rows = []
    for clip in clips:
        pictures, boxes, larger = decode_mp4(clip.sample.members[VIDEO]), adaptive(clip), fixed(clip)
        row = []
        for t in telling_frames(clip):
            picture = pictures[t].copy()
            x0, y0, x1, y1 = np.round(boxes[t]).astype(int).tolist()
            picture[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] //= 2
            cv2.rectangle(picture, (x0, y0), (x1, y1), (255, 255, 255), 2)
            a0, b0, a1, b1 = np.round(larger[t]).astype(int).tolist()
            cv2.rectangle(picture, (a0, b0), (a1, b1), (128, 128, 128), 1)
            row.append(cv2.resize(picture, (width, width), interpolation=cv2.INTER_AREA))
        rows.append(np.concatenate(row, axis=1))
    half = -(-len(rows) // 2)
    rows += [np.zeros_like(rows[0])] * (2 * half - len(rows))
    columns = [np.concatenate(rows[:half]), np.concatenate(rows[half:])]
    cv2.imwrite(str(path), cv2.cvtColor(np.concatenate(columns, axis=1), cv2.COLOR_RGB2BGR))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="outputs of curation/run.py")
    parser.add_argument("--sheet", type=Path)
    options = parser.parse_args()
    clips = list(read_clips(options.data))
    report(clips)
    if options.sheet:
        sheet(clips, options.sheet)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
