"""One person who does not exist: a still portrait, its mouth in 40 shapes and its eyelids in 3.

The mouth shapes are solved, not chosen: for each node of a grid (8 openings x 5 widths) a few Gauss-Newton steps in
style space bring the landmarks of the face to the wanted opening and width. The drawn faces drift in identity, so only
the lower face of each is kept, blended into the one portrait. What that gives up: cheeks and brows do not move, teeth
are always the upper row, and a beard may change with the mouth (VETTED leaves those people out).

    python -m demo.faces learn            directions.npz again, from the generator alone (about 10 CPU minutes)
    python -m demo.faces build 0 5 7      identities into the cache, with what the acceptance test says
    python -m demo.faces sheet 0 5 7 -o sheet.png
"""

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.progress import track

import weights
from demo import directions as learned
from demo.directions import Directions, stubble_energy
from demo.generator import IMAGE_SIZE, WEIGHTS, Generator, half_size, truncate
from demo.geometry import MOUTH, RIGID, align, eye_distance, eye_height, measure_mouth, pose
from models.face_landmarks import FACE_OVAL, FaceLandmarks

# Adults, frontal, nothing before the mouth, no beard that comes and goes. Every one was looked at: portrait and grid.
# Looked at and refused: 25 52 64 71 107 (a moustache or goatee in some nodes), 9 (looks like a child).
VETTED = {
    0: "high", 7: "high", 11: "low", 18: "high", 21: "high", 23: "low",
    60: "high", 85: "high", 97: "high", 100: "high", 101: "high", 103: "high",
}  # fmt: skip
# The people a speaker model is measured on; none of them is ever in its training.
STRANGERS = {
    114: "high", 116: "low", 118: "high", 121: "high", 124: "low", 125: "low",
}  # fmt: skip
# All the people a speaker model is trained on: here a beard may vary a little with the mouth.
SPEAKERS = VETTED | {
    117: "low",
}  # fmt: skip
# Looked at and refused for both: 110 113 119 123 127 129 (look under age), 112 (a goatee that vanishes as the mouth
# opens), 126 (dark patches for closed eyes). Not frontal: 111 115 120 122 128.
GROUPS = {"vetted": VETTED, "speakers": SPEAKERS, "strangers": STRANGERS}
PITCHES = {"high": (1.15, 1.32), "low": (0.9, 1.04)}  # of the one voice, per kind of person

OPENINGS = (0.0, 0.05, 0.13, 0.25, 0.4, 0.58, 0.78, 1.0)
WIDTHS = (-1.0, -0.5, 0.0, 0.5, 1.0)
FULL_OPENING = 0.17  # eye-corner distances; the 95 % quantile of real talkers
PUCKER, SPREAD = 0.075, 0.055  # width below and above neutral at -1 and +1
MOVED_LAYERS = slice(2, 11)  # 8 to 64 px: mouth shape lives here; other layers would move background and hair
NEUTRAL_WIDTH, NEUTRAL_OPENING = 0.60, 0.015
ANCHOR_OPENING = 0.05  # closed lips have no slope to follow: the Jacobian is taken where the mouth is a little open
PROBE_STEP = 0.4
TOLERANCE = np.array([0.008, 0.012, 0.02, 0.012, 0.015, 0.03])  # sigma of the six numbers of MOUTH
DAMPING, PULL = 0.6, 0.12
COEFFICIENT_LIMITS = np.array([5.0, 3, 3, 3, 3, 3])
PARTED = 0.012  # less than this and the lips touch
SURROUNDINGS = 64  # pixels around a patch whose light is compared
LIGHT_STEP = 40  # grey levels; a larger difference is not light
NODE_CALLS, CLOSE_ENOUGH = 3, 0.9  # pictures per node at most; enough when opening and width are within this many sigma
CLOSED_EYES, EYE_STEPS = 0.42, 12  # of the open height, and steps to get there; further the eyelid breaks
CACHE_VERSION = 2

CHIN = (379, 378, 400, 377, 152, 148, 176, 149, 150)
CHEEKS_AND_NOSE = (207, 427, 216, 436, 98, 2, 327)
EYES = ((33, 133, 159, 145), (362, 263, 386, 374))


