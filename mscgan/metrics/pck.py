"""PCK: how many joints an estimator finds near to where they are, by the length of the person's torso."""

import numpy as np

ALPHA = 0.2  # of the torso
NECK, HIPS = 1, (8, 11)
DESCRIPTION = "PCK@0.2: joints that are found within 0.2 of the distance from neck to mid-hip, of all that are there"


def pck(estimated: np.ndarray, true: np.ndarray, alpha: float = ALPHA) -> tuple[np.ndarray, np.ndarray]:
    """The share of the joints that are right, and of how many, for each of N images.

    Both are (N, 18, 2), (x, y) in pixels, a joint missing where a coordinate is -1. A joint that is not found is wrong;
    one that is found and not there counts for nothing.

    Returns:
        (N,) float64 in [0, 1], NaN for a person without neck or a hip, who has no torso to measure by; (N,) int64
        joints, 0 for such a person. metrics.pckh.over_joints makes one number of them.
    """
    estimated, true = estimated.astype(np.float64), true.astype(np.float64)
    there = (true != -1).all(-1)  # (N, 18)
    torso = np.linalg.norm(true[:, NECK] - true[:, HIPS].mean(1), axis=-1)
    near = np.linalg.norm(estimated - true, axis=-1) <= alpha * torso[:, None]
    right = near & there & (estimated != -1).all(-1)
    counted = there[:, NECK] & there[:, HIPS].all(1)
    joints = np.where(counted, there.sum(1), 0)
    share = np.full(len(true), np.nan)
    share[counted] = right[counted].sum(1) / joints[counted]
    return share, joints
