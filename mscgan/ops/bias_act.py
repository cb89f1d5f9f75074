"""Bias, activation and residual after a convolution, in one pass: act(x + bias) + residual.

    act(v) = v                      "linear"
           = max(v, 0)              "relu"
           = v if v > 0, slope * v  "leaky_relu"

The sum is taken in float32 (float64 for float64) and rounded once, to x's dtype.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def bias_act(
    x: Tensor, bias: Tensor | None = None, residual: Tensor | None = None, act: str = "relu", slope: float = 0.2
) -> Tensor:
    """act(x + bias) + residual: x (N, C, ...), bias (C,), residual of x's shape -> x's shape, dtype and layout.

    act: "relu", "leaky_relu" (of `slope`, above 0) or "linear". bias and residual may have another floating dtype than x
    (a float32 bias beside bfloat16 activations); their gradients have theirs.
    """
    if act not in ("relu", "leaky_relu", "linear"):
        raise ValueError(f"activation {act!r}; choose relu, leaky_relu or linear")
    return _reference(x, bias, residual, act, slope)


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
