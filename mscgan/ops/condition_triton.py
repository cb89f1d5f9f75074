"""The Triton kernel of `condition` and `normalise`.

Memory is written in its own order: a row of the output is W * CHANNELS elements side by side, of which each thread takes
a few whole 16-byte words. What depends on the column and the channel alone (which joint, how far away across, where the
pixel lies in the image) is worked out once and serves a band of rows.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

_ROWS = 4  # rows a step
_STEPS = 4  # steps a program


@triton.jit
def _kernel(
    images, flip, keypoints, out, height, width, sharpness, squared_radius,
    CHANNELS: tl.constexpr, DISC: tl.constexpr, ROWS: tl.constexpr, STEPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    bands = tl.cdiv(height, ROWS * STEPS)
    n = (tl.program_id(0) // bands).to(tl.int64)
    band = tl.program_id(0) % bands
    images += n * height * width * 3
    out += n * height * width * CHANNELS

    element = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    in_row = element < width * CHANNELS
    column = element // CHANNELS
    channel = element % CHANNELS
    mirrored = tl.load(flip + n) != 0
    source = tl.where(mirrored, width - 1 - column, column) * 3 + channel
    is_image = in_row & (channel < 3)
    if CHANNELS > 3:
        joint = keypoints + n * ((CHANNELS - 3) * 2) + (channel - 3) * 2
        is_map = in_row & (channel >= 3)
        x = tl.load(joint, mask=is_map, other=-1.0)
        y = tl.load(joint + 1, mask=is_map, other=-1.0)
        missing = (x == -1.0) | (y == -1.0)
        if DISC:
            x = x.to(tl.int32).to(tl.float32)
            y = y.to(tl.int32).to(tl.float32)
        across = column - x
        across = tl.where(missing, float("inf"), across * across)

    for step in range(STEPS):
        row = ((band * STEPS + step) * ROWS + tl.arange(0, ROWS))[:, None]
        in_image = row < height
        pixel = tl.load(images + (row * (width * 3) + source[None, :]), mask=in_image & is_image[None, :], other=0)
        value = (pixel.to(tl.float32) - 127.5) * (1 / 127.5)
        if CHANNELS > 3:
            down = row - y[None, :]
            squared_distance = across[None, :] + down * down
            if DISC:
                drawn = tl.where(squared_distance <= squared_radius, 1.0, 0.0)
            else:
                drawn = tl.exp2(squared_distance * sharpness)
            value = tl.where((channel < 3)[None, :], value, drawn)
        place = out + (row * (width * CHANNELS) + element[None, :])
        tl.store(place, value.to(out.dtype.element_ty), mask=in_image & in_row[None, :])


def draw(
    images: Tensor, flip: Tensor, keypoints: Tensor | None, kind: str, sigma: float, radius: float, out: Tensor
) -> None:
    """Fills out (N, 3 or 21, H, W), channels_last; without keypoints it holds the image alone."""
    count, height, width, _ = images.shape
    channels = out.shape[1]
    block = min(512, triton.next_power_of_2(width * channels))
    grid = (count * triton.cdiv(height, _ROWS * _STEPS), triton.cdiv(width * channels, block))
    with torch.cuda.device_of(out):
        _kernel[grid](
            images.contiguous(), flip.contiguous().view(torch.uint8),
            images if keypoints is None else keypoints.float().contiguous(), out,
            height, width, -1 / (2 * sigma**2 * math.log(2)), radius**2,
            CHANNELS=channels, DISC=kind == "disc", ROWS=_ROWS, STEPS=_STEPS, BLOCK=block,
            num_warps=max(1, block // 256),
        )  # fmt: skip
