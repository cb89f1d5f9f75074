"""Every SSIM protocol against the formula of Wang et al. 2004 written out with scipy's filters, on random and on real
images; and what the two protocols of DeepFashion ask of an image's size."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import correlate1d

from mscgan.errors import UserError
from mscgan.metrics.ssim import MASKED, WINDOW, mask_ssim, ssim

DATA = Path(__file__).parents[1].parent / "shared/data"


def formula(generated, target, kernel, bessel, span):
    """Mean SSIM over the pixels whose window lies inside, and over channels: `kernel` along rows and columns."""

    def blur(image):
        return correlate1d(correlate1d(image, kernel, axis=0), kernel, axis=1)

    g, t = generated.astype(np.float64), target.astype(np.float64)
    mean_g, mean_t = blur(g), blur(t)
    var_g, var_t = (bessel * (blur(v * v) - blur(v) ** 2) for v in (g, t))
    both = bessel * (blur(g * t) - mean_g * mean_t)
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    ratio = (2 * mean_g * mean_t + c1) * (2 * both + c2) / ((mean_g**2 + mean_t**2 + c1) * (var_g + var_t + c2))
    edge = len(kernel) // 2
    return ratio[edge:-edge, edge:-edge].mean()


def independent(generated, target, protocol):
    """The four protocols in the words of the facts, without scikit-image."""
    if protocol == "A":
        return formula(generated, target, np.full(7, 1 / 7), 49 / 48, 255)
    if protocol == "gfla":
        g, t = (image.astype(np.float32) / 255 for image in (generated, target))  # as GFLA's script divides
        return formula(g, t, np.full(51, 1 / 51), 51**2 / (51**2 - 1), 1)
    if protocol == "B_padded":
        white = np.full((len(generated), 40, 3), 255, np.uint8)
        generated, target = (
            np.concatenate([white, image if image.shape[1] == 176 else image[:, 40:216], white], axis=1)
            for image in (generated, target)
        )
    steps = np.arange(-5, 6)
    gaussian = np.exp(-(steps**2) / (2 * 1.5**2))
    return formula(generated, target, gaussian / gaussian.sum(), 1, int(generated.max()) - int(generated.min()))


def random_pair(height, width):
    rng = np.random.default_rng(height + width)
    smooth = rng.integers(20, 180, (height // 8, width // 8, 3)).repeat(8, 0).repeat(8, 1)
    return smooth.astype(np.uint8), np.clip(smooth + rng.normal(0, 30, smooth.shape), 0, 255).astype(np.uint8)


def real_pairs(folder, pattern):
    paths = sorted((DATA / folder).glob(pattern))[:8]
    if not paths:
        pytest.skip(f"no photographs at ../shared/data/{folder}")
    images = [np.array(Image.open(path).convert("RGB")) for path in paths]
    return list(zip(images[::2], images[1::2], strict=True))


@pytest.mark.parametrize("protocol", ["A", "B", "gfla"])
@pytest.mark.parametrize("size", [(128, 64), (256, 256), (256, 176), (56, 72)])
def test_a_protocol_is_its_formula_on_random_images(protocol, size):
    generated, target = random_pair(*size)
    assert ssim(generated, target, protocol) == pytest.approx(independent(generated, target, protocol), abs=1e-6)


@pytest.mark.parametrize("width", [256, 176])
def test_the_padded_protocol_is_its_formula_on_random_images(width):
    generated, target = random_pair(256, width)
    assert ssim(generated, target, "B_padded") == pytest.approx(independent(generated, target, "B_padded"), abs=1e-6)


@pytest.mark.parametrize("protocol", ["A", "B", "gfla"])
def test_a_protocol_is_its_formula_on_people_of_market_1501(protocol):
    for generated, target in real_pairs("market1501", "bounding_box_train/*.jpg"):
        assert ssim(generated, target, protocol) == pytest.approx(independent(generated, target, protocol), abs=1e-6)


@pytest.mark.parametrize("protocol", list(WINDOW))
def test_a_protocol_is_its_formula_on_people_of_deepfashion(protocol):
    for generated, target in real_pairs("deepfashion", "images/*.jpg"):
        assert ssim(generated, target, protocol) == pytest.approx(independent(generated, target, protocol), abs=1e-6)


def test_the_four_protocols_differ_on_the_same_pair():
    generated, target = random_pair(256, 176)
    scores = sorted(ssim(generated, target, protocol) for protocol in WINDOW)
    assert min(np.diff(scores)) > 0.005


def test_white_sides_count_as_perfect_and_bands_do_not_count():
    generated, target = random_pair(256, 256)
    inner = ssim(np.ascontiguousarray(generated[:, 40:216]), np.ascontiguousarray(target[:, 40:216]), "B_padded")
    assert ssim(generated, target, "B_padded") == inner > ssim(generated, target, "B")
    generated[:, :40] = generated[:, 216:] = 0
    assert ssim(generated, target, "B_padded") == inner


@pytest.mark.parametrize("protocol", list(WINDOW))
def test_an_image_scores_1_against_itself(protocol):
    generated, _ = random_pair(256, 176)
    assert ssim(generated, generated, protocol) == pytest.approx(1, abs=1e-12)
    white = np.full_like(generated, 255)  # which leaves B_padded no range
    assert ssim(white, white, protocol) == 1


def test_sizes_for_which_a_protocol_is_not_defined_are_refused():
    market = np.zeros((128, 64, 3), np.uint8)
    with pytest.raises(UserError, match="64 pixels wide; .* DeepFashion's 256 or 176"):
        ssim(market, market, "B_padded")
    narrow = np.zeros((128, 50, 3), np.uint8)
    with pytest.raises(UserError, match="128x50 .* smaller than the 51x51 window of SSIM protocol gfla"):
        ssim(narrow, narrow, "gfla")


@pytest.mark.parametrize("protocol", [name for name in WINDOW if name not in MASKED] + ["C"])
def test_only_what_public_code_masks_has_a_mask_score(protocol):
    image = np.zeros((256, 176, 3), np.uint8)
    with pytest.raises(UserError, match="no mask-SSIM protocol .*; choose A or B"):
        mask_ssim(image, image, np.ones((256, 176)), protocol)
