"""Which way in style space opens a mouth, and nothing else: learned once from the generator's own faces.

The generator's style space is almost linear in what landmarks measure, so a ridge regression from style to
measurements tells how each measurement changes. A direction is the smallest style change that moves its target by a
given amount, leaves the other mouth targets alone, and is punished for everything that must stay: pose, head shape,
eyes and stubble (hard), colours and looks (soft). Without the punishment people become children when their mouth opens,
for so are the pictures the generator learned from. Only pictures of the generator and Apache-2.0 landmarks are used: no
identity network.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

import cv2
import numpy as np

from demo.generator import Generator, half_size, truncate
from demo.geometry import MOUTH, RIGID, align, eye_distance, eye_height, mouth_shape, pose, similarity
from models.face_landmarks import FaceLandmarks

PATH = Path(__file__).with_name("directions.npz")
SEEDS = 900
WHITENED = 250  # principal components of the styles kept
RIDGE = 30.0
SOFT, HARD = 30.0, 300.0

# What one unit of each direction does, in eye-corner distances.
MOUTH_STEPS = {
    "opening": 0.1,
    "width": 0.1,
    "corner_height": 0.05,
    "upper_lip": 0.02,
    "lower_lip": 0.02,
    "lip_depth": -0.04,
}
EYE_STEP, BLINK_STEP = -0.05, 0.3
STUBBLE_POINTS = (164, 200, 32, 262, 204, 424)
SKIN_POINTS = (151, 9, 50, 280, 117, 346, 205, 425, 4, 199)
EYE_BLENDSHAPES = (9, 10, 11, 12, 19, 20)  # blink, look down, squint; left and right
BROW_BLENDSHAPE = 3
THUMBNAIL = 32
PRINCIPAL_LOOKS = 60


@dataclass(frozen=True)
class Directions:
    """Style changes, each [512] float32, and the landmark frame they were learned in."""

    mean_style: np.ndarray
    reference: np.ndarray  # [18, 3] RIGID points of the mean face, frontal, eye corners 1 apart
    mouth: np.ndarray  # [6, 512] one unit: MOUTH_STEPS
    close_eyes: np.ndarray  # [512]
    narrow: np.ndarray  # [512] width -.1, all layers: takes the photographer's smile off
    shut: np.ndarray  # [512] opening -.1, all layers

    def save(self, path: Path) -> None:
        """Writes the arrays, float32, uncompressed names and all: under 30 KB."""
        np.savez(path, allow_pickle=False, **{f.name: getattr(self, f.name).astype(np.float32) for f in fields(self)})


def load(path: Path = PATH) -> Directions:
    """The directions that come with the repository."""
    with np.load(path, allow_pickle=False) as arrays:
        return Directions(**{f.name: arrays[f.name] for f in fields(Directions)})


@dataclass(frozen=True)
class Looks:
    """What is kept of one generated face: enough to learn from, not the picture."""

    style: np.ndarray  # [512]
    points: np.ndarray  # [478, 3] landmarks in the 512-px picture
    blendshapes: np.ndarray  # [52]
    colours: np.ndarray  # [12, 3] skin and hair
    stubble: np.ndarray  # [6] high-frequency energy
    thumbnail: np.ndarray  # [32, 32, 3] uint8 of the face, eyes at fixed places


def stubble_energy(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Mean |grey - blurred grey| in six patches around the mouth: [6]. Landmarks in pixels of the image."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    detail = np.abs(grey - cv2.GaussianBlur(grey, (0, 0), 4 * image.shape[0] / 1024))
    return _patch_means(detail, points[list(STUBBLE_POINTS), :2], 0.05 * eye_distance(points))


def _patch_means(image: np.ndarray, centres: np.ndarray, radius: float) -> np.ndarray:
    means = []
    for x, y in centres:
        x0, y0 = max(0, int(x - radius)), max(0, int(y - radius))
        patch = image[y0 : int(y + radius) + 1, x0 : int(x + radius) + 1]
        means.append(patch.mean((0, 1)))
    return np.array(means)


def look(style: np.ndarray, image: np.ndarray, points: np.ndarray, blendshapes: np.ndarray) -> Looks:
    """Measures one generated picture [1024, 1024, 3]; landmarks are in its 512-px version."""
    small = half_size(image)
    top = points[10, :2] + 0.12 * (points[10, :2] - points[152, :2])
    sides = [top + side * 0.35 * (points[263, :2] - points[33, :2]) for side in (-1, 1)]
    centres = np.vstack([points[list(SKIN_POINTS), :2], np.clip(sides, 0, 511)])
    colours = _patch_means(small.astype(np.float32), centres, 0.05 * eye_distance(points))
    corners = np.array([[8, 11], [24, 11], [16, 27]], np.float32)
    warp = cv2.getAffineTransform(points[[33, 263, 152], :2].astype(np.float32), corners)
    blurred = cv2.GaussianBlur(small, (0, 0), 3)
    thumbnail = cv2.warpAffine(blurred, warp, (THUMBNAIL, THUMBNAIL), borderMode=cv2.BORDER_REPLICATE)
    return Looks(style, points, blendshapes, colours, stubble_energy(image, points * 2), thumbnail)


def collect(generator: Generator, landmarks: FaceLandmarks, seeds: Iterable[int]) -> list[Looks]:
    """Draws and measures one face per seed; faces without landmarks are left out."""
    mean_style = generator.mean_style()
    faces = []
    for seed in seeds:
        style = truncate(generator.style(seed), mean_style)
        image = generator.render(style)
        mesh = landmarks.measure(half_size(image)[None])
        if np.isfinite(mesh.points[0]).all():
            faces.append(look(style, image, mesh.points[0], mesh.blendshapes[0]))
    return faces


def learn(faces: list[Looks], mean_style: np.ndarray) -> tuple[Directions, dict[str, float]]:
    """The directions, and how well a straight line predicts each measurement on unseen faces (correlation, 5 folds)."""
    if len(faces) < 2 * WHITENED:
        raise ValueError(f"{len(faces)} faces are too few to learn from: at least {2 * WHITENED}")
    reference = _reference(faces)
    styles = np.stack([face.style for face in faces]).astype(np.float64)
    targets, hard, soft = _measurements(faces, reference)
    names = list(targets)
    values = np.column_stack([*targets.values(), hard, soft])
    whiten, unwhiten = _whitening(styles)
    white = (styles - styles.mean(0)) @ whiten
    spread = values.std(0) + 1e-9
    slopes = _ridge(white, (values - values.mean(0)) / spread)
    b_target = dict(zip(names, slopes[:, : len(names)].T, strict=True))
    b_hard = slopes[:, len(names) : len(names) + hard.shape[1]]
    b_soft = slopes[:, len(names) + hard.shape[1] :]
    scale = dict(zip(names, spread, strict=False))

    def direction(steps: dict[str, float], held: Iterable[str] = (), stiff: Iterable[str] = ()) -> np.ndarray:
        """The least style change that takes `steps`, holds `held` and punishes `stiff` like the head's shape."""
        wanted = {**steps, **dict.fromkeys(held, 0.0)}
        b = np.column_stack([b_target[name] for name in wanted])
        e = np.array([step / scale[name] for name, step in wanted.items()])
        rigid = np.column_stack([b_hard, *(b_target[name] for name in stiff)])
        metric = np.eye(len(b)) + SOFT * b_soft @ b_soft.T + HARD * rigid @ rigid.T
        inner = np.linalg.solve(metric, b)
        return unwhiten @ (inner @ np.linalg.solve(b.T @ inner, e))

    main = ("opening", "width", "corner_height")
    mouth = []
    for name in MOUTH:
        held = [other for other in main if other != name]
        stiff = [other for other in ("upper_lip", "lower_lip", "eyes", "blink") if other != name]
        mouth.append(direction({name: MOUTH_STEPS[name]}, held, stiff))
    eyes = direction({"eyes": EYE_STEP, "blink": BLINK_STEP}, ("opening", "width"))
    narrow = direction({"width": -0.1, "opening": 0.0}, stiff=("eyes",))
    shut = direction({"opening": -0.1, "width": 0.0}, stiff=("eyes",))
    arrays = [np.asarray(a, np.float32) for a in (mean_style, reference, mouth, eyes, narrow, shut)]
    return Directions(*arrays), _cross_validated(styles, values[:, : len(names)], names)


