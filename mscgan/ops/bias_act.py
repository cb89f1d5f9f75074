"""Bias, activation and residual after a convolution, in one pass: act(x + bias) + residual.

    act(v) = v                      "linear"
           = max(v, 0)              "relu"
           = v if v > 0, slope * v  "leaky_relu"

The sum is taken in float32 (float64 for float64) and rounded once, to x's dtype. Backward needs to know only
where x + bias is above 0, so that is what is kept: one bit for each element.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def bias_act(
    x: Tensor, bias: Tensor | None = None, residual: Tensor | None = None, act: str = "relu", slope: float = 0.2
) -> Tensor:
    """act(x + bias) + residual: x (N, C, ...), bias (C,), residual of x's shape -> x's shape, dtype and layout.

    act: "relu", "leaky_relu" (of `slope`, above 0) or "linear". bias and residual may have another floating dtype
    than x (a float32 bias beside bfloat16 activations); their gradients have theirs.
    """
    if act not in ("relu", "leaky_relu", "linear"):
        raise ValueError(f"activation {act!r}; choose relu, leaky_relu or linear")
    if not x.is_cuda or x.dtype == torch.float64:  # the kernel sums in float32
        return _reference(x, bias, residual, act, slope)
    given = [tensor for tensor in (x, bias, residual) if tensor is not None]
    differentiated = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given)
    function = _op if torch.compiler.is_compiling() else _Eager.apply
    return function(x, bias, residual, act, slope, differentiated and act != "linear")[0]


def _reference(x: Tensor, bias: Tensor | None, residual: Tensor | None, act: str, slope: float) -> Tensor:
    wide = torch.promote_types(x.dtype, torch.float32)
    out = x.to(wide)
    if bias is not None:
        out = out + bias.to(wide).view(-1, *[1] * (x.dim() - 2))
    if act == "relu":
        out = F.relu(out)
    elif act == "leaky_relu":
        out = F.leaky_relu(out, slope)
    if residual is not None:
        out = out + residual.to(wide)
    return out.to(x.dtype)


def _is_last(x: Tensor) -> bool:
    """Whether x lies channels_last in memory."""
    return x.dim() == 4 and x.stride(1) == 1


def _layout(last: bool) -> torch.memory_format:
    return torch.channels_last if last else torch.contiguous_format


def _matrix(x: Tensor, last: bool) -> tuple[int, int, bool]:
    """A dense x as the matrix that it is in memory: rows, columns, and whether a row (else a column) is a channel's."""
    channels = x.shape[1]
    if last or x.dim() == 2:
        return x.numel() // channels, channels, False
    return len(x) * channels, x.numel() // (len(x) * channels), True


def _flat(x: Tensor, last: bool) -> Tensor:
    """The elements in memory order (rows, columns): a view of a dense tensor, a copy of another."""
    rows, columns, _ = _matrix(x, last)
    return (x.permute(0, 2, 3, 1) if last else x).reshape(rows, columns)


def _pack(positive: Tensor, last: bool) -> Tensor:
    """Bools of x's shape as bits in memory order: (rows, columns / 8 rounded up) uint8, the lowest bit first."""
    flat = _flat(positive, last)
    bits = F.pad(flat, (0, -flat.shape[1] % 8)).unflatten(1, (-1, 8))
    return (bits * (1 << torch.arange(8, device=flat.device))).sum(2).to(torch.uint8)


def _reference_backward(grad: Tensor, signs: Tensor, slope: float, last: bool) -> tuple[Tensor, Tensor]:
    """The gradients of x, in its dtype, and of the bias, in at least float32."""
    _, columns, by_row = _matrix(grad, last)
    bits = (signs[:, :, None] >> torch.arange(8, device=grad.device)) & 1
    positive = bits.flatten(1)[:, :columns].bool()
    wide = _flat(grad, last).to(torch.promote_types(grad.dtype, torch.float32))
    wide = torch.where(positive, wide, wide * slope)
    grad_bias = wide.view(-1, grad.shape[1], columns).sum((0, 2)) if by_row else wide.sum(0)
    if last:
        wide = wide.view(len(grad), *grad.shape[2:], -1).permute(0, 3, 1, 2)
    return wide.reshape(grad.shape).to(grad.dtype), grad_bias


