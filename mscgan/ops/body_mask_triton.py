"""The Triton kernels of `body_mask`.

The first draws limbs and joints, a bit for each pixel, 32 bits to a word. A program draws a tile of one image and skips
the limbs that do not reach it. The second closes gaps with a 5x5 square (dilation, then erosion) by shifting whole
words, each in 64 bits with 16 pixels of either neighbour, and writes the mask. The words between the two kernels have
1/32 of the mask's bytes.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_ROWS = 16  # of a program's tile


@triton.jit
def _in_discs(drawn, row, column, top, bottom, x_0, y_0, x_1, y_1, height, width, RADIUS: tl.constexpr):
    """PG2's limb: discs in a row from end to end, as `pose._pg2_limbs` places them."""
    start_x, start_y = x_0.to(tl.int32), y_0.to(tl.int32)
    along_x, along_y = x_1.to(tl.int32) - start_x, y_1.to(tl.int32) - start_y
    length = tl.sqrt((along_x * along_x + along_y * along_y).to(tl.float64))
    n = tl.maximum((length / RADIUS).to(tl.int32), 1)
    for i in range(n + 1):
        # The reference rounds down, // here rounds towards 0: |along| is added, which makes the dividend positive, and
        # taken away again.
        x = start_x - tl.abs(along_x) + (along_x * i + tl.abs(along_x) * n) // n
        y = start_y - tl.abs(along_y) + (along_y * i + tl.abs(along_y) * n) // n
        near = (y >= top - RADIUS) & (y <= bottom + RADIUS)
        if near & (x >= 0) & (x < width) & (y >= 0) & (y < height):
            squared = (row - y) * (row - y) + (column - x) * (column - x)
            drawn = drawn | (squared <= RADIUS * RADIUS)
    return drawn


@triton.jit
def _in_rectangle(drawn, row, column, x_0, y_0, x_1, y_1, RADIUS: tl.constexpr):
    """pose-gan's limb: a rectangle, its edges included, in float64."""
    x_0, y_0, x_1, y_1 = x_0.to(tl.float64), y_0.to(tl.float64), x_1.to(tl.float64), y_1.to(tl.float64)
    along_x, along_y = x_1 - x_0, y_1 - y_0
    squared_length = along_x * along_x + along_y * along_y
    dx, dy = column - x_0, row - y_0
    across = dx * along_y - dy * along_x
    along = dx * along_x + dy * along_y
    inside = (across * across <= RADIUS * RADIUS * squared_length) & (along >= 0) & (along <= squared_length)
    if squared_length > 0:
        drawn = drawn | inside
    return drawn


