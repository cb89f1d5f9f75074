"""The L1 distance and its part on the person, in one pass (the two terms of equations 1 and 4).

    d = y_hat - y;   mean(|d|) and mean(|d| * M), both over all N * C * H * W elements, as PG2 takes them.

Sums are taken in float32 (float64 for float64). The gradient is y_hat's alone: y and M are data.
"""

import torch
from torch import Tensor


def masked_l1(y_hat: Tensor, y: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """y_hat, y (N, C, H, W) and mask (N, 1, H, W) -> mean(|y_hat - y|), mean(|y_hat - y| * mask): float32 scalars."""
    if y_hat.is_cuda and y_hat.dtype != torch.float64:  # the kernel sums in float32
        return _op(y_hat, y, mask).unbind()
    return _reference(y_hat, y, mask)


def _reference(y_hat: Tensor, y: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    wide = torch.promote_types(y_hat.dtype, torch.float32)
    distance = (y_hat.to(wide) - y.detach().to(wide)).abs()
    return distance.mean(), (distance * mask.detach().to(wide)).mean()


def _reference_backward(grad: Tensor, y_hat: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    wide = torch.promote_types(y_hat.dtype, torch.float32)
    sign = (y_hat.to(wide) - y.to(wide)).sign()
    return (sign * (grad[0] + grad[1] * mask.to(wide)) / y_hat.numel()).to(y_hat.dtype)


def _is_last(y_hat: Tensor) -> bool:
    return y_hat.stride(1) == 1


def _layout(y_hat: Tensor) -> torch.memory_format:
    return torch.channels_last if _is_last(y_hat) else torch.contiguous_format


@torch.library.custom_op("mscgan::masked_l1", mutates_args=())
def _op(y_hat: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    return torch.stack(_reference(y_hat, y, mask))


@_op.register_fake
def _(y_hat, y, mask):
    return y_hat.new_empty(2, dtype=torch.promote_types(y_hat.dtype, torch.float32))


@_op.register_kernel("cuda")
def _(y_hat, y, mask):
    from mscgan.ops import masked_l1_triton

    layout = _layout(y_hat)
    sums = y_hat.new_empty((2, masked_l1_triton.programs(y_hat)), dtype=torch.float32)
    masked_l1_triton.forward(
        y_hat.contiguous(memory_format=layout), y.contiguous(memory_format=layout), mask.contiguous(), _is_last(y_hat),
        sums,
    )  # fmt: skip
    return sums.sum(1)


@torch.library.custom_op("mscgan::masked_l1_backward", mutates_args=())
def _backward_op(grad: Tensor, y_hat: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    out = torch.empty_like(y_hat, memory_format=_layout(y_hat))
    return out.copy_(_reference_backward(grad, y_hat, y, mask))


@_backward_op.register_fake
def _(grad, y_hat, y, mask):
    return torch.empty_like(y_hat, memory_format=_layout(y_hat))


@_backward_op.register_kernel("cuda")
def _(grad, y_hat, y, mask):
    from mscgan.ops import masked_l1_triton

    layout = _layout(y_hat)
    out = torch.empty_like(y_hat, memory_format=layout)
    masked_l1_triton.backward(
        grad.contiguous(), y_hat.contiguous(memory_format=layout), y.contiguous(memory_format=layout),
        mask.contiguous(), _is_last(y_hat), out,
    )  # fmt: skip
    return out


def _setup_context(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _backward(ctx, grad):
    return _backward_op(grad, *ctx.saved_tensors), None, None


_op.register_autograd(_backward, setup_context=_setup_context)