def _reference(faces: list[Looks]) -> np.ndarray:
    """The mean of the RIGID points over faces (generalised Procrustes), mirrored to be frontal, eye corners 1 apart."""
    rigid = [face.points[list(RIGID)] for face in faces]
    mean = rigid[0]
    for _ in range(3):
        moved = []
        for points in rigid:
            scale, rotation, shift = similarity(points, mean)
            moved.append(scale * points @ rotation.T + shift)
        mean = np.mean(moved, axis=0)
    swap = [3, 2, 1, 0, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 14, 17, 16]  # left and right points change places
    mirrored = mean[swap] * [-1, 1, 1]
    scale, rotation, shift = similarity(mirrored, mean)
    mean = (mean + scale * mirrored @ rotation.T + shift) / 2
    mean = mean - mean.mean(0)
    x_axis = mean[3] - mean[0]
    yaw = np.arctan2(x_axis[2], x_axis[0])
    roll = np.arctan2(x_axis[1], np.hypot(x_axis[0], x_axis[2]))
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    tilt = np.array([[np.cos(roll), np.sin(roll), 0], [-np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    return mean @ turn.T @ tilt.T / np.linalg.norm(x_axis)


def _measurements(faces: list[Looks], reference: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Named targets [N] each, and unnamed hard [N, a] and soft [N, b] attributes that must not move."""
    mouths, eyes, hard, shapes = [], [], [], []
    for face in faces:
        aligned, rotation = align(face.points, reference)
        mouths.append(mouth_shape(aligned))
        eyes.append((eye_height(aligned), face.blendshapes[[9, 10]].mean()))
        spans = [
            np.linalg.norm(aligned[a] - aligned[b])
            for a, b in ((234, 454), (168, 2), (172, 397), (58, 288), (150, 379))
        ]
        where = [*face.points[:, :2].mean(0), eye_distance(face.points)]
        middle = [aligned[152, 0], aligned[[61, 291], 0].mean()]
        hard.append(
            [*pose(rotation), *where, *spans, *middle, *face.blendshapes[[*EYE_BLENDSHAPES[2:], BROW_BLENDSHAPE]]]
        )
        shapes.append(aligned[:468:4][:, :2].ravel())
    targets: dict[str, np.ndarray] = dict(zip(MOUTH, np.array(mouths).T, strict=True))
    targets |= dict(zip(("eyes", "blink"), np.array(eyes).T, strict=True))
    stubble = np.log(np.array([face.stubble for face in faces]) + 0.5)
    colours = np.array([face.colours.ravel() for face in faces])
    thumbnails = np.stack([face.thumbnail for face in faces]).astype(np.float64)
    thumbnails[:, 18:26, 9:24] = 0  # the mouth may change
    looks = _principal(thumbnails.reshape(len(faces), -1), PRINCIPAL_LOOKS)
    return targets, np.column_stack([np.array(hard), stubble]), np.column_stack([colours, looks])


def _principal(rows: np.ndarray, count: int) -> np.ndarray:
    centred = rows - rows.mean(0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    return u[:, :count] * s[:count]


def _whitening(styles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two [512, 250]: centred styles @ the first are white; the second @ a white change is a style change."""
    values, vectors = np.linalg.eigh(np.cov(styles.T))
    order = np.argsort(values)[::-1][:WHITENED]
    return vectors[:, order] / np.sqrt(values[order]), vectors[:, order] * np.sqrt(values[order])


def _ridge(inputs: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    return np.linalg.solve(inputs.T @ inputs + RIDGE * np.eye(inputs.shape[1]), inputs.T @ outputs)


def _cross_validated(styles: np.ndarray, values: np.ndarray, names: list[str], folds: int = 5) -> dict[str, float]:
    predicted = np.zeros_like(values)
    fold = np.arange(len(styles)) % folds
    for k in range(folds):
        fit, held = fold != k, fold == k
        mean, whiten = styles[fit].mean(0), _whitening(styles[fit])[0]
        slopes = _ridge((styles[fit] - mean) @ whiten, values[fit] - values[fit].mean(0))
        predicted[held] = (styles[held] - mean) @ whiten @ slopes
    return {name: float(np.corrcoef(predicted[:, i], values[:, i])[0, 1]) for i, name in enumerate(names)}
