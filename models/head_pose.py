"""How a head is turned, from 478 landmarks and MediaPipe's canonical face; numpy only."""

import numpy as np

from models.mouth import REFERENCE, RIGID


def head_pose(points: np.ndarray) -> np.ndarray:
    """[T, 3] yaw, pitch and roll in degrees of landmarks [T, 478, 3]; NaN where there is no face.

    All are 0 for a face that looks into the camera upright. Yaw is positive where the nose points to the right of the
    picture, pitch where it points up, roll where the head leans clockwise. It is the rotation that brings the points
    which do not move in speech closest to the reference face (Kabsch 1976).
    """
    angles = np.full((len(points), 3), np.nan)
    valid = np.isfinite(points).all((1, 2))
    if not valid.any():
        return angles
    rigid = points[valid][:, RIGID].astype(np.float64)
    rigid -= rigid.mean(1, keepdims=True)
    u, _, vt = np.linalg.svd(np.einsum("tpi,pj->tij", rigid, REFERENCE - REFERENCE.mean(0)))
    u[:, :, 2] *= np.sign(np.linalg.det(u @ vt))[:, None]
    turned = u @ vt
    nose, right = -turned[:, :, 2], turned[:, :, 0]
    yaw = np.arctan2(nose[:, 0], -nose[:, 2])
    pitch = np.arctan2(-nose[:, 1], np.hypot(nose[:, 0], nose[:, 2]))
    roll = np.arctan2(right[:, 1], np.hypot(right[:, 0], right[:, 2]))
    angles[valid] = np.degrees(np.stack([yaw, pitch, roll], 1))
    return angles
