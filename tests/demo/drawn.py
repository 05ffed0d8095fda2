"""A drawn person for tests that need no network: a disc for a head, a mouth patch whose grey tells its node."""

import cv2
import numpy as np

from demo.directions import load
from demo.faces import OPENINGS, WIDTHS, Identity, Solution
from demo.generator import IMAGE_SIZE
from demo.geometry import RIGID

MOUTH_BOX = 400, 640, 624, 760  # x0, y0, x1, y1
SKIN, WALL = 170, 90


def drawn_identity(seed: int = 0) -> Identity:
    """Mouth pictures are 40 + 100 * opening in red and 100 + 50 * width in green; closed eyes are black."""
    portrait = np.full((IMAGE_SIZE, IMAGE_SIZE, 3), WALL, np.uint8)
    cv2.ellipse(portrait, (512, 540), (240, 320), 0, 0, 360, (SKIN, SKIN, SKIN), -1)
    points = np.zeros((478, 3), np.float32)
    around = np.linspace(0, 2 * np.pi, 478, endpoint=False)
    points[:, :2] = np.stack([512 + 220 * np.cos(around), 540 + 300 * np.sin(around)], -1)
    points[list(RIGID)] = 380 * load().reference + [512, 480, 0]
    points[152] = 512, 850, 0
    points[13] = points[14] = 512, 700, 0
    x0, y0, x1, y1 = MOUTH_BOX
    mouths = np.empty((len(OPENINGS), len(WIDTHS), y1 - y0, x1 - x0, 3), np.uint8)
    for row, column in np.ndindex(mouths.shape[:2]):
        mouths[row, column] = 40 + 100 * OPENINGS[row], 100 + 50 * WIDTHS[column], 0
    eyes = np.stack([np.full((60, 200, 3), grey, np.uint8) for grey in (SKIN, 120, 60, 0)])
    numbers = np.zeros((len(OPENINGS), len(WIDTHS), 6))
    stubble = np.zeros((len(OPENINGS), len(WIDTHS)))
    origin, eye_origin, heights = np.array([x0, y0]), np.array([412, 450]), np.array([0.2, 0.15, 0.1, 0.08])
    parts = origin, mouths, numbers, numbers, stubble, eye_origin, eyes, heights
    return Identity(seed, portrait, points, *parts, drawn_solution(seed))


def drawn_solution(seed: int = 0) -> Solution:
    """Numbers of the right shapes, others for every seed."""
    rng = np.random.default_rng(seed)
    mouths = rng.normal(size=(len(OPENINGS), len(WIDTHS), 6)).astype(np.float16)
    return Solution(rng.random(2).astype(np.float32), 0.5 * seed, mouths, np.array([1, 2, 4 + seed % 8], np.uint8))
