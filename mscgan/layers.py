"""What the networks' tables are made of: a convolution, one with what follows it, and the block of two."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mscgan.ops.bias_act import bias_act

SLOPE = 0.2  # of LeakyReLU, as in DCGAN


class Convolution(nn.Module):
    """A convolution with padding 1 or, with `up`, the deconvolution of stride 2 that makes its input twice the size.

    The weight is (out, kernel, kernel, in), a deconvolution's (in, kernel, kernel, out): contiguous, as DeepSpeed wants
    it, and lying in memory as a channels_last convolution takes it, so that neither it nor its gradient has to be laid
    out anew. The network that holds it draws its values. On CUDA a convolution's input is filled up with zeros to
    multiples of 8 channels, in 16 bits the whole words that tensor cores take; it may also come so.
    """

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, stride: int, up: bool = False, bias: bool = True
    ):
        super().__init__()
        self.channels_in, self.channels_out, self.stride, self.up = channels_in, channels_out, stride, up
        first, last = (channels_in, channels_out) if up else (channels_out, channels_in)
        self.weight = nn.Parameter(torch.empty(first, kernel, kernel, last))
        self.bias = nn.Parameter(torch.empty(channels_out)) if bias else None

    def kernel(self) -> Tensor:
        """The weight in the order of torch's convolutions, (out, in, kernel, kernel) or (in, out, ...): a view."""
        return self.weight.permute(0, 3, 1, 2)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """x (N, channels_in, H, W), or with channels of padding up to a multiple of 8 -> (N, channels_out, H', W')."""
        if self.up:
            return F.conv_transpose2d(x, self.kernel(), bias, self.stride, 1, 4 - self.weight.shape[1])
        full = -(-self.channels_in // 8) * 8
        assert x.shape[1] in (self.channels_in, full), f"{x.shape[1]} channels; expected {self.channels_in} or {full}"
        if x.is_cuda and x.shape[1] < full:
            x = F.pad(x, (0, 0, 0, 0, 0, full - x.shape[1]))
        weight = self.weight
        if x.shape[1] > self.channels_in:
            weight = F.pad(weight, (0, full - self.channels_in))
        return F.conv2d(x, weight.permute(0, 3, 1, 2), bias, self.stride, 1)


class Layer(nn.Module):
    """A convolution, then bias or BatchNorm, then the activation.

    forward(x, residual) is act(conv(x) + bias) + residual, in x's memory format. On CUDA bias, activation and residual
    are one pass over memory, and the convolution's own bias is left to it: cuDNN would add it in a pass of its own.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        stride: int,
        act: str,
        norm: bool = False,
        up: bool = False,
    ):
        super().__init__()
        self.act = act
        self.conv = Convolution(channels_in, channels_out, kernel, stride, up, bias=not norm)
        self.norm = nn.BatchNorm2d(channels_out) if norm else None

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        y = self.conv(x, None if x.is_cuda else self.conv.bias)
        if self.norm is not None:
            return F.leaky_relu(self.norm(y), SLOPE, inplace=True)
        if x.is_cuda:
            return bias_act(y, self.conv.bias, residual, self.act, SLOPE)
        if self.act == "relu":
            y = F.relu(y, inplace=True)
        elif self.act == "leaky_relu":
            y = F.leaky_relu(y, SLOPE, inplace=True)
        return y if residual is None else y + residual


class Block(nn.Module):
    """Two convolutions of one width and, in a residual block, the identity around them.

    The decoder's blocks take a concatenated skip and are narrower than their input; there the identity starts after the
    first convolution.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel: int, act: str, residual: bool):
        super().__init__()
        self.residual = residual
        self.conv1 = Layer(channels_in, channels_out, kernel, 1, act)
        self.conv2 = Layer(channels_out, channels_out, kernel, 1, act)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(x)
        if not self.residual:
            return self.conv2(h)
        return self.conv2(h, residual=x if x.shape[1] == h.shape[1] else h)
