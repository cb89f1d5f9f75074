"""The Triton kernels of `pyramid`.

Forward: a program takes a tile of 4 rows, and a thread holds whole pixels of both pairs in registers, so that 8
channels are stored as 16-byte words. 2x2 means are sums inside that tile. The windows of the 3x3 means reach over its
edges: their pixels ("taps") are loaded again, from the cache.

Backward: each thread takes neighbouring elements of y_hat's gradient and gathers, from all scales, what falls on them.
Incoming gradients are read through their strides: expanded or cut out of another tensor, they need no copy.

All tensors have one dimension, which leaves the compiler one way to spread them over the threads. With more dimensions
some versions (Triton 3.6) give neighbouring threads different rows, and memory is no longer read in whole words.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _pixels(band, side, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Row, column and channel of each of a tile's ROWS * COLUMNS * 8 elements, a pixel's eight channels together."""
    element = tl.arange(0, ROWS * COLUMNS * 8)
    return band * ROWS + element // (COLUMNS * 8), side * COLUMNS + element // 8 % COLUMNS, element % 8


@triton.jit
def _load_pairs(x, y, y_hat, x_c, x_h, x_w, y_c, y_h, y_w, f_c, f_h, f_w, row, column, channel, inside):
    """The elements of the real and of the fake pair, float32, 0 outside and in channels 6 and 7."""
    first = inside & (channel < 3)
    second = inside & (channel >= 3) & (channel < 6)
    left = tl.load(x + (row * x_h + column * x_w + channel * x_c), mask=first, other=0.0).to(tl.float32)
    real = tl.load(y + (row * y_h + column * y_w + (channel - 3) * y_c), mask=second, other=0.0).to(tl.float32)
    fake = tl.load(y_hat + (row * f_h + column * f_w + (channel - 3) * f_c), mask=second, other=0.0).to(tl.float32)
    return left + real, left + fake