@dataclass(frozen=True)
class Identity:
    """A portrait and its movable parts, in pixels of the portrait [1024, 1024]."""

    seed: int
    portrait: np.ndarray  # [1024, 1024, 3] uint8 RGB
    points: np.ndarray  # [478, 3] landmarks
    mouth_origin: np.ndarray  # [2] x, y of the mouth pictures
    mouths: np.ndarray  # [8, 5, h, w, 3] uint8, opening x width
    mouth_targets: np.ndarray  # [8, 5, 6] what was asked for
    mouth_measured: np.ndarray  # [8, 5, 6] what the finished picture shows; NaN if no face was found
    mouth_stubble: np.ndarray  # [8, 5] mean change of stubble energy, grey levels
    eye_origin: np.ndarray  # [2]
    eyes: np.ndarray  # [4, h, w, 3] uint8, open to closed
    eye_heights: np.ndarray  # [4]

    def save(self, path: Path) -> None:
        """Writes one file by rename, so that a half-written one is never read."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}")
        with partial.open("wb") as file:
            np.savez_compressed(file, **{f.name: getattr(self, f.name) for f in fields(self)})
        partial.replace(path)


def choose_people(words: Sequence[str]) -> dict[int, str]:
    """Return seed -> kind of voice of a group's name ("speakers") or of seeds ("0", "7").

    Raises ValueError for a word that is neither, and for people that nobody has looked at.
    """
    if len(words) == 1 and words[0] in GROUPS:
        return dict(GROUPS[words[0]])
    known = SPEAKERS | STRANGERS
    unknown = [word for word in words if not word.isdigit() or int(word) not in known]
    if unknown:
        raise ValueError(f"people: {' '.join(unknown)}: give {', '.join(GROUPS)}, or seeds that are in one of them")
    return {int(word): known[int(word)] for word in words}


def load_identity(path: Path) -> Identity:
    """An identity saved before."""
    with np.load(path, allow_pickle=False) as arrays:
        values: dict[str, Any] = dict(arrays)
    values["seed"] = int(values["seed"])
    return Identity(**values)


def cache_path(seed: int) -> Path:
    """Where the identity of a seed is kept: beside the weights, in the user's cache."""
    return weights.cache_folder() / "demo" / f"face-v{CACHE_VERSION}-{seed}.npz"


@dataclass(frozen=True)
class Sight:
    """What the portrait looks like with some coefficients."""

    coefficients: np.ndarray  # [6] of the mouth directions
    picture: np.ndarray  # of the mouth patch
    mouth: np.ndarray  # [6] numbers of MOUTH measured on the whole portrait; NaN without a face
    stubble: float  # mean change of stubble energy against the portrait


See = Callable[[np.ndarray], Sight]


