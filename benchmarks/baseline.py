"""What users would run otherwise: the same networks and the same step, written as torchvision and DCGAN write them.

`plain` swaps every layer of this project's networks for a convolution with its own bias, nn.ReLU and an addition, of
the same weights under the same names. `PlainStep` is the adversarial step around them: inputs drawn by separate PyTorch
operations, one generator forward for both updates or one for each, torch's Adam.
"""

import copy
from collections.abc import Callable
from contextlib import nullcontext

import torch
import torch.distributed as torch_dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mscgan import pose
from mscgan.data.batch import Batch
from mscgan.errors import UserError
from mscgan.keys import SCALES, Config
from mscgan.layers.convolution import SLOPE, Layer
from mscgan.losses import as_fake, as_real
from mscgan.models import FAMILIES
from mscgan.rates import learning_rate

ACTS = {
    "relu": lambda: nn.ReLU(inplace=True),
    "leaky_relu": lambda: nn.LeakyReLU(SLOPE, inplace=True),
    "linear": nn.Identity,
}


class PlainLayer(nn.Module):
    """act(norm(conv(x) + bias)) + residual, one operation after the other."""

    def __init__(self, layer: Layer):
        super().__init__()
        conv, kernel, self.norm = layer.conv, layer.conv.weight.shape[1], None
        assert conv.before == conv.after, "torch's convolutions pad all sides alike"
        given = (conv.channels_in, conv.channels_out, kernel, conv.stride, conv.before)
        with torch.device("meta"):  # torch's own first weights would be drawn for nothing
            if conv.up:
                self.conv = nn.ConvTranspose2d(*given, output_padding=4 - kernel)
            else:
                self.conv = nn.Conv2d(*given, bias=conv.bias is not None)
        weights = conv.state_dict() | {"weight": conv.kernel().detach().contiguous()}
        self.conv.load_state_dict(weights, assign=True)
        if layer.norm is not None:
            self.norm = nn.BatchNorm2d(layer.norm.num_features, device=layer.norm.weight.device)
            self.norm.load_state_dict(layer.norm.state_dict())
        self.act = ACTS[layer.act]()

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        y = self.conv(x)
        if self.norm is not None:
            y = self.norm(y)
        y = self.act(y)
        return y if residual is None else y + residual


def plain(network: nn.Module) -> nn.Module:
    """A copy of a network with a PlainLayer for every Layer: same weights, same result."""
    network = copy.deepcopy(network)
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Layer):
                setattr(parent, name, PlainLayer(child))
    return network


def condition(images: Tensor, keypoints: Tensor, flip: Tensor, data) -> Tensor:
    """What mscgan.ops.condition gives, in NCHW float32, by separate operations: (N, 21, H, W)."""
    maps = pose.heatmaps(keypoints, data.height, data.width, data.heatmap, data.sigma, data.radius)
    return torch.cat([normalise(images, flip), maps], 1)


def normalise(images: Tensor, flip: Tensor) -> Tensor:
    """uint8 (N, H, W, 3) -> (N, 3, H, W) float32 in [-1, 1], contiguous, mirrored where flip."""
    x = images.permute(0, 3, 1, 2).float() / 127.5 - 1
    return torch.where(flip[:, None, None, None], x.flip(3), x).contiguous()


def pyramid(x: Tensor, y: Tensor, y_hat: Tensor, scales: int) -> tuple[list[Tensor], list[Tensor]]:
    """Pairs joined at full size, then pooled to each smaller scale: six channels, means over 2x2 and 4x4 pixels."""
    reals, fakes = [torch.cat([x, y], 1)], [torch.cat([x, y_hat], 1)]
    for scale in range(1, scales):
        reals.append(F.avg_pool2d(reals[0], 2**scale))
        fakes.append(F.avg_pool2d(fakes[0], 2**scale))
    return reals, fakes


def bias_act(x: Tensor, bias: Tensor, residual: Tensor | None = None) -> Tensor:
    """relu(x + bias) + residual in x's dtype."""
    y = F.relu(x + bias.to(x.dtype)[:, None, None])
    return y if residual is None else y + residual


