"""How well the mark of training/watermark.py is hidden and found: real clips, their faces marked, encoded, read back.

    python benchmarks/watermark.py --clips FOLDER [--seconds 2] [--crf 18 23]

One line per clip: size of the marked region (1.2 times the face box), PSNR inside it, CPU ms per frame, and for each
CRF what is found; the same clip without a mark comes last.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import av
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
if sys.path[0] != str(ROOT):  # run as a script, the first place is this file's own folder
    sys.path[0] = str(ROOT)

import weights  # noqa: E402
from clock import FPS  # noqa: E402
from media.frames import scan  # noqa: E402
from media.geometry import centres, sides, smooth  # noqa: E402
from media.probe import probe  # noqa: E402
from models.yolo_face import YoloFace  # noqa: E402
from training.evaluation.metrics import find_faces, psnr  # noqa: E402
from training.watermark import detect, embed  # noqa: E402

PAYLOAD = 37
GROWTH = 1.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--crf", type=int, nargs="+", default=[18, 23])
    options = parser.parse_args()
    detector = YoloFace(weights.ensure("yolov8n_face")["yolov8n_face"], size=480)
    for path in sorted(options.clips.iterdir()):
        try:
            print(measured(path, detector, round(options.seconds * FPS), options.crf), flush=True)
        except ValueError as error:
            print(error, flush=True)


def measured(path: Path, detector: YoloFace, count: int, crfs: list[int]) -> str:
    found = probe(path)
    film = [picture for _, picture in scan(path, found, max(found.width, found.height), end_frame=count)]
    boxes = smooth(find_faces(path, found, detector)[: len(film)], 3.0)
    middle, half = centres(boxes), sides(boxes) * GROWTH / 2
    limits = np.tile([found.width, found.height], 2)
    corners = np.clip(np.concatenate([middle - half, middle + half], 1), 0, limits).round().astype(int)
    marked, squared_errors, start_s = [], [], time.process_time()
    for frame, (x0, y0, x1, y1) in zip(film, corners, strict=True):
        region = embed(frame[None, y0:y1, x0:x1], PAYLOAD, np.array([[x0, y0]]))[0]
        squared_errors.append(((region.astype(float) - frame[y0:y1, x0:x1]) ** 2).mean())
        marked.append(frame.copy())
        marked[-1][y0:y1, x0:x1] = region
    embed_ms = (time.process_time() - start_s) / len(film) * 1e3
    width, height = corners[0, 2:] - corners[0, :2]
    line = f"{path.name}: {width}x{height}, {psnr(float(np.mean(squared_errors))):.1f} dB, {embed_ms:.1f} ms"
    for crf, frames, title in [*((crf, marked, f"CRF {crf}") for crf in crfs), (crfs[-1], film, "unmarked")]:
        line += f"; {title}: {read_back(frames, crf)}"
    return line


def read_back(film: list[np.ndarray], crf: int) -> str:
    """What is found after H.264 with x264's defaults."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        height, width = (size // 2 * 2 for size in film[0].shape[:2])
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=FPS, options={"crf": str(crf)})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for picture in film:
                whole = np.ascontiguousarray(picture[:height, :width])
                container.mux(stream.encode(av.VideoFrame.from_ndarray(whole, format="rgb24")))
            container.mux(stream.encode(None))
        start_s = time.process_time()
        said = detect(path)
        detect_ms = (time.process_time() - start_s) / len(film) * 1e3
    return f"payload {said.payload}, z {said.z:.1f}, {detect_ms:.1f} ms"


if __name__ == "__main__":
    main()