class Sculptor:
    """Draws, measures and solves: holds the networks and the directions."""

    def __init__(self, generator: Generator, landmarks: FaceLandmarks, directions: Directions):
        self.generator, self.landmarks, self.directions = generator, landmarks, directions

    def draw(self, styles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The picture of a style and its landmarks [478, 3] in the picture's pixels (NaN: no face)."""
        image = self.generator.render(styles)
        return image, self.find_points(image)

    def find_points(self, image: np.ndarray) -> np.ndarray:
        """Landmarks of a 1024-px picture, measured on its half-size version as everywhere."""
        return 2 * self.landmarks.measure(half_size(image)[None]).points[0]

    def mouth(self, points: np.ndarray) -> np.ndarray:
        """The six numbers of MOUTH; NaN without a face."""
        return measure_mouth(points, self.directions.reference)

    def neutral_base(self, seed: int) -> np.ndarray:
        """The style of a seed with the grin taken off: closed lips of ordinary width, [23, 512]."""
        d = self.directions
        style = np.tile(truncate(self.generator.style(seed), d.mean_style), (23, 1))
        for _ in range(3):
            opening, width = self.mouth(self.draw(style)[1])[:2]
            if not np.isfinite(opening):
                raise ValueError(f"seed {seed}: no face found in the portrait; choose another seed")
            narrow = np.clip((width - NEUTRAL_WIDTH) / 0.1, 0, 1.2)
            shut = np.clip((opening - NEUTRAL_OPENING) / 0.1, -0.3, 1.2)
            if narrow < 0.1 and abs(shut) < 0.05:
                break
            style[MOVED_LAYERS] += 0.8 * (narrow * d.narrow + shut * d.shut)
        return style.astype(np.float32)

    def moved(self, base: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
        """The base style with the mouth directions added to the layers that shape mouths."""
        styles = base.copy()
        styles[MOVED_LAYERS] += (coefficients @ self.directions.mouth).astype(np.float32)
        return styles

    def _anchor(self, base: np.ndarray) -> np.ndarray:
        """Coefficients of a slightly open mouth."""
        anchor = np.zeros(len(MOUTH))
        for _ in range(9):
            if self.mouth(self.draw(self.moved(base, anchor))[1])[0] >= ANCHOR_OPENING:
                break
            anchor[0] += 0.5
        return anchor

    def _solve_grid(self, see: See, targets: np.ndarray, anchor: np.ndarray) -> dict[tuple[int, int], Sight]:
        """The best sight of every node (row, column), each started from its neighbour's solution."""
        jacobian = np.zeros((len(MOUTH), len(MOUTH)))
        for k, step in enumerate(PROBE_STEP * np.eye(len(MOUTH))):
            jacobian[:, k] = (see(anchor + step).mouth - see(anchor - step).mouth) / (2 * PROBE_STEP) / TOLERANCE
        at_anchor = see(anchor)
        found: dict[tuple[int, int], Sight] = {}
        middle = len(OPENINGS) // 2
        for column in (2, 1, 0, 3, 4):
            for row in (*range(middle, len(OPENINGS)), *reversed(range(middle))):
                towards_middle = (row - 1 if row > middle else row + 1, column)
                beside = (row, column + 1 if column < 2 else column - 1)
                neighbour = found.get(towards_middle if row != middle else beside)
                start = neighbour if neighbour is not None else at_anchor
                found[row, column], jacobian = _solve_node(see, targets[row, column], start, anchor, jacobian)
        return found

    def _close_eyes(self, base: np.ndarray) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray]:
        """Three pictures from open to closed eyes with their landmarks, and the eye heights [4] with the open one."""
        reference = self.directions.reference

        def height(points: np.ndarray) -> float:
            return eye_height(align(points, reference)[0]) if np.isfinite(points).all() else np.inf

        open_height = height(self.draw(base)[1])
        path = []
        for step in range(1, EYE_STEPS + 1):
            styles = base.copy()
            styles[MOVED_LAYERS] += 0.35 * step * self.directions.close_eyes
            image, points = self.draw(styles)
            path.append((image, points, height(points)))
            if path[-1][2] < CLOSED_EYES * open_height:
                break
        heights = np.array([level[2] for level in path])
        wanted = open_height + (heights.min() - open_height) * np.array([0.4, 0.7, 1.0])
        kept = [path[int(np.abs(heights - h).argmin())] for h in wanted]
        return [k[:2] for k in kept], np.array([open_height, *(k[2] for k in kept)])

    def build(self, seed: int) -> Identity:
        """Everything about one seed: about 130 pictures drawn, 45 CPU seconds."""
        base = self.neutral_base(seed)
        portrait, points = self.draw(base)
        anchor = self._anchor(base)
        wide_open = self.draw(self.moved(base, anchor * FULL_OPENING / ANCHOR_OPENING))[1]
        mouth_patch = Patch(portrait, points, lower_face_mask(points, [points, wide_open]))
        quiet = stubble_energy(portrait, points)

        def see(coefficients: np.ndarray) -> Sight:
            # Judged as it will be shown: landmarks of a drawn face and of its mouth in the portrait differ.
            picture = mouth_patch.blend(*self.draw(self.moved(base, coefficients)))
            whole = mouth_patch.on_portrait(picture)
            seen = self.find_points(whole)
            stubble = np.abs(stubble_energy(whole, seen) - quiet).mean() if np.isfinite(seen).all() else np.inf
            return Sight(coefficients, picture, self.mouth(seen), float(stubble))

        targets = node_targets(self.mouth(points))
        nodes = self._solve_grid(see, targets, anchor)
        shape = len(OPENINGS), len(WIDTHS)
        sights = [nodes[index] for index in np.ndindex(shape)]
        eye_patch = Patch(portrait, points, eye_mask(points))
        closing, heights = self._close_eyes(base)
        eyes = [eye_patch.cut(portrait), *(eye_patch.blend(*picture) for picture in closing)]
        return Identity(
            seed=seed,
            portrait=portrait,
            points=points,
            mouth_origin=mouth_patch.origin,
            mouths=np.stack([s.picture for s in sights]).reshape(*shape, *sights[0].picture.shape),
            mouth_targets=targets,
            mouth_measured=np.stack([s.mouth for s in sights]).reshape(*shape, -1),
            mouth_stubble=np.array([s.stubble for s in sights]).reshape(shape),
            eye_origin=eye_patch.origin,
            eyes=np.stack(eyes),
            eye_heights=heights,
        )


def _solve_node(see: See, target: np.ndarray, start: Sight, anchor: np.ndarray, jacobian: np.ndarray):
    """The best sight on the way from a neighbour to a node by damped Gauss-Newton, and the Jacobian as then known."""
    best, best_error, sight = start, np.inf, start
    for call in range(NODE_CALLS + 1):
        residual = (target - sight.mouth) / TOLERANCE
        error = float(np.linalg.norm(residual[:2]))
        if error < best_error:
            best, best_error = sight, error
        if error < CLOSE_ENOUGH or call == NODE_CALLS:
            break
        pull = PULL * (sight.coefficients - anchor)
        pull[0] = 0
        step = np.linalg.solve(jacobian.T @ jacobian + DAMPING * np.eye(len(MOUTH)), jacobian.T @ residual - pull)
        coefficients = np.clip(sight.coefficients + np.clip(step, -1, 1), -3, COEFFICIENT_LIMITS)
        step = coefficients - sight.coefficients
        before, sight = sight, see(coefficients)
        if not np.isfinite(sight.mouth).all():
            break
        if sight.mouth[0] > PARTED:  # Broyden; closed lips teach nothing
            change = (sight.mouth - before.mouth) / TOLERANCE
            jacobian = jacobian + np.outer(change - jacobian @ step, step) / max(step @ step, 0.05)
    return best, jacobian


def node_targets(neutral: np.ndarray) -> np.ndarray:
    """The six numbers wanted at each node of the grid, from those of the closed neutral mouth: [8, 5, 6]."""
    targets = np.tile(neutral, (len(OPENINGS), len(WIDTHS), 1))
    for (row, opening), (column, width) in _nodes():
        node = targets[row, column]
        node[0] = FULL_OPENING * opening * {-1.0: 0.6, -0.5: 0.8}.get(width, 1.0)
        node[1] += width * (PUCKER if width < 0 else SPREAD) - (0.02 * opening if width >= 0 else 0)
        node[5] -= 0.02 if width == -1 else 0
        if opening == 0:
            node[3:5] *= (0.95, 0.93)
    return targets


def _nodes():
    return [((r, o), (c, w)) for r, o in enumerate(OPENINGS) for c, w in enumerate(WIDTHS)]


def lower_face_mask(points: np.ndarray, extremes: Sequence[np.ndarray]) -> np.ndarray:
    """Where the moved picture replaces the portrait: [1024, 1024] float32 in 0..1, soft, inside the jaw line."""
    unit = eye_distance(points)
    outline = np.vstack([face[[*CHIN, *CHEEKS_AND_NOSE], :2] for face in extremes if np.isfinite(face).all()])
    mask = np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.float32)
    cv2.fillConvexPoly(mask, cv2.convexHull(outline.astype(np.float32)).astype(np.int32), 1.0)
    mask = cv2.dilate(mask, _disc(0.10 * unit))
    mask = cv2.erode(mask, _disc(0.05 * unit))
    mask[: int(points[2, 1])] = 0
    mask = cv2.GaussianBlur(mask, (0, 0), 0.055 * unit)
    middle = points[[61, 291], 0].mean()
    side = (np.arange(IMAGE_SIZE) - middle) / np.where(
        np.arange(IMAGE_SIZE) < middle, middle - points[58, 0], points[288, 0] - middle
    )
    # The jaw's silhouette stays the portrait's: further out the mask marks a thin dark wedge.
    return mask * (1 - smoothstep((np.abs(side) - 0.58) / (0.92 - 0.58)))[None].astype(np.float32)


