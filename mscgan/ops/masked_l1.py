"""The L1 distance and its part on the person, in one pass (the two terms of equations 1 and 4).

    d = y_hat - y,   (mean |d|, mean |d| * M), both means over all N * C * H * W elements, as PG2 takes them.

Sums are taken in float32 (float64 for float64). The gradient is y_hat's alone: y and M are data.
"""

import torch
from torch import Tensor


def masked_l1(y_hat: Tensor, y: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """y_hat, y (N, C, H, W) and mask (N, 1, H, W) -> (mean |y_hat - y|, mean |y_hat - y| * mask), float32 scalars."""
    return _reference(y_hat, y, mask)


def _reference(y_hat: Tensor, y: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    wide = torch.promote_types(y_hat.dtype, torch.float32)
    distance = (y_hat.to(wide) - y.detach().to(wide)).abs()
    return distance.mean(), (distance * mask.detach().to(wide)).mean()