def _empty(x: Tensor, signs: bool) -> tuple[Tensor, Tensor]:
    rows, columns, _ = _matrix(x, _is_last(x))
    packed = (rows, (columns + 7) // 8) if signs else (0,)
    return torch.empty_like(x, memory_format=_layout(_is_last(x))), x.new_empty(packed, dtype=torch.uint8)


@torch.library.custom_op("mscgan::bias_act", mutates_args=())
def _op(
    x: Tensor, bias: Tensor | None, residual: Tensor | None, act: str, slope: float, signs: bool
) -> tuple[Tensor, Tensor]:
    """The result, and the signs of x + bias as bits (rows, columns / 8 rounded up), the lowest bit first."""
    out, packed = _empty(x, signs)
    out.copy_(_reference(x, bias, residual, act, slope))
    if signs:
        packed.copy_(_pack(_reference(x, bias, None, "linear", slope) > 0, _is_last(x)))
    return out, packed


@_op.register_fake
def _(x, bias, residual, act, slope, signs):
    return _empty(x, signs)


@_op.register_kernel("cuda")
def _launch(x, bias, residual, act, slope, signs):
    from mscgan.ops import bias_act_triton

    out, packed = _empty(x, signs)
    last = _is_last(x)
    layout = _layout(last)
    residual = None if residual is None else residual.contiguous(memory_format=layout)
    x = x.contiguous(memory_format=layout)
    bias_act_triton.forward(
        x, None if bias is None else bias.contiguous(), residual, act, slope, _matrix(x, last), out, packed
    )
    return out, packed


@torch.library.custom_op("mscgan::bias_act_backward", mutates_args=())
def _backward_op(grad: Tensor, signs: Tensor, slope: float, last: bool, bias: bool) -> tuple[Tensor, Tensor]:
    """The gradients of x, and of the bias in at least float32 (empty where `bias` is False)."""
    grad_x, grad_bias = _empty_grads(grad, last, bias)
    value_x, value_bias = _reference_backward(grad, signs, slope, last)
    return grad_x.copy_(value_x), grad_bias.copy_(value_bias) if bias else grad_bias


def _empty_grads(grad: Tensor, last: bool, bias: bool) -> tuple[Tensor, Tensor]:
    wide = torch.promote_types(grad.dtype, torch.float32)
    return torch.empty_like(grad, memory_format=_layout(last)), grad.new_empty(grad.shape[1] if bias else 0, dtype=wide)


@_backward_op.register_fake
def _(grad, signs, slope, last, bias):
    return _empty_grads(grad, last, bias)


@_backward_op.register_kernel("cuda")
def _launch_backward(grad, signs, slope, last, bias):
    from mscgan.ops import bias_act_triton

    grad_x, grad_bias = _empty_grads(grad, last, bias)
    grad = grad.contiguous(memory_format=_layout(last))
    matrix = _matrix(grad, last)
    steps, count = bias_act_triton.strips(matrix) if bias else (1, 0)
    strips = grad.new_empty((count, matrix[0] if matrix[2] else matrix[1]), dtype=torch.float32) if bias else None
    bias_act_triton.backward(grad, signs, slope, matrix, grad_x, steps, strips)
    if bias:
        grad_bias = strips.view(-1, grad.shape[1]).sum(0)
    return grad_x, grad_bias


def _setup_context(ctx, inputs, output):
    x, bias, residual, act, ctx.slope, _ = inputs
    ctx.linear, ctx.last = act == "linear", _is_last(x)
    if act == "relu":
        ctx.slope = 0.0
    ctx.bias_dtype = None if bias is None else bias.dtype
    ctx.residual_dtype = None if residual is None else residual.dtype
    ctx.save_for_backward(output[1])


def _backward(ctx, grad, _, op=_backward_op):
    needs_x, needs_bias, needs_residual = ctx.needs_input_grad[:3]
    grad_x = grad_bias = None
    if ctx.linear:
        grad_x = grad if needs_x else None
        if needs_bias:
            wide = torch.promote_types(grad.dtype, torch.float32)
            grad_bias = grad.sum([0, *range(2, grad.dim())], dtype=wide)
    elif needs_x or needs_bias:
        grad_x, grad_bias = op(grad, *ctx.saved_tensors, ctx.slope, ctx.last, needs_bias)
    grad_bias = grad_bias.to(ctx.bias_dtype) if needs_bias else None
    return grad_x, grad_bias, grad.to(ctx.residual_dtype) if needs_residual else None, None, None, None


_op.register_autograd(_backward, setup_context=_setup_context)


class _Eager(torch.autograd.Function):
    """The custom op without its dispatch, with which a call takes the CPU five times as long; a step has a hundred."""

    @staticmethod
    def forward(ctx, x, bias, residual, act, slope, signs):
        output = _launch(x, bias, residual, act, slope, signs)
        _setup_context(ctx, (x, bias, residual, act, slope, signs), output)
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        return output

    @staticmethod
    def backward(ctx, grad, _):
        return _backward(ctx, grad, None, op=_launch_backward)
