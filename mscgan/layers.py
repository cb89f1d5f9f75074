"""What the networks' tables are made of: a convolution with what follows it, and the block of two."""

import torch.nn.functional as F
from torch import Tensor, nn

from mscgan.ops.bias_act import bias_act

SLOPE = 0.2  # of LeakyReLU, as in DCGAN


class Layer(nn.Module):
    """One convolution or, with `up`, deconvolution, padding 1, then bias or BatchNorm, then the activation.

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
        if up:  # 4 - kernel: the output is twice the size
            self.conv = nn.ConvTranspose2d(channels_in, channels_out, kernel, stride, 1, output_padding=4 - kernel)
        else:
            self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride, 1, bias=not norm)
        self.norm = nn.BatchNorm2d(channels_out) if norm else None

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        y = self._convolve(x, None if x.is_cuda else self.conv.bias)
        if self.norm is not None:
            return F.leaky_relu(self.norm(y), SLOPE, inplace=True)
        if x.is_cuda:
            return bias_act(y, self.conv.bias, residual, self.act, SLOPE)
        if self.act == "relu":
            y = F.relu(y, inplace=True)
        elif self.act == "leaky_relu":
            y = F.leaky_relu(y, SLOPE, inplace=True)
        return y if residual is None else y + residual

    def _convolve(self, x: Tensor, bias: Tensor | None) -> Tensor:
        conv = self.conv
        if isinstance(conv, nn.ConvTranspose2d):
            return F.conv_transpose2d(x, conv.weight, bias, conv.stride, conv.padding, conv.output_padding)
        weight = conv.weight
        if x.shape[1] > conv.in_channels:  # a network's input may come padded to a multiple of 8 channels
            weight = F.pad(weight, (0, 0, 0, 0, 0, x.shape[1] - conv.in_channels))
        return F.conv2d(x, weight, bias, conv.stride, conv.padding)


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