@triton.jit
def _store(out, n, height, width, row, column, channel, value, CHANNELS: tl.constexpr, LAST: tl.constexpr):
    """Writes a tile's elements to image n of out (N, CHANNELS, height, width), channels_last or contiguous."""
    inside = (row < height) & (column < width) & (channel < CHANNELS)
    out += n * height * width * CHANNELS
    if LAST:
        place = (row * width + column) * CHANNELS + channel
    else:
        place = channel * (height * width) + row * width + column
    tl.store(out + place, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _mean_2x2(value, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    blocks = tl.reshape(value, (ROWS // 2, 2, COLUMNS // 2, 2, 8))
    return tl.reshape(tl.sum(tl.sum(blocks, axis=3), axis=1), (ROWS * COLUMNS * 2,)) * 0.25


@triton.jit
def _one_tap(i, count, size):
    """The weight of a tap in mean i of `count` (else 0), which is over the taps 2i-1, 2i, 2i+1 inside [0, size)."""
    taps = 3 - (i == 0).to(tl.int32) - (2 * i + 1 >= size).to(tl.int32)
    return tl.where((i >= 0) & (i < count), 1.0 / taps.to(tl.float32), 0.0)


@triton.jit
def _mean_of_means(i, quarter, half, size):
    """Mean i of the quarter scale is over three means, around 4i-2, 4i and 4i+2: a tap's weight in each of them."""
    outer = _one_tap(i, quarter, half)
    before = outer * _one_tap(2 * i - 1, half, size)
    middle = outer * _one_tap(2 * i, half, size)
    return before, middle, outer * _one_tap(2 * i + 1, half, size)


@triton.jit
def _tap_of_7(k, before, middle, after):
    """The weight of pixel 4i-3+k in mean i of the quarter scale, k in [0, 7): two of its means meet at k = 2 and 4."""
    return tl.where(k <= 2, before, 0.0) + tl.where((k >= 2) & (k <= 4), middle, 0.0) + tl.where(k >= 4, after, 0.0)


@triton.jit
def _forward(
    x, y, y_hat, real_1, real_2, real_4, fake_1, fake_2, fake_4, height, width,
    x_n, x_c, x_h, x_w, y_n, y_c, y_h, y_w, f_n, f_c, f_h, f_w,
    SCALES: tl.constexpr, MEAN3: tl.constexpr, CHANNELS: tl.constexpr, LAST: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    bands = tl.cdiv(height, ROWS)
    n = (tl.program_id(0) // bands).to(tl.int64)
    band = tl.program_id(0) % bands
    side = tl.program_id(1)
    x += n * x_n
    y += n * y_n
    y_hat += n * f_n

    row, column, channel = _pixels(band, side, ROWS, COLUMNS)
    real, fake = _load_pairs(
        x, y, y_hat, x_c, x_h, x_w, y_c, y_h, y_w, f_c, f_h, f_w, row, column, channel,
        (row < height) & (column < width),
    )  # fmt: skip
    _store(real_1, n, height, width, row, column, channel, real, CHANNELS, LAST)
    _store(fake_1, n, height, width, row, column, channel, fake, CHANNELS, LAST)

    if SCALES > 1:
        row, column, channel = _pixels(band, side, ROWS // 2, COLUMNS // 2)
        if MEAN3:
            half_height = (height + 1) // 2
            half_width = (width + 1) // 2
            real = tl.zeros((ROWS * COLUMNS * 8 // 4,), tl.float32)
            fake = tl.zeros((ROWS * COLUMNS * 8 // 4,), tl.float32)
            for tap in range(9):
                at_row = 2 * row - 1 + tap // 3
                at_column = 2 * column - 1 + tap % 3
                inside = (at_row >= 0) & (at_row < height) & (at_column >= 0) & (at_column < width)
                tap_real, tap_fake = _load_pairs(
                    x, y, y_hat, x_c, x_h, x_w, y_c, y_h, y_w, f_c, f_h, f_w, at_row, at_column, channel, inside
                )
                real += tap_real
                fake += tap_fake
            mean = _one_tap(row, half_height, height) * _one_tap(column, half_width, width)
            real *= mean
            fake *= mean
        else:
            half_height = height // 2
            half_width = width // 2
            real = _mean_2x2(real, ROWS, COLUMNS)
            fake = _mean_2x2(fake, ROWS, COLUMNS)
        _store(real_2, n, half_height, half_width, row, column, channel, real, CHANNELS, LAST)
        _store(fake_2, n, half_height, half_width, row, column, channel, fake, CHANNELS, LAST)

    if SCALES > 2:
        row, column, channel = _pixels(band, side, ROWS // 4, COLUMNS // 4)
        if MEAN3:
            quarter_height = (half_height + 1) // 2
            quarter_width = (half_width + 1) // 2
            real = tl.zeros((ROWS * COLUMNS * 8 // 16,), tl.float32)
            fake = tl.zeros((ROWS * COLUMNS * 8 // 16,), tl.float32)
            above, level, below = _mean_of_means(row, quarter_height, half_height, height)
            left, centre, right = _mean_of_means(column, quarter_width, half_width, width)
            for tap in range(49):
                at_row = 4 * row - 3 + tap // 7
                at_column = 4 * column - 3 + tap % 7
                inside = (at_row >= 0) & (at_row < height) & (at_column >= 0) & (at_column < width)
                weight = _tap_of_7(tap // 7, above, level, below) * _tap_of_7(tap % 7, left, centre, right)
                tap_real, tap_fake = _load_pairs(
                    x, y, y_hat, x_c, x_h, x_w, y_c, y_h, y_w, f_c, f_h, f_w, at_row, at_column, channel, inside
                )
                real += weight * tap_real
                fake += weight * tap_fake
        else:
            quarter_height = half_height // 2
            quarter_width = half_width // 2
            real = _mean_2x2(real, ROWS // 2, COLUMNS // 2)
            fake = _mean_2x2(fake, ROWS // 2, COLUMNS // 2)
        _store(real_4, n, quarter_height, quarter_width, row, column, channel, real, CHANNELS, LAST)
        _store(fake_4, n, quarter_height, quarter_width, row, column, channel, fake, CHANNELS, LAST)


@triton.jit
def _backward(
    grad_1, grad_2, grad_4, out, height, width,
    g1_n, g1_c, g1_h, g1_w, g2_n, g2_c, g2_h, g2_w, g4_n, g4_c, g4_h, g4_w,
    HAS_1: tl.constexpr, HAS_2: tl.constexpr, HAS_4: tl.constexpr, MEAN3: tl.constexpr, LAST: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    bands = tl.cdiv(height, ROWS)
    n = (tl.program_id(0) // bands).to(tl.int64)
    of_tile = tl.arange(0, ROWS * BLOCK)
    row = (tl.program_id(0) % bands) * ROWS + of_tile // BLOCK
    element = tl.program_id(1) * BLOCK + of_tile % BLOCK
    if LAST:
        column = element // 3
        channel = element % 3
        length = width * 3
        place = row * length + element
    else:
        column = element
        channel = tl.program_id(2)
        length = width
        place = channel * (height * width) + row * width + element
    inside = (row < height) & (element < length)  # not column < width, which hides that whole words fit
    # y_hat is channels 3 to 5 of a fake pair.
    grad_1 += n * g1_n + 3 * g1_c
    grad_2 += n * g2_n + 3 * g2_c
    grad_4 += n * g4_n + 3 * g4_c

    total = tl.zeros((ROWS * BLOCK,), tl.float32)
    if HAS_1:
        total += tl.load(grad_1 + (row * g1_h + column * g1_w + channel * g1_c), mask=inside, other=0.0).to(tl.float32)
    if MEAN3:
        half_height = (height + 1) // 2
        half_width = (width + 1) // 2
        quarter_height = (half_height + 1) // 2
        quarter_width = (half_width + 1) // 2
        if HAS_2:
            for tap in range(4):  # window i is around 2i; an odd row or column is in window i + 1 too
                i = row // 2 + tap // 2
                j = column // 2 + tap % 2
                weight = _one_tap(i, half_height, height) * _one_tap(j, half_width, width)
                covers = inside & (row - 2 * i >= -1) & (column - 2 * j >= -1) & (weight > 0)
                part = tl.load(grad_2 + (i * g2_h + j * g2_w + channel * g2_c), mask=covers, other=0.0)
                total += weight * part.to(tl.float32)
        if HAS_4:
            for tap in range(4):
                i = row // 4 + tap // 2
                j = column // 4 + tap % 2
                above, level, below = _mean_of_means(i, quarter_height, half_height, height)
                left, centre, right = _mean_of_means(j, quarter_width, half_width, width)
                k = row - (4 * i - 3)
                m = column - (4 * j - 3)
                weight = _tap_of_7(k, above, level, below) * _tap_of_7(m, left, centre, right)
                covers = inside & (k >= 0) & (m >= 0) & (weight > 0)
                part = tl.load(grad_4 + (i * g4_h + j * g4_w + channel * g4_c), mask=covers, other=0.0)
                total += weight * part.to(tl.float32)
    else:
        if HAS_2:
            i = row // 2
            j = column // 2
            covers = inside & (i < height // 2) & (j < width // 2)
            part = tl.load(grad_2 + (i * g2_h + j * g2_w + channel * g2_c), mask=covers, other=0.0)
            total += part.to(tl.float32) * 0.25
        if HAS_4:
            i = row // 4
            j = column // 4
            covers = inside & (i < height // 4) & (j < width // 4)
            part = tl.load(grad_4 + (i * g4_h + j * g4_w + channel * g4_c), mask=covers, other=0.0)
            total += part.to(tl.float32) * 0.0625
    tl.store(out + n * height * width * 3 + place, total.to(out.dtype.element_ty), mask=inside)


def forward(x: Tensor, y: Tensor, y_hat: Tensor, pool: str, last: bool, pairs: list[Tensor]) -> None:
    """Fills the pairs: the real ones, then the fake ones, channels_last or contiguous as `last` says."""
    count, _, height, width = y_hat.shape
    scales = len(pairs) // 2
    columns = max(4, min(128, triton.next_power_of_2(width)))
    reals = (pairs[:scales] * 3)[:3]  # the kernel leaves those beyond `scales` alone
    fakes = (pairs[scales:] * 3)[:3]
    with torch.cuda.device_of(y_hat):
        _forward[count * triton.cdiv(height, 4), triton.cdiv(width, columns)](
            x, y, y_hat, *reals, *fakes, height, width, *x.stride(), *y.stride(), *y_hat.stride(),
            SCALES=scales, MEAN3=pool == "mean3", CHANNELS=pairs[0].shape[1], LAST=last, ROWS=4, COLUMNS=columns,
            num_warps=max(1, columns // 32),
        )  # fmt: skip


def backward(grads: list[Tensor | None], pool: str, last: bool, out: Tensor) -> None:
    """Fills out (N, 3, H, W), y_hat's gradient, from those of the fake pairs (None: no gradient at that scale)."""
    count, _, height, width = out.shape
    grads = (grads + [None, None])[:3]
    length = width * 3 if last else width
    block = max(16, min(512, triton.next_power_of_2(length)))
    grid = (count * triton.cdiv(height, 4), triton.cdiv(length, block), 1 if last else 3)
    strides = [step for grad in grads for step in ((0, 0, 0, 0) if grad is None else grad.stride())]
    with torch.cuda.device_of(out):
        _backward[grid](
            *[out if grad is None else grad for grad in grads], out, height, width, *strides,
            HAS_1=grads[0] is not None, HAS_2=grads[1] is not None, HAS_4=grads[2] is not None,
            MEAN3=pool == "mean3", LAST=last, ROWS=4, BLOCK=block, num_warps=max(1, block // 256),
        )  # fmt: skip
