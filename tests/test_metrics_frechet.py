"""The Frechet distance against other ways to the same number, and against one known in closed form."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from mscgan.errors import UserError
from mscgan.metrics.frechet import fid, frechet_distance, moments, without


def features(count, size=64, seed=0, like=0.0):
    """Positive and correlated, as pool3 is."""
    mixing = np.random.default_rng(99).normal(size=(size, size)) / size**0.5
    rows = np.random.default_rng(seed).normal(size=(count, size)) @ mixing + like
    return np.maximum(rows, 0).astype(np.float32)


def by_singular_values(a, b):
    """tr (S S')^1/2 is the nuclear norm of the two centred sets' product: no covariance, no eigenvalue, no root."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    x, y = ((s - s.mean(0)) / np.sqrt(len(s) - 1) for s in (a, b))
    overlap = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + (x**2).sum() + (y**2).sum() - 2 * overlap


def by_the_matrix_root(a, b):
    """As public code has it."""
    s, t = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    return ((a.mean(0, dtype=float) - b.mean(0, dtype=float)) ** 2).sum() + np.trace(s + t - 2 * sqrtm(s @ t).real)


@pytest.mark.parametrize("size", [64, 512])
@pytest.mark.parametrize("count", [2, 5, 40, 64, 65, 500])
def test_the_distance_is_the_same_by_singular_values_at_few_and_many_images(count, size):
    a, b = features(count, size, like=0.2), features(300, size, seed=1)
    expected = by_singular_values(a, b)
    assert fid(a, b) == pytest.approx(expected, abs=1e-6)
    assert fid(b, a) == pytest.approx(expected, abs=1e-6)


def test_the_distance_is_the_same_by_the_matrix_root():
    a, b = features(500, like=0.3), features(400, seed=1)
    assert fid(a, b) == pytest.approx(by_the_matrix_root(a, b), abs=1e-6)


def test_normal_distributions_that_differ_in_one_axis_have_the_known_distance():
    sign = np.array([[1.0], [-1.0]]) / 2**0.5  # variance 1
    still = np.zeros((2, 2))
    a, b = still.copy(), still.copy()
    a[:, :1], b[:, :1] = 3 * sign + 5, 2 * sign + 1
    assert fid(a, b) == pytest.approx((5 - 1) ** 2 + (3 - 2) ** 2)


def test_a_set_has_no_distance_to_itself_and_none_below_it():
    a = features(200)
    assert abs(fid(a, a)) < 1e-9
    assert abs(fid(features(10), features(10))) < 1e-9
    assert fid(np.ones((5, 8)), np.ones((4, 8))) == 0  # no variance at all


def test_moments_are_in_float64_with_bessels_correction():
    rows = features(50) + np.float32(1000)  # where float32 would lose the variance
    found = moments(rows)
    assert found.count == 50 and found.mean.dtype == found.covariance.dtype == np.float64
    assert np.allclose(found.mean, rows.astype(float).mean(0), rtol=0, atol=1e-10)
    assert np.allclose(found.covariance, np.cov(rows.astype(float), rowvar=False), rtol=0, atol=1e-10)
    assert np.allclose(found.root @ found.root.T, found.covariance, rtol=0, atol=1e-10)


def test_leaving_images_out_of_moments_is_as_never_having_had_them():
    rows, real = features(90), moments(features(120, seed=1))
    rest = np.r_[0:20, 33:90]
    left = without(moments(rows), rows[20:33])
    afresh = moments(rows[rest])
    assert left.count == 77
    assert np.allclose(left.mean, afresh.mean, rtol=0, atol=1e-12)
    assert np.allclose(left.covariance, afresh.covariance, rtol=0, atol=1e-12)
    assert frechet_distance(left, real) == pytest.approx(frechet_distance(afresh, real), abs=1e-9)


def test_what_has_no_covariance_is_refused():
    for bad in (features(1), features(5)[0]):
        with pytest.raises(UserError, match="at least 2 images"):
            fid(bad, features(5))
    with pytest.raises(UserError, match="1 of 5 images would stay"):
        without(moments(features(5)), features(5)[:4])
    with pytest.raises(UserError, match="64 values and of 8 cannot be compared"):
        fid(features(5), features(5, 8))
    bad = features(5)
    bad[2, 3] = np.inf
    with pytest.raises(UserError, match="not finite"):
        fid(bad, features(5))