def eye_mask(points: np.ndarray) -> np.ndarray:
    """Two soft ellipses over the eyes: [1024, 1024] float32 in 0..1."""
    mask = np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.float32)
    for outer, inner, *_ in EYES:
        centre, width = points[[outer, inner], :2].mean(0), np.linalg.norm(points[outer, :2] - points[inner, :2])
        angle = np.degrees(np.arctan2(*(points[inner, :2] - points[outer, :2])[::-1]))
        axes = int(0.68 * width), int(0.42 * width)
        cv2.ellipse(mask, centre.astype(int).tolist(), axes, angle, 0, 360, 1.0, -1)
    return cv2.GaussianBlur(mask, (0, 0), 0.035 * eye_distance(points))


class Patch:
    """A soft-edged place of the portrait where other pictures of the same person can be shown."""

    def __init__(self, portrait: np.ndarray, points: np.ndarray, alpha: np.ndarray):
        rows, columns = np.flatnonzero(alpha.max(1) > 1 / 512), np.flatnonzero(alpha.max(0) > 1 / 512)
        self.origin = np.array([columns[0], rows[0]])
        self._inner = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        # The light around the patch is compared in a wider box.
        y0, x0 = max(0, rows[0] - SURROUNDINGS), max(0, columns[0] - SURROUNDINGS)
        self._outer = np.s_[y0 : rows[-1] + 1 + SURROUNDINGS, x0 : columns[-1] + 1 + SURROUNDINGS]
        self._corner = np.array([x0, y0])
        self._portrait, self._points, self._alpha = portrait, points, alpha[self._outer]
        # Beyond the jaw the two pictures differ by more than light: a chin before a neck would leave a bright spot.
        face = np.zeros(alpha.shape, np.float32)
        oval = cv2.convexHull(points[list(FACE_OVAL), :2].astype(np.float32)).astype(np.int32)
        face = cv2.erode(cv2.fillConvexPoly(face, oval, 1.0), _disc(0.03 * eye_distance(points)))
        self._comparable = face[self._outer] * np.clip(1 - 1.4 * self._alpha, 0, None)
        self._rigid = list(RIGID)

    def cut(self, image: np.ndarray) -> np.ndarray:
        """What a whole picture shows in this place."""
        return image[self._inner].copy()

    def blend(self, moved: np.ndarray, moved_points: np.ndarray) -> np.ndarray:
        """Another picture brought into place and to the same light, blended into the portrait: the patch only."""
        if not np.isfinite(moved_points).all():
            return self.cut(self._portrait)
        moving, fixed = moved_points[self._rigid, :2], self._points[self._rigid, :2] - self._corner
        warp, _ = cv2.estimateAffinePartial2D(moving, fixed, method=cv2.LMEDS)
        portrait = self._portrait[self._outer].astype(np.float32)
        size = portrait.shape[1], portrait.shape[0]
        there = cv2.warpAffine(moved, warp, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        there = there.astype(np.float32)
        there += _membrane(np.clip(portrait - there, -LIGHT_STEP, LIGHT_STEP), self._comparable)
        blended = portrait + self._alpha[..., None] * (there - portrait)
        x, y = self.origin - self._corner
        rows, columns = (s.stop - s.start for s in self._inner)
        return np.clip(blended[y : y + rows, x : x + columns] + 0.5, 0, 255).astype(np.uint8)

    def on_portrait(self, picture: np.ndarray) -> np.ndarray:
        """The whole portrait with this picture in the place."""
        whole = self._portrait.copy()
        whole[self._inner] = picture
        return whole


def _membrane(difference: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """A smooth surface through the weighted difference around a mask, carried inside: no step at its border."""
    height, width = weight.shape
    quarter = width // 4, height // 4
    weight = cv2.resize(weight, quarter, interpolation=cv2.INTER_AREA)
    weighted = cv2.resize(difference, quarter, interpolation=cv2.INTER_AREA) * weight[..., None]
    total, norm = np.zeros_like(weighted), np.full(weight.shape, 1e-6, np.float32)
    for sigma, share in ((6, 1.0), (16, 0.05), (40, 0.002)):  # the wider ones only fill where the narrower do not reach
        total += share * cv2.GaussianBlur(weighted, (0, 0), sigma)
        norm += share * cv2.GaussianBlur(weight, (0, 0), sigma)
    return cv2.resize(total / norm[..., None], (width, height), interpolation=cv2.INTER_LINEAR)


def smoothstep(x: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, smooth between."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def _disc(radius: float) -> np.ndarray:
    side = 2 * round(radius) + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))


def open_sculptor() -> Sculptor:
    """The networks from the weights cache and the repository's directions; raises WeightsError if one is missing."""
    return Sculptor(*_open_networks(), learned.load())


def _open_networks() -> tuple[Generator, FaceLandmarks]:
    files = weights.require(*WEIGHTS, "face_landmarker")
    return Generator(*[files[name] for name in WEIGHTS]), FaceLandmarks(files["face_landmarker"])


def problems(identity: Identity, directions: Directions) -> list[str]:
    """Why this identity should not be used; empty if it passes. Child-like faces are not found by it: look at them."""
    found = []
    aligned, rotation = align(identity.points, directions.reference)
    yaw, pitch, roll = pose(rotation)
    if abs(yaw) > 12 or abs(pitch) > 11 or abs(roll) > 3:
        found.append(f"not frontal: yaw {yaw:.0f}, pitch {pitch:.0f}, roll {roll:.0f} degrees")
    if eye_height(aligned) < 0.11:
        found.append(f"eyes not open: {eye_height(aligned):.3f}")
    if not np.isfinite(identity.mouth_measured).all():
        found.append("no face found at some nodes of the grid")
    error = np.nanmean(np.abs(identity.mouth_measured - identity.mouth_targets)[..., :2], axis=(0, 1))
    if error[0] > 0.012 or error[1] > 0.015:
        found.append(f"mouth misses its targets: opening {error[0]:.3f}, width {error[1]:.3f}")
    if np.nanmax(identity.mouth_measured[0, :, 0]) > 0.02:
        found.append("mouth does not close")
    steady = [
        np.corrcoef(identity.mouth_measured[:, c, 0], identity.mouth_targets[:, c, 0])[0, 1] for c in range(len(WIDTHS))
    ]
    if min(steady) < 0.97:
        found.append(f"opening does not follow: correlation {min(steady):.3f}")
    if identity.eye_heights[-1] > 0.65 * identity.eye_heights[0]:
        found.append("eyes do not close")
    if identity.mouth_stubble.mean() > 1.2:
        found.append(f"beard comes and goes: {identity.mouth_stubble.mean():.1f} grey levels")
    return found


def _learn(seeds: int) -> None:
    """Writes directions.npz: draws the faces, measures, fits."""
    generator, landmarks = _open_networks()
    drawn = learned.collect(generator, landmarks, track(range(seeds), "faces"))
    directions, correlations = learned.learn(drawn, generator.mean_style())
    directions.save(learned.PATH)
    for name, correlation in correlations.items():
        print(f"{name:14} predicted on unseen faces with correlation {correlation:.2f}")
    print(f"{learned.PATH}: {learned.PATH.stat().st_size} bytes from {len(drawn)} faces")


def _build(seeds: Sequence[int]) -> None:
    sculptor = open_sculptor()
    for seed in seeds:
        if not cache_path(seed).exists():
            sculptor.build(seed).save(cache_path(seed))
        found = problems(load_identity(cache_path(seed)), sculptor.directions)
        print(f"{seed}: {'; '.join(found) or 'good'}  ({cache_path(seed)})", flush=True)


def contact_sheet(identity: Identity) -> np.ndarray:
    """Portrait, closed, four openings, pucker, spread and blink side by side: [220, 1980, 3] uint8."""
    nodes = [None, (0, 2), (1, 2), (3, 2), (5, 2), (7, 2), (3, 0), (3, 4), None]
    centre = np.clip(identity.points[[10, 152], :2].mean(0).astype(int), 330, IMAGE_SIZE - 330)
    tiles = []
    for i, node in enumerate(nodes):
        image = identity.portrait.copy()
        if node is not None:
            _paste(image, identity.mouths[node], identity.mouth_origin)
        if i == len(nodes) - 1:
            _paste(image, identity.eyes[-1], identity.eye_origin)
        face = image[centre[1] - 330 : centre[1] + 330, centre[0] - 330 : centre[0] + 330]
        tiles.append(cv2.resize(face, (220, 220), interpolation=cv2.INTER_AREA))
    sheet = np.hstack(tiles)
    return cv2.putText(sheet, str(identity.seed), (6, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (255, 0, 0), 2)


def _paste(image: np.ndarray, part: np.ndarray, origin: np.ndarray) -> None:
    x, y = origin
    image[y : y + part.shape[0], x : x + part.shape[1]] = part


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.faces", description="People who do not exist.")
    commands = parser.add_subparsers(dest="command", required=True)
    learning = commands.add_parser("learn", help="make directions.npz again")
    learning.add_argument("--seeds", type=int, default=learned.SEEDS, help="faces to learn from (default: %(default)s)")
    building = commands.add_parser("build", help="identities into the cache, and whether they pass")
    sheets = commands.add_parser("sheet", help="one picture of identities in the cache, to be looked at")
    sheets.add_argument("-o", "--output", type=Path, required=True)
    for command in (building, sheets):
        command.add_argument("seeds", type=int, nargs="*", default=list(VETTED))
    options = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    if options.command == "learn":
        _learn(options.seeds)
    elif options.command == "build":
        _build(options.seeds)
    else:
        rows = [contact_sheet(load_identity(cache_path(seed))) for seed in options.seeds]
        cv2.imwrite(str(options.output), cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR))


if __name__ == "__main__":
    main()