@triton.jit
def _draw(
    keypoints, limbs, words, height, width, words_a_row,
    JOINTS: tl.constexpr, LIMBS: tl.constexpr, PG2: tl.constexpr, RADIUS: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    bands = tl.cdiv(height, ROWS)
    n = (tl.program_id(0) // bands).to(tl.int64)
    top = (tl.program_id(0) % bands) * ROWS
    bottom = top + ROWS - 1
    keypoints += n * JOINTS * 2
    element = tl.arange(0, ROWS * COLUMNS)
    row = top + element // COLUMNS
    column = tl.program_id(1) * COLUMNS + element % COLUMNS
    drawn = element < 0

    for limb in range(LIMBS):
        start = keypoints + 2 * tl.load(limbs + 2 * limb)
        end = keypoints + 2 * tl.load(limbs + 2 * limb + 1)
        x_0, y_0, x_1, y_1 = tl.load(start), tl.load(start + 1), tl.load(end), tl.load(end + 1)
        there = (x_0 != -1) & (y_0 != -1) & (x_1 != -1) & (y_1 != -1)
        reaches = (tl.minimum(y_0, y_1) - RADIUS - 1 <= bottom) & (tl.maximum(y_0, y_1) + RADIUS >= top)
        if there & reaches:
            if PG2:
                drawn = _in_discs(drawn, row, column, top, bottom, x_0, y_0, x_1, y_1, height, width, RADIUS)
            else:
                drawn = _in_rectangle(drawn, row, column, x_0, y_0, x_1, y_1, RADIUS)
    if not PG2:
        for joint in range(JOINTS):
            x, y = tl.load(keypoints + 2 * joint), tl.load(keypoints + 2 * joint + 1)
            if (x != -1) & (y != -1):
                dx, dy = column - x.to(tl.float64), row - y.to(tl.float64)
                drawn = drawn | (dx * dx + dy * dy < RADIUS * RADIUS)

    bits = tl.reshape((drawn & (column < width)).to(tl.int32), (ROWS * COLUMNS // 32, 32))
    packed = tl.sum(bits << tl.arange(0, 32)[None, :], axis=1)
    element = tl.arange(0, ROWS * COLUMNS // 32)
    row = top + element // (COLUMNS // 32)
    word = tl.program_id(1) * (COLUMNS // 32) + element % (COLUMNS // 32)
    tl.store(words + (n * height + row) * words_a_row + word, packed, mask=(row < height) & (word < words_a_row))


@triton.jit
def _wide(words, row, word, height, words_a_row):
    """Pixels 32 * word - 16 to 32 * word + 47 of a row, the first as the lowest of 64 bits; 0 outside the image."""
    inside = (row >= 0) & (row < height)
    words += row * words_a_row + word
    before = tl.load(words - 1, mask=inside & (word > 0), other=0).to(tl.uint32, bitcast=True).to(tl.uint64)
    here = tl.load(words, mask=inside & (word < words_a_row), other=0).to(tl.uint32, bitcast=True).to(tl.uint64)
    after = tl.load(words + 1, mask=inside & (word + 1 < words_a_row), other=0).to(tl.uint32, bitcast=True)
    return (before >> 16) | (here << 16) | (after.to(tl.uint64) << 48)


@triton.jit
def _close(words, mask, height, width, words_a_row, ROWS: tl.constexpr, WORDS: tl.constexpr):
    bands = tl.cdiv(height, ROWS)
    n = (tl.program_id(0) // bands).to(tl.int64)
    top = (tl.program_id(0) % bands) * ROWS
    words += n * height * words_a_row
    element = tl.arange(0, ROWS * WORDS)
    row = top + element // WORDS
    word = tl.program_id(1) * WORDS + element % WORDS

    closed = ~tl.zeros((ROWS * WORDS,), tl.uint64)
    for down in range(-2, 3):
        dilated = tl.zeros((ROWS * WORDS,), tl.uint64)
        for further in range(-2, 3):
            dilated |= _wide(words, row + down + further, word, height, words_a_row)
        dilated |= (dilated << 1) | (dilated >> 1) | (dilated << 2) | (dilated >> 2)
        # Erosion looks at the pixels inside the image only, so those outside count as drawn.
        outside = (row + down < 0) | (row + down >= height)
        closed &= tl.where(outside, ~tl.zeros((ROWS * WORDS,), tl.uint64), dilated)
    ones = ~tl.zeros((ROWS * WORDS,), tl.uint64)
    left = tl.maximum(16 - 32 * word, 0)  # how many bits lie left of the image
    right = tl.minimum(width - 32 * word + 16, 63)  # the first bit right of it, or the last bit, which is not used
    closed |= ~(ones << left.to(tl.uint64)) | tl.where(
        right < 63, ones << tl.maximum(right, 0).to(tl.uint64), ones << 63
    )
    closed &= (closed << 1) & (closed >> 1) & (closed << 2) & (closed >> 2)

    bit = tl.arange(0, 32)[None, :]
    pixels = (closed[:, None] >> (bit + 16).to(tl.uint64)) & 1
    column = word[:, None] * 32 + bit
    place = row[:, None] * width + column
    inside = (row[:, None] < height) & (column < width)
    tl.store(mask + n * height * width + place, pixels.to(tl.float32), mask=inside)


def draw(keypoints: Tensor, limbs: Tensor, kind: str, radius: float, mask: Tensor) -> None:
    """Fills mask (N, 1, H, W) float32. keypoints: (N, 18, 2) float32, limbs: (23, 2) int32 joints, both contiguous."""
    count, _, height, width = mask.shape
    words_a_row = triton.cdiv(width, 32)
    words = torch.empty(count, height, words_a_row, dtype=torch.int32, device=mask.device)
    wide = min(4, triton.next_power_of_2(words_a_row))
    grid = (count * triton.cdiv(height, _ROWS), triton.cdiv(words_a_row, wide))
    with torch.cuda.device_of(mask):
        _draw[grid](
            keypoints, limbs, words, height, width, words_a_row,
            JOINTS=keypoints.shape[1], LIMBS=len(limbs), PG2=kind == "pg2", RADIUS=radius,
            ROWS=_ROWS, COLUMNS=32 * wide, num_warps=wide,
            enable_fp_fusion=False,  # a fused multiply-add rounds differently from the reference
        )  # fmt: skip
        _close[grid](words, mask, height, width, words_a_row, ROWS=_ROWS, WORDS=wide, num_warps=wide)
