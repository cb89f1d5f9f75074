"""A U-Net from a table: encoder and decoder level by level, skips between them, FC layers at the waist.

A paper's network is a literal table of `Row`s, a line per layer of one level, and the widths of the levels.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mscgan.layers.convolution import Block, Layer, Padding, flatten


class Row(NamedTuple):
    """A layer that each level has, or some.

    part: "encoder" or "decoder".
    layer: "CONV"; "DOWN", a convolution of stride 2; "UP", a deconvolution of stride 2; "NEAREST", which makes each
        pixel four; "CONV_BLOCK", two convolutions; "Res_BLOCK", the same with the identity around them.
    padding: as `Convolution` takes it.
    width: of the output: 0, that of the row's level; +1 or -1, that of the level below or above; "base", that of level
        1; "same", that of the input; "RGB", 3.
    levels: "every", "first" (the image's size), "but first" or "but last" (the lowest).
    """

    part: str
    layer: str
    kernel: int
    stride: int
    padding: Padding
    act: str
    width: int | str
    levels: str


class Code(nn.Module):
    """The waist: two fully connected layers, both linear, (N, C, h, w) -> `units` -> (N, channels, h, w)."""

    def __init__(self, channels_in: int, height: int, width: int, units: int, channels: int):
        super().__init__()
        self.height, self.width, self.channels = height, width, channels
        self.FC1 = nn.Linear(channels_in * height * width, units)
        self.FC2 = nn.Linear(units, height * width * channels)

    def forward(self, x: Tensor) -> Tensor:
        units = self.FC2(self.FC1(flatten(x)))
        return units.view(-1, self.height, self.width, self.channels).permute(0, 3, 1, 2)  # channels_last


class UNet(nn.Module):
    """Walks a table down the encoder's levels and up the decoder's, whose blocks take the encoder's output too.

    Args:
        table: its rows.
        widths: channels of each level, the image's size first, the lowest last.
        channels_in: of the input.
        code: makes the lowest decoder block's second input from the lowest encoder block's output, which is its first;
            None: it has the first alone.
        code_channels: how many channels `code` makes.
        full_size_skip: whether the decoder's last block, of the image's size, takes the encoder's first output.
    """

    def __init__(
        self,
        table: tuple[Row, ...],
        widths: list[int],
        channels_in: int,
        code: nn.Module | None = None,
        code_channels: int = 0,
        full_size_skip: bool = True,
    ):
        super().__init__()
        self.full_size_skip = full_size_skip
        self.encoder, self.code, self.decoder = nn.ModuleDict(), code, nn.ModuleDict()
        levels = len(widths)
        channels, skips = channels_in, {}
        for name, row, level in _walk(table, "encoder", range(1, levels + 1)):
            self.encoder[name], channels = _layer(row, channels, widths, level)
            if row.layer.endswith("BLOCK"):
                skips[level] = channels
        skips[levels] = code_channels
        if not full_size_skip:
            skips[1] = 0
        for name, row, level in _walk(table, "decoder", range(levels, 0, -1)):
            joined = channels + skips[level] if row.layer.endswith("BLOCK") else channels
            self.decoder[name], channels = _layer(row, joined, widths, level)

    def walk(self, x: Tensor) -> Tensor:
        skips: list[Tensor | None] = []
        for layer in self.encoder.values():
            x = layer(x)
            if isinstance(layer, Block):
                skips.append(x)
        skips[-1] = None if self.code is None else self.code(x)
        if not self.full_size_skip:
            skips[0] = None
        for layer in self.decoder.values():
            if isinstance(layer, Block):
                skip = skips.pop()
                x = x if skip is None else torch.cat([x, skip], 1)
            x = layer(x)
        return x

    forward: Callable[..., Tensor] = walk  # a network made of it may take several inputs


def applies(levels: str, level: int, last: int) -> bool:
    """Whether a row's `levels` names this level, of 1 to `last`."""
    return {"every": True, "first": level == 1, "but first": level > 1, "but last": level < last}[levels]


def _walk(table: tuple[Row, ...], part: str, levels: range) -> Iterator[tuple[str, Row, int]]:
    for level in levels:
        for row in table:
            if row.part == part and applies(row.levels, level, max(levels)):
                yield f"{row.layer}{level}", row, level


def _layer(row: Row, channels: int, widths: list[int], level: int) -> tuple[nn.Module, int]:
    """The row's module for an input of `channels`, and the channels that it makes."""
    named = {"RGB": 3, "same": channels, "base": widths[0]}
    width = named[row.width] if isinstance(row.width, str) else widths[level - 1 + row.width]
    if row.layer == "NEAREST":
        return nn.Upsample(scale_factor=row.stride), width
    if row.layer.endswith("BLOCK"):
        residual = row.layer == "Res_BLOCK"
        return Block(channels, width, row.kernel, row.act, residual, row.padding), width
    return Layer(channels, width, row.kernel, row.stride, row.act, row.padding, up=row.layer == "UP"), width
