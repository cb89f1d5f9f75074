"""The Triton kernel of `condition` and `normalise`.

Memory is written in its own order: a row of the output is W * CHANNELS elements side by side, of which each thread
takes a few whole 16-byte words. A program draws a band of rows: what depends on column and channel alone (which joint,
its distance in x, where the pixel lies in the image) it works out once. All tensors have one dimension and one shape:
with the rows as a second dimension, the compiler spreads keypoints and pixels differently over the threads and sends
each tile through shared memory. In the loop over rows every instruction counts (12 an element on sm_90): with 18
exponentials a pixel, arithmetic limits the speed about as much as memory does.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

_ROWS = 32  # of a program's band; even, as the loop takes two rows at a time


@triton.jit
def _value(
    pixel, shade, row, across, y, beyond, sharpness, squared_radius, CHANNELS: tl.constexpr, DISC: tl.constexpr
):  # fmt: skip
    """A row's elements: shade * (pixel - 127.5), plus the joint's heatmap.

    across: the squared distance from the joint in x. beyond: what the map holds outside of the disc.
    """
    # A conversion of pixel to float32 would run on the unit of the exponential. So we make the bits of 2^22 + pixel:
    # 0x4A800000 is 2^22 (4194304) as a float32, and at that size the lowest bit is worth 1/2.
    value = ((pixel.to(tl.int32) * 2 + 0x4A800000).to(tl.float32, bitcast=True) - (4194304 + 127.5)) * shade
    if CHANNELS > 3:
        down = row - y
        squared_distance = across + down * down
        if DISC:
            value += tl.where(squared_distance <= squared_radius, 1.0, beyond)
        else:
            value += tl.exp2(squared_distance * sharpness)
    return value


@triton.jit
def _kernel(
    images, flip, keypoints, out, height, width, sharpness, squared_radius,
    CHANNELS: tl.constexpr, JOINTS: tl.constexpr, DISC: tl.constexpr, BEYOND: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    bands = tl.cdiv(height, ROWS)
    n = (tl.program_id(0) // bands).to(tl.int64)
    top = (tl.program_id(0) % bands) * ROWS
    images += n * height * width * 3
    out += n * height * width * CHANNELS

    element = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    in_row = element < width * CHANNELS
    column = tl.minimum(element // CHANNELS, width - 1)
    channel = element % CHANNELS
    mirrored = tl.load(flip + n) != 0
    source = tl.where(mirrored, width - 1 - column, column) * 3 + tl.minimum(channel, 2)
    shade = 1 / 127.5
    if CHANNELS > 3:
        joint = keypoints + n * (JOINTS * 2) + (channel - 3) * 2
        is_map = (channel >= 3) & (channel < 3 + JOINTS)
        x = tl.load(joint, mask=is_map, other=-1.0)
        y = tl.load(joint + 1, mask=is_map, other=-1.0)
        missing = (x == -1.0) | (y == -1.0)
        if DISC:
            x = x.to(tl.int32).to(tl.float32)
            y = y.to(tl.int32).to(tl.float32)
        across = column - x
        across = tl.where(missing, float("inf"), across * across)  # channels that are no map are missing too
        beyond = tl.where(is_map, BEYOND, 0.0)
        shade = tl.where(channel < 3, shade, 0.0)  # 0 in maps: adding image and map is faster than a choice
    else:
        across = tl.zeros((BLOCK,), tl.float32)  # not used
        y = across
        beyond = across

    source = source.to(tl.uint32)
    for row in range(top, tl.minimum(top + ROWS, height), 2):
        below = tl.minimum(row + 1, height - 1)
        pixel = tl.load(images + row * (width * 3) + source)  # before the first store, so that the loads overlap
        pixel_below = tl.load(images + below * (width * 3) + source)
        value = _value(pixel, shade, row, across, y, beyond, sharpness, squared_radius, CHANNELS, DISC)
        tl.store(out + row * (width * CHANNELS) + element, value.to(out.dtype.element_ty), mask=in_row)
        value = _value(pixel_below, shade, below, across, y, beyond, sharpness, squared_radius, CHANNELS, DISC)
        tl.store(out + below * (width * CHANNELS) + element, value.to(out.dtype.element_ty), mask=in_row)


def draw(
    images: Tensor, flip: Tensor, keypoints: Tensor | None, kind: str, sigma: float, radius: float, out: Tensor
) -> None:
    """Fills out (N, C, H, W), channels_last: C is 21 or 24, or without keypoints 3, the image alone."""
    count, height, width, _ = images.shape
    channels = out.shape[1]
    block = min(512, triton.next_power_of_2(width * channels))
    grid = (count * triton.cdiv(height, _ROWS), triton.cdiv(width * channels, block))
    with torch.cuda.device_of(out):
        _kernel[grid](
            images.contiguous(), flip.contiguous().view(torch.uint8),
            images if keypoints is None else keypoints.float().contiguous(), out,
            height, width, -1 / (2 * sigma**2 * math.log(2)), radius**2,
            CHANNELS=channels, JOINTS=0 if keypoints is None else keypoints.shape[1],
            DISC=kind != "gaussian", BEYOND=-1.0 if kind == "disc_pg2" else 0.0,
            ROWS=_ROWS, BLOCK=block, num_warps=max(1, block // 256),
        )  # fmt: skip
