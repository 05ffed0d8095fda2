"""Shows what was generated beside what it was made of: a film with the sound, or a strip of mouths.

    python -m demo.side_by_side SOURCE GENERATED -o OUT.mp4 [--audio A]      source | generated
    python -m demo.side_by_side SOURCE GENERATED... -o OUT.png               mouths, the source's in the first row

Frame i of a generated video is shown beside the source's frame that it was made of: where the sound is longer than the
video, the video runs back.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np

import weights
from demo.geometry import eye_distance
from media.errors import MediaError
from media.frames import GridReader, Picture, Planes, read_pictures, scan
from media.probe import probe
from media.writer import VideoWriter
from models.face_landmarks import FaceLandmarks
from training.plan import source_frames
from training.watermark import provenance

HEIGHT = 480  # of the film, pixels; a smaller source is not enlarged
AT_ONCE = 16  # frames in memory
COLUMNS, TILE = 12, 112  # of a strip: mouths, pixels of each
MOUTH_SIDE = 1.1  # of a tile, in eye-corner distances: a mouth is .6 wide
LIPS_MIDDLE = (13, 14)
MARGIN = 64  # pixels beside a strip for its labels


def write_film(source: Path, generated: Path, audio: Path, output: Path) -> int:
    """Write source | generated, labelled, with a sound that is copied; returns the number of frames.

    Raises MediaError (a ValueError) if one of the files cannot be read.
    """
    found = [probe(path) for path in (source, generated)]
    frames = found[1].frames
    with (
        closing(GridReader(source, found[0])) as before,
        closing(GridReader(generated, found[1])) as after,
    ):
        pairs = zip(
            read_shown(before, source_frames(found[0].frames, frames)),
            read_shown(after, np.arange(frames)),
            strict=True,
        )
        first = next(pairs)
        with VideoWriter(output, joined(first), audio, metadata=provenance()) as writer:
            writer.write(joined(first).planes)
            for pair in pairs:
                writer.write(joined(pair).planes)
    return frames


def read_shown(reader: GridReader, shown: np.ndarray) -> Iterator[Picture]:
    """The frames of a video in the order [F] in which they are shown."""
    for start in range(0, len(shown), AT_ONCE):
        wanted = shown[start : start + AT_ONCE]
        low = int(wanted.min())
        found = read_pictures(reader, low, int(wanted.max()) + 1)
        yield from (found[i - low] for i in wanted)


def joined(pair: tuple[Picture, Picture]) -> Picture:
    """Two pictures side by side, labelled. Their planes are scaled and not converted: both have the same colours."""
    height = min(HEIGHT, *(len(picture.planes[0]) for picture in pair)) // 2 * 2
    halves = [label_planes(p.planes, height, text) for p, text in zip(pair, ("source", "generated"), strict=True)]
    y, u, v = (np.hstack(planes) for planes in zip(*halves, strict=True))
    return Picture((y, u, v), pair[1].to_rgb, pair[1].full_range, pair[1].colorspace)


def label_planes(planes: Planes, height: int, text: str) -> Planes:
    """The planes of a picture scaled to a height, of even width, with a text in the upper left corner."""
    rows, columns = planes[0].shape
    width = round(columns * height / rows / 2) * 2
    y, u, v = (
        cv2.resize(plane, size, interpolation=cv2.INTER_AREA)
        for plane, size in zip(planes, ((width, height), *[(width // 2, height // 2)] * 2), strict=True)
    )
    (across, up), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.6, 1)
    y[: up + below + 8, : across + 16] = 16
    cv2.putText(y, text, (8, up + 4), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 235, 1, cv2.LINE_AA)
    return y, u, v


def draw_strip(source: Path, generated: Sequence[Path], labels: Sequence[str]) -> np.ndarray:
    """Mouths at evenly spaced times: [rows x TILE, MARGIN + COLUMNS x TILE, 3] uint8 RGB, the source's row first.

    Every row is cut where the mouth of the source is. `labels` has one text for each row. Raises ValueError without a
    face in the source.
    """
    frames = min(probe(path).frames for path in generated)
    times = np.linspace(0, frames - 1, COLUMNS).round().astype(int)
    shown = source_frames(probe(source).frames, frames)[times]
    rows = [pick_frames(source, shown), *(pick_frames(path, times) for path in generated)]
    places = find_mouths(rows[0], source)
    strip = np.vstack(
        [np.hstack([cut_tile(frame, place) for frame, place in zip(row, places, strict=True)]) for row in rows]
    )
    beside = np.full((len(strip), MARGIN, 3), 255, np.uint8)
    for number, label in enumerate(labels):
        place = (4, number * TILE + TILE // 2)
        cv2.putText(beside, label, place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    return np.hstack([beside, strip])


def pick_frames(path: Path, times: np.ndarray) -> list[np.ndarray]:
    """The frames [h, w, 3] uint8 RGB of a video at some grid frames [n], in any order."""
    described, wanted = probe(path), set(times.tolist())
    longest = max(described.width, described.height)
    found = {i: frame for i, frame in scan(path, described, longest, max(wanted) + 1) if i in wanted}
    return [found[i] for i in times.tolist()]


def find_mouths(frames: Sequence[np.ndarray], path: Path) -> list[tuple[np.ndarray, float]]:
    """Centre [2] and side of the square around each mouth, pixels; that of the frame before where no face is found."""
    landmarks = FaceLandmarks(weights.require("face_landmarker")["face_landmarker"])
    meshes = [landmarks.measure(frame[None]).points[0] for frame in frames]
    seen = [points for points in meshes if np.isfinite(points).all()]
    if not seen:
        raise ValueError(f"{path}: no face found; nothing to show")
    places, last = [], seen[0]
    for points in meshes:
        last = points if np.isfinite(points).all() else last
        places.append((last[list(LIPS_MIDDLE), :2].mean(axis=0), MOUTH_SIDE * eye_distance(last)))
    return places


def cut_tile(frame: np.ndarray, place: tuple[np.ndarray, float]) -> np.ndarray:
    """[TILE, TILE, 3] of a frame around a mouth; beyond the frame its border repeats."""
    centre, side = place
    scale = TILE / side
    shift = TILE / 2 - scale * centre
    warp = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    return cv2.warpAffine(frame, warp, (TILE, TILE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def save_png(path: Path, image: np.ndarray) -> None:
    """Write [h, w, 3] uint8 RGB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", image[..., ::-1])[1].tobytes())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m demo.side_by_side", description="A generated video beside its source."
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("generated", type=Path, nargs="+", help="several for a PNG")
    parser.add_argument("--audio", type=Path, help="a sound or video file (default: the generated video's)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="OUT.mp4, or OUT.png for a strip of mouths")
    options = parser.parse_args(arguments)
    if options.output.suffix not in (".mp4", ".png"):
        parser.error(f"{options.output}: neither .mp4 nor .png")
    if options.output.suffix == ".mp4" and len(options.generated) > 1:
        parser.error("a film shows one generated video beside its source; several go into a PNG")
    try:
        if options.output.suffix == ".png":
            labels = ["source", *(path.stem[:9] for path in options.generated)]
            save_png(options.output, draw_strip(options.source, options.generated, labels))
        else:
            generated = options.generated[0]
            write_film(options.source, generated, options.audio or generated, options.output)
    except (MediaError, ValueError, OSError) as error:
        print(f"refused: {error}", file=sys.stderr)
        return 2
    print(options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
