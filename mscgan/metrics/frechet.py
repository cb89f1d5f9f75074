"""The Frechet distance between two sets of features, each taken for a normal distribution: FID (Heusel et al. 2017).

FID is of whole sets, so an interval for it leaves groups of images out, or draws them again, and scores what is left.
`Moments` make that cheap: those of a part are taken off the whole without going through the rest again, and the real
images' part of the arithmetic is done once.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mscgan.errors import UserError


@dataclass(frozen=True)
class Moments:
    """A set of features as FID sees it, in float64."""

    count: int
    mean: np.ndarray  # (D,)
    covariance: np.ndarray  # (D, D), with Bessel's correction, as in all public code

    @cached_property
    def root(self) -> np.ndarray:
        """(D, rank), so that root @ root.T is the covariance. Of few images the rank is below their number."""
        values, vectors = np.linalg.eigh(self.covariance)
        kept = values > _noise(values)
        return vectors[:, kept] * np.sqrt(values[kept])


def moments(features: np.ndarray) -> Moments:
    """Count, mean and covariance of (N, D) features.

    Raises:
        UserError: another shape, fewer than 2 rows, or a value that is not finite.
    """
    if features.ndim != 2 or len(features) < 2:
        raise UserError(f"features are {features.shape}; a covariance takes at least 2 images' (N, D)")
    if not np.isfinite(features).all():
        raise UserError("an image's features are not finite; look for damaged images or weights")
    features = features.astype(np.float64)
    mean = features.mean(0)
    centred = features - mean
    return Moments(len(features), mean, centred.T @ centred / (len(features) - 1))


def without(whole: Moments, part: np.ndarray) -> Moments:
    """The moments of `whole` without the rows `part`, (n, D), which are among it.

    Raises:
        UserError: fewer than 2 rows would stay.
    """
    count = whole.count - len(part)
    if count < 2:
        raise UserError(f"{count} of {whole.count} images would stay; a covariance takes at least 2")
    part = part.astype(np.float64) - whole.mean  # near 0, so that little is lost in the differences
    shift = -part.sum(0) / count
    scatter = whole.covariance * (whole.count - 1) - part.T @ part - count * np.outer(shift, shift)
    return Moments(count, whole.mean + shift, scatter / (count - 1))


def frechet_distance(generated: Moments, real: Moments) -> float:
    """|m - m'|^2 + tr(S + S' - 2 (S S')^(1/2)) of two sets of features, in float64; 0 for the same sets.

    The trace of (S S')^(1/2) is the sum of the square roots of the eigenvalues of the symmetric R' S R, where R R' is
    the real images' covariance: always defined, also where there are fewer images than features. Public code takes
    the matrix root of S S' (scipy.linalg.sqrtm, with 1e-6 added to the diagonals where that fails) or the eigenvalues
    of S S' (torch-fidelity): the same number, to rounding.

    Raises:
        UserError: features of two sizes.
    """
    if generated.mean.shape != real.mean.shape:
        raise UserError(f"features of {len(generated.mean)} values and of {len(real.mean)} cannot be compared")
    values = np.linalg.eigvalsh(real.root.T @ generated.covariance @ real.root)
    overlap = np.sqrt(values[values > _noise(values)]).sum()
    traces = np.trace(generated.covariance) + np.trace(real.covariance)
    return float(((generated.mean - real.mean) ** 2).sum() + traces - 2 * overlap)


def fid(features: np.ndarray, real: np.ndarray) -> float:
    """The Frechet distance of (N, D) features to (M, D) ones of real images.

    Raises:
        UserError: what `moments` and `frechet_distance` raise.
    """
    return frechet_distance(moments(features), moments(real))


def _noise(values: np.ndarray) -> float:
    """What an eigenvalue that should be 0 may be by rounding. The roots of 2,000 of them would add up to an error."""
    return float(values.max(initial=0) * len(values) * np.finfo(np.float64).eps)