def masked_l1(y_hat: Tensor, y: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """(mean |d|, mean |d| * mask), float32 sums."""
    distance = (y_hat.float() - y.float()).abs()
    return distance.mean(), (distance * mask).mean()


class PlainStep:
    """One step of MsCGAN in a stage (I, II or joint) on a batch: float32 NCHW by default.

    Args:
        compiled: torch.compile of each network, and Adam fused.
        bf16: bfloat16 autocast.
        forwards: generator forwards in an adversarial step; 1 shares one between both updates, as ours does.
        channels_last: weights and images.
        ddp: each network in DistributedDataParallel, where there are several ranks.
        lap: called at the end of each phase of a step with its name, which are those of benchmarks/step.py.

    Raises:
        UserError: another family, scales that leave a larger one out, or another pool.
    """

    def __init__(
        self,
        config: Config,
        stage: str,
        device: torch.device,
        compiled: bool = False,
        bf16: bool = False,
        forwards: int = 2,
        channels_last: bool = False,
        ddp: bool = False,
        lap: Callable[[str], None] = lambda phase: None,
    ):
        data, options, train = config.data, config.mscgan, config.train
        first_scales = tuple(options.scales) == SCALES[: len(options.scales)]
        if config.family != "mscgan" or not first_scales or options.pool != "mean2":
            raise UserError(
                "the plain and compiled ways of a step know family=mscgan alone, with mscgan.scales [1], [1,2] or "
                "[1,2,4] and mscgan.pool=mean2; give --ways without them"
            )
        self.config, self.stage, self.device, self.bf16, self.forwards = config, stage, device, bf16, forwards
        self.lap = lap
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        torch.manual_seed(train.seed)
        with device:  # where drawing the first weights takes no time to speak of
            G, D = FAMILIES["mscgan"].build(options, data.height, data.width).children()
        G1, G2, D = (plain(network) for network in (G.G1, G.G2, D))
        self.G1, self.G2, self.D = (network.to(device, memory_format=self.layout) for network in (G1, G2, D))
        trained = {"I": [self.G1], "II": [self.G2, self.D], "joint": [self.G1, self.G2, self.D]}[stage]
        if stage == "II":
            self.G1.requires_grad_(False)
        adam = {"lr": learning_rate(train, stage, seen=0), "betas": tuple(train.betas), "fused": compiled}
        generators = [p for network in trained if network is not self.D for p in network.parameters()]
        self.G_optimizer = torch.optim.Adam(generators, **adam)
        self.D_optimizer = torch.optim.Adam(self.D.parameters(), **adam)
        if compiled:
            for network in (self.G1, self.G2, self.D):
                network.compile()
        if ddp:
            self.G1, self.G2, self.D = (_ddp(network, trained, device) for network in (self.G1, self.G2, self.D))

    def __call__(self, batch: Batch) -> Tensor:
        """Runs the step. Returns the generators' loss, not read, so that nothing waits for the device."""
        data, options = self.config.data, self.config.mscgan
        flipped = pose.flip(batch.y_keypoints, data.width)
        keypoints = torch.where(batch.flip[:, None, None], flipped, batch.y_keypoints)
        given = condition(batch.x, keypoints, batch.flip, data).contiguous(memory_format=self.layout)
        y = normalise(batch.y, batch.flip).contiguous(memory_format=self.layout)
        mask = pose.body_mask(keypoints, data.height, data.width, data.mask, data.radius)
        self.lap("prepare")
        if self.stage == "I":
            with self._autocast():
                y1 = self.G1(given)
            self.lap("G forward")
            L1, bg = masked_l1(y1, y, mask)
            return self._update_G(L1 + options.lambda_bg_1 * bg)

        x, scales = given[:, :3], len(options.scales)
        with torch.set_grad_enabled(self.forwards == 1), self._autocast():
            y1, y_hat = self._generate(given)
            x, y = x.to(y_hat.dtype), y.to(y_hat.dtype)
            reals, fakes = pyramid(x, y, y_hat, scales)
        self.lap("G forward")
        self.D_optimizer.zero_grad()
        with self._autocast():
            real_logits, fake_logits = self.D(reals, [fake.detach() for fake in fakes])
        lambda_D = options.lambda_D or [1.0] * scales
        weighed = zip(lambda_D, real_logits, fake_logits, strict=True)
        sum(weight * (as_real(real) + as_fake(fake)) for weight, real, fake in weighed).backward()
        self.lap("D")
        self.D_optimizer.step()
        self.lap("optimizer")

        self.D.requires_grad_(False)
        with self._autocast():
            if self.forwards == 2:
                y1, y_hat = self._generate(given)
                _, fakes = pyramid(x, y, y_hat, scales)
                self.lap("G forward")
            (fake_logits,) = getattr(self.D, "module", self.D)(fakes)
        L1, bg = masked_l1(y_hat, y, mask)
        adversarial = sum(weight * as_real(fake) for weight, fake in zip(lambda_D, fake_logits, strict=True))
        total = options.lambda_L1_2 * L1 + options.lambda_bg_2 * bg + adversarial
        if self.stage == "joint":
            L1, bg = masked_l1(y1, y, mask)
            total = total + L1 + options.lambda_bg_1 * bg
        total = self._update_G(total)
        self.D.requires_grad_(True)
        return total

    def _generate(self, given: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad() if self.stage == "II" else nullcontext():
            y1 = self.G1(given)
        return y1, self.G2(given[:, :3], y1)

    def _update_G(self, total: Tensor) -> Tensor:
        self.G_optimizer.zero_grad()
        total.backward()
        self.lap("G backward")
        self.G_optimizer.step()
        self.lap("optimizer")
        return total.detach()

    def _autocast(self):
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)


def _ddp(network: nn.Module, trained: list[nn.Module], device: torch.device) -> nn.Module:
    if network not in trained or torch_dist.get_world_size() == 1:
        return network
    ids = [device.index] if device.type == "cuda" else None
    return DistributedDataParallel(network, device_ids=ids, broadcast_buffers=False, gradient_as_bucket_view=True)
