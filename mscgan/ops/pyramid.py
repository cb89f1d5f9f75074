"""What the discriminators see: the real pair (x, y) and the fake pair (x, y_hat) at scales 1, 1/2 and 1/4.

    real[s] = [pool_s(x), pool_s(y), 0],  fake[s] = [pool_s(x), pool_s(y_hat), 0]      [] joins channels
    "mean2": pool_s is the mean over blocks of 2^s x 2^s pixels; a part block at the edge is dropped.
    "mean3": pool_s is s times the mean over 3x3 pixels, every second pixel, over those inside the image (pix2pixHD).

Means are taken in float32 (float64 for float64) and rounded once, to y_hat's dtype. The gradient is y_hat's alone:
x and y are data.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def pyramid(
    x: Tensor, y: Tensor, y_hat: Tensor, scales: int, pool: str = "mean2", channels: int = 6
) -> tuple[list[Tensor], list[Tensor]]:
    """The pairs at `scales` sizes: x, y, y_hat (N, 3, H, W) -> (reals, fakes), two lists of (N, channels, H_s, W_s).

    scales: 1, 2 or 3. pool: "mean2" (H_s = H // 2^s) or "mean3" (H_s = H_(s-1) / 2 rounded up). channels: 6, or 8 to add
    two channels of zeros (an aligned pixel for the first convolution). Pairs have y_hat's dtype and memory format.
    """
    if pool not in ("mean2", "mean3") or channels not in (6, 8) or scales not in (1, 2, 3):
        raise ValueError(f"pool {pool!r}, {channels} channels, {scales} scales; mean2 or mean3, 6 or 8, and 1 to 3 exist")
    pairs = _reference(x, y, y_hat, scales, pool, channels)
    return [real.detach() for real in pairs[:scales]], pairs[scales:]


def _reference(x: Tensor, y: Tensor, y_hat: Tensor, scales: int, pool: str, channels: int) -> list[Tensor]:
    """The real pairs, then the fake pairs, from the largest scale to the smallest."""
    levels = [_levels(image, scales, pool, y_hat.dtype) for image in (x.detach(), y.detach(), y_hat)]
    reals, fakes = [], []
    for pooled_x, pooled_y, pooled_y_hat in zip(*levels, strict=True):
        zeros = [pooled_x.new_zeros(1, 1, 1, 1).expand(len(x), 2, *pooled_x.shape[2:])] if channels == 8 else []
        reals.append(torch.cat([pooled_x, pooled_y, *zeros], 1))
        fakes.append(torch.cat([pooled_x, pooled_y_hat, *zeros], 1))
    layout = memory_format(y_hat)
    return [pair.contiguous(memory_format=layout) for pair in reals + fakes]


def _levels(image: Tensor, scales: int, pool: str, dtype: torch.dtype) -> list[Tensor]:
    wide = image.to(torch.promote_types(dtype, torch.float32))
    levels = [wide]
    for scale in range(1, scales):
        if pool == "mean2":
            levels.append(F.avg_pool2d(wide, 2**scale))
        else:
            levels.append(F.avg_pool2d(levels[-1], 3, stride=2, padding=1, count_include_pad=False))
    return [level.to(dtype) for level in levels]


def memory_format(image: Tensor) -> torch.memory_format:
    """channels_last where the channels of a pixel lie side by side, else contiguous."""
    return torch.channels_last if image.stride(1) == 1 else torch.contiguous_format
