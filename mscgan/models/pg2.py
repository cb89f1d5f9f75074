"""PG2 (Ma et al., "Pose guided person image generation", NIPS 2017), as its public code trains it.

MsCGAN builds on it, and its tables compare with it. What the code does beyond or against the text, and this file with
it: widths grow linearly; strided convolutions pad as TensorFlow's "SAME"; the lowest map of an encoder is its lowest
skip, too; D judges single images, and the source x is a second kind of fake beside y_hat; one BatchNorm sees all of
them; the poses are discs in {-1, +1}, where a missing joint is -1 everywhere (`data.heatmap: disc_pg2`).

The code has two editions. They differ in G2's skips, in D's batch, and in the adversarial term of G2, which for
DeepFashion is a mean over y_hat and x, so that G2 sees half the gradient.

Stage I trains G1, stage II trains G2, then D, beside the frozen G1. There each of G2 and D draws a batch of its own in
the original; here both take the step's batch, and D judges what G2 made before its own update.
"""

import math

import torch
from torch import Tensor, nn

from mscgan import keys
from mscgan.layers.convolution import Layer, draw_weights, flatten
from mscgan.layers.unet import Code, Row, UNet
from mscgan.losses import Terms, as_fake, as_real, mean
from mscgan.ops.masked_l1 import masked_l1
from mscgan.prepare import Inputs

MAKES = ("G1", "G2")

G1_TABLE = (  # log2(H) - 2 levels, the i-th i * base wide
    #    part       layer        kernel stride pad   act      width   levels
    Row("encoder", "CONV",          3,    1, "SAME", "relu",   0,      "first"),
    Row("encoder", "Res_BLOCK",     3,    1, "SAME", "relu",   0,      "every"),
    Row("encoder", "DOWN",          3,    2, "SAME", "relu",   +1,     "but last"),
    Row("decoder", "Res_BLOCK",     3,    1, "SAME", "relu",   "same", "every"),
    Row("decoder", "NEAREST",       1,    2, "SAME", "linear", "same", "but first"),
    Row("decoder", "CONV",          1,    1, "SAME", "relu",   -1,     "but first"),
    Row("decoder", "CONV",          3,    1, "SAME", "linear", "RGB",  "first"),
)  # fmt: skip
CODE = 64  # units of the waist at base 128

G2_TABLE = (  # log2(H) - 4 levels
    #    part       layer        kernel stride pad   act      width   levels
    Row("encoder", "CONV",          3,    1, "SAME", "relu",   0,      "first"),
    Row("encoder", "CONV_BLOCK",    3,    1, "SAME", "relu",   0,      "every"),
    Row("encoder", "DOWN",          3,    2, "SAME", "relu",   "same", "but last"),
    Row("decoder", "CONV_BLOCK",    3,    1, "SAME", "relu",   "base", "every"),
    Row("decoder", "NEAREST",       1,    2, "SAME", "linear", "same", "but first"),
    Row("decoder", "CONV",          3,    1, "SAME", "linear", "RGB",  "first"),
)  # fmt: skip


