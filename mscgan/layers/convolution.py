"""What the networks' tables are made of: a convolution, one with what follows it, and the block of two."""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mscgan.ops.bias_act import bias_act

Padding = int | Literal["SAME"]
SLOPE = 0.2  # of LeakyReLU, as in DCGAN
ACTS = {
    "relu": lambda y: F.relu(y, inplace=True),
    "leaky_relu": lambda y: F.leaky_relu(y, SLOPE, inplace=True),
    "linear": lambda y: y,
}


class Convolution(nn.Module):
    """A convolution or, with `up`, the deconvolution of stride 2 that makes its input twice the size.

    The weight is (out, kernel, kernel, in), a deconvolution's (in, kernel, kernel, out): contiguous, as DeepSpeed wants
    it, and lying in memory as a channels_last convolution takes it, so that neither it nor its gradient has to be laid
    out anew. The network that holds it draws its values (`draw_weights`). On CUDA a convolution's input is filled up
    with zeros to multiples of 8 channels, in 16 bits the whole words that tensor cores take; it may also come so.

    padding: pixels of zeros on each side, or "SAME", TensorFlow's rule: the output has 1 / stride of the input's size,
    and where the zeros that this takes are odd in number, the bottom and the right get one more than the top and left.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        stride: int,
        padding: Padding = 1,
        up: bool = False,
        bias: bool = True,
    ):
        super().__init__()
        self.channels_in, self.channels_out, self.stride, self.up = channels_in, channels_out, stride, up
        # Of a size that the stride divides.
        needed = max(kernel - stride, 0) if padding == "SAME" else 2 * int(padding)
        self.before, self.after = needed // 2, needed - needed // 2
        first, last = (channels_in, channels_out) if up else (channels_out, channels_in)
        self.weight = nn.Parameter(torch.empty(first, kernel, kernel, last))
        self.bias = nn.Parameter(torch.empty(channels_out)) if bias else None

    def kernel(self) -> Tensor:
        """The weight in the order of torch's convolutions, (out, in, kernel, kernel) or (in, out, ...): a view."""
        return self.weight.permute(0, 3, 1, 2)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """x (N, channels_in, H, W), or with channels of padding up to a multiple of 8 -> (N, channels_out, H', W')."""
        if self.up:
            return F.conv_transpose2d(x, self.kernel(), bias, self.stride, self.before, 4 - self.weight.shape[1])
        full = -(-self.channels_in // 8) * 8
        assert x.shape[1] in (self.channels_in, full), f"{x.shape[1]} channels; expected {self.channels_in} or {full}"
        channels = full - x.shape[1] if x.is_cuda else 0
        lopsided = self.before != self.after
        if channels or lopsided:
            sides = (self.before, self.after) * 2 if lopsided else (0, 0, 0, 0)
            x = F.pad(x, (*sides, 0, channels))
        weight: Tensor = self.weight
        if x.shape[1] > self.channels_in:
            weight = F.pad(weight, (0, full - self.channels_in))
        return F.conv2d(x, weight.permute(0, 3, 1, 2), bias, self.stride, 0 if lopsided else self.before)


class Layer(nn.Module):
    """A convolution, then BatchNorm where `norm` asks for it, then the activation.

    forward(x, residual) is act(norm(conv(x) + bias)) + residual, in x's memory format. On CUDA, where there is no norm,
    bias, activation and residual are one pass over memory, and the convolution's own bias is left to it: cuDNN would
    add it in a pass of its own. Before a norm a bias has no effect; `bias` says whether it is there all the same.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        stride: int,
        act: str,
        padding: Padding = 1,
        norm: bool = False,
        up: bool = False,
        bias: bool = True,
    ):
        super().__init__()
        if act not in ACTS:
            raise ValueError(f"activation {act!r}; choose {', '.join(ACTS)}")
        self.act = act
        self.conv = Convolution(channels_in, channels_out, kernel, stride, padding, up, bias)
        self.norm = nn.BatchNorm2d(channels_out) if norm else None

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        if x.is_cuda and self.norm is None:
            return bias_act(self.conv(x, None), self.conv.bias, residual, self.act, SLOPE)
        y = self.conv(x, self.conv.bias)
        if self.norm is not None:
            y = self.norm(y)
        y = ACTS[self.act](y)
        return y if residual is None else y + residual


class Block(nn.Module):
    """Two convolutions of one width and, in a residual block, the identity around them.

    Where a block is narrower than its input, as the decoder's are that take a concatenated skip, the identity starts
    after the first convolution.
    """

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, act: str, residual: bool, padding: Padding = 1
    ):
        super().__init__()
        self.residual = residual
        self.conv1 = Layer(channels_in, channels_out, kernel, 1, act, padding)
        self.conv2 = Layer(channels_out, channels_out, kernel, 1, act, padding)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(x)
        if not self.residual:
            return self.conv2(h)
        return self.conv2(h, residual=x if x.shape[1] == h.shape[1] else h)


def flatten(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, H*W*C), the order that channels_last memory has already."""
    return x.permute(0, 2, 3, 1).flatten(1)


def draw_weights(network: nn.Module, distribution: Callable[[Tensor], Tensor]) -> None:
    """Gives every convolution and FC layer its first weights, drawn in place by `distribution`; biases are zeros."""
    for module in network.modules():
        if isinstance(module, Convolution | nn.Linear):
            # In the order of dimensions that torch's distributions are written for.
            distribution(module.kernel() if isinstance(module, Convolution) else module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
