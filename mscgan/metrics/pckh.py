"""PCKh: how many joints of the target's pose are found again in the generated image, as PATN counts them; and the same
measured by the torso, which passes over hardly a pair.

PCKh after tengteng95/Pose-Transfer, tool/calPCKH_market.py and calPCKH_fashion.py: the box around the head joints of
the target measures the head, and a joint is right where it is off by less than half of the box's width in x and less
than half of its height in y. A pair whose target has fewer than two head joints has no box and is passed over in
silence there; here it is NaN, to be counted. A box without width or height (two joints in one column or row) is no
reason to pass over: none of that pair's joints can be right, so that even true keypoints score below 1.

By the torso a joint is right where it is off by at most a fifth of the way from the neck to the middle of the hips. The
field's lists hold only people with shoulders and hips, so of those no pair is passed over.
"""

import numpy as np

ALPHA = 0.5  # of the box's width and height
HEAD = (0, 1, 14, 15, 16, 17)  # nose, neck, eyes, ears
ALPHA_TORSO = 0.2  # of the way from the neck to the middle of the hips
NECK, SHOULDERS, HIPS = 1, (2, 5), (8, 11)
DESCRIPTIONS = {
    "pckh": "PATN: the target's joints that an estimator finds in the generated image, off by less than half of the "
    "head box in x and in y; over all joints of all pairs whose target shows two head joints or more",
    "pck_torso": "the target's joints that an estimator finds in the generated image, off by at most 0.2 of the way "
    "from neck to mid-hip; over all joints of all pairs whose target shows these",
}


def pckh(estimated: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The share of the target's joints that are right, and of how many, for each of N pairs.

    Both are (N, 18, 2), (x, y) in pixels, a joint missing where a coordinate is -1. estimated: of the generated image.

    Returns:
        (N,) float64 in [0, 1], NaN for a pair that is passed over; (N,) int64 joints, 0 for such a pair.
    """
    estimated, target = estimated.astype(np.float64), target.astype(np.float64)
    there = (target != -1).all(-1)  # (N, 18)
    head = there[:, HEAD]
    corners = target[:, HEAD]  # (N, 6, 2)
    most = np.where(head[..., None], corners, -np.inf).max(1)
    least = np.where(head[..., None], corners, np.inf).min(1)
    near = (np.abs(estimated - target) < ALPHA * (most - least)[:, None]).all(-1)
    right = near & there & (estimated != -1).all(-1)
    return _share(right, there, head.sum(1) >= 2)


def pck_torso(estimated: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `pckh`, measured by the torso. Passed over is a pair whose target has no hip, or neither neck nor shoulders.

    A missing neck is the middle of the shoulders, a missing hip or shoulder is left out of its middle.
    """
    estimated, target = estimated.astype(np.float64), target.astype(np.float64)
    there = (target != -1).all(-1)
    neck = np.where(there[:, NECK, None], target[:, NECK], _middle(target, there, SHOULDERS))
    torso = np.linalg.norm(neck - _middle(target, there, HIPS), axis=-1)  # (N,), NaN where it cannot be measured
    near = np.linalg.norm(estimated - target, axis=-1) <= ALPHA_TORSO * torso[:, None]
    right = near & there & (estimated != -1).all(-1)
    return _share(right, there, ~np.isnan(torso))


def _share(right: np.ndarray, there: np.ndarray, counted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of (N, 18) right joints and those that are there: the share and of how many, as above, of the pairs `counted`."""
    joints = np.where(counted, there.sum(1), 0)
    share = np.full(len(there), np.nan)
    share[counted] = right[counted].sum(1) / joints[counted]
    return share, joints


def _middle(poses: np.ndarray, there: np.ndarray, joints: tuple[int, ...]) -> np.ndarray:
    """The mean of those of the joints that are there: (N, 18, 2) -> (N, 2), NaN where none is."""
    several, weights = poses[:, joints], there[:, joints, None]
    count = weights.sum(1)
    return np.divide((several * weights).sum(1), count, out=np.full((len(poses), 2), np.nan), where=count > 0)


def over_joints(share: np.ndarray, joints: np.ndarray) -> float:
    """PATN's one number: right joints of all pairs over all their joints, so a pair weighs as its joints do.

    share, joints: (N,), as `pckh` gives them. NaN where every pair is passed over.
    """
    counted = joints > 0
    return float(np.average(share[counted], weights=joints[counted])) if counted.any() else float("nan")
