"""What G1 sees: the image in [-1, 1] and 18 heatmaps, from uint8 pixels and keypoints; gradients do not pass.

    out[n, c, i, j] = image[n, i, j', c] / 127.5 - 1                                for the first 3 channels,
    out[n, 3 + k, i, j] = exp(-((j - x_k)^2 + (i - y_k)^2) / 2 sigma^2)             for joint k = (x_k, y_k), "gaussian"
                        = 1 if (j - [x_k])^2 + (i - [y_k])^2 <= radius^2 else 0     "disc", [] truncates to whole pixels
                        = 1 if (j - [x_k])^2 + (i - [y_k])^2 <= radius^2 else -1    "disc_pg2"
    j' = j, or W - 1 - j where the image is to be mirrored. A missing joint's map is all zeros, in "disc_pg2" all -1;
    channels that fill a pixel up are zeros.

Everything is computed in float32 and rounded once, to `dtype`.
"""

import torch
from torch import Tensor

from mscgan import pose

CHANNELS = 3 + len(pose.JOINTS)


@torch.no_grad()
def normalise(images: Tensor, flip: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 images (N, H, W, 3) -> (N, 3, H, W) of `dtype` in [-1, 1], channels_last, mirrored where flip (N,) bool."""
    return (_normalise_op if images.is_cuda else _normalise_reference)(images, flip, dtype)


@torch.no_grad()
def condition(
    images: Tensor,
    keypoints: Tensor,
    flip: Tensor,
    kind: str = "gaussian",
    sigma: float = 6.0,
    radius: float = 4.0,
    dtype: torch.dtype = torch.float32,
    channels: int = CHANNELS,
) -> Tensor:
    """Images and poses -> (N, channels, H, W) of `dtype`, channels_last: `normalise(images)`, then 18 heatmaps.

    images: (N, H, W, 3) uint8. keypoints: (N, 18, 2) float32, (x, y) in pixels, missing (-1, -1), drawn as they come:
    `pose.flip` them first where `flip` (N,) bool mirrors the image. kind, sigma, radius: see `pose.heatmaps`. channels:
    21, or 24 to add three of zeros: then a pixel of 16-bit numbers is whole 16-byte words, as convolutions like it.
    """
    if kind not in pose.HEATMAPS:
        raise ValueError(f"heatmaps of kind {kind!r}; choose {', '.join(pose.HEATMAPS)}")
    if channels not in (CHANNELS, 24):
        raise ValueError(f"{channels} channels; choose {CHANNELS} or 24")
    function = _condition_op if images.is_cuda else _condition_reference
    return function(images, keypoints, flip, kind, sigma, radius, dtype, channels)


def _normalise_reference(images: Tensor, flip: Tensor, dtype: torch.dtype) -> Tensor:
    mirrored = torch.where(flip[:, None, None, None], images.flip(2), images)
    return (mirrored.float() / 127.5 - 1).to(dtype).permute(0, 3, 1, 2)  # NHWC in memory is channels_last


def _condition_reference(
    images: Tensor, keypoints: Tensor, flip: Tensor, kind: str, sigma: float, radius: float, dtype: torch.dtype,
    channels: int,
) -> Tensor:  # fmt: skip
    out = _empty(images, channels, dtype)
    out[:, :3] = _normalise_reference(images, flip, dtype)
    out[:, 3:CHANNELS] = pose.heatmaps(keypoints, images.shape[1], images.shape[2], kind, sigma, radius)
    out[:, CHANNELS:] = 0
    return out


def _empty(images: Tensor, channels: int, dtype: torch.dtype) -> Tensor:
    count, height, width, _ = images.shape
    return images.new_empty((count, height, width, channels), dtype=dtype).permute(0, 3, 1, 2)


@torch.library.custom_op("mscgan::normalise", mutates_args=())
def _normalise_op(images: Tensor, flip: Tensor, dtype: torch.dtype) -> Tensor:
    return _empty(images, 3, dtype).copy_(_normalise_reference(images, flip, dtype))


@_normalise_op.register_fake
def _(images, flip, dtype):
    return _empty(images, 3, dtype)


@_normalise_op.register_kernel("cuda")
def _(images, flip, dtype):
    from mscgan.ops import condition_triton

    out = _empty(images, 3, dtype)
    condition_triton.draw(images, flip, None, "gaussian", 1.0, 1.0, out)
    return out


@torch.library.custom_op("mscgan::condition", mutates_args=())
def _condition_op(
    images: Tensor, keypoints: Tensor, flip: Tensor, kind: str, sigma: float, radius: float, dtype: torch.dtype,
    channels: int,
) -> Tensor:  # fmt: skip
    return _condition_reference(images, keypoints, flip, kind, sigma, radius, dtype, channels)


@_condition_op.register_fake
def _(images, keypoints, flip, kind, sigma, radius, dtype, channels):
    return _empty(images, channels, dtype)


@_condition_op.register_kernel("cuda")
def _(images, keypoints, flip, kind, sigma, radius, dtype, channels):
    from mscgan.ops import condition_triton

    out = _empty(images, channels, dtype)
    condition_triton.draw(images, flip, keypoints, kind, sigma, radius, out)
    return out
