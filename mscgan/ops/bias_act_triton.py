"""The Triton kernels of `bias_act`.

Both see the tensor as the matrix that it is in memory: channels_last is (N*H*W, C) with a bias a column, contiguous
is (N*C, H*W) with a bias a row. Forward leaves the sign of x + bias as one bit an element, packed along a row of the
matrix; backward needs nothing else. The bias' gradient is summed in the same pass: each program adds up a strip of the
matrix and writes its sums, and a second, small sum joins the strips. No atomics: equal inputs give equal bits.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_TILE = 8192  # elements that a program takes at a time, 32 a thread
_PROGRAMS = 4096  # about how many backward starts: each writes sums, which so are few beside the data


@triton.jit
def _place(row_tile, column_tile, rows, columns, R: tl.constexpr, C: tl.constexpr):
    """A tile (R, C) of the matrix: its first row; its elements' places from there on; which are inside; columns."""
    first = row_tile.to(tl.int64) * R
    row = tl.arange(0, R)[:, None]
    column = column_tile * C + tl.arange(0, C)[None, :]
    return first, row * columns + column, (first + row < rows) & (column < columns), column


@triton.jit
def _forward(
    x, bias, residual, out, signs, rows, columns, channels, slope,
    ACT: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_RESIDUAL: tl.constexpr, SIGNS: tl.constexpr, BY_ROW: tl.constexpr,
    R: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    first, at, inside, column = _place(tl.program_id(0), tl.program_id(1), rows, columns, R, C)
    value = tl.load(x + first * columns + at, mask=inside, other=0.0).to(tl.float32)
    if HAS_RESIDUAL:
        added = tl.load(residual + first * columns + at, mask=inside, other=0.0).to(tl.float32)
    if HAS_BIAS:
        if BY_ROW:
            value += tl.load(bias + (first + tl.arange(0, R)[:, None]) % channels).to(tl.float32)
        else:
            value += tl.load(bias + column, mask=column < columns, other=0.0).to(tl.float32)
    if SIGNS:
        positive = ((value > 0) & inside).to(tl.int32)
        bits = tl.reshape(positive, (R, C // 8, 8)) << tl.arange(0, 8)[None, None, :]
        width = tl.cdiv(columns, 8)
        base, at_sign, kept, _ = _place(tl.program_id(0), tl.program_id(1), rows, width, R, C // 8)
        tl.store(signs + base * width + at_sign, tl.sum(bits, axis=2).to(tl.uint8), mask=kept)
    if ACT == "relu":
        value = tl.maximum(value, 0.0, propagate_nan=tl.PropagateNan.ALL)
    elif ACT == "leaky_relu":
        value = tl.where(value > 0, value, value * slope)
    if HAS_RESIDUAL:
        value += added
    tl.store(out + first * columns + at, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _backward(
    grad, signs, grad_x, strips, rows, columns, slope,
    SUM: tl.constexpr, BY_ROW: tl.constexpr, STEPS: tl.constexpr, R: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    # A program's strip runs along the matrix dimension over which the bias' gradient is summed.
    row_tile = tl.program_id(0) if BY_ROW else tl.program_id(0) * STEPS
    column_tile = tl.program_id(1) * STEPS if BY_ROW else tl.program_id(1)
    width = tl.cdiv(columns, 8)
    total = tl.zeros((R, C), tl.float32)
    for _ in range(STEPS):
        first, at, inside, _column = _place(row_tile, column_tile, rows, columns, R, C)
        base, at_sign, kept, _byte = _place(row_tile, column_tile, rows, width, R, C // 8)
        value = tl.load(grad + first * columns + at, mask=inside, other=0.0).to(tl.float32)
        packed = tl.load(signs + base * width + at_sign, mask=kept, other=0).to(tl.int32)
        positive = (packed[:, :, None] >> tl.arange(0, 8)[None, None, :]) & 1
        value = tl.where(tl.reshape(positive, (R, C)) == 1, value, value * slope)
        tl.store(grad_x + first * columns + at, value.to(grad_x.dtype.element_ty), mask=inside)
        if SUM:
            total += value
        if BY_ROW:
            column_tile += 1
        else:
            row_tile += 1
    if SUM:
        if BY_ROW:
            line = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
            tl.store(strips + tl.program_id(1) * rows + line, tl.sum(total, axis=1), mask=line < rows)
        else:
            line = tl.program_id(1) * C + tl.arange(0, C)
            strip = tl.program_id(0).to(tl.int64)
            tl.store(strips + strip * columns + line, tl.sum(total, axis=0), mask=line < columns)


def _tile(columns: int) -> tuple[int, int]:
    """Rows and columns of a tile."""
    # At most 128 columns for 256 threads: with more, the compiler spreads the tile over the threads as suits the bias,
    # and has to exchange elements between them before it can pack signs.
    c = max(8, min(128, triton.next_power_of_2(columns)))
    return _TILE // c, c


def forward(
    x: Tensor, bias: Tensor | None, residual: Tensor | None, act: str, slope: float, matrix: tuple[int, int, bool],
    out: Tensor, signs: Tensor,
) -> None:  # fmt: skip
    """Fills out (x's shape and layout) and, where it has elements, signs (rows, columns / 8 rounded up) uint8.

    matrix: rows, columns, and whether a row (else a column) has one bias. x and residual are dense in out's layout.
    """
    rows, columns, by_row = matrix
    r, c = _tile(columns)
    with torch.cuda.device_of(x):
        _forward[triton.cdiv(rows, r), triton.cdiv(columns, c)](
            x, x if bias is None else bias, x if residual is None else residual, out, signs,
            rows, columns, x.shape[1], slope,
            ACT=act, HAS_BIAS=bias is not None, HAS_RESIDUAL=residual is not None, SIGNS=signs.numel() > 0,
            BY_ROW=by_row, R=r, C=c, num_warps=8,
        )  # fmt: skip


def backward(
    grad: Tensor, signs: Tensor, slope: float, matrix: tuple[int, int, bool], grad_x: Tensor, steps: int,
    strips: Tensor | None,
) -> None:  # fmt: skip
    """Fills grad_x and, where given, strips: (strips, columns) float32, each strip's sums of grad_x for the bias; where
    a row has one bias, (strips, rows).
    """
    rows, columns, by_row = matrix
    r, c = _tile(columns)
    row_steps, column_steps = (1, steps) if by_row else (steps, 1)
    with torch.cuda.device_of(grad):
        _backward[triton.cdiv(rows, r * row_steps), triton.cdiv(columns, c * column_steps)](
            grad, signs, grad_x, grad_x if strips is None else strips, rows, columns, slope,
            SUM=strips is not None, BY_ROW=by_row, STEPS=steps, R=r, C=c, num_warps=8,
        )  # fmt: skip


def strips(matrix: tuple[int, int, bool]) -> tuple[int, int]:
    """How many tiles a program of `backward` adds up, and how many strips of sums that leaves."""
    rows, columns, by_row = matrix
    r, c = _tile(columns)
    row_tiles, column_tiles = triton.cdiv(rows, r), triton.cdiv(columns, c)
    along = column_tiles if by_row else row_tiles
    steps = min(along, max(1, row_tiles * column_tiles // _PROGRAMS))
    return steps, triton.cdiv(along, steps)
