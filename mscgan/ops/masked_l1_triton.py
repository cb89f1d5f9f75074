"""The Triton kernels of `masked_l1`.

A program takes a block of one image's elements in memory order, and for each element the mask of its pixel. Forward
writes two sums for each program, which are added up afterwards: no atomics, so equal inputs give equal bits. Backward
reads y_hat and y again rather than a stored sign.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 4096


@triton.jit
def _load(y_hat, y, mask, n, start, area, CHANNELS: tl.constexpr, LAST: tl.constexpr, BLOCK: tl.constexpr):
    """A block of image n: d and the mask, float32; the elements' places; which are inside the image."""
    element = start + tl.arange(0, BLOCK)
    inside = element < area * CHANNELS
    pixel = element // CHANNELS if LAST else element % area
    base = n * area * CHANNELS
    left = tl.load(y_hat + base + element, mask=inside, other=0.0).to(tl.float32)
    right = tl.load(y + base + element, mask=inside, other=0.0).to(tl.float32)
    weight = tl.load(mask + n * area + pixel, mask=inside, other=0.0).to(tl.float32)
    return left - right, weight, base + element, inside


@triton.jit
def _forward(
    y_hat, y, mask, sums, area, scale, CHANNELS: tl.constexpr, LAST: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    blocks = tl.cdiv(area * CHANNELS, BLOCK)
    n = (tl.program_id(0) // blocks).to(tl.int64)
    start = (tl.program_id(0) % blocks) * BLOCK
    distance, weight, _, _ = _load(y_hat, y, mask, n, start, area, CHANNELS, LAST, BLOCK)
    distance = tl.abs(distance)
    tl.store(sums + tl.program_id(0), tl.sum(distance) * scale)
    tl.store(sums + tl.num_programs(0) + tl.program_id(0), tl.sum(distance * weight) * scale)


@triton.jit
def _backward(
    grad, y_hat, y, mask, out, area, scale, CHANNELS: tl.constexpr, LAST: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    blocks = tl.cdiv(area * CHANNELS, BLOCK)
    n = (tl.program_id(0) // blocks).to(tl.int64)
    start = (tl.program_id(0) % blocks) * BLOCK
    distance, weight, place, inside = _load(y_hat, y, mask, n, start, area, CHANNELS, LAST, BLOCK)
    size = (tl.load(grad).to(tl.float32) + tl.load(grad + 1).to(tl.float32) * weight) * scale
    value = tl.where(distance > 0, size, tl.where(distance < 0, -size, 0.0))
    tl.store(out + place, value.to(out.dtype.element_ty), mask=inside)


def forward(y_hat: Tensor, y: Tensor, mask: Tensor, last: bool, sums: Tensor) -> None:
    """Fills sums (2, programs(y_hat)) float32: shares of the two means. y is dense in y_hat's layout."""
    area = y_hat.shape[2] * y_hat.shape[3]
    with torch.cuda.device_of(y_hat):
        _forward[(programs(y_hat),)](
            y_hat, y, mask, sums, area, 1 / y_hat.numel(), CHANNELS=y_hat.shape[1], LAST=last, BLOCK=_BLOCK, num_warps=8
        )


def backward(grad: Tensor, y_hat: Tensor, y: Tensor, mask: Tensor, last: bool, out: Tensor) -> None:
    """Fills out, y_hat's gradient in its layout; grad: (2,), contiguous, of the two means."""
    area = y_hat.shape[2] * y_hat.shape[3]
    with torch.cuda.device_of(y_hat):
        _backward[(programs(y_hat),)](
            grad, y_hat, y, mask, out, area, 1 / y_hat.numel(),
            CHANNELS=y_hat.shape[1], LAST=last, BLOCK=_BLOCK, num_warps=8,
        )  # fmt: skip


def programs(y_hat: Tensor) -> int:
    """How many pairs of sums `forward` writes."""
    return len(y_hat) * triton.cdiv(y_hat[0].numel(), _BLOCK)
