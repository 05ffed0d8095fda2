"""One person who does not exist: a still portrait, its mouth in 40 shapes and its eyelids in 3.

The mouth shapes are solved, not chosen: for each node of a grid (8 openings x 5 widths) a few Gauss-Newton steps in
style space bring the landmarks of the face to the wanted opening and width. The drawn faces drift in identity, so only
the lower face of each is kept, blended into the one portrait. What that gives up: cheeks and brows do not move, teeth
are always the upper row, and a beard may change with the mouth (VETTED leaves those people out).

The search takes two thirds of the time, and all it finds is a few numbers: solved.npz keeps them for the people below,
who are drawn from it and measured again.

    python -m demo.faces learn            directions.npz again, from the generator alone (about 10 CPU minutes)
    python -m demo.faces build 0 5 7      identities into the cache, with what the acceptance test says
    python -m demo.faces sheet 0 5 7 -o sheet.png
    python -m demo.faces portraits 130 199 -o sheet.png     who might be worth it, before anything is solved
    python -m demo.faces keep             the solutions of all the people below from the cache into solved.npz
"""

import argparse
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.progress import track

import weights
from demo import directions as learned
from demo.directions import Directions, stubble_energy
from demo.generator import FACE, IMAGE_SIZE, WEIGHTS, Generator, half_size, truncate
from demo.geometry import MOUTH, RIGID, align, eye_distance, eye_height, measure_mouth, pose
from models.face_landmarks import FACE_OVAL, FaceLandmarks

log = logging.getLogger(__name__)

# Adults, frontal, nothing before the mouth, no beard that comes and goes. Every one was looked at: portrait and grid.
# Looked at and refused: 25 52 64 71 107 (a moustache or goatee in some nodes), 9 (looks like a child).
VETTED = {
    0: "high", 7: "high", 11: "low", 18: "high", 21: "high", 23: "low",
    60: "high", 85: "high", 97: "high", 100: "high", 101: "high", 103: "high",
}  # fmt: skip
# The people a speaker model is measured on; none of them is ever in its training.
STRANGERS = {
    114: "high", 116: "low", 118: "high", 121: "high", 125: "low",
    174: "low", 306: "high", 355: "high", 366: "low", 410: "high",
}  # fmt: skip
# All the people a speaker model is trained on: here a beard may vary a little with the mouth.
SPEAKERS = VETTED | {
    117: "low", 146: "low", 156: "high", 187: "high", 210: "high", 226: "high", 237: "high", 247: "high",
    293: "high", 312: "high", 378: "high", 413: "high",
    421: "high", 431: "low", 434: "low", 489: "high", 509: "low", 517: "high", 530: "low", 559: "low", 586: "low",
    600: "high", 609: "low", 623: "low", 625: "low", 649: "low", 651: "low", 692: "high", 711: "low", 716: "low",
    720: "high", 774: "high", 800: "high", 803: "high", 839: "low",
    454: "low", 498: "high", 514: "high", 632: "high", 652: "low", 691: "low", 788: "high", 814: "high",
    815: "low", 832: "high", 834: "high", 849: "high",
}  # fmt: skip
# Looked at and refused for both. The grid: 112 (a goatee that vanishes as the mouth opens), 124 (a hand at the chin
# cuts it), 126 (dark patches for closed eyes), 155 (eyes hardly open), 195 (a moustache and stubble
# when the mouth is rounded), 282 (a moustache grows when it opens), 315 (grey whiskers come and go), 510 838 (something
# at the chin as it opens), 593 (dark patches for closed eyes).
# The portrait: 110 113 119 123 127 129 131 133 134 137 142 145 148 162 163 182 184 188 203 207 208 217 228 253 272 278
# 284 298 299 304 308 334 397 418 (look under age, or may be), 164 241 322 324 331 (dark glasses), 145 (a hand).
# Not frontal: whoever `portraits` leaves out, among them 111 115 120 122 128.
GROUPS = {"vetted": VETTED, "speakers": SPEAKERS, "strangers": STRANGERS}
PITCHES = {"high": (1.15, 1.32), "low": (0.9, 1.04)}  # of the one voice, per kind of person

