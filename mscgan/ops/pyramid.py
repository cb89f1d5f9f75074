"""What the discriminators see: the real pair (x, y) and the fake pair (x, y_hat) at scales 1, 1/2 and 1/4.

    real[s] = [pool_s(x), pool_s(y), 0],  fake[s] = [pool_s(x), pool_s(y_hat), 0]      [] joins channels
    "mean2": pool_s is the mean over blocks of 2^s x 2^s pixels; a part block at the edge is dropped.
    "mean3": pool_s halves the image s times in a row, each time by the mean over the 3x3 pixels around every second
    pixel, of which those outside the image do not count (pix2pixHD).

Means are taken in float32 (float64 for float64) and rounded once, to y_hat's dtype. The gradient is y_hat's alone:
x and y are data.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def pyramid(
    x: Tensor, y: Tensor, y_hat: Tensor, scales: int, pool: str = "mean2", channels: int = 6
) -> tuple[list[Tensor], list[Tensor]]:
    """The pairs at `scales` sizes: x, y, y_hat (N, 3, H, W) -> (reals, fakes), two lists of (N, channels, H_s, W_s).

    scales: 1, 2 or 3. pool: "mean2" (H_s = H // 2^s) or "mean3" (H_s = H_(s-1) / 2 rounded up). channels: 6, or 8 to
    add two channels of zeros: then a pixel of 16-bit numbers is a whole 16-byte word, as convolutions like it and as
    the kernel is fastest. Pairs have y_hat's dtype and memory format.
    """
    if pool not in ("mean2", "mean3") or channels not in (6, 8) or scales not in (1, 2, 3):
        given = f"pool {pool!r}, {channels} channels, {scales} scales"
        raise ValueError(f"{given}; choose mean2 or mean3, 6 or 8, and 1 to 3")
    if y_hat.is_cuda and y_hat.dtype != torch.float64:  # the kernel takes means in float32
        pairs = _op(x, y, y_hat, scales, pool, channels)
    else:
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


def _reference_backward(
    grads: list[Tensor | None], shape: tuple[int, ...], pool: str, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """y_hat's gradient from those of the fake pairs, as autograd takes it through `_reference`."""
    wide = torch.promote_types(dtype, torch.float32)
    parts = [None if grad is None else grad[:, 3:6].to(wide) for grad in grads]
    sizes = [shape]
    for _ in grads[1:]:
        sizes.append((*shape[:2], (sizes[-1][2] + 1) // 2, (sizes[-1][3] + 1) // 2))
    total = torch.zeros(shape, dtype=wide, device=device)
    for scale in reversed(range(len(grads))):
        part = parts[scale]
        if part is None:
            continue
        if pool == "mean2":
            total += part if scale == 0 else _spread(part, shape, 2**scale, 2**scale, 0)
            continue
        for finer in reversed(range(scale)):
            part = _spread(part, sizes[finer], 3, 2, 1)
        total += part
    return total.to(dtype)


def _spread(grad: Tensor, shape: tuple[int, ...], kernel: int, stride: int, padding: int) -> Tensor:
    """A pool's backward: each mean's gradient shared out over the pixels of its window."""
    image = grad.new_empty(shape)
    return torch.ops.aten.avg_pool2d_backward(
        grad.contiguous(), image, [kernel] * 2, [stride] * 2, [padding] * 2, False, False, None
    )


def _empty_pairs(y_hat: Tensor, scales: int, pool: str, channels: int) -> list[Tensor]:
    count, _, height, width = y_hat.shape
    shapes = []
    for _ in range(scales):
        shapes.append((count, channels, height, width))
        odd = 1 if pool == "mean3" else 0
        height, width = (height + odd) // 2, (width + odd) // 2
    layout = memory_format(y_hat)
    return [
        torch.empty(shape, dtype=y_hat.dtype, device=y_hat.device, memory_format=layout) for shape in shapes + shapes
    ]


@torch.library.custom_op("mscgan::pyramid", mutates_args=())
def _op(x: Tensor, y: Tensor, y_hat: Tensor, scales: int, pool: str, channels: int) -> list[Tensor]:
    pairs = _reference(x, y, y_hat, scales, pool, channels)
    return [out.copy_(pair) for out, pair in zip(_empty_pairs(y_hat, scales, pool, channels), pairs, strict=True)]


@_op.register_fake
def _(x, y, y_hat, scales, pool, channels):
    return _empty_pairs(y_hat, scales, pool, channels)


@_op.register_kernel("cuda")
def _(x, y, y_hat, scales, pool, channels):
    from mscgan.ops import pyramid_triton

    pairs = _empty_pairs(y_hat, scales, pool, channels)
    pyramid_triton.forward(x, y, y_hat, pool, memory_format(y_hat) == torch.channels_last, pairs)
    return pairs


def _empty_grad(shape: Sequence[int], last: bool, dtype: torch.dtype, device: torch.device) -> Tensor:
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty(tuple(shape), dtype=dtype, device=device, memory_format=layout)


@torch.library.custom_op("mscgan::pyramid_backward", mutates_args=())
def _backward_op(
    grads: Sequence[Tensor | None], shape: Sequence[int], pool: str, last: bool, dtype: torch.dtype,
    device: torch.device,
) -> Tensor:  # fmt: skip
    out = _empty_grad(shape, last, dtype, device)
    return out.copy_(_reference_backward(list(grads), tuple(shape), pool, dtype, device))


@_backward_op.register_fake
def _(grads, shape, pool, last, dtype, device):
    return _empty_grad(shape, last, dtype, device)


@_backward_op.register_kernel("cuda")
def _(grads, shape, pool, last, dtype, device):
    from mscgan.ops import pyramid_triton

    out = _empty_grad(shape, last, dtype, device)
    pyramid_triton.backward(list(grads), pool, last, out)
    return out


def _setup_context(ctx, inputs, output):
    _, _, y_hat, ctx.scales, ctx.pool, _ = inputs
    ctx.shape, ctx.dtype, ctx.device = list(y_hat.shape), y_hat.dtype, y_hat.device
    ctx.last = memory_format(y_hat) == torch.channels_last
    ctx.set_materialize_grads(False)


def _backward(ctx, grads):
    fakes = grads[ctx.scales :]
    return None, None, _backward_op(fakes, ctx.shape, ctx.pool, ctx.last, ctx.dtype, ctx.device), None, None, None


_op.register_autograd(_backward, setup_context=_setup_context)
