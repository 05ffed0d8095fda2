"""Mouth, pose and eyes in numbers, from 478 landmarks of a face. The unit of length is the eye-corner distance.

Landmarks are first turned and scaled to a fixed frontal reference on 18 points that do not move in speech, so that a
head that turns or comes closer has the same mouth.
"""

import numpy as np

RIGID = (33, 133, 362, 263, 168, 6, 197, 195, 5, 4, 10, 151, 9, 8, 127, 356, 234, 454)
EYE_CORNERS = (33, 263)
MOUTH = ("opening", "width", "corner_height", "upper_lip", "lower_lip", "lip_depth")
POSE = ("yaw", "pitch", "roll")  # degrees; 0 looks at the camera


def similarity(points: np.ndarray, target: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Scale, rotation and shift that bring `points` [N, D] closest to `target` [N, D] (Umeyama 1991)."""
    points, target = points.astype(np.float64), target.astype(np.float64)
    mean, mean_target = points.mean(0), target.mean(0)
    centred, centred_target = points - mean, target - mean_target
    u, singular, vt = np.linalg.svd(centred_target.T @ centred)
    sign = np.ones(points.shape[1])
    sign[-1] = np.sign(np.linalg.det(u @ vt))
    rotation = (u * sign) @ vt
    scale = (singular * sign).sum() / (centred**2).sum()
    return scale, rotation, mean_target - scale * rotation @ mean


def align(points: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks [478, 3] in the frame of the reference [18, 3], and the rotation [3, 3] that was undone."""
    scale, rotation, shift = similarity(points[list(RIGID)], reference)
    return scale * points @ rotation.T + shift, rotation


def pose(rotation: np.ndarray) -> tuple[float, float, float]:
    """Yaw, pitch and roll in degrees of the head whose alignment rotation this is."""
    head = rotation.T
    yaw = np.degrees(np.arctan2(-head[2, 0], np.hypot(head[0, 0], head[1, 0])))
    pitch = np.degrees(np.arctan2(head[2, 1], head[2, 2]))
    roll = np.degrees(np.arctan2(head[1, 0], head[0, 0]))
    return float(yaw), float(pitch), float(roll)


def mouth_shape(aligned: np.ndarray) -> np.ndarray:
    """The six numbers named by MOUTH, of aligned landmarks."""

    def distance(a: int, b: int) -> float:
        return float(np.linalg.norm(aligned[a] - aligned[b]))

    corner_height = (aligned[61, 1] + aligned[291, 1]) / 2 - aligned[2, 1]
    lips = distance(0, 13), distance(14, 17)
    return np.array([distance(13, 14), distance(61, 291), corner_height, *lips, aligned[0, 2]])


def eye_height(aligned: np.ndarray) -> float:
    """The opening of both eyes together."""
    return float(np.linalg.norm(aligned[159] - aligned[145]) + np.linalg.norm(aligned[386] - aligned[374]))


def measure_mouth(points: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The six numbers named by MOUTH, of landmarks [478, 3] in pixels; NaN where no face was found."""
    if not np.isfinite(points).all():
        return np.full(len(MOUTH), np.nan)
    return mouth_shape(align(points, reference)[0])


def eye_distance(points: np.ndarray) -> float:
    """Pixels between the outer eye corners in the picture plane."""
    left, right = EYE_CORNERS
    return float(np.linalg.norm(points[left, :2] - points[right, :2]))
