"""SSIM and mask-SSIM by the protocols of the field. Scores of different protocols must never be compared.

A: PG2 (score.py): 7x7 uniform window, sample covariance, range 255. The tables of PG2 and MsCGAN.
B: Siarohin et al. (pose-gan test.py; also PATN, ADGAN): 11x11 Gaussian window of sigma 1.5, covariance without Bessel's
   correction, and for range the largest minus the smallest value of the generated image. It is also GFLA's "ssim_256".
B_padded: PATN and ADGAN on DeepFashion (tool/getMetrics_fashion.py): the inner 176 columns with 40 white ones on each
   side, then B. The white counts as perfect, and lifts the range to 255 minus the smallest value.
gfla: GFLA, DPTN, CFLD (GFLA script/metrics.py, Reconstruction_Metrics): 51x51 uniform window, sample covariance, range
   1 on floats in [0, 1].
All take 8-bit RGB, score each channel over the whole frame and average. mask-SSIM paints all outside the mask black in
both images before, so the background counts as perfect; which mask, masks.py says.
"""

import numpy as np
from skimage.metrics import structural_similarity

from mscgan.errors import UserError

WINDOW = {"A": 7, "B": 11, "B_padded": 11, "gfla": 51}  # pixels
DESCRIPTIONS = {
    "A": "PG2: skimage structural_similarity, uniform 7x7, sample covariance, RGB uint8, range 255",
    "B": "Siarohin: skimage structural_similarity, Gaussian sigma 1.5 (11x11), no sample covariance, RGB uint8, "
    "range of the generated image (255 where it is constant)",
    "B_padded": "PATN on DeepFashion: columns 40 to 215 of 256 (or an image of 176), 40 white columns on each side, "
    "then as B",
    "gfla": "GFLA: skimage structural_similarity, uniform 51x51, sample covariance, RGB in [0, 1], range 1",
}
MASKED = ("A", "B")  # the protocols that public code also computes within a mask
INNER, BAND = 176, 40  # pixels: DeepFashion's 256 columns are 40 of background, 176, 40


def ssim(generated: np.ndarray, target: np.ndarray, protocol: str) -> float:
    """The structural similarity of two (H, W, 3) uint8 images under a protocol of WINDOW; 1 where they are the same.

    Protocols B and B_padded have no value for a constant generated image: its range is 0 and public code divides 0 by
    0. We take the range of 8-bit images, 255, for it, so that every pair counts.

    Raises:
        UserError: other dtypes or shapes, an image smaller than the protocol's window, a width that B_padded is not
            defined for, an unknown protocol.
    """
    if protocol not in WINDOW:
        raise UserError(f"no SSIM protocol {protocol!r}; choose {', '.join(WINDOW)}")
    check_images(generated, target)
    height, width = generated.shape[:2]
    if min(height, width) < WINDOW[protocol]:
        raise UserError(
            f"an image of {height}x{width} (height x width) is smaller than the {WINDOW[protocol]}x{WINDOW[protocol]} "
            f"window of SSIM protocol {protocol}"
        )
    if protocol in ("A", "gfla"):
        # Range 255 on 8 bits is range 1 on [0, 1]: SSIM does not change when values and range are scaled alike.
        window = WINDOW[protocol]
        return float(structural_similarity(generated, target, win_size=window, channel_axis=2, data_range=255))
    if protocol == "B_padded":
        generated, target = _padded(generated), _padded(target)
    span = float(generated.max()) - float(generated.min())
    return float(
        structural_similarity(
            generated,
            target,
            channel_axis=2,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=span or 255.0,
        )
    )


def mask_ssim(generated: np.ndarray, target: np.ndarray, mask: np.ndarray, protocol: str) -> float:
    """SSIM of two (H, W, 3) uint8 images that are black outside mask, (H, W) of 0 and 1. An empty mask scores 1.

    Raises:
        UserError: as `ssim`, a mask of another shape or with other values, a protocol that nobody masks.
    """
    if protocol not in MASKED:
        raise UserError(f"no mask-SSIM protocol {protocol!r}; choose {' or '.join(MASKED)}")
    check_images(generated, target)
    if mask.shape != generated.shape[:2] or not np.isin(mask, (0, 1)).all():
        raise UserError(f"the mask is {mask.shape}; expected {generated.shape[:2]} of 0 and 1")
    inside = mask.astype(np.uint8)[:, :, None]
    return ssim(generated * inside, target * inside, protocol)


def _padded(image: np.ndarray) -> np.ndarray:
    """PATN's white sides: (H, 256 or 176, 3) -> (H, 256, 3)."""
    width = image.shape[1]
    if width not in (INNER, INNER + 2 * BAND):
        raise UserError(
            f"an image {width} pixels wide; SSIM protocol B_padded is defined for DeepFashion's "
            f"{INNER + 2 * BAND} or {INNER}"
        )
    inner = image[:, BAND:-BAND] if width > INNER else image
    return np.pad(inner, ((0, 0), (BAND, BAND), (0, 0)), constant_values=255)


def check_images(generated: np.ndarray, target: np.ndarray) -> None:
    """Raises UserError unless both are (H, W, 3) uint8 of one size that is not empty."""
    for image in (generated, target):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise UserError(f"an image is {image.dtype} {image.shape}; expected uint8 (H, W, 3), H and W above 0")
    if generated.shape != target.shape:
        raise UserError(f"generated image {generated.shape} and target {target.shape} differ in size")
