"""What the mouth of a clip does, from landmarks: 28 numbers a frame that do not depend on how the head is held.

numpy only; the landmarks come from `models.face_landmarks`.
"""

import numpy as np

TINY = 1e-12

# Points that the mouth does not move, and where MediaPipe's canonical face model has them (no person's face; symmetric;
# from geometry_pipeline_metadata_landmarks.binarypb in face_landmarker.task): x right, y down, z away from the
# camera, centred, distance between the outer eye corners (33, 263) = 1.
RIGID = (33, 133, 362, 263, 168, 6, 197, 195, 5, 4, 10, 151, 9, 8, 127, 356, 234, 454)
REFERENCE = np.array(
    [
        [-0.5, 0.0048, 0.0436],
        [-0.2088, 0.0137, -0.0221],
        [0.2088, 0.0137, -0.0221],
        [0.5, 0.0048, 0.0436],
        [0.0, -0.0635, -0.1883],
        [0.0, 0.0263, -0.2505],
        [0.0, 0.11, -0.3099],
        [0.0, 0.1853, -0.3614],
        [0.0, 0.2633, -0.414],
        [0.0, 0.3565, -0.4527],
        [0.0, -0.6247, -0.1035],
        [0.0, -0.4317, -0.1649],
        [0.0, -0.2451, -0.2051],
        [0.0, -0.1476, -0.1938],
        [-0.8708, 0.0384, 0.626],
        [0.8708, 0.0384, 0.626],
        [-0.8619, 0.2287, 0.6745],
        [0.8619, 0.2287, 0.6745],
    ]
)

# Columns of the 52 blendshapes: jawOpen mouthClose mouthFunnel mouthPucker mouthRollLower/Upper mouthShrugLower/Upper,
# then left and right of mouthStretch mouthLowerDown mouthUpperUp mouthPress mouthSmile mouthDimple.
BLENDSHAPES = (25, 27, 32, 38, 40, 41, 42, 43)
BLENDSHAPE_PAIRS = ((46, 47), (34, 35), (48, 49), (36, 37), (44, 45), (28, 29))
CHANNELS = 28
MOTIONS = 2 * CHANNELS
LIP_OPENING = 0  # the channel with the distance of the inner lips


def align(points: np.ndarray) -> np.ndarray:
    """Landmarks [T, 478, 3] turned, scaled and moved onto the reference face, frame by frame (Umeyama 1991)."""
    rigid = points[:, RIGID].astype(np.float64)
    centre = rigid.mean(1, keepdims=True)
    rigid = rigid - centre
    u, spread, vt = np.linalg.svd(np.einsum("pi,tpj->tij", REFERENCE, rigid))
    handedness = np.ones_like(spread)
    handedness[:, 2] = np.sign(np.linalg.det(u @ vt))
    rotation = np.einsum("tik,tk,tkj->tij", u, handedness, vt)
    scale = (spread * handedness).sum(1) / np.maximum((rigid**2).sum((1, 2)), TINY)
    return scale[:, None, None] * np.einsum("tij,tpj->tpi", rotation, points - centre)


def mouth_channels(points: np.ndarray, blendshapes: np.ndarray) -> np.ndarray:
    """The 28 numbers of a mouth per frame: [T, 28] float32, NaN where there is no face.

    `points` [T, 478, 3] in pixels, `blendshapes` [T, 52] in the model's order. Distances are in units of the outer eye
    corners' distance and do not depend on where the head is, how it is turned or how large it is.
    """
    channels = np.full((len(points), CHANNELS), np.nan, np.float32)
    valid = np.isfinite(points).all((1, 2)) & np.isfinite(blendshapes).all(1)
    if not valid.any():
        return channels
    aligned, shapes = align(points[valid]), blendshapes[valid]

    def distance(a: int, b: int) -> np.ndarray:
        return np.linalg.norm(aligned[:, a] - aligned[:, b], axis=1)

    y, z = 1, 2
    channels[valid] = np.stack(
        [
            distance(13, 14),
            (distance(82, 87) + distance(312, 317)) / 2,
            distance(61, 291),
            distance(78, 308),
            distance(0, 17),
            distance(0, 13),
            distance(14, 17),
            aligned[:, 17, y],
            aligned[:, 0, y],
            aligned[:, 0, z],
            aligned[:, 17, z],
            (aligned[:, 61, y] + aligned[:, 291, y]) / 2,
            distance(17, 152),
            aligned[:, 152, y],
            *(shapes[:, column] for column in BLENDSHAPES),
            *((shapes[:, left] + shapes[:, right]) / 2 for left, right in BLENDSHAPE_PAIRS),
        ],
        axis=1,
    )
    return channels


def valid_share(channels: np.ndarray) -> float:
    """Share of frames in which a face was measured."""
    return float(np.isfinite(channels).all(1).mean()) if len(channels) else 0.0


def motion(channels: np.ndarray) -> np.ndarray:
    """Mouth motion of a clip: [T, 56] float32, 28 positions without their slow part, then 28 velocities; unit variance.

    Frames without a face are interpolated.
    """
    filled = _fill(channels)
    z = _unit(filled - filled.mean(0))
    position, velocity = z - _smooth(z, 12.0), np.gradient(_smooth(z, 0.7), axis=0)
    return np.concatenate([_unit(position), _unit(velocity)], 1).astype(np.float32)


def _fill(channels: np.ndarray) -> np.ndarray:
    valid = np.isfinite(channels).all(1)
    if valid.all():
        return channels.astype(np.float64)
    frames, known = np.arange(len(channels)), np.flatnonzero(valid)
    return np.stack([np.interp(frames, known, column[known]) for column in channels.T.astype(np.float64)], 1)


def _unit(x: np.ndarray) -> np.ndarray:
    std = x.std(0)
    return np.where(std > 1e-6, x / np.maximum(std, 1e-6), 0.0)


def _smooth(x: np.ndarray, sigma: float) -> np.ndarray:
    radius = int(4 * sigma + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    padded = np.pad(x, ((radius, radius), (0, 0)), mode="symmetric")
    return np.stack([np.convolve(column, kernel / kernel.sum(), "valid") for column in padded.T], 1)
