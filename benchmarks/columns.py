"""What the columns say of truth that is drawn into clips: turned heads, covers, darkness, pans, stills, telephones.

    python benchmarks/columns.py VIDEO...

Six seconds of each video as they are, and the same damaged; per column the area under the ROC curve between the two,
how many of each its threshold drops, and its CPU seconds for a minute of clip. Needs yolov8n_face and face_landmarker.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2
import numpy as np
from scipy.signal import butter, sosfilt
from scipy.spatial import Delaunay

from clock import SAMPLE_RATE
from curation.clip import Clip, Source
from curation.filters.camera_motion import CameraMotion
from curation.filters.head_pose import HeadPose
from curation.filters.mouth_covered import MouthCovered
from curation.filters.mouth_light import MouthLight
from curation.filters.sound_bandwidth import SoundBandwidth
from curation.filters.stillness import Stillness
from curation.source import identify, whole
from curation.stage import Filter, Timer, run_stages
from curation.steps.crop import Crop
from curation.steps.faces import Faces
from curation.steps.landmarks import Landmarks
from curation.steps.stable_spans import StableSpans
from curation.steps.windows import Windows
from media.audio import AudioTrack
from media.encode import decode_mp4, encode_mp4
from media.probe import Limits
from models.head_pose import head_pose

FRAMES = 150
YAWS = (-45, -30, -15, 15, 30, 45)
LANDMARKS = Landmarks()
STAGES = (Faces(size=480), StableSpans(), Windows(FRAMES / 25), Crop(), LANDMARKS)


def first_clip(path: Path) -> Clip | None:
    """The first steady face of a video, at most 6 s of it."""
    identity = identify(path, Limits())
    if identity.probe is None or identity.source_id is None:
        return None
    clips = run_stages(whole(Source(identity.source_id, path, identity.probe)), STAGES, Timer())
    return next((clip for clip in clips if clip.mesh is not None and clip.mesh.has_face.any()), None)


def shown(clip: Clip, change: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Clip:
    """The clip with every picture changed, encoded as a shard has it, and its landmarks found anew."""
    assert clip.frames is not None and clip.mesh is not None
    points = np.nan_to_num(clip.mesh.points, nan=160.0)
    frames = np.stack([change(frame, face) for frame, face in zip(clip.frames, points, strict=True)])
    return next(iter(LANDMARKS(replace(clip, frames=decode_mp4(encode_mp4(frames))))))


def microphone(frame: np.ndarray, points: np.ndarray) -> np.ndarray:
    radius = round(float(np.linalg.norm(points[61, :2] - points[291, :2])) * 0.75)
    x, y = np.round(points[[13, 14], :2].mean(0)).astype(int).tolist()
    y += radius // 4
    drawn = cv2.circle(frame.copy(), (x, y), radius, (38, 38, 42), -1)
    return cv2.rectangle(drawn, (x - radius // 3, y), (x + radius // 3, len(frame)), (38, 38, 42), -1)


def hand(frame: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Four fingers of the cheek's own colour across the mouth."""
    width = round(float(np.linalg.norm(points[61, :2] - points[291, :2])))
    x, y = np.round(points[[13, 14], :2].mean(0)).astype(int).tolist()
    cx, cy = np.clip(np.round(points[50, :2]).astype(int), 4, len(frame) - 5).tolist()
    skin = frame[cy - 4 : cy + 5, cx - 4 : cx + 5].reshape(-1, 3).mean(0)
    drawn, step = frame.copy(), max(4, width // 3)
    for k in range(-2, 2):
        shade = tuple(float(value) for value in skin * (0.97 - 0.04 * (k % 2)))
        middle = y + k * step + step // 2
        cv2.line(drawn, (x - width, middle + step), (x + width, middle), shade, step)
    return drawn


def caption(frame: np.ndarray, points: np.ndarray) -> np.ndarray:
    y = round(float(points[[13, 14], 1].mean()))
    drawn = cv2.rectangle(frame.copy(), (20, y - 28), (300, y + 28), (20, 20, 20), -1)
    return cv2.putText(drawn, "BREAKING NEWS", (32, y + 9), cv2.FONT_HERSHEY_DUPLEX, 0.95, (240, 240, 240), 2)


def turned(frame: np.ndarray, points: np.ndarray, yaw: float) -> np.ndarray:
    """The face of a picture turned by degrees, its triangles moved by the landmarks' own depth, on a blurred ground."""
    angle = np.radians(yaw)
    centre = points.mean(0)
    x, y, z = (points - centre).T
    moved = np.stack([x * np.cos(angle) - z * np.sin(angle), y, x * np.sin(angle) + z * np.cos(angle)], 1) + centre
    picture = cv2.GaussianBlur(frame, (0, 0), 30)
    triangles = Delaunay(points[:468, :2]).simplices
    for triangle in triangles[np.argsort(-moved[triangles, 2].mean(1))]:
        before, after = points[triangle, :2].astype(np.float32), moved[triangle, :2].astype(np.float32)
        if facing(after) == facing(before):
            paint(picture, frame, before, after)
    return picture


def facing(triangle: np.ndarray) -> bool:
    """Whether the corners [3, 2] go round clockwise: a triangle that turns its back goes round the other way."""
    (ax, ay), (bx, by) = triangle[1] - triangle[0], triangle[2] - triangle[0]
    return bool(ax * by > ay * bx)


def paint(picture: np.ndarray, frame: np.ndarray, before: np.ndarray, after: np.ndarray) -> None:
    low = np.maximum(np.floor(after.min(0)).astype(int) - 1, 0)
    high = np.minimum(np.ceil(after.max(0)).astype(int) + 2, picture.shape[1::-1])
    if (high <= low).any():
        return
    width, height = (high - low).tolist()
    matrix = cv2.getAffineTransform(before, after - low.astype(np.float32))
    piece = cv2.warpAffine(frame, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
    mask = np.zeros((height, width), np.uint8)
    cv2.fillConvexPoly(mask, np.round(after - low).astype(np.int32), 1)
    mask = cv2.dilate(mask, np.ones((2, 2), np.uint8)).astype(bool)
    picture[low[1] : high[1], low[0] : high[0]][mask] = piece[mask]


def panned(clip: Clip, sides_a_second: float) -> Clip:
    """The clip as filmed by a camera that turns: the face and the ground move alike, and the crop with them."""
    assert clip.track is not None
    side = float((clip.track.boxes[:, 2] - clip.track.boxes[:, 0]).mean())
    shift = np.arange(len(clip))[:, None] / 25 * sides_a_second * side * np.array([[1, 0, 1, 0]])
    return replace(clip, track=replace(clip.track, boxes=(clip.track.boxes + shift).astype(np.float32)))


def low_passed(clip: Clip, hertz: float) -> Clip:
    """The clip with the sound of a telephone."""
    sections = butter(10, hertz, fs=SAMPLE_RATE, output="sos")
    sound = np.zeros(clip.end_frame * 640)
    sound[clip.start_frame * 640 :] = np.asarray(sosfilt(sections, clip.audio()))
    source = replace(clip.source)
    source.__dict__["audio"] = AudioTrack(np.round(sound * 32767).clip(-32768, 32767).astype(np.int16))
    return replace(clip, source=source)


def photograph(clip: Clip) -> Clip:
    assert clip.frames is not None
    still = clip.frames[0]
    return shown(clip, lambda *_: still)


DAMAGES: dict[str, tuple[Filter, str, Callable[[Clip], Clip]]] = {
    "a microphone before the mouth": (MouthCovered(), "lip_redness", lambda clip: shown(clip, microphone)),
    "fingers of the face's own colour": (MouthCovered(), "lip_redness", lambda clip: shown(clip, hand)),
    "a caption over the mouth": (MouthCovered(), "lip_redness", lambda clip: shown(clip, caption)),
    "a tenth of the light": (
        MouthLight(),
        "mouth_light",
        lambda clip: shown(clip, lambda f, _: (f * 0.1).astype("u1")),
    ),
    "a sixth of the contrast": (
        MouthLight(),
        "mouth_contrast",
        lambda clip: shown(clip, lambda f, _: (128 + (f - 128.0) / 6).astype("u1")),
    ),
    "a still photograph": (Stillness(), "picture_change", photograph),
    "a camera that pans .5 sides/s": (CameraMotion(), "camera_motion", lambda clip: panned(clip, 0.5)),
    "sound below 3400 Hz": (SoundBandwidth(), "bandwidth_hz", lambda clip: low_passed(clip, 3400)),
    "sound below 5500 Hz": (SoundBandwidth(), "bandwidth_hz", lambda clip: low_passed(clip, 5500)),
}


def auc(clean: np.ndarray, damaged: np.ndarray) -> float:
    """How often a damaged clip has the lower value: 1 always, .5 by chance."""
    return float((clean[:, None] > damaged).mean() + (clean[:, None] == damaged).mean() / 2)


def print_row(name: str, clips: list[Clip]) -> None:
    stage, column, damage = DAMAGES[name]
    clips = [clip for clip in clips if column != "bandwidth_hz" or clip.source.audio is not None]
    began = time.process_time()
    before = [stage.measure(clip) for clip in clips]
    cpu_s = (time.process_time() - began) / sum(len(clip) for clip in clips) * 1500
    after = [stage.measure(damage(clip)) for clip in clips]
    clean, damaged = (np.array([scores[column] for scores in each]) for each in (before, after))
    area = auc(clean, damaged)
    dropped = [sum(not stage.decide(scores).keep for scores in each) for each in (before, after)]
    spans = "  ".join(f"{np.nanmin(v):8.2f} {np.nanmedian(v):8.2f} {np.nanmax(v):8.2f}" for v in (clean, damaged))
    share = f"{dropped[0]:3d} {dropped[1]:3d} of {len(clips)}"
    print(f"{name:<33} {column:<15} {max(area, 1 - area):.3f}  {spans}  {share}  {cpu_s:5.2f}", flush=True)


def pose_errors(clips: list[Clip]) -> Iterator[tuple[int, np.ndarray]]:
    """(yaw drawn, errors of the yaw measured, NaN where no face is found) on a picture of each clip."""
    for yaw in YAWS:
        errors = []
        for clip in clips:
            assert clip.frames is not None and clip.mesh is not None
            i = int(np.flatnonzero(clip.mesh.has_face)[0])
            drawn = turned(clip.frames[i], clip.mesh.points[i], yaw)
            found = head_pose(LANDMARKS.model.measure(drawn[None]).points)[0, 0]
            errors.append(found - head_pose(clip.mesh.points[i : i + 1])[0, 0] - yaw)
        yield yaw, np.array(errors)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("videos", type=Path, nargs="+")
    parser.add_argument("--table", action="store_true", help="also what every column says of each video")
    parser.add_argument("--picture", type=Path, help="write one picture of each damage there, to look at")
    options = parser.parse_args()
    clips = [clip for clip in map(first_clip, options.videos) if clip is not None]
    print(f"{len(clips)} clips of {len(options.videos)} videos")
    if options.picture:
        write_picture(clips[0], options.picture)
    print(f"{'':<49} AUC   {'as they are: least, median, most':<27} {'damaged':<27} dropped   CPU s/min")
    for name in DAMAGES:
        print_row(name, clips)
    for yaw, errors in pose_errors(clips):
        seen = errors[np.isfinite(errors)]
        print(f"turned by {yaw:3d} degrees: yaw {np.median(seen):+5.1f}, {np.abs(seen).mean():4.1f} off; "
              f"no face in {len(errors) - len(seen)} of {len(errors)}", flush=True)  # fmt: skip
    stages = (HeadPose(), Stillness(), MouthLight(), CameraMotion(), SoundBandwidth(), MouthCovered())
    for clip in clips if options.table else ():
        scores = {name: value for stage in stages for name, value in stage.measure(clip).items()}
        print(clip.source.path.name, " ".join(f"{name}={value:.4g}" for name, value in scores.items()), flush=True)


def write_picture(clip: Clip, path: Path) -> None:
    assert clip.frames is not None and clip.mesh is not None
    frame, points = clip.frames[0], clip.mesh.points[0]
    pictures = [microphone(frame, points), hand(frame, points), caption(frame, points)]
    pictures += [turned(frame, points, yaw) for yaw in YAWS]
    cv2.imwrite(str(path), cv2.cvtColor(np.hstack(pictures), cv2.COLOR_RGB2BGR))


if __name__ == "__main__":
    main()
