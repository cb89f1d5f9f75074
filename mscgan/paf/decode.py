"""Reads the people out of confidence maps and part affinity fields, by the rule that made the field's keypoint files.

After pose-gan's compute_coordinates.py and ZheC's connect56LineVec.m, which agree, to every constant. Peaks of the maps
are joints; two of them are a limb where the field between them points from one to the other; limbs that share a joint
are a person. Peaks and the scores of limbs are found on the maps' device, people are put together on the CPU.

What the files leave to chance is settled: of equal neighbours the first in row order is the peak; two joints at one
place, where they divide by zero, are no limb; of more than MOST peaks a joint, which only noise has, the highest count;
and a limb whose joints are in three people, where they fail, goes by the first two.
"""

import functools

import numpy as np
import torch
from torch import Tensor

from mscgan.errors import UserError
from mscgan.estimators import Person
from mscgan.paf.limbs import ASSEMBLY
from mscgan.pose import JOINTS

PEAK = 0.1  # "thre1": a peak of a smoothed map is above it
POINTS = 10  # "mid_num": of the field that are looked at, evenly spread from joint to joint
AGREES = 0.05  # "thre2": a point of the field agrees above it, and more than SHARE of the points must
SHARE = 0.8
LEAST_JOINTS = 4  # that a person has
LEAST_SCORE = 0.4  # a joint, of a person
MOST = 256
SMOOTHING = 3.0  # pixels, deviation of the Gaussian, in an image of BOX pixels
BOX = 368
CUT = 4.0  # deviations after which the Gaussian ends (scipy's default)


def smoothing(height: int) -> float:
    """The deviation for maps of so many pixels; the field's files take 3 whatever the size, too much for small ones."""
    return max(1.0, SMOOTHING * height / BOX)


def decode(fields: Tensor, maps: Tensor, sigma: float = SMOOTHING) -> list[Person]:
    """The people in an image, the one with the largest score first; nobody: [].

    Args:
        fields: (38, H, W), the limbs' in the order of the network's channels (limbs.LIMBS).
        maps: (18 or more, H, W), the joints'; what follows them is not looked at. Both as large as the image.
        sigma: pixels, of the Gaussian that smooths the maps before their peaks are looked for.

    Returns:
        People whose coordinates are whole pixels, and whose scores are the maps at the joints. A person's score is
        the sum over its joints and limbs.

    Raises:
        UserError: a value is NaN or infinite.
    """
    fields, maps = fields.double(), maps[: len(JOINTS)].double()
    if not (torch.isfinite(fields).all() & torch.isfinite(maps).all()):
        raise UserError("the estimator's maps hold NaN or infinite values, so no pose; are its weights damaged?")
    joints, places, scores = _peaks(maps, sigma)
    return _people(_limbs(fields, joints, places), places, scores)


