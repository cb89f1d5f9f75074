"""SSIM against scikit-image called with each protocol's own words, and against the formula worked out by hand."""

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from mscgan.errors import UserError
from mscgan.metrics.l1 import l1
from mscgan.metrics.ssim import mask_ssim, ssim


def images(height: int = 64, width: int = 32, top: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """A smooth image with values below `top`, and the same with noise over the whole range of 8 bits."""
    rng = np.random.default_rng(7)
    rows, columns = np.mgrid[0:height, 0:width]
    smooth = (rows[..., None] * 2 + columns[..., None] * np.array([1, 2, 3])) % top
    noisy = np.clip(smooth + rng.normal(0, 40, smooth.shape), 0, 255)
    return smooth.astype(np.uint8), noisy.astype(np.uint8)


def test_protocol_A_is_the_call_of_PG2():
    generated, target = images()
    assert ssim(generated, target, "A") == structural_similarity(generated, target, channel_axis=-1)


def test_protocol_B_is_the_call_of_pose_gan():
    generated, target = images(top=90)
    assert generated.max() - generated.min() == 89
    expected = structural_similarity(
        target,
        generated,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        channel_axis=-1,
        data_range=generated.max() - generated.min(),
    )
    assert ssim(generated, target, "B") == pytest.approx(expected, abs=1e-12)


def test_protocol_B_takes_its_range_from_the_generated_image_alone():
    narrow, wide = images(top=90)
    assert ssim(narrow, wide, "B") < ssim(wide, narrow, "B") - 0.01
    assert ssim(narrow, wide, "A") == pytest.approx(ssim(wide, narrow, "A"), abs=1e-12)


def test_protocol_A_by_hand_on_one_window():
    rng = np.random.default_rng(1)
    generated, target = rng.integers(0, 256, (2, 7, 7, 3)).astype(np.uint8)
    scores = []
    for channel in range(3):
        g, t = generated[..., channel].astype(float), target[..., channel].astype(float)
        covariance = np.cov(g.ravel(), t.ravel(), ddof=1)
        scores.append(formula(g.mean(), t.mean(), covariance, 255))
    assert ssim(generated, target, "A") == pytest.approx(np.mean(scores), abs=1e-12)


def test_protocol_B_by_hand_on_one_window():
    rng = np.random.default_rng(2)
    generated, target = rng.integers(20, 200, (2, 11, 11, 3)).astype(np.uint8)
    steps = np.arange(-5, 6)
    weights = np.exp(-(steps[:, None] ** 2 + steps[None] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    scores = []
    for channel in range(3):
        g, t = generated[..., channel].astype(float), target[..., channel].astype(float)
        mean_g, mean_t = (weights * g).sum(), (weights * t).sum()
        covariance = np.cov(g.ravel(), t.ravel(), aweights=weights.ravel(), ddof=0)
        scores.append(formula(mean_g, mean_t, covariance, int(generated.max()) - int(generated.min())))
    assert ssim(generated, target, "B") == pytest.approx(np.mean(scores), abs=1e-9)


def formula(mean_g: float, mean_t: float, covariance: np.ndarray, span: float) -> float:
    """Equation 13 of Wang et al. 2004."""
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    luminance = (2 * mean_g * mean_t + c1) / (mean_g**2 + mean_t**2 + c1)
    return luminance * (2 * covariance[0, 1] + c2) / (covariance[0, 0] + covariance[1, 1] + c2)


@pytest.mark.parametrize("protocol", ["A", "B"])
def test_an_image_scores_1_against_itself(protocol):
    generated, _ = images()
    assert ssim(generated, generated, protocol) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("protocol", ["A", "B"])
def test_a_constant_image_has_a_known_score_under_both_protocols(protocol):
    hundred, fifty = np.full((16, 16, 3), 100, np.uint8), np.full((16, 16, 3), 50, np.uint8)
    c1 = 2.55**2
    assert ssim(hundred, fifty, protocol) == pytest.approx((2 * 5000 + c1) / (12500 + c1), abs=1e-9)
    black = np.zeros((16, 16, 3), np.uint8)
    assert ssim(black, black, protocol) == 1


@pytest.mark.parametrize("protocol", ["A", "B"])
def test_the_mask_hides_what_lies_outside(protocol):
    generated, target = images()
    mask = np.zeros((64, 32), np.float32)
    mask[10:50, 8:24] = 1
    inside_same = np.where(mask[..., None] > 0, generated, target)
    assert mask_ssim(generated, inside_same, mask, protocol) == pytest.approx(1, abs=1e-12)
    black_g, black_t = (np.where(mask[..., None] > 0, image, 0).astype(np.uint8) for image in (generated, target))
    assert mask_ssim(generated, target, mask, protocol) == ssim(black_g, black_t, protocol)
    assert mask_ssim(generated, target, np.zeros((64, 32)), protocol) == 1


def test_L1_is_on_the_scale_of_minus_1_to_1():
    black, white = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)
    assert l1(black, white) == l1(white, black) == 2
    half = black.copy()
    half[:4] = 51  # 0.4 on that scale, over half of the image
    assert l1(half, black) == pytest.approx(0.2)


@pytest.mark.parametrize("score", [l1, lambda a, b: ssim(a, b, "A"), lambda a, b: ssim(a, b, "B")])
@pytest.mark.parametrize(
    "bad",
    [np.zeros((0, 32, 3), np.uint8), np.zeros((64, 32), np.uint8), np.zeros((64, 32, 3), np.float32)],
    ids=["empty", "no channels", "float"],
)
def test_what_is_no_image_is_refused(score, bad):
    with pytest.raises(UserError, match="expected uint8"):
        score(bad, bad)


def test_images_of_two_sizes_and_images_below_the_window_are_refused():
    with pytest.raises(UserError, match="differ in size"):
        ssim(np.zeros((16, 16, 3), np.uint8), np.zeros((16, 17, 3), np.uint8), "A")
    small = np.zeros((10, 32, 3), np.uint8)
    assert ssim(small, small, "A") == 1
    with pytest.raises(UserError, match="10x32 .* smaller than the 11x11"):
        ssim(small, small, "B")
    with pytest.raises(UserError, match="mask is"):
        mask_ssim(small, small, np.ones((10, 31)), "A")
    with pytest.raises(UserError, match="choose A, B, B_padded, gfla"):
        ssim(small, small, "C")
