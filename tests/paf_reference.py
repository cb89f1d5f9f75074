"""The decoding rule of the field's files once more, pixel by pixel and in scipy, for comparison."""

import numpy as np
from scipy.ndimage import gaussian_filter

# Joints counted from 1, and the channels as the files number them: they begin at 19, behind the confidence maps.
LIMBS = [[2, 3], [2, 6], [3, 4], [4, 5], [6, 7], [7, 8], [2, 9], [9, 10], [10, 11], [2, 12], [12, 13], [13, 14],
         [2, 1], [1, 15], [15, 17], [1, 16], [16, 18], [3, 17], [6, 18]]  # fmt: skip
CHANNELS = [[31, 32], [39, 40], [33, 34], [35, 36], [41, 42], [43, 44], [19, 20], [21, 22], [23, 24], [25, 26],
            [27, 28], [29, 30], [47, 48], [49, 50], [53, 54], [51, 52], [55, 56], [37, 38], [45, 46]]  # fmt: skip


def peaks(maps: np.ndarray, sigma: float) -> list[list[tuple[int, int, float]]]:
    """Of each joint [(x, y, score)]."""
    found = []
    for one in maps.astype(np.float64):
        smooth = gaussian_filter(one, sigma=sigma)
        height, width = one.shape
        of_joint = []
        for y in range(height):
            for x in range(width):
                at = lambda i, j: smooth[i, j] if 0 <= i < height and 0 <= j < width else 0.0  # noqa: B023, E731
                here = smooth[y, x]
                before = here > at(y, x - 1) and here > at(y - 1, x)
                if before and here >= at(y, x + 1) and here >= at(y + 1, x) and here > 0.1:
                    of_joint.append((x, y, one[y, x]))
        found.append(of_joint)
    return found


def limbs(fields: np.ndarray, of_joints: list) -> list[list[tuple[int, int, float]]]:
    """Of each limb [(peak of the first joint, of the second, score)], each counted from 0 within its joint."""
    found = []
    for (a, b), (cx, cy) in zip(LIMBS, CHANNELS):
        field_x, field_y = fields[cx - 19].astype(np.float64), fields[cy - 19].astype(np.float64)
        candidates = []
        for i, (ax, ay, _) in enumerate(of_joints[a - 1]):
            for j, (bx, by, _) in enumerate(of_joints[b - 1]):
                vx, vy = bx - ax, by - ay
                norm = np.sqrt(float(vx * vx + vy * vy))
                if norm == 0:
                    continue
                scores = []
                for x, y in zip(np.linspace(ax, bx, 10), np.linspace(ay, by, 10)):
                    x, y = int(np.floor(x + 0.5)), int(np.floor(y + 0.5))
                    scores.append(field_x[y, x] * (vx / norm) + field_y[y, x] * (vy / norm))
                score = sum(scores) / 10 + min(0.5 * fields.shape[1] / norm - 1, 0)
                if sum(s > 0.05 for s in scores) > 0.8 * 10 and score > 0:
                    candidates.append((i, j, score))
        candidates.sort(key=lambda one: one[2], reverse=True)
        chosen: list[tuple[int, int, float]] = []
        for i, j, score in candidates:
            if all(i != p and j != q for p, q, _ in chosen):
                chosen.append((i, j, score))
                if len(chosen) >= min(len(of_joints[a - 1]), len(of_joints[b - 1])):
                    break
        found.append(chosen)
    return found


def rows(fields: np.ndarray, maps: np.ndarray, sigma: float = 3.0) -> tuple[np.ndarray, list[tuple[int, int, float]]]:
    """The people, (n, 20): 18 numbers of peaks, -1 without, then score and count; and the peaks by their numbers."""
    of_joints = peaks(maps[:18], sigma)
    first = np.cumsum([0] + [len(those) for those in of_joints])
    everyone = [peak for those in of_joints for peak in those]
    subset = np.empty((0, 20))
    for k, ((a, b), found) in enumerate(zip(LIMBS, limbs(fields, of_joints))):
        a, b = a - 1, b - 1
        for i, j, score in found:
            part_a, part_b = first[a] + i, first[b] + j
            at = [n for n in range(len(subset)) if subset[n][a] == part_a or subset[n][b] == part_b]
            if len(at) == 1:
                row = subset[at[0]]
                if row[b] != part_b:
                    row[b] = part_b
                    row[-1] += 1
                    row[-2] += everyone[part_b][2] + score
            elif len(at) >= 2:
                one, two = at[:2]
                both = (subset[one][:18] >= 0).astype(int) + (subset[two][:18] >= 0).astype(int)
                if not (both == 2).any():
                    subset[one][:-2] += subset[two][:-2] + 1
                    subset[one][-2:] += subset[two][-2:]
                    subset[one][-2] += score
                    subset = np.delete(subset, two, 0)
                else:
                    subset[one][b] = part_b
                    subset[one][-1] += 1
                    subset[one][-2] += everyone[part_b][2] + score
            elif k < 17:
                row = -np.ones(20)
                row[a], row[b], row[-1] = part_a, part_b, 2
                row[-2] = everyone[part_a][2] + everyone[part_b][2] + score
                subset = np.vstack([subset, row])
    kept = [row for row in subset if row[-1] >= 4 and row[-2] / row[-1] >= 0.4]
    return np.array(kept).reshape(-1, 20), everyone
