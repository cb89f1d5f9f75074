"""Pose estimators behind one function: an image of any size -> the people in it, each with 18 keypoints.

An estimator is named "movenet" (mscgan/movenet), "paf" (mscgan/paf, with the published weights), or by the folder of a
run of the family paf or a file of its weights.
"""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mscgan.errors import UserError

if TYPE_CHECKING:  # Pillow is not wanted by those who know no photographs, as the family paf
    from mscgan.photos import Photo

ESTIMATORS = ("movenet", "paf")


class Person(NamedTuple):
    """A person found in an image."""

    keypoints: np.ndarray  # (18, 2) float32, (x, y) in pixels of the image, a missing joint (-1, -1)
    scores: np.ndarray  # (18,) float32, of each joint, 0 where missing; what they mean is the estimator's
    score: float  # of the person


# (H, W, 3) uint8 RGB of any size -> people, the one with the highest score first; none: [].
Estimator = Callable[[np.ndarray], list[Person]]


def open_estimator(name: str) -> Estimator:
    """The estimator of that name, with its weights read, on the CUDA device or else the CPU (MoveNet: on the CPU).

    Raises:
        UserError: no such estimator, or its weights are missing or damaged; says how to bring them.
    """
    if name == "movenet":
        from mscgan.movenet.estimate import load_movenet

        return load_movenet()
    from mscgan.paf.estimate import load_paf

    return load_paf(None if name == "paf" else Path(name))


def digest(name: str) -> str:
    """SHA-256 of the file of weights that `open_estimator` reads. Raises as it does."""
    if name in ESTIMATORS:
        from mscgan import weights

        file = weights.path(name)
    else:
        file = Path(name, "generator.safetensors") if Path(name).is_dir() else Path(name)
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise UserError(
            f"--estimator {name}: cannot read {file} ({error.strerror}); give {' or '.join(ESTIMATORS)}, the folder of "
            "a run of the family paf, or a file of its weights"
        ) from error


def in_photo(estimate: Estimator, photo: "Photo") -> list[Person]:
    """The people in a photograph, in pixels of its file."""
    height, width = photo.pixels.shape[:2]
    people = estimate(photo.pixels)
    return [one._replace(keypoints=rescaled(one.keypoints, (width, height), photo.size)) for one in people]


def rescaled(keypoints: np.ndarray, before: tuple[int, int], after: tuple[int, int]) -> np.ndarray:
    """(18, 2) keypoints of an image of (width, height) `before` in the same image of another size, and inside it."""
    moved = (keypoints + 0.5) * np.divide(after, before) - 0.5  # a pixel's middle is at + 0.5
    return np.where(keypoints == -1, -1, moved.clip(0, np.subtract(after, 1))).astype(np.float32)


def largest_first(people: Iterable[np.ndarray]) -> list[np.ndarray]:
    """People, (18, 2) keypoints each, by the size of the box around their joints, the largest first."""
    return sorted(people, key=_size, reverse=True)


def _size(keypoints: np.ndarray) -> float:
    there = keypoints[(keypoints != -1).all(1)]
    return float(np.ptp(there, axis=0).prod()) if len(there) else 0.0