class G1(UNet):
    """The coarse generator. forward(condition): x and the pose's 18 discs, (N, 21 or 24, H, W) -> y1, (N, 3, H, W)."""

    def __init__(self, height: int, width: int, base: int = 128):
        widths = [base * level for level in range(1, int(math.log2(height)) - 1)]
        # The lowest map is 8 high at every size.
        code = Code(widths[-1], 8, 8 * width // height, units=CODE * base // 128, channels=base)
        super().__init__(G1_TABLE, widths, channels_in=21, code=code, code_channels=base)
        draw_weights(self, nn.init.xavier_uniform_)


class G2(UNet):
    """The refining generator: a difference map from y1 and x. The lowest map is joined with itself.

    edition: "market1501", whose level of the image's size has no skip, or "deepfashion", where all levels have one.
    """

    def __init__(self, height: int, width: int, base: int = 128, edition: str = "market1501"):
        widths = [base * level for level in range(1, int(math.log2(height)) - 3)]
        super().__init__(
            G2_TABLE, widths, channels_in=6, code=nn.Identity(), code_channels=widths[-1],
            full_size_skip=edition == "deepfashion",
        )  # fmt: skip
        draw_weights(self, nn.init.xavier_uniform_)

    def forward(self, y1: Tensor, x: Tensor) -> Tensor:
        """y1 and x, both (N, 3, H, W) -> y_hat, (N, 3, H, W), about [-1, 1]."""
        return y1 + self.walk(torch.cat([y1, x], 1))


class D(nn.Module):
    """DCGAN's discriminator of single images, its convolutions 5x5; the lowest map is 8 high, as G1's is.

    BatchNorm takes the statistics of all images of a call, real and fake; the biases before it are idle.
    """

    def __init__(self, height: int, width: int, base: int = 128):
        super().__init__()
        self.convs = nn.Sequential()
        channels, convolutions = 3, int(math.log2(height)) - 3
        for i in range(convolutions):
            width_out = min(base // 2 << i, 4 * base)
            layer = Layer(channels, width_out, 5, 2, "leaky_relu", padding="SAME", norm=i > 0)
            self.convs.add_module(f"CONV{i + 1}", layer)
            channels = width_out
        self.FC = nn.Linear(channels * 8 * (8 * width // height), 1)
        half_range = 0.02 * math.sqrt(3)  # uniform, with a deviation of 0.02
        draw_weights(self, lambda weight: nn.init.uniform_(weight, -half_range, half_range))

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> logits (N,)."""
        return self.FC(flatten(self.convs(images))).squeeze(1)


def build(options: keys.PG2, height: int, width: int) -> nn.ModuleDict:
    """{"G1", "G2", "D"}."""
    first, second = G1(height, width, options.base), G2(height, width, options.base, options.edition)
    return nn.ModuleDict({"G1": first, "G2": second, "D": D(height, width, options.base)})


def trains(stage: str, networks: nn.ModuleDict) -> dict[str, nn.Module]:
    return {name: networks[name] for name in {"I": ("G1",), "II": ("G2", "D")}[stage]}


def hand_over(before: str, networks: nn.ModuleDict, average: nn.ModuleDict) -> None:
    """Stage II stands on the average of G1, which is G1 itself where `train.ema_halflife` is 0, as in the original."""
    if before == "I":
        networks["G1"].load_state_dict(average["G1"].state_dict())


def images(stage: str, networks: nn.ModuleDict, inputs: Inputs) -> dict[str, Tensor]:
    y1 = networks["G1"](inputs.condition)
    return {"stage I": y1} | ({} if stage == "I" else {"stage II": networks["G2"](y1, inputs.x)})


def step(stage: str, engines: dict, networks: nn.ModuleDict, inputs: list[Inputs], options: keys.PG2) -> Terms:
    if stage == "I":
        return _step_I(engines["G1"], inputs, options)
    return _step_II(engines["G2"], engines["D"], networks["G1"], inputs, options)


def _step_I(engine, inputs: list[Inputs], options: keys.PG2) -> Terms:
    terms = []
    for batch in inputs:
        L1, bg = masked_l1(engine(batch.condition), batch.y, batch.mask)
        engine.backward(L1 + options.lambda_bg_1 * bg)
        engine.step()
        terms.append({"L1_1": L1.detach(), "bg_1": bg.detach()})
    return mean(terms)


def _step_II(G, D, frozen: nn.Module, inputs: list[Inputs], options: keys.PG2) -> Terms:
    """G2 learns through D as it is, then D on what G2 made before."""
    terms, made = [], []
    D.module.requires_grad_(False)
    for batch in inputs:
        with torch.no_grad(), G.autocast():
            y1 = frozen(batch.condition)
        y_hat = G(y1, batch.x)
        with D.autocast():
            logits = _judge(D.module, batch, y1, y_hat, options.edition)
        L1, bg = masked_l1(y_hat, batch.y, batch.mask)
        adversarial = as_real(logits["y_hat"])
        if options.edition == "deepfashion":
            adversarial = (adversarial + as_real(logits["x"])) / 2
        G.backward(adversarial + options.lambda_L1_2 * L1 + options.lambda_bg_2 * bg)
        G.step()
        made.append((y1, y_hat.detach()))
        terms.append({"L1_2": L1.detach(), "bg_2": bg.detach(), "G_D": adversarial.detach()})
    D.module.requires_grad_(True)

    for batch, (y1, y_hat), found in zip(inputs, made, terms, strict=True):
        logits = _judge(D, batch, y1, y_hat, options.edition)
        real, source, fake = as_real(logits["y"]), as_fake(logits["x"]), as_fake(logits["y_hat"])
        D.backward(real / 2 + source / 4 + fake / 4)
        D.step()
        found |= {"D_real": real.detach(), "D_source": source.detach(), "D_fake": fake.detach()}
    return mean(terms)


def _judge(D, batch: Inputs, y1: Tensor, y_hat: Tensor, edition: str) -> dict[str, Tensor]:
    """D's logits, (N,) an image, of all images of a step in one call, so that they share BatchNorm's statistics."""
    shown = {"y": batch.y, "x": batch.x, "y1": y1, "y_hat": y_hat}
    if edition == "deepfashion":
        del shown["y1"]
    logits = D(torch.cat(list(shown.values())))
    return dict(zip(shown, logits.chunk(len(shown)), strict=True))
