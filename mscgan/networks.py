"""The networks of the paper's appendix: G1 (tables 4, 5), G2 (tables 6, 7) and the discriminators (table 8).

    python -m mscgan.networks --config market1501        prints every layer with output shape, parameters and GFLOP

Images are H x W with H a power of two (32 or more) and W = H or H / 2; M = log2(H) - 2 sets the depth. All widths scale
with `base`, 128 in the paper. Inputs are best channels_last, and every layer keeps the format.

The paper does not say how weights start. In the generators: as Glorot and Bengio (2010) draw them, uniform, like PG2's,
on which they build. In the discriminators: normal with deviation 0.02, like DCGAN's (Radford et al. 2015). Biases: 0.
"""

import argparse
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mscgan.errors import UserError
from mscgan.layers import Block, Convolution, Layer


class Row(NamedTuple):
    """A line of the paper's tables, for one level of the network.

    Level 1 has the image's size and width `base`, each next one half the size and twice the width; `to` is the output's
    level, counted from the row's own, or "RGB".
    """

    part: str
    layer: str
    kernel: int
    stride: int
    act: str
    to: int | str
    levels: str


G1_TABLE = (  # M-1 levels; the two FC rows stand between encoder and decoder
    #    part       layer        kernel stride act      to     levels
    Row("encoder", "CONV",          3,    1,  "relu",   0,     "first"),
    Row("encoder", "Res_BLOCK",     3,    1,  "relu",   0,     "every"),
    Row("encoder", "DOWN",          3,    2,  "relu",   +1,    "but last"),
    Row("decoder", "Res_BLOCK",     3,    1,  "relu",   0,     "every"),
    Row("decoder", "UP",            3,    2,  "relu",   -1,    "but first"),
    Row("decoder", "CONV",          3,    1,  "linear", "RGB", "first"),
)  # fmt: skip
G1_FC = (64, 4096)  # units of the two FC rows at base 128

G2_TABLE = (  # M-2 levels
    #    part       layer        kernel stride act      to     levels
    Row("encoder", "CONV",          3,    1,  "relu",   0,     "first"),
    Row("encoder", "CONV_BLOCK",    3,    1,  "relu",   0,     "every"),
    Row("encoder", "DOWN",          4,    2,  "relu",   +1,    "but last"),
    Row("decoder", "CONV_BLOCK",    3,    1,  "relu",   0,     "every"),
    Row("decoder", "UP",            4,    2,  "relu",   -1,    "but first"),
    Row("decoder", "CONV",          3,    1,  "linear", "RGB", "first"),
)  # fmt: skip

D_TABLE = (  # M-1 convolutions, the i-th base * 2**(i-1) wide, then one linear unit
    # layer kernel stride BN     act           convolutions
    ("CONV",  4,    2,   False, "leaky_relu", "first"),
    ("CONV",  4,    2,   True,  "leaky_relu", "but first"),
)  # fmt: skip


class UNet(nn.Module):
    """Walks a table down the encoder's levels and up the decoder's, whose blocks take the encoder's output too.

    `code` makes the lowest decoder block's extra input of the lowest encoder output.
    """

    def __init__(self, table: tuple[Row, ...], levels: int, base: int, channels_in: int, code: "Code | None" = None):
        super().__init__()
        self.encoder, self.code, self.decoder = nn.ModuleDict(), code, nn.ModuleDict()
        channels, code_channels = channels_in, code.channels if code else 0
        for name, row, level in _walk(table, "encoder", range(1, levels + 1)):
            channels_out = _width(base, row, level)
            self.encoder[name] = _layer(row, channels, channels_out)
            channels = channels_out
        for name, row, level in _walk(table, "decoder", range(levels, 0, -1)):
            if row.layer.endswith("BLOCK"):
                channels += channels if level < levels else code_channels
            channels_out = _width(base, row, level)
            self.decoder[name] = _layer(row, channels, channels_out)
            channels = channels_out
        for module in self.modules():
            if isinstance(module, Convolution | nn.Linear):
                nn.init.xavier_uniform_(_matrix(module))
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for layer in self.encoder.values():
            x = layer(x)
            if isinstance(layer, Block):
                skips.append(x)
        skips[-1] = None if self.code is None else self.code(x)
        for layer in self.decoder.values():
            if isinstance(layer, Block):
                skip = skips.pop()
                x = x if skip is None else torch.cat([x, skip], 1)
            x = layer(x)
        return x