OPENINGS = (0.0, 0.05, 0.13, 0.25, 0.4, 0.58, 0.78, 1.0)
WIDTHS = (-1.0, -0.5, 0.0, 0.5, 1.0)
FULL_OPENING = 0.17  # eye-corner distances; the 95 % quantile of real talkers
PUCKER, SPREAD = 0.075, 0.055  # width below and above neutral at -1 and +1
MOVED_LAYERS = slice(2, 11)  # 8 to 64 px: mouth shape lives here; other layers would move background and hair
NEUTRAL_WIDTH, NEUTRAL_OPENING = 0.60, 0.015
ANCHOR_OPENING = 0.05  # closed lips have no slope to follow: the Jacobian is taken where the mouth is a little open
OPENING = np.eye(len(MOUTH))[0]  # coefficients of one unit of opening alone
PROBE_STEP = 0.4
TOLERANCE = np.array([0.008, 0.012, 0.02, 0.012, 0.015, 0.03])  # sigma of the six numbers of MOUTH
DAMPING, PULL = 0.6, 0.12
COEFFICIENT_LIMITS = np.array([5.0, 3, 3, 3, 3, 3])
PARTED = 0.012  # less than this and the lips touch
SURROUNDINGS = 64  # pixels around a patch whose light is compared
LIGHT_STEP = 40  # grey levels; a larger difference is not light
NODE_CALLS, CLOSE_ENOUGH = 3, 0.9  # pictures per node at most; enough when opening and width are within this many sigma
CLOSED_EYES, EYE_STEPS = 0.42, 12  # of the open height, and steps to get there; further the eyelid breaks
FRONTAL = np.array([12, 11, 3])  # yaw, pitch, roll in degrees
PORTRAIT_TILE, PORTRAIT_COLUMNS = 190, 10
CACHE_VERSION = 3

SOLVED = Path(__file__).with_name("solved.npz")
SOLUTION_PREFIX = "solution_"

CHIN = (379, 378, 400, 377, 152, 148, 176, 149, 150)
CHEEKS_AND_NOSE = (207, 427, 216, 436, 98, 2, 327)
EYES = ((33, 133, 159, 145), (362, 263, 386, 374))


@dataclass(frozen=True)
class Solution:
    """What the search found about one seed: all that its identity is drawn from, and no picture."""

    neutral: np.ndarray  # [2] float32 steps along the directions `narrow` and `shut` to the neutral base
    anchor: float  # coefficient of `opening` at which the mouth is a little open
    mouths: np.ndarray  # [8, 5, 6] float16 coefficients of the mouth directions, opening x width
    eyes: np.ndarray  # [3] uint8 steps of the closing eyes


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
    solution: Solution

    def save(self, path: Path) -> None:
        """Writes one file by rename, so that a half-written one is never read."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}")
        with partial.open("wb") as file:
            arrays: dict[str, Any] = {**vars(self)}
            found = vars(arrays.pop("solution"))
            np.savez_compressed(file, **arrays, **{SOLUTION_PREFIX + name: value for name, value in found.items()})
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
    found = {f.name: values.pop(SOLUTION_PREFIX + f.name) for f in fields(Solution)}
    values["seed"] = int(values["seed"])
    return Identity(**values, solution=_solution(found))


def load_solutions(path: Path = SOLVED) -> dict[int, Solution]:
    """What is known of each seed without any search: the table that comes with the repository."""
    with np.load(path, allow_pickle=False) as table:
        rows = [{f.name: table[f.name][i] for f in fields(Solution)} for i in range(len(table["seed"]))]
        return {int(seed): _solution(row) for seed, row in zip(table["seed"], rows, strict=True)}


def save_solutions(solutions: dict[int, Solution], path: Path = SOLVED) -> None:
    """Writes the table, a row per seed in their order: about 1 KB each."""
    chosen = [solutions[seed] for seed in sorted(solutions)]
    columns = {f.name: np.stack([np.asarray(getattr(s, f.name)) for s in chosen]) for f in fields(Solution)}
    np.savez(path, allow_pickle=False, seed=np.array(sorted(solutions)), **columns)


def _solution(row: dict[str, np.ndarray]) -> Solution:
    return Solution(row["neutral"], float(row["anchor"]), row["mouths"], row["eyes"])


def cache_path(seed: int) -> Path:
    """Where the identity of a seed is kept: beside the weights, in the user's cache."""
    return weights.cache_folder() / "demo" / f"face-v{CACHE_VERSION}-{seed}.npz"


