"""PG2 (Ma et al., NIPS 2017) once more, written only from a description of its public code: what tests compare with.

It shares nothing with mscgan/, so an error would have to be made twice to go unseen. Everything is spelled out in
plain PyTorch and runs in float32 or float64. Parameters are registered in the order of the forward pass (encoder from
the full resolution down, code, decoder from the deepest level up, output), so that a test copies weights by position.
Weights are left as PyTorch starts them: the initialisation is not part of this reference.

One known difference from the original: D flattens its last map in the order H, W, C, as the generators do; the
original's D flattens C, H, W. Only the order of random weights differs.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

LAMBDA = {"market1501": 10, "deepfashion": 50}  # weight of the L1 terms in L_G2


def conv(layer: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """TensorFlow's SAME convolution: out = ceil(size / stride); what is odd of the padding goes to the bottom/right."""
    pads = []
    for axis, side in ((0, x.shape[2]), (1, x.shape[3])):
        kernel, stride = layer.kernel_size[axis], layer.stride[axis]
        total = max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)
        pads.append((total // 2, total - total // 2))
    (top, bottom), (left, right) = pads
    return layer(F.pad(x, (left, right, top, bottom)))


def double(x: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


def flat(x: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) -> (N, H*W*C), in the order H, W, C."""
    return x.permute(0, 2, 3, 1).flatten(1)


class G1(nn.Module):
    """Stage I. Widths grow linearly, h * (level + 1); every convolution but the last has a ReLU, the code has none."""

    def __init__(self, height: int, width: int, h: int = 128) -> None:
        super().__init__()
        levels = int(math.log2(height)) - 2
        self.h = h
        self.low = (height >> (levels - 1), width >> (levels - 1))
        low_pixels = self.low[0] * self.low[1]

        self.enter = nn.Conv2d(3 + 18, h, 3)
        self.encoder = nn.ModuleList()
        for i in range(levels):
            c = h * (i + 1)
            level = nn.ModuleList([nn.Conv2d(c, c, 3), nn.Conv2d(c, c, 3)])
            if i < levels - 1:
                level.append(nn.Conv2d(c, h * (i + 2), 3, stride=2))
            self.encoder.append(level)
        self.to_code = nn.Linear(low_pixels * h * levels, 64 * h // 128)
        self.from_code = nn.Linear(64 * h // 128, low_pixels * h)
        self.decoder = nn.ModuleList()
        below = h  # channels that come from below: the code's at first
        for i in reversed(range(levels)):
            c = below + h * (i + 1)
            level = nn.ModuleList([nn.Conv2d(c, c, 3), nn.Conv2d(c, c, 3)])
            if i > 0:
                below = h * i
                level.append(nn.Conv2d(c, below, 1))
            self.decoder.append(level)
        self.leave = nn.Conv2d(2 * h, 3, 3)

    def forward(self, x: torch.Tensor, pose: torch.Tensor) -> torch.Tensor:
        """x (N, 3, H, W) in [-1, 1] and pose (N, 18, H, W) of -1 and +1 -> y1 (N, 3, H, W), unbounded."""
        a = F.relu(conv(self.enter, torch.cat([x, pose], 1)))
        skips = []
        for level in self.encoder:
            a = a + F.relu(conv(level[1], F.relu(conv(level[0], a))))  # no ReLU after the sum
            skips.append(a)
            if len(level) == 3:
                a = F.relu(conv(level[2], a))

        code = self.to_code(flat(a))
        code = self.from_code(code).reshape(-1, *self.low, self.h).permute(0, 3, 1, 2)  # (N, h, 8, 8 or 4)

        deepest = skips.pop()
        a = torch.cat([deepest, code], 1)
        for level in self.decoder:
            a = a + F.relu(conv(level[1], F.relu(conv(level[0], a))))
            if len(level) == 3:
                a = F.relu(conv(level[2], double(a)))
                a = torch.cat([a, skips.pop()], 1)
        return conv(self.leave, a)


class G2(nn.Module):
    """Stage II: a U-net without residuals that adds a difference map to y1; two levels fewer than G1.

    `edition` "deepfashion" has a skip at every level. "market1501" keeps no skip of the first block, hence has none at
    the full resolution. In both, the deepest map meets itself as its own skip, unless, in "market1501", the
    deepest level is also the first (H = 32).
    """

    def __init__(self, height: int, width: int, h: int = 128, edition: str = "market1501") -> None:
        super().__init__()
        levels = int(math.log2(height)) - 4
        self.first_skip = {"market1501": 1, "deepfashion": 0}[edition]

        self.enter = nn.Conv2d(3 + 3, h, 3)
        self.encoder = nn.ModuleList()
        c_in = h
        for i in range(levels):
            c = h * (i + 1)
            level = nn.ModuleList([nn.Conv2d(c_in, c, 3), nn.Conv2d(c, c, 3)])
            if i < levels - 1:
                level.append(nn.Conv2d(c, c, 3, stride=2))  # keeps the width; the next block widens
            self.encoder.append(level)
            c_in = c
        self.decoder = nn.ModuleList()
        for i in reversed(range(levels)):
            below = h * levels if i == levels - 1 else h
            skip = h * (i + 1) if i >= self.first_skip else 0
            self.decoder.append(nn.ModuleList([nn.Conv2d(below + skip, h, 3), nn.Conv2d(h, h, 3)]))
        self.leave = nn.Conv2d(h, 3, 3)

    def forward(self, y1: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """y1 and x (N, 3, H, W) -> y2 (N, 3, H, W), unbounded."""
        a = F.relu(conv(self.enter, torch.cat([y1, x], 1)))
        maps = []
        for level in self.encoder:
            a = F.relu(conv(level[1], F.relu(conv(level[0], a))))
            maps.append(a)
            if len(level) == 3:
                a = F.relu(conv(level[2], a))

        for i, level in zip(reversed(range(len(maps))), self.decoder, strict=True):
            if i < len(maps) - 1:
                a = double(a)
            if i >= self.first_skip:
                a = torch.cat([a, maps[i]], 1)
            a = F.relu(conv(level[1], F.relu(conv(level[0], a))))
        return y1 + conv(self.leave, a)


class D(nn.Module):
    """Judges single images. `h` is the generators' width: D starts with h // 2 and doubles up to eight times that."""

    def __init__(self, height: int, width: int, h: int = 128) -> None:
        super().__init__()
        count = int(math.log2(height)) - 3  # the lowest map is 8 high
        widths = [h // 2 * min(2**i, 8) for i in range(count)]
        self.levels = nn.ModuleList()
        for i, (c_in, c) in enumerate(zip([3, *widths], widths)):
            level = nn.ModuleList([nn.Conv2d(c_in, c, 5, stride=2)])
            if i > 0:
                level.append(nn.BatchNorm2d(c, eps=1e-5, track_running_stats=False))  # the batch's own, always
            self.levels.append(level)
        self.judge = nn.Linear((height >> count) * (width >> count) * widths[-1], 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) -> logits (N,). All images of one call share the statistics of BN, and gradient flows there."""
        a = images
        for level in self.levels:
            a = conv(level[0], a)
            if len(level) == 2:
                a = level[1](a)
            a = F.leaky_relu(a, 0.2)
        return self.judge(flat(a)).squeeze(1)


def real(logits: torch.Tensor) -> torch.Tensor:
    """BCE(logits, 1), the mean."""
    return -F.logsigmoid(logits).mean()


def fake(logits: torch.Tensor) -> torch.Tensor:
    """BCE(logits, 0), the mean."""
    return -F.logsigmoid(-logits).mean()


def stage_I(image: torch.Tensor, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """L1 + Lm of image against y (N, 3, H, W), mask (N, 1, H, W) of 0 and 1: both means are over ALL elements."""
    assert mask.shape == (y.shape[0], 1, *y.shape[2:]), f"mask is {tuple(mask.shape)}, images are {tuple(y.shape)}"
    error = (image - y).abs()
    return error.mean() + (error * mask).mean()


def judged(edition: str, y: torch.Tensor, x: torch.Tensor, y1: torch.Tensor, y2: torch.Tensor) -> torch.Tensor:
    """The images of D's one call: (4N, 3, H, W) for "market1501", (3N, 3, H, W) for "deepfashion"."""
    return torch.cat({"market1501": [y, x, y1, y2], "deepfashion": [y, y2, x]}[edition])


def loss_D(logits: torch.Tensor, edition: str) -> torch.Tensor:
    """L_D from the logits of judged(). Market's y1 is in the statistics of BN but in no term."""
    if edition == "market1501":
        of_y, of_x, _, of_y2 = logits.chunk(4)
        return 0.5 * real(of_y) + 0.25 * fake(of_x) + 0.25 * fake(of_y2)
    of_y, of_y2, of_x = logits.chunk(3)
    return 0.5 * (real(of_y) + fake(torch.cat([of_y2, of_x])))


def loss_G2(
    logits: torch.Tensor, y2: torch.Tensor, y: torch.Tensor, mask: torch.Tensor, edition: str, lambda_: float
) -> torch.Tensor:
    """L_G2 from the logits of judged(). DeepFashion's adversarial mean is over [y2; x], so y2's logits weigh half."""
    if edition == "market1501":
        adversarial = real(logits.chunk(4)[3])
    else:
        adversarial = real(torch.cat(logits.chunk(3)[1:]))
    return adversarial + lambda_ * stage_I(y2, y, mask)