class Code(nn.Module):
    """G1's two fully connected layers, both linear: (N, C, 16, w) -> 64 -> 4096 -> (N, 4096 / 16w, 16, w)."""

    def __init__(self, channels_in: int, width: int, base: int):
        super().__init__()
        units = [wide * base // 128 for wide in G1_FC]
        self.width, self.channels = width, units[1] // (16 * width)
        self.FC1 = nn.Linear(channels_in * 16 * width, units[0])
        self.FC2 = nn.Linear(units[0], units[1])

    def forward(self, x: Tensor) -> Tensor:
        units = self.FC2(self.FC1(_flatten(x)))
        return units.view(-1, 16, self.width, self.channels).permute(0, 3, 1, 2)  # channels_last


class G1(UNet):
    """Global generator, stage I (section 3.1.2; tables 4 and 5).

    forward(condition): x and the heatmaps of p, (N, 21, H, W), or (N, 24, H, W) with three channels of padding -> y1,
    (N, 3, H, W), about [-1, 1], as the last layer is linear.
    """

    def __init__(self, height: int, width: int, base: int = 128):
        levels = _M(height, width, base) - 1
        code = Code(base * 2 ** (levels - 1), 16 * width // height, base)  # the lowest level is 16 high at every size
        super().__init__(G1_TABLE, levels, base, channels_in=21, code=code)


class G2(UNet):
    """Local generator, stage II (section 3.2.1; tables 6 and 7): a difference map, added to stage I's image."""

    def __init__(self, height: int, width: int, base: int = 128):
        super().__init__(G2_TABLE, _M(height, width, base) - 2, base, channels_in=6)

    def forward(self, x: Tensor, y1: Tensor) -> Tensor:
        """x and y1, both (N, 3, H, W) -> y_hat = y1 + y2, (N, 3, H, W), about [-1, 1]."""
        return y1 + super().forward(torch.cat([x, y1], 1))


class Generators(nn.Module):
    """G1, then G2 on its result."""

    def __init__(self, height: int, width: int, base: int = 128):
        super().__init__()
        self.G1 = G1(height, width, base)
        self.G2 = G2(height, width, base)

    def forward(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        """x and the heatmaps of p, (N, 21 or 24, H, W) as G1 takes them -> (y1, y_hat), both (N, 3, H, W)."""
        y1 = self.G1(condition)
        return y1, self.G2(condition[:, :3], y1)


class D(nn.Module):
    """One discriminator (table 8) for pairs of height x width; with the full size's M-1 convolutions at any scale."""

    def __init__(self, height: int, width: int, base: int, convolutions: int):
        super().__init__()
        self.convs = nn.Sequential()
        channels = 6
        for i in range(1, convolutions + 1):
            for layer, kernel, stride, norm, act, which in D_TABLE:
                if _applies(which, i, convolutions):
                    channels_out = base * 2 ** (i - 1)
                    self.convs.add_module(f"{layer}{i}", Layer(channels, channels_out, kernel, stride, act, norm))
                    channels = channels_out
        self.FC = nn.Linear(channels * (height >> convolutions) * (width >> convolutions), 1)
        for module in self.modules():
            if isinstance(module, Convolution | nn.Linear):
                nn.init.normal_(_matrix(module), std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, pair: Tensor) -> Tensor:
        """x beside y or y_hat, (N, 6, h, w), or (N, 8, h, w) with two channels of padding -> logits (N,)."""
        return self.FC(_flatten(self.convs(pair))).squeeze(1)


class Discriminators(nn.Module):
    """D1, D2, D3: one, two (MsCGAN) or three of the same depth at scales 1, 1/2 and 1/4 (sections 3.2.2 and 4.3)."""

    def __init__(self, height: int, width: int, base: int = 128, count: int = 2):
        super().__init__()
        convolutions = _M(height, width, base) - 1
        for i in range(count):
            self.add_module(f"D{i + 1}", D(height >> i, width >> i, base, convolutions))

    def forward(self, *groups: list[Tensor]) -> list[list[Tensor]]:
        """Groups of pair tensors, one a discriminator, the full size first -> for each group as many logits, (N,) each.

        Real and fake pairs are two groups: each goes through BatchNorm by itself, in the order given.
        """
        return [[network(pair) for network, pair in zip(self.children(), group, strict=True)] for group in groups]


def _M(height: int, width: int, base: int) -> int:
    if height < 32 or height & (height - 1) or width not in (height, height // 2):
        raise UserError(
            f"images of {height}x{width} (height x width): the height must be a power of two, 32 or more, and the "
            "width the height or half of it"
        )
    if base < 8 or base % 8:
        raise UserError(f"model.base is {base}; it must be a multiple of 8, so that FC 4096 fills the lowest level")
    return int(math.log2(height)) - 2


def _applies(which: str, level: int, last: int) -> bool:
    return {"every": True, "first": level == 1, "but first": level > 1, "but last": level < last}[which]


def _walk(table: tuple[Row, ...], part: str, levels: range) -> Iterator[tuple[str, Row, int]]:
    for level in levels:
        for row in table:
            if row.part == part and _applies(row.levels, level, max(levels)):
                yield f"{row.layer}{level}", row, level


def _width(base: int, row: Row, level: int) -> int:
    return 3 if row.to == "RGB" else base * 2 ** (level + row.to - 1)


def _layer(row: Row, channels_in: int, channels_out: int) -> nn.Module:
    if row.layer.endswith("BLOCK"):
        return Block(channels_in, channels_out, row.kernel, row.act, residual=row.layer == "Res_BLOCK")
    return Layer(channels_in, channels_out, row.kernel, row.stride, row.act, up=row.layer == "UP")


def _matrix(module: Convolution | nn.Linear) -> Tensor:
    """The weight in the order of dimensions that torch's initial distributions are written for."""
    return module.kernel() if isinstance(module, Convolution) else module.weight


def _flatten(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, H*W*C), the order that channels_last memory has already."""
    return x.permute(0, 2, 3, 1).flatten(1)


class Cost(NamedTuple):
    layer: str
    kind: str
    output: tuple[int, ...]
    parameters: int
    gflop: float


def costs(network: nn.Module, *inputs: Tensor) -> list[Cost]:
    """Each layer's output shape, parameters and GFLOP an image (2 a multiply-add of its convolution or FC).

    Read from one forward of one image, which may be on the meta device.
    """
    found = []

    def record(name):
        def hook(module: nn.Module, args: tuple, output: Tensor) -> None:
            conv = module.conv if isinstance(module, Layer) else module
            # A weight is used once for each pixel of the output; a deconvolution's for each of the input.
            at = args[0] if isinstance(conv, Convolution) and conv.up else output
            pixels = at.shape[2:].numel()
            kind = "FC" if isinstance(conv, nn.Linear) else "{0}*{0} / {1}".format(conv.weight.shape[1], conv.stride)
            parameters = sum(p.numel() for p in module.parameters())
            found.append(Cost(name, kind, tuple(output.shape[1:]), parameters, 2e-9 * pixels * conv.weight.numel()))

        return hook

    handles = [
        module.register_forward_hook(record(name))
        for name, module in network.named_modules()
        if isinstance(module, Layer | nn.Linear)
    ]
    network(*inputs)
    for handle in handles:
        handle.remove()
    return found


def main() -> None:
    from mscgan import config as configuration  # for this command only: the networks know nothing of YAML

    parser = argparse.ArgumentParser(prog="python -m mscgan.networks", description="Print the networks' tables.")
    parser.add_argument("--config", default="market1501", help="preset, or path of a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    args = parser.parse_args()
    config = configuration.load(args.config, args.overrides)
    height, width, base, count = config.data.height, config.data.width, config.model.base, config.model.discriminators
    with torch.device("meta"):
        image, condition = torch.empty(1, 3, height, width), torch.empty(1, 21, height, width)
        tables = {"G1": costs(G1(height, width, base), condition), "G2": costs(G2(height, width, base), image, image)}
        for i, (name, network) in enumerate(Discriminators(height, width, base, count).named_children()):
            tables[name] = costs(network, torch.empty(1, 6, height >> i, width >> i))
    print(f"{height}x{width}, M = {_M(height, width, base)}, base {base}; GFLOP: forward of one image\n")
    for name, table in tables.items():
        print(f"{name:28}{'kernel':>9}{'output':>18}{'parameters':>14}{'GFLOP':>10}")
        for cost in table:
            shape = "x".join(map(str, cost.output))
            print(f"  {cost.layer:26}{cost.kind:>9}{shape:>18}{cost.parameters:>14,}{cost.gflop:>10.3f}")
        parameters, gflop = sum(cost.parameters for cost in table), sum(cost.gflop for cost in table)
        print(f"  {'total':53}{parameters:>14,}{gflop:>10.3f}\n")


if __name__ == "__main__":
    from mscgan.errors import run

    run(main)
