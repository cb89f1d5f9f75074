"""From a batch of the loader to what a step takes: each thing drawn on the training device, when it is asked for."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, wraps

import torch
from torch import Tensor

from mscgan import pose
from mscgan.data.batch import Batch
from mscgan.keys import Data
from mscgan.ops.body_mask import body_mask
from mscgan.ops.condition import condition, normalise

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def _drawn(function: Callable[["Inputs"], Tensor]) -> cached_property:
    """Computed once, without gradients and never in autocast, wherever in a step it is first asked for."""

    @wraps(function)
    def draw(inputs: "Inputs") -> Tensor:
        with torch.no_grad(), torch.autocast(inputs.flip.device.type, enabled=False):
            return function(inputs)

    return cached_property(draw)


@dataclass
class Inputs:
    """What a step takes of N pairs. Images come as (N, 3, H, W) of `dtype` in [-1, 1], keypoints as (N, 18, 2) pixels.

    All of it is mirrored where `flip` says so; what was given (`given_*`) is as it is stored. To make an image, x and
    the target's keypoints are enough; the others may be None then.
    """

    given_x: Tensor  # (N, H, W, 3) uint8, source images
    given_y: Tensor | None  # the same, target images
    given_x_keypoints: Tensor | None  # (N, 18, 2) float32, (x, y) pixels, missing (-1, -1)
    given_y_keypoints: Tensor  # the same, of the target
    flip: Tensor  # (N,) bool
    data: Data  # how heatmaps and mask are drawn
    dtype: torch.dtype = torch.float32

    @_drawn
    def x(self) -> Tensor:
        """The source images."""
        return normalise(self.given_x, self.flip, self.dtype)

    @_drawn
    def y(self) -> Tensor:
        """The target images."""
        assert self.given_y is not None, "these inputs have no target images"
        return normalise(self.given_y, self.flip, self.dtype)

    @_drawn
    def x_keypoints(self) -> Tensor:
        """The pose of the source."""
        assert self.given_x_keypoints is not None, "these inputs have no pose of the source"
        return self._mirrored(self.given_x_keypoints)

    @_drawn
    def y_keypoints(self) -> Tensor:
        """The pose p of the target."""
        return self._mirrored(self.given_y_keypoints)

    @_drawn
    def condition(self) -> Tensor:
        """x and the heatmaps of the target pose: (N, 21, H, W), on CUDA 24 channels with zeros in the last three."""
        data = self.data
        channels = 24 if self.given_x.is_cuda else 21  # whole 16-byte words a pixel, as tensor cores take them
        maps = data.heatmap, data.sigma, data.radius
        return condition(self.given_x, self.y_keypoints, self.flip, *maps, self.dtype, channels)

    @_drawn
    def mask(self) -> Tensor:
        """The target's body mask M_p: (N, 1, H, W) float32 in {0, 1}, 1 on the person."""
        data = self.data
        return body_mask(self.y_keypoints, data.height, data.width, data.mask, data.radius)

    def _mirrored(self, keypoints: Tensor) -> Tensor:
        return torch.where(self.flip[:, None, None], pose.flip(keypoints, self.data.width), keypoints)


def prepare(batch: Batch, data: Data, precision: str = "fp32") -> Inputs:
    """The inputs of a step from the loader's batch; precision: "bf16", "fp16" or "fp32"."""
    return Inputs(batch.x, batch.y, batch.x_keypoints, batch.y_keypoints, batch.flip, data, DTYPES[precision])
