"""The mean absolute difference of two images."""

import numpy as np

from mscgan.metrics.ssim import check_images


def l1(generated: np.ndarray, target: np.ndarray) -> float:
    """mean |generated - target| of two (H, W, 3) uint8 images on the scale [-1, 1]: 0 the same, 2 black against white.

    Raises:
        UserError: other dtypes or shapes.
    """
    check_images(generated, target)
    return float(np.abs(generated.astype(np.float64) - target).mean() / 127.5)
