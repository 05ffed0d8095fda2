"""Can a statue or a painting that was made to speak be told from a person, by blinks, head and background?

    python benchmarks/liveness.py VIDEO...

Per file: blinks a minute and the share of the lids' range that is used, how far the head turns (standard deviation over
the clip of yaw, pitch and roll, in degrees), and how much the picture outside the face changes from frame to frame
(median of absolute differences, in levels of 255). Needs the weights yolov8n_face and face_landmarker.
"""

import argparse
import sys
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

import weights
from clock import FPS
from curation.filters.stillness import LIDS, blinks
from media import geometry
from media.frames import GridReader, read_crops, scan
from media.probe import probe
from models.face_landmarks import FaceLandmarks
from models.head_pose import head_pose
from models.yolo_face import YoloFace

EVERY, MOST_FRAMES = 12, 300


def measure(path: Path, detector: YoloFace, landmarks: FaceLandmarks) -> str:
    header = probe(path)
    boxes, seen, pictures = [], [], []
    for i, picture in scan(path, header):
        if i >= MOST_FRAMES:
            break
        faces = detector.detect([picture])[0] if i % EVERY == 0 else []
        boxes.append(faces[0][:4] * (header.width / picture.shape[1]) if len(faces) else np.zeros(4))
        seen.append(len(faces) > 0)
        pictures.append(picture[::4, ::4].astype(np.int16).mean(2))
    if not any(seen):
        return "no face"
    track = geometry.fill_gaps(np.array(boxes, np.float32), np.array(seen))
    squares = geometry.squares(track, 1.7, 3.0, header.width, header.height)
    mesh = landmarks.measure(read_crops(GridReader(path, header), 0, squares, 320))
    valid = np.isfinite(mesh.points).all((1, 2))
    lids = mesh.blendshapes[valid][:, LIDS].mean(1)
    scale = pictures[0].shape[1] / header.width
    x0, _, x1, y1 = (track.mean(0) * scale).astype(int)
    outside = np.ones(pictures[0].shape, bool)
    side = (x1 - x0) // 4
    outside[:, max(0, x0 - side) : x1 + side] = False
    outside[y1:] = False  # shoulders
    moved = [float(np.abs(a - b)[outside].mean()) for a, b in pairwise(pictures)] if outside.any() else [np.nan]
    minutes = len(pictures) / FPS / 60
    low, high = np.percentile(lids, (5, 95))
    head = " ".join(f"{value:5.1f}" for value in head_pose(mesh.points[valid]).std(0))
    return f"{blinks(lids) / minutes:6.1f} {high - low:6.2f}   {head}   {np.median(moved):6.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("videos", type=Path, nargs="+")
    options = parser.parse_args()
    files = weights.require("yolov8n_face", "face_landmarker")
    detector, landmarks = YoloFace(files["yolov8n_face"], size=480), FaceLandmarks(files["face_landmarker"])
    print(f"{'':<44} blinks   lids    yaw pitch  roll   outside")
    for path in options.videos:
        print(f"{path.name[:44]:<44} {measure(path, detector, landmarks)}", flush=True)


if __name__ == "__main__":
    main()
