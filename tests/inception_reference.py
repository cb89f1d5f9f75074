"""Inception v3 in a few lines, written from its papers and held against the libraries' networks.

A convolution's weights are drawn when the first image meets it, at a scale that keeps activations near 1; so one image
makes a file of weights of the true architecture, under the names that torchvision and torch-fidelity both use.
`compatible` is TensorFlow's graph of 2015: averages do not count the padding, the last block pools by the maximum.
"""

import numpy as np
import torch
import torch.nn.functional as F

A_BLOCKS = {"Mixed_5b": 32, "Mixed_5c": 64, "Mixed_5d": 64}  # channels of the pooled branch
C_BLOCKS = {"Mixed_6b": 128, "Mixed_6c": 160, "Mixed_6d": 160, "Mixed_6e": 192}  # channels inside


class Reference:
    """state: name -> tensor, float32; what is missing is drawn."""

    def __init__(self, compatible: bool, seed: int = 0) -> None:
        self.state: dict[str, torch.Tensor] = {}
        self.compatible = compatible
        self.random = torch.Generator().manual_seed(seed)

    def conv(self, x, name, out, kernel=1, stride=1, padding=0):
        if f"{name}.conv.weight" not in self.state:
            self._draw(name, x.shape[1], out, kernel if isinstance(kernel, tuple) else (kernel, kernel))
        weight = self.state[f"{name}.conv.weight"].to(x.dtype)
        scale, shift, mean, variance = (
            self.state[f"{name}.bn.{part}"].to(x.dtype)[:, None, None]
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        x = F.conv2d(x, weight, stride=stride, padding=padding)
        return ((x - mean) / (variance + 0.001).sqrt() * scale + shift).clamp(min=0)

    def _draw(self, name, channels, out, kernel):
        def normal(*shape):
            return torch.randn(shape, generator=self.random)

        self.state[f"{name}.conv.weight"] = normal(out, channels, *kernel) * (2 / (channels * np.prod(kernel))) ** 0.5
        self.state[f"{name}.bn.weight"] = 1 + 0.1 * normal(out)
        self.state[f"{name}.bn.bias"] = 0.1 * normal(out)
        self.state[f"{name}.bn.running_mean"] = 0.1 * normal(out)
        self.state[f"{name}.bn.running_var"] = 1 + 0.1 * normal(out).abs()
        self.state[f"{name}.bn.num_batches_tracked"] = torch.tensor(1)

    def pooled(self, x, last=False):
        if last and self.compatible:
            return F.max_pool2d(x, 3, 1, 1)
        return F.avg_pool2d(x, 3, 1, 1, count_include_pad=not self.compatible)

    def chain(self, x, block, *layers):
        """Convolutions one after another: (name, channels, kernel, stride, padding)."""
        for name, *shape in layers:
            x = self.conv(x, f"{block}.{name}", *shape)
        return x

    def a(self, x, b, pool):
        deep = [("branch3x3dbl_1", 64), ("branch3x3dbl_2", 96, 3, 1, 1), ("branch3x3dbl_3", 96, 3, 1, 1)]
        branches = [[("branch1x1", 64)], [("branch5x5_1", 48), ("branch5x5_2", 64, 5, 1, 2)], deep]
        parts = [self.chain(x, b, *branch) for branch in branches]
        return torch.cat([*parts, self.chain(self.pooled(x), b, ("branch_pool", pool))], 1)

    def b(self, x, b):
        deep = [("branch3x3dbl_1", 64), ("branch3x3dbl_2", 96, 3, 1, 1), ("branch3x3dbl_3", 96, 3, 2)]
        parts = self.chain(x, b, ("branch3x3", 384, 3, 2)), self.chain(x, b, *deep)
        return torch.cat([*parts, F.max_pool2d(x, 3, 2)], 1)

    def c(self, x, b, c):
        wide, tall = ((1, 7), 1, (0, 3)), ((7, 1), 1, (3, 0))
        seven = [("branch7x7_1", c), ("branch7x7_2", c, *wide), ("branch7x7_3", 192, *tall)]
        names, orders = [f"branch7x7dbl_{i}" for i in range(2, 6)], [tall, wide, tall, wide]
        deep = [("branch7x7dbl_1", c)] + [
            (name, 192 if i == 3 else c, *order) for i, (name, order) in enumerate(zip(names, orders, strict=True))
        ]
        parts = [self.chain(x, b, *branch) for branch in ([("branch1x1", 192)], seven, deep)]
        return torch.cat([*parts, self.chain(self.pooled(x), b, ("branch_pool", 192))], 1)

    def d(self, x, b):
        seven = [("branch7x7x3_2", 192, (1, 7), 1, (0, 3)), ("branch7x7x3_3", 192, (7, 1), 1, (3, 0))]
        three = [("branch3x3_1", 192), ("branch3x3_2", 320, 3, 2)]
        parts = [
            self.chain(x, b, *three),
            self.chain(x, b, ("branch7x7x3_1", 192), *seven, ("branch7x7x3_4", 192, 3, 2)),
        ]
        return torch.cat([*parts, F.max_pool2d(x, 3, 2)], 1)

    def e(self, x, b, last=False):
        def fork(x, name):
            return [
                self.chain(x, b, (f"{name}a", 384, (1, 3), 1, (0, 1))),
                self.chain(x, b, (f"{name}b", 384, (3, 1), 1, (1, 0))),
            ]

        parts = [self.chain(x, b, ("branch1x1", 320)), *fork(self.chain(x, b, ("branch3x3_1", 384)), "branch3x3_2")]
        deep = self.chain(x, b, ("branch3x3dbl_1", 448), ("branch3x3dbl_2", 384, 3, 1, 1))
        pool = self.chain(self.pooled(x, last), b, ("branch_pool", 192))
        return torch.cat([*parts, *fork(deep, "branch3x3dbl_3"), pool], 1)

    def pool3(self, x):
        """(N, 3, 299, 299), normalised, to (N, 2048)."""
        x = self.conv(x, "Conv2d_1a_3x3", 32, 3, 2)
        x = self.conv(self.conv(x, "Conv2d_2a_3x3", 32, 3), "Conv2d_2b_3x3", 64, 3, 1, 1)
        x = self.conv(F.max_pool2d(x, 3, 2), "Conv2d_3b_1x1", 80)
        x = F.max_pool2d(self.conv(x, "Conv2d_4a_3x3", 192, 3), 3, 2)
        for block, pool in A_BLOCKS.items():
            x = self.a(x, block, pool)
        x = self.b(x, "Mixed_6a")
        for block, channels in C_BLOCKS.items():
            x = self.c(x, block, channels)
        x = self.e(self.e(self.d(x, "Mixed_7a"), "Mixed_7b"), "Mixed_7c", last=True)
        return x.mean((2, 3))

    def linear(self, name, out, inputs):
        """Draws a last layer, as both libraries' files have it."""
        self.state[f"{name}.weight"] = torch.randn(out, inputs, generator=self.random) * 0.05
        self.state[f"{name}.bias"] = torch.randn(out, generator=self.random)


def tensorflow_resize(images: np.ndarray, size: int = 299) -> torch.Tensor:
    """(N, H, W, 3) to (N, 3, size, size) float64 as TensorFlow 1 did: pixel i takes place i * H / size."""

    def weights(count):
        places = np.arange(size) * np.float32(count / size)
        low = places.astype(int)
        matrix = np.zeros((size, count))
        np.add.at(matrix, (np.arange(size), low), 1 - (places - low))
        np.add.at(matrix, (np.arange(size), np.minimum(low + 1, count - 1)), places - low)
        return matrix

    rows, columns = weights(images.shape[1]), weights(images.shape[2])
    return torch.from_numpy(np.einsum("yh,nhwc,xw->ncyx", rows, images.astype(np.float64), columns))
