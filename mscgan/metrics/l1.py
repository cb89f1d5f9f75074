"""The mean absolute difference of two images."""

import torch
from torch import Tensor

from mscgan.metrics.ssim import check_images


def l1(generated: Tensor, target: Tensor) -> Tensor:
    """mean |generated - target| of N pairs of (N, H, W, 3) uint8 images on the scale [-1, 1]: (N,) float64, 0 the same,
    2 black against white.

    Raises:
        UserError: other dtypes or shapes.
    """
    check_images(generated, target)
    total = (generated.short() - target).abs_().sum((1, 2, 3), dtype=torch.float64)  # of whole numbers: exact
    return total / (127.5 * generated.shape[1:].numel())
