"""Every SSIM protocol against its definition, scikit-image called with the protocol's own words, and against the
formula of Wang et al. 2004 written out with scipy's filters and by hand, on random and on real images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import correlate1d
from skimage.metrics import structural_similarity

from mscgan.errors import UserError
from mscgan.metrics import ssim as module
from mscgan.metrics.ssim import MASKED, WINDOW

DATA = Path(__file__).parents[1].parent / "shared/data"


def ssim(generated, target, protocol):
    """Of a pair, (H, W, 3) arrays."""
    return module.ssim(torch.from_numpy(generated)[None], torch.from_numpy(target)[None], protocol).item()


def mask_ssim(generated, target, mask, protocol):
    images = [torch.from_numpy(image)[None] for image in (generated, target, mask)]
    return module.mask_ssim(*images, protocol).item()


def definition(generated, target, protocol):
    """The protocols in the words of public code, which calls scikit-image."""
    if protocol == "B_padded":
        white = ((0, 0), (40, 40), (0, 0))
        generated, target = (
            np.pad(image if image.shape[1] == 176 else image[:, 40:216], white, constant_values=255)
            for image in (generated, target)
        )
    words = {"win_size": {"A": 7, "gfla": 51}.get(protocol), "data_range": 255}
    if protocol in ("B", "B_padded"):
        span = int(generated.max()) - int(generated.min())
        words = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": span}
    return structural_similarity(generated, target, channel_axis=-1, **words)


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
    """The first photographs as pairs, those beside each other in the list; (H, W, 3) each."""
    paths = sorted((DATA / folder).glob(pattern))[:8]
    if not paths:
        pytest.skip(f"no photographs at ../shared/data/{folder}")
    images = [np.array(Image.open(path).convert("RGB")) for path in paths]
    return list(zip(images[::2], images[1::2], strict=True))


@pytest.mark.parametrize("protocol", ["A", "B", "gfla"])
@pytest.mark.parametrize("size", [(128, 64), (256, 256), (256, 176), (56, 72)])
def test_a_protocol_is_its_definition_and_its_formula_on_random_images(protocol, size):
    check(*random_pair(*size), protocol)


@pytest.mark.parametrize("width", [256, 176])
def test_the_padded_protocol_is_its_definition_and_its_formula_on_random_images(width):
    check(*random_pair(256, width), "B_padded")


@pytest.mark.parametrize("protocol", ["A", "B", "gfla"])
def test_a_protocol_is_its_definition_and_its_formula_on_people_of_market_1501(protocol):
    for generated, target in real_pairs("market1501", "bounding_box_train/*.jpg"):
        check(generated, target, protocol)


@pytest.mark.parametrize("protocol", list(WINDOW))
def test_a_protocol_is_its_definition_and_its_formula_on_people_of_deepfashion(protocol):
    for generated, target in real_pairs("deepfashion", "images/*.jpg"):
        check(generated, target, protocol)


def check(generated, target, protocol):
    found = ssim(generated, target, protocol)
    assert found == pytest.approx(definition(generated, target, protocol), abs=1e-10)
    # GFLA's script divides by 255 in float32.
    assert found == pytest.approx(independent(generated, target, protocol), abs=1e-6 if protocol == "gfla" else 1e-10)


@pytest.mark.parametrize("protocol", list(WINDOW))
def test_a_pair_has_the_same_score_in_any_batch_and_on_any_number_of_threads(protocol):
    rng = np.random.default_rng(3)
    generated, target = rng.integers(0, 256, (2, 5, 256, 176, 3), dtype=np.uint8)
    generated[1] //= 3  # for a range of its own
    generated[2], target[2] = 255, 0
    expected = [definition(*pair, protocol) for pair in zip(generated[:2], target[:2], strict=True)]
    batches = torch.from_numpy(generated), torch.from_numpy(target)
    found = module.ssim(*batches, protocol)
    assert found.dtype == torch.float64 and found[:2].tolist() == pytest.approx(expected, abs=1e-10)
    threads = torch.get_num_threads()
    try:
        for torch_has in (1, 2, 3, 7):
            torch.set_num_threads(torch_has)
            assert torch.equal(module.ssim(*batches, protocol), found)
            alone = [module.ssim(*(images[i : i + 1] for images in batches), protocol) for i in range(5)]
            assert torch.equal(torch.cat(alone), found)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(("protocol", "size"), [("A", (7, 7)), ("B", (11, 12)), ("gfla", (51, 51)), ("gfla", (52, 51))])
def test_an_image_may_be_as_small_as_the_window(protocol, size):
    generated, target = np.random.default_rng(4).integers(0, 256, (2, *size, 3), dtype=np.uint8)
    assert ssim(generated, target, protocol) == pytest.approx(definition(generated, target, protocol), abs=1e-10)


@pytest.mark.parametrize("protocol", list(WINDOW))
def test_a_nearly_white_image_of_two_values_is_no_loss_of_digits(protocol):
    generated = np.full((256, 176, 3), 254, np.uint8)
    generated[100:140, 60:90] = 255
    target = np.roll(generated, 5, axis=0)
    assert ssim(generated, target, protocol) == pytest.approx(definition(generated, target, protocol), abs=1e-7)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("protocol", list(WINDOW))
def test_a_score_on_a_GPU_is_that_on_the_CPU(protocol):
    generated, target = torch.from_numpy(np.stack(random_pair(256, 176)))[:, None]
    on_gpu = module.ssim(generated.cuda(), target.cuda(), protocol).cpu()
    assert on_gpu.tolist() == pytest.approx(module.ssim(generated, target, protocol).tolist(), abs=1e-12)


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
    assert ssim(generated, generated, protocol) == 1
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
        mask_ssim(image, image, np.ones((256, 176), np.uint8), protocol)


def test_protocol_B_takes_its_range_from_the_generated_image_alone():
    wide, _ = random_pair(64, 32)
    narrow = wide // 3
    assert ssim(narrow, wide, "B") < ssim(wide, narrow, "B") - 0.01
    assert ssim(narrow, wide, "A") == pytest.approx(ssim(wide, narrow, "A"), abs=1e-12)


def test_protocol_A_by_hand_on_one_window():
    rng = np.random.default_rng(1)
    generated, target = rng.integers(0, 256, (2, 7, 7, 3)).astype(np.uint8)
    scores = []
    for channel in range(3):
        g, t = generated[..., channel].astype(float), target[..., channel].astype(float)
        covariance = np.cov(g.ravel(), t.ravel(), ddof=1)
        scores.append(of_window(g.mean(), t.mean(), covariance, 255))
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
        scores.append(of_window(mean_g, mean_t, covariance, int(generated.max()) - int(generated.min())))
    assert ssim(generated, target, "B") == pytest.approx(np.mean(scores), abs=1e-9)


def of_window(mean_g: float, mean_t: float, covariance: np.ndarray, span: float) -> float:
    """Equation 13 of Wang et al. 2004."""
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    luminance = (2 * mean_g * mean_t + c1) / (mean_g**2 + mean_t**2 + c1)
    return luminance * (2 * covariance[0, 1] + c2) / (covariance[0, 0] + covariance[1, 1] + c2)


@pytest.mark.parametrize("protocol", ["A", "B"])
def test_a_constant_image_has_a_known_score_under_both_protocols(protocol):
    hundred, fifty = np.full((16, 16, 3), 100, np.uint8), np.full((16, 16, 3), 50, np.uint8)
    c1 = 2.55**2
    assert ssim(hundred, fifty, protocol) == pytest.approx((2 * 5000 + c1) / (12500 + c1), abs=1e-9)
    black = np.zeros((16, 16, 3), np.uint8)
    assert ssim(black, black, protocol) == 1


@pytest.mark.parametrize("protocol", ["A", "B"])
def test_the_mask_hides_what_lies_outside(protocol):
    generated, target = random_pair(64, 32)
    mask = np.zeros((64, 32), np.float32)
    mask[10:50, 8:24] = 1
    inside_same = np.where(mask[..., None] > 0, generated, target)
    assert mask_ssim(generated, inside_same, mask, protocol) == pytest.approx(1, abs=1e-12)
    black_g, black_t = (np.where(mask[..., None] > 0, image, 0).astype(np.uint8) for image in (generated, target))
    assert mask_ssim(generated, target, mask, protocol) == ssim(black_g, black_t, protocol)
    assert mask_ssim(generated, target, np.zeros((64, 32), np.float32), protocol) == 1


@pytest.mark.parametrize("protocol", ["A", "B"])
@pytest.mark.parametrize(
    "bad",
    [np.zeros((0, 32, 3), np.uint8), np.zeros((64, 32), np.uint8), np.zeros((64, 32, 3), np.float32)],
    ids=["empty", "no channels", "float"],
)
def test_what_is_no_image_is_refused(protocol, bad):
    with pytest.raises(UserError, match="expected uint8"):
        ssim(bad, bad, protocol)


def test_images_of_two_sizes_and_images_below_the_window_are_refused():
    with pytest.raises(UserError, match="differ in size"):
        ssim(np.zeros((16, 16, 3), np.uint8), np.zeros((16, 17, 3), np.uint8), "A")
    small = np.zeros((10, 32, 3), np.uint8)
    assert ssim(small, small, "A") == 1
    with pytest.raises(UserError, match="10x32 .* smaller than the 11x11"):
        ssim(small, small, "B")
    for bad in (np.ones((10, 31), np.uint8), np.full((10, 32), 0.5), np.full((10, 32), 255, np.uint8)):
        with pytest.raises(UserError, match="masks are .* of 0 and 1"):
            mask_ssim(small, small, bad, "A")
    with pytest.raises(UserError, match="choose A, B, B_padded, gfla"):
        ssim(small, small, "C")