@dataclass(frozen=True)
class Sight:
    """What the portrait looks like with some coefficients."""

    coefficients: np.ndarray  # [6] of the mouth directions, float64 that float16 can hold
    picture: np.ndarray  # of the mouth patch
    mouth: np.ndarray  # [6] numbers of MOUTH measured on the whole portrait; NaN without a face
    stubble: float  # mean change of stubble energy against the portrait


See = Callable[[np.ndarray], Sight]


class Sculptor:
    """Draws, measures and solves: holds the networks and the directions."""

    def __init__(self, generator: Generator, landmarks: FaceLandmarks, directions: Directions, usual: np.ndarray):
        self.generator, self.landmarks, self.directions, self.usual = generator, landmarks, directions, usual

    def draw(self, styles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The picture of a style and its landmarks [478, 3] in the picture's pixels (NaN: no face)."""
        image = self.generator.render(styles)
        return image, self.find_points(image)

    def draw_face(self, styles: np.ndarray, portrait: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `draw`, but only the face is drawn: the rest is the portrait's. It takes half the time."""
        image = portrait.copy()
        image[FACE] = self.generator.render_face(styles)
        return image, self.find_points(image)

    def find_points(self, image: np.ndarray) -> np.ndarray:
        """Landmarks of a 1024-px picture, measured on its half-size version as everywhere."""
        return 2 * self.landmarks.measure(half_size(image)[None]).points[0]

    def mouth(self, points: np.ndarray) -> np.ndarray:
        """The six numbers of MOUTH; NaN without a face."""
        return measure_mouth(points, self.directions.reference)

    def base(self, seed: int, neutral: np.ndarray) -> np.ndarray:
        """The style of a seed, `neutral` steps along the directions `narrow` and `shut` away: [23, 512]."""
        style = np.tile(truncate(self.generator.style(seed), self.directions.mean_style), (23, 1))
        style[MOVED_LAYERS] += neutral @ np.stack([self.directions.narrow, self.directions.shut])
        return style.astype(np.float32)

    def _find_neutral(self, seed: int) -> np.ndarray:
        """The steps that take the grin off: closed lips of ordinary width."""
        neutral = np.zeros(2, np.float32)
        for _ in range(3):
            opening, width = self.mouth(self.draw(self.base(seed, neutral))[1])[:2]
            if not np.isfinite(opening):
                raise ValueError(f"seed {seed}: no face found in the portrait; choose another seed")
            narrow = np.clip((width - NEUTRAL_WIDTH) / 0.1, 0, 1.2)
            shut = np.clip((opening - NEUTRAL_OPENING) / 0.1, -0.3, 1.2)
            if narrow < 0.1 and abs(shut) < 0.05:
                break
            neutral += np.array([0.8 * narrow, 0.8 * shut], np.float32)
        return neutral

    def moved(self, base: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
        """The base style with the mouth directions added to the layers that shape mouths."""
        styles = base.copy()
        styles[MOVED_LAYERS] += (coefficients @ self.directions.mouth).astype(np.float32)
        return styles

    def _find_anchor(self, base: np.ndarray) -> float:
        """The coefficient of `opening` at which the mouth is a little open."""
        anchor, (portrait, points) = 0.0, self.draw(base)
        for _ in range(9):
            if self.mouth(points)[0] >= ANCHOR_OPENING:
                break
            anchor += 0.5
            points = self.draw_face(self.moved(base, anchor * OPENING), portrait)[1]
        return anchor

    def solve(self, seed: int) -> tuple[Solution, "Sitter"]:
        """Search what an identity is drawn from: about 110 pictures, which the sitter remembers."""
        neutral = self._find_neutral(seed)
        base = self.base(seed, neutral)
        anchor = self._find_anchor(base)
        sitter = Sitter(self, base, anchor)
        nodes = _solve_grid(sitter.see, sitter.targets, anchor * OPENING, self.usual)
        shape = len(OPENINGS), len(WIDTHS)
        mouths = np.array([nodes[index].coefficients for index in np.ndindex(shape)], np.float16)
        return Solution(neutral, anchor, mouths.reshape(*shape, -1), sitter.find_eye_steps()), sitter

    def build(self, seed: int, solution: Solution | None = None) -> Identity:
        """Everything about one seed: drawn from its solution, 45 pictures; without one it is searched for first."""
        if solution is None:
            solution, sitter = self.solve(seed)
        else:
            sitter = Sitter(self, self.base(seed, solution.neutral), solution.anchor)
        shape = len(OPENINGS), len(WIDTHS)
        sights = [sitter.see(solution.mouths[index]) for index in np.ndindex(shape)]
        closing = [sitter.close_eyes(step) for step in solution.eyes.tolist()]
        eye_patch = Patch(sitter.portrait, sitter.points, eye_mask(sitter.points))
        return Identity(
            seed=seed,
            portrait=sitter.portrait,
            points=sitter.points,
            mouth_origin=sitter.patch.origin,
            mouths=np.stack([s.picture for s in sights]).reshape(*shape, *sights[0].picture.shape),
            mouth_targets=sitter.targets,
            mouth_measured=np.stack([s.mouth for s in sights]).reshape(*shape, -1),
            mouth_stubble=np.array([s.stubble for s in sights]).reshape(shape),
            eye_origin=eye_patch.origin,
            eyes=np.stack([eye_patch.cut(sitter.portrait), *(eye_patch.blend(*drawn) for drawn in closing)]),
            eye_heights=np.array([sitter.eye_height(points) for points in (sitter.points, *(p for _, p in closing))]),
            solution=solution,
        )


class Sitter:
    """One person before the sculptor: the portrait, and every picture of it drawn so far."""

    def __init__(self, sculptor: Sculptor, base: np.ndarray, anchor: float):
        self._sculptor, self._base = sculptor, base
        self.portrait, self.points = sculptor.draw(base)
        wide_open = self._draw(sculptor.moved(base, anchor * OPENING * FULL_OPENING / ANCHOR_OPENING))[1]
        self.patch = Patch(self.portrait, self.points, lower_face_mask(self.points, [self.points, wide_open]))
        self.targets = node_targets(sculptor.mouth(self.points))
        self._quiet = stubble_energy(self.portrait, self.points)
        self._sights: dict[bytes, Sight] = {}
        self._closed: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def _draw(self, styles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._sculptor.draw_face(styles, self.portrait)

    def see(self, coefficients: np.ndarray) -> Sight:
        """The portrait with this mouth. Coefficients are rounded to what is kept of them, float16."""
        coefficients = coefficients.astype(np.float16)
        key = coefficients.tobytes()
        if key not in self._sights:
            self._sights[key] = self._see(coefficients.astype(np.float64))
        return self._sights[key]

    def _see(self, coefficients: np.ndarray) -> Sight:
        # Judged as it will be shown: landmarks of a drawn face and of its mouth in the portrait differ.
        picture = self.patch.blend(*self._draw(self._sculptor.moved(self._base, coefficients)))
        whole = self.patch.on_portrait(picture)
        seen = self._sculptor.find_points(whole)
        stubble = np.abs(stubble_energy(whole, seen) - self._quiet).mean() if np.isfinite(seen).all() else np.inf
        return Sight(coefficients, picture, self._sculptor.mouth(seen), float(stubble))

    def eye_height(self, points: np.ndarray) -> float:
        """The opening of both eyes together; inf without a face."""
        if not np.isfinite(points).all():
            return np.inf
        return eye_height(align(points, self._sculptor.directions.reference)[0])

    def close_eyes(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """The person some steps towards closed eyes, and the landmarks."""
        if step not in self._closed:
            styles = self._base.copy()
            styles[MOVED_LAYERS] += 0.35 * step * self._sculptor.directions.close_eyes
            self._closed[step] = self._draw(styles)
        return self._closed[step]

    def find_eye_steps(self) -> np.ndarray:
        """The three steps whose eyes are .4, .7 and all of the way from open to closed."""
        open_height, heights = self.eye_height(self.points), []
        for step in range(1, EYE_STEPS + 1):
            heights.append(self.eye_height(self.close_eyes(step)[1]))
            if heights[-1] < CLOSED_EYES * open_height:
                break
        path = np.array(heights)
        wanted = open_height + (path.min() - open_height) * np.array([0.4, 0.7, 1.0])
        return np.array([1 + np.abs(path - height).argmin() for height in wanted], np.uint8)


def _solve_grid(see: See, targets: np.ndarray, anchor: np.ndarray, usual: np.ndarray) -> dict[tuple[int, int], Sight]:
    """The best sight of every node (row, column), each started from its neighbour's solution.

    The first step from there is the one that other people needed: `usual` holds their mean coefficients [8, 5, 6].
    """
    jacobian = np.zeros((len(MOUTH), len(MOUTH)))
    for k, step in enumerate(PROBE_STEP * np.eye(len(MOUTH))):
        jacobian[:, k] = (see(anchor + step).mouth - see(anchor - step).mouth) / (2 * PROBE_STEP) / TOLERANCE
    at_anchor = see(anchor)
    found: dict[tuple[int, int], Sight] = {}
    middle, centre = len(OPENINGS) // 2, len(WIDTHS) // 2
    for column in (*range(centre, -1, -1), *range(centre + 1, len(WIDTHS))):
        for row in (*range(middle, len(OPENINGS)), *reversed(range(middle))):
            towards_middle = (row - 1 if row > middle else row + 1, column)
            beside = (row, column + 1 if column < centre else column - 1)
            nearest = towards_middle if row != middle else beside
            start = found.get(nearest, at_anchor)
            step = usual[row, column] - usual[nearest] if nearest in found else None
            found[row, column], jacobian = _solve_node(see, targets[row, column], start, anchor, jacobian, step)
    return found


def _solve_node(
    see: See,
    target: np.ndarray,
    start: Sight,
    anchor: np.ndarray,
    jacobian: np.ndarray,
    step: np.ndarray | None = None,
) -> tuple[Sight, np.ndarray]:
    """The best sight on the way from a neighbour to a node by damped Gauss-Newton, and the Jacobian as then known.

    With a `step`, the first is that one.
    """
    best, best_error, sight = start, np.inf, start
    for call in range(NODE_CALLS + 1):
        residual = (target - sight.mouth) / TOLERANCE
        error = float(np.linalg.norm(residual[:2]))
        if error < best_error:
            best, best_error = sight, error
        if error < CLOSE_ENOUGH or call == NODE_CALLS:
            break
        if step is None or call > 0:
            pull = PULL * (sight.coefficients - anchor)
            pull[0] = 0
            step = np.linalg.solve(jacobian.T @ jacobian + DAMPING * np.eye(len(MOUTH)), jacobian.T @ residual - pull)
        coefficients = np.clip(sight.coefficients + np.clip(step, -1, 1), -3, COEFFICIENT_LIMITS)
        before, sight = sight, see(coefficients)
        if not np.isfinite(sight.mouth).all():
            break
        if sight.mouth[0] > PARTED:  # Broyden; closed lips teach nothing
            taken = sight.coefficients - before.coefficients
            change = (sight.mouth - before.mouth) / TOLERANCE
            jacobian = jacobian + np.outer(change - jacobian @ taken, taken) / max(taken @ taken, 0.05)
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


@cache
def open_sculptor() -> Sculptor:
    """The networks from the weights cache and the repository's directions; raises WeightsError if one is missing."""
    usual = np.stack([s.mouths for s in load_solutions().values()]).astype(np.float64).mean(0)
    return Sculptor(*_open_networks(), learned.load(), usual)


def _open_networks() -> tuple[Generator, FaceLandmarks]:
    files = weights.require(*WEIGHTS, "face_landmarker")
    return Generator(*[files[name] for name in WEIGHTS]), FaceLandmarks(files["face_landmarker"])


def _is_frontal(points: np.ndarray, reference: np.ndarray) -> bool:
    return bool((np.abs(pose(align(points, reference)[1])) <= FRONTAL).all())


def problems(identity: Identity, directions: Directions) -> list[str]:
    """Why this identity should not be used; empty if it passes. Child-like faces are not found by it: look at them."""
    found = []
    aligned, rotation = align(identity.points, directions.reference)
    if not _is_frontal(identity.points, directions.reference):
        yaw, pitch, roll = pose(rotation)
        found.append(f"not frontal: yaw {yaw:.0f}, pitch {pitch:.0f}, roll {roll:.0f} degrees")
    if eye_height(aligned) < 0.11:
        found.append(f"eyes not open: {eye_height(aligned):.3f}")
    found += mouth_problems(identity)
    if identity.eye_heights[-1] > 0.65 * identity.eye_heights[0]:
        found.append("eyes do not close")
    if identity.mouth_stubble.mean() > 1.2:
        found.append(f"beard comes and goes: {identity.mouth_stubble.mean():.1f} grey levels")
    return found


def mouth_problems(identity: Identity) -> list[str]:
    """Where the drawn mouths are not those that were asked for; empty if they are."""
    found = []
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
    return found


def build_identity(seed: int, sculptor: Sculptor, solutions: dict[int, Solution]) -> Identity:
    """The identity of a seed: drawn if its solution is known and gives the mouths it should, else searched for."""
    if (solution := solutions.get(seed)) is None:
        return sculptor.build(seed)
    drawn = sculptor.build(seed, solution)
    if not (wrong := mouth_problems(drawn)):
        return drawn
    log.warning("face %d: its entry in %s does not fit (%s); it is searched for again", seed, SOLVED, "; ".join(wrong))
    return sculptor.build(seed)


def _learn(seeds: int) -> None:
    """Writes directions.npz: draws the faces, measures, fits."""
    generator, landmarks = _open_networks()
    drawn = learned.collect(generator, landmarks, track(range(seeds), "faces"))
    directions, correlations = learned.learn(drawn, generator.mean_style())
    directions.save(learned.PATH)
    for name, correlation in correlations.items():
        print(f"{name:14} predicted on unseen faces with correlation {correlation:.2f}")
    print(f"{learned.PATH}: {learned.PATH.stat().st_size} bytes from {len(drawn)} faces")


def _build(seeds: Sequence[int], search: bool) -> None:
    sculptor, solutions = open_sculptor(), {} if search else load_solutions()
    for seed in seeds:
        began = time.process_time()
        if search or not cache_path(seed).exists():
            build_identity(seed, sculptor, solutions).save(cache_path(seed))
        found = problems(load_identity(cache_path(seed)), sculptor.directions)
        spent = f"{time.process_time() - began:.0f} CPU seconds"
        print(f"{seed}: {'; '.join(found) or 'good'}  ({spent}, {cache_path(seed)})", flush=True)


def _keep() -> None:
    """Writes solved.npz: what is in the cache about the people of the groups, and in the table about the rest."""
    solutions = load_solutions() if SOLVED.exists() else {}
    cached = [seed for seed in SPEAKERS | STRANGERS if cache_path(seed).exists()]
    solutions |= {seed: load_identity(cache_path(seed)).solution for seed in cached}
    solutions = {seed: solution for seed, solution in solutions.items() if seed in SPEAKERS | STRANGERS}
    save_solutions(solutions)
    missing = sorted(set(SPEAKERS | STRANGERS) - set(solutions))
    print(f"{SOLVED}: {len(solutions)} people, {SOLVED.stat().st_size} bytes; missing: {missing or 'nobody'}")


def _portraits(seeds: Iterable[int], output: Path) -> None:
    """One sheet of small portraits with their seeds, frontal faces only, for people to choose from."""
    sculptor, tiles = open_sculptor(), []
    for seed in track(seeds, "portraits"):
        image, points = sculptor.draw(sculptor.base(seed, np.zeros(2)))
        if not np.isfinite(points).all() or not _is_frontal(points, sculptor.directions.reference):
            continue
        tile = cv2.resize(image[60:], (PORTRAIT_TILE, PORTRAIT_TILE), interpolation=cv2.INTER_AREA)
        tiles.append(cv2.putText(tile, str(seed), (4, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 0, 0), 2))
    if not tiles:
        raise ValueError("none of these seeds is frontal")
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % PORTRAIT_COLUMNS)
    rows = [np.hstack(tiles[i : i + PORTRAIT_COLUMNS]) for i in range(0, len(tiles), PORTRAIT_COLUMNS)]
    cv2.imwrite(str(output), cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR))


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
    building.add_argument("--search", action="store_true", help="even if the cache or solved.npz knows the person")
    looking = commands.add_parser("portraits", help="one picture of small portraits, to choose people from")
    looking.add_argument("first", type=int)
    looking.add_argument("last", type=int)
    looking.add_argument("-o", "--output", type=Path, required=True)
    commands.add_parser("keep", help="what the cache knows of the chosen people into solved.npz")
    options = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    if options.command == "learn":
        _learn(options.seeds)
    elif options.command == "build":
        _build(options.seeds, options.search)
    elif options.command == "keep":
        _keep()
    elif options.command == "portraits":
        _portraits(range(options.first, options.last + 1), options.output)
    else:
        rows = [contact_sheet(load_identity(cache_path(seed))) for seed in options.seeds]
        cv2.imwrite(str(options.output), cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR))


if __name__ == "__main__":
    main()