def _peaks(maps: Tensor, sigma: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The joint's number, (x, y) and the unsmoothed map of P peaks: (P,), (P, 2), (P,); by joint, in row order."""
    smooth = _smoothed(_smoothed(maps, sigma, 1), sigma, 2)
    around = torch.nn.functional.pad(smooth, (1, 1, 1, 1))  # what is outside counts as 0
    middle, left, right = around[:, 1:-1, 1:-1], around[:, 1:-1, :-2], around[:, 1:-1, 2:]
    above, below = around[:, :-2, 1:-1], around[:, 2:, 1:-1]
    found = (middle > left) & (middle > above) & (middle >= right) & (middle >= below) & (middle > PEAK)
    joint, y, x = found.nonzero(as_tuple=True)
    joints, places = joint.cpu().numpy(), torch.stack([x, y], 1).cpu().numpy()
    scores = maps[joint, y, x].cpu().numpy()
    kept = [_highest(np.flatnonzero(joints == number), scores) for number in range(len(maps))]
    order = np.concatenate(kept)
    return joints[order], places[order], scores[order]


def _highest(peaks: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The MOST peaks with the highest scores, in the order in which they come."""
    return np.sort(peaks[np.argsort(-scores[peaks], kind="stable")[:MOST]])


def _smoothed(maps: Tensor, sigma: float, axis: int) -> Tensor:
    """Along one axis, as scipy.ndimage.gaussian_filter1d does it, to the bit: mirrored at the edges with the edge
    repeated, and summed from the outside in."""
    kernel = _kernel(sigma)
    reach, size = len(kernel) - 1, maps.shape[axis]
    place = torch.arange(-reach, size + reach, device=maps.device) % (2 * size)
    padded = maps.index_select(axis, torch.where(place < size, place, 2 * size - 1 - place))
    total = maps * kernel[0]
    for away in range(reach, 0, -1):
        both = padded.narrow(axis, reach - away, size) + padded.narrow(axis, reach + away, size)
        total += both.mul_(kernel[away])
    return total


@functools.cache
def _kernel(sigma: float) -> list[float]:
    """The Gaussian's weights from the middle outwards."""
    reach = int(CUT * sigma + 0.5)
    weights = np.exp(-0.5 / (sigma * sigma) * np.arange(-reach, reach + 1) ** 2)
    return (weights / weights.sum())[reach:].tolist()


def _limbs(fields: Tensor, joints: np.ndarray, places: np.ndarray) -> list[list[tuple[int, int, float]]]:
    """Of each limb of ASSEMBLY those found, the best first: the numbers of its two peaks, and its score."""
    of_joint = [np.flatnonzero(joints == number) for number in range(len(JOINTS))]
    pairs = [np.stack(np.meshgrid(of_joint[a], of_joint[b], indexing="ij"), -1).reshape(-1, 2) for a, b, _ in ASSEMBLY]
    limb = np.repeat(np.arange(len(ASSEMBLY)), [len(those) for those in pairs])
    ends = np.concatenate(pairs)  # (Q, 2) peaks
    scores, accepted = _scored(fields, limb, places[ends])
    found = []
    for number, (a, b, _) in enumerate(ASSEMBLY):
        those = np.flatnonzero((limb == number) & accepted)
        best = those[np.argsort(-scores[those], kind="stable")]
        chosen: list[tuple[int, int, float]] = []
        taken: set[int] = set()
        for start, end, score in zip(*ends[best].T.tolist(), scores[best].tolist()):
            if start not in taken and end not in taken and len(chosen) < min(len(of_joint[a]), len(of_joint[b])):
                chosen.append((start, end, score))
                taken |= {start, end}
        found.append(chosen)
    return found


def _scored(fields: Tensor, limb: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How well the field between two places (Q, 2, 2) points from one to the other, and whether well enough: (Q,) both.

    The mean of the field along the line, less a penalty for lines longer than half the image's height.
    """
    channels = torch.tensor([place for *_, place in ASSEMBLY], device=fields.device)[torch.from_numpy(limb)]
    start, end = torch.from_numpy(ends).to(fields.device, torch.float64).unbind(1)
    along = end - start
    length = (along[:, 0] * along[:, 0] + along[:, 1] * along[:, 1]).sqrt()
    unit = along / length[:, None]  # NaN where both ends are one place, with which no point agrees
    total, agreeing = torch.zeros_like(length), torch.zeros_like(length)
    for point in range(POINTS):
        # Never half way between two pixels, as ends are whole and ninths of whole numbers are no halves.
        x, y = (start + point * (along / (POINTS - 1)) + 0.5).floor().long().unbind(1)
        value = fields[channels[:, 0], y, x] * unit[:, 0] + fields[channels[:, 1], y, x] * unit[:, 1]
        total += value
        agreeing += value > AGREES
    # By tensors: torch multiplies by the reciprocal where one side is a number, which is another last bit.
    half, points = torch.full_like(length, 0.5 * fields.shape[1]), torch.full_like(length, POINTS)
    score = total / points + (half / length - 1).clamp(max=0)
    accepted = (agreeing > SHARE * POINTS) & (score > 0)
    return score.cpu().numpy(), accepted.cpu().numpy()


class _Row:
    """A person in the making: the peak of each joint, -1 where there is none."""

    def __init__(self) -> None:
        self.peaks = [-1] * len(JOINTS)
        self.score = 0.0
        self.count = 0

    def overlaps(self, other: "_Row") -> bool:
        return any(one >= 0 and two >= 0 for one, two in zip(self.peaks, other.peaks, strict=True))


def _people(limbs: list[list[tuple[int, int, float]]], places: np.ndarray, scores: np.ndarray) -> list[Person]:
    rows: list[_Row] = []
    for (a, b, _), found in zip(ASSEMBLY, limbs, strict=True):
        for start, end, score in found:
            holding = [row for row in rows if row.peaks[a] == start or row.peaks[b] == end][:2]
            if len(holding) == 2 and not holding[0].overlaps(holding[1]):
                _merge(rows, holding[0], holding[1], score)
            elif holding:
                row = holding[0]
                # Two that overlap: the first is extended, even by the joint that it has. Another end that was there is
                # replaced, and counted once more: so the files were made.
                if len(holding) == 2 or row.peaks[b] != end:
                    row.peaks[b] = end
                    row.count += 1
                    row.score += scores[end] + score
            else:
                row = _Row()
                row.peaks[a], row.peaks[b] = start, end
                row.count = 2
                row.score = scores[start] + scores[end] + score
                rows.append(row)
    rows = [row for row in rows if row.count >= LEAST_JOINTS and row.score / row.count >= LEAST_SCORE]
    return [_person(row, places, scores) for row in sorted(rows, key=lambda row: -row.score)]


def _merge(rows: list[_Row], one: _Row, other: _Row, score: float) -> None:
    one.peaks = [max(both) for both in zip(one.peaks, other.peaks, strict=True)]  # one of each two is -1
    one.count += other.count
    one.score += other.score
    one.score += score
    rows[:] = [row for row in rows if row is not other]


def _person(row: _Row, places: np.ndarray, scores: np.ndarray) -> Person:
    peaks = np.array(row.peaks)
    there = peaks >= 0
    keypoints = np.where(there[:, None], places[peaks], -1).astype(np.float32)
    return Person(keypoints, np.where(there, scores[peaks], 0).astype(np.float32), float(row.score))
