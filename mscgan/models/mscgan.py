"""MsCGAN (Tang et al.), the paper of this project: networks of tables 4 to 8, losses of equations 1 to 4, their steps.

Stage I trains G1 alone. Stage II trains G2 and the discriminators beside a frozen G1, which is the average (EMA) that
stage I ends with. Stage `joint` trains all of them.

Images are H x W with H a power of two (32 or more) and W = H or H / 2; M = log2(H) - 2 sets the depth. All widths scale
with `base`, 128 in the paper. Inputs are best channels_last, and every layer keeps the format.

The paper does not say how weights start. In the generators: as Glorot and Bengio (2010) draw them, uniform, like PG2's,
on which they build. In the discriminators: normal with deviation 0.02, like DCGAN's (Radford et al. 2015). Biases: 0.
"""

from typing import cast

import torch
from torch import Tensor, nn

from mscgan import keys
from mscgan.layers.convolution import Layer, draw_weights, flatten
from mscgan.layers.unet import Code, Row, UNet, applies
from mscgan.losses import Terms, as_fake, as_real, mean
from mscgan.ops.masked_l1 import masked_l1
from mscgan.ops.pyramid import pyramid
from mscgan.prepare import Inputs

MAKES = ("G",)

G1_TABLE = (  # M-1 levels, each twice as wide as the one above; the two FC rows stand between encoder and decoder
    #    part       layer        kernel stride pad act      width  levels
    Row("encoder", "CONV",          3,    1,    1, "relu",   0,     "first"),
    Row("encoder", "Res_BLOCK",     3,    1,    1, "relu",   0,     "every"),
    Row("encoder", "DOWN",          3,    2,    1, "relu",   +1,    "but last"),
    Row("decoder", "Res_BLOCK",     3,    1,    1, "relu",   0,     "every"),
    Row("decoder", "UP",            3,    2,    1, "relu",   -1,    "but first"),
    Row("decoder", "CONV",          3,    1,    1, "linear", "RGB", "first"),
)  # fmt: skip
G1_FC = (64, 4096)  # units of the two FC rows at base 128

G2_TABLE = (  # M-2 levels
    #    part       layer        kernel stride pad act      width  levels
    Row("encoder", "CONV",          3,    1,    1, "relu",   0,     "first"),
    Row("encoder", "CONV_BLOCK",    3,    1,    1, "relu",   0,     "every"),
    Row("encoder", "DOWN",          4,    2,    1, "relu",   +1,    "but last"),
    Row("decoder", "CONV_BLOCK",    3,    1,    1, "relu",   0,     "every"),
    Row("decoder", "UP",            4,    2,    1, "relu",   -1,    "but first"),
    Row("decoder", "CONV",          3,    1,    1, "linear", "RGB", "first"),
)  # fmt: skip

D_TABLE = (  # M-1 convolutions, the i-th base * 2**(i-1) wide, then one linear unit
    # layer kernel stride BN     act           convolutions
    ("CONV",  4,    2,   False, "leaky_relu", "first"),
    ("CONV",  4,    2,   True,  "leaky_relu", "but first"),
)  # fmt: skip


