"""SSIM and mask-SSIM by the two protocols of the field. Scores of different protocols must never be compared.

A: PG2 (score.py): 7x7 uniform window, sample covariance, range 255. The tables of PG2 and MsCGAN.
B: Siarohin et al. (pose-gan test.py; also PATN, ADGAN): 11x11 Gaussian window of sigma 1.5, covariance without Bessel's
   correction, and for range the largest minus the smallest value of the generated image.
Both take 8-bit RGB, score each channel over the whole frame and average. mask-SSIM paints all outside the mask black
in both images before, so the background counts as perfect. Here the mask is of the target's pose, as in pose-gan and
PATN; PG2's script took the source's pose for it.
"""

import numpy as np
from skimage.metrics import structural_similarity

from mscgan.errors import UserError

WINDOW = {"A": 7, "B": 11}  # pixels
DESCRIPTIONS = {
    "A": "PG2: skimage structural_similarity, uniform 7x7, sample covariance, RGB uint8, range 255",
    "B": "Siarohin: skimage structural_similarity, Gaussian sigma 1.5 (11x11), no sample covariance, RGB uint8, "
    "range of the generated image (255 where it is constant)",
}


def ssim(generated: np.ndarray, target: np.ndarray, protocol: str) -> float:
    """The structural similarity of two (H, W, 3) uint8 images under protocol "A" or "B"; 1 where they are the same.

    Protocol B has no value for a constant generated image: its range is 0 and public code divides 0 by 0. We take
    the range of 8-bit images, 255, for it, so that every pair counts.

    Raises:
        UserError: other dtypes or shapes, an image smaller than the protocol's window, an unknown protocol.
    """
    if protocol not in WINDOW:
        raise UserError(f"no SSIM protocol {protocol!r}; choose A or B")
    check_images(generated, target)
    if min(generated.shape[:2]) < WINDOW[protocol]:
        height, width = generated.shape[:2]
        raise UserError(
            f"an image of {height}x{width} (height x width) is smaller than the {WINDOW[protocol]}x{WINDOW[protocol]} "
            f"window of SSIM protocol {protocol}"
        )
    if protocol == "A":
        return float(structural_similarity(generated, target, channel_axis=2, data_range=255))
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
        UserError: as `ssim`, and a mask of another shape or with other values.
    """
    check_images(generated, target)
    if mask.shape != generated.shape[:2] or not np.isin(mask, (0, 1)).all():
        raise UserError(f"the mask is {mask.shape}; expected {generated.shape[:2]} of 0 and 1")
    inside = mask.astype(np.uint8)[:, :, None]
    return ssim(generated * inside, target * inside, protocol)


def check_images(generated: np.ndarray, target: np.ndarray) -> None:
    """Raises UserError unless both are (H, W, 3) uint8 of one size that is not empty."""
    for image in (generated, target):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise UserError(f"an image is {image.dtype} {image.shape}; expected uint8 (H, W, 3), H and W above 0")
    if generated.shape != target.shape:
        raise UserError(f"generated image {generated.shape} and target {target.shape} differ in size")