class G1(UNet):
    """Global generator, stage I (section 3.1.2; tables 4 and 5).

    forward(condition): x and the heatmaps of p, (N, 21, H, W), or (N, 24, H, W) with three channels of padding -> y1,
    (N, 3, H, W), about [-1, 1], as the last layer is linear.
    """

    def __init__(self, height: int, width: int, base: int = 128):
        widths = [base << level for level in range(_M(height) - 1)]
        low_height, low_width = 16, 16 * width // height  # the lowest level is 16 high at every size
        units, code_units = (units * base // 128 for units in G1_FC)
        channels = code_units // (low_height * low_width)
        code = Code(widths[-1], low_height, low_width, units, channels)
        super().__init__(G1_TABLE, widths, channels_in=21, code=code, code_channels=channels)
        draw_weights(self, nn.init.xavier_uniform_)


class G2(UNet):
    """Local generator, stage II (section 3.2.1; tables 6 and 7): a difference map, added to stage I's image."""

    def __init__(self, height: int, width: int, base: int = 128):
        super().__init__(G2_TABLE, [base << level for level in range(_M(height) - 2)], channels_in=6)
        draw_weights(self, nn.init.xavier_uniform_)

    def forward(self, x: Tensor, y1: Tensor) -> Tensor:
        """x and y1, both (N, 3, H, W) -> y_hat = y1 + y2, (N, 3, H, W), about [-1, 1]."""
        return y1 + self.walk(torch.cat([x, y1], 1))


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
                if applies(which, i, convolutions):
                    width_out = base << (i - 1)
                    # BatchNorm makes a bias before it idle.
                    convolution = Layer(channels, width_out, kernel, stride, act, norm=norm, bias=not norm)
                    self.convs.add_module(f"{layer}{i}", convolution)
                    channels = width_out
        self.FC = nn.Linear(channels * (height >> convolutions) * (width >> convolutions), 1)
        draw_weights(self, lambda weight: nn.init.normal_(weight, std=0.02))

    def forward(self, pair: Tensor) -> Tensor:
        """x beside y or y_hat, (N, 6, h, w), or (N, 8, h, w) with two channels of padding -> logits (N,)."""
        return self.FC(flatten(self.convs(pair))).squeeze(1)


class Discriminators(nn.Module):
    """D1, D2, D3: those of `scales`, all of the same depth (sections 3.2.2 and 4.3).

    scales: 1 (D1, the full size), 2 (D2, half of it) and 4 (D3, a quarter), rising.
    """

    def __init__(self, height: int, width: int, base: int = 128, scales: tuple[int, ...] = (1, 2)):
        super().__init__()
        for scale in scales:
            network = D(height // scale, width // scale, base, _M(height) - 1)
            self.add_module(f"D{keys.SCALES.index(scale) + 1}", network)

    def forward(self, *groups: list[Tensor]) -> list[list[Tensor]]:
        """Groups of pair tensors, one a discriminator, the full size first -> for each group as many logits, (N,) each.

        Real and fake pairs are two groups: each goes through BatchNorm by itself, in the order given.
        """
        return [[network(pair) for network, pair in zip(self.children(), group, strict=True)] for group in groups]


def _M(height: int) -> int:
    """The paper's M: 5 for images 128 high, 6 for 256."""
    return height.bit_length() - 3


def build(options: keys.MsCGAN, height: int, width: int) -> nn.ModuleDict:
    """{"G": the generators, "D": the discriminators}."""
    G = Generators(height, width, options.base)
    return nn.ModuleDict({"G": G, "D": Discriminators(height, width, options.base, tuple(options.scales))})


def _generators(networks: nn.ModuleDict) -> Generators:
    return cast(Generators, networks["G"])


def trains(stage: str, networks: nn.ModuleDict) -> dict[str, nn.Module]:
    G, D = _generators(networks), networks["D"]
    stages: dict[str, dict[str, nn.Module]] = {
        "I": {"G": G.G1},
        "II": {"G": G.G2, "D": D},
        "joint": {"G": G, "D": D},
    }
    return stages[stage]


def hand_over(before: str, networks: nn.ModuleDict, average: nn.ModuleDict) -> None:
    """What stands on stage I's result stands on its average."""
    if before == "I":
        _generators(networks).G1.load_state_dict(_generators(average).G1.state_dict())


def images(stage: str, networks: nn.ModuleDict, inputs: Inputs) -> dict[str, Tensor]:
    G = _generators(networks)
    y1 = G.G1(inputs.condition)
    return {"stage I": y1} | ({} if stage == "I" else {"stage II": G.G2(inputs.x, y1)})


def step(stage: str, engines: dict, networks: nn.ModuleDict, inputs: list[Inputs], options: keys.MsCGAN) -> Terms:
    if stage == "I":
        return _step_I(engines["G"], inputs, options)
    return _step_adversarial(stage, engines["G"], engines["D"], networks, inputs, options)


def _step_I(G, inputs: list[Inputs], options: keys.MsCGAN) -> Terms:
    terms = []
    for batch in inputs:
        total, found = loss_I(G(batch.condition), batch.y, batch.mask, options.lambda_bg_1)
        G.backward(total)
        G.step()
        terms.append(found)
    return mean(terms)


def _step_adversarial(stage: str, G, D, networks: nn.ModuleDict, inputs: list[Inputs], options: keys.MsCGAN) -> Terms:
    """The discriminators learn (equation 3), then the generator through the updated ones (equation 4).

    The generator runs once: what it makes serves both. Over several micro-batches its graphs do not fit beside each
    other, so there it runs again for its own update. Stage `joint` adds equation 1 for G1.
    """
    once = len(inputs) == 1
    terms = []
    for batch in inputs:
        with torch.set_grad_enabled(once), G.autocast():
            y1, y_hat = _generate(stage, batch, networks, G, through=G if once else G.module)
        reals, fakes = pairs(batch.x, batch.y, y_hat, options)
        real_logits, fake_logits = D(reals, [fake.detach() for fake in fakes])
        total, found = loss_D(real_logits, fake_logits, options)
        D.backward(total)
        D.step()
        terms.append(found)

    D.module.requires_grad_(False)
    for batch, found in zip(inputs, terms, strict=True):
        if not once:
            y1, y_hat = _generate(stage, batch, networks, G, through=G)
            _, fakes = pairs(batch.x, batch.y, y_hat, options)
        with D.autocast():
            (fake_logits,) = D.module(fakes)
        total, more = loss_II(y_hat, batch.y, batch.mask, fake_logits, options)
        found |= more
        if stage == "joint":
            total_I, more = loss_I(y1, batch.y, batch.mask, options.lambda_bg_1)
            total = total + total_I
            found |= more
        G.backward(total)
        G.step()
    D.module.requires_grad_(True)
    return mean(terms)


def _generate(stage: str, batch: Inputs, networks: nn.ModuleDict, G, through) -> tuple[Tensor, Tensor]:
    """y1 and y_hat, `through` the engine G of what the stage trains, or its bare module."""
    if stage == "joint":
        return through(batch.condition)
    with torch.no_grad(), G.autocast():
        y1 = _generators(networks).G1(batch.condition)
    return y1, through(batch.x, y1)


def pairs(x: Tensor, y: Tensor, y_hat: Tensor, options: keys.MsCGAN) -> tuple[list[Tensor], list[Tensor]]:
    """Real pairs (x, y) and fake pairs (x, y_hat) as each discriminator takes them; x, y, y_hat: (N, 3, H, W)."""
    channels = 8 if y.is_cuda else 6  # tensor cores take 16-byte pixels
    count = keys.SCALES.index(options.scales[-1]) + 1
    reals, fakes = pyramid(x, y, y_hat, count, options.pool, channels)
    chosen = [keys.SCALES.index(scale) for scale in options.scales]
    return [reals[i] for i in chosen], [fakes[i] for i in chosen]


def loss_I(y1: Tensor, y: Tensor, mask: Tensor, lambda_bg_1: float) -> tuple[Tensor, Terms]:
    """G1's loss (Equation 1). y1, y: (N, 3, H, W); mask: M_p, (N, 1, H, W), 1 on the person.

    The "background" term bg_1 is the paper's |(y - y1) * M_p|: with M_p as defined it weighs the person up.
    """
    L1, bg = masked_l1(y1, y, mask)
    return L1 + lambda_bg_1 * bg, {"L1_1": L1.detach(), "bg_1": bg.detach()}


def loss_D(real_logits: list[Tensor], fake_logits: list[Tensor], options: keys.MsCGAN) -> tuple[Tensor, Terms]:
    """What the discriminators minimise: the negative of Equations 2 and 3. Logits: (N,) each, one a discriminator."""
    parts: list[Tensor] = []
    terms: Terms = {}
    weighed = zip(_discriminators(options), real_logits, fake_logits, strict=True)
    for (name, weight), real, fake in weighed:
        real_term, fake_term = as_real(real), as_fake(fake)
        parts.append(weight * (real_term + fake_term))
        terms |= {f"{name}_real": real_term.detach(), f"{name}_fake": fake_term.detach()}
    return cast(Tensor, sum(parts)), terms


def loss_II(
    y_hat: Tensor, y: Tensor, mask: Tensor, fake_logits: list[Tensor], options: keys.MsCGAN
) -> tuple[Tensor, Terms]:
    """G2's loss (Equation 4), maximising log D(x, y_hat) as section 4.2 says. Shapes as in `loss_I` and `loss_D`."""
    L1, bg = masked_l1(y_hat, y, mask)
    total = options.lambda_L1_2 * L1 + options.lambda_bg_2 * bg
    terms = {"L1_2": L1.detach(), "bg_2": bg.detach()}
    for (name, weight), fake in zip(_discriminators(options), fake_logits, strict=True):
        term = as_real(fake)
        total = total + weight * term
        terms[f"G_{name}"] = term.detach()
    return total, terms


def _discriminators(options: keys.MsCGAN) -> list[tuple[str, float]]:
    """Name and lambda_D of each; where the configuration gives no weights, 1 each, as pix2pixHD sums its scales."""
    names = [f"D{keys.SCALES.index(scale) + 1}" for scale in options.scales]
    return list(zip(names, options.lambda_D or [1.0] * len(names), strict=True))
