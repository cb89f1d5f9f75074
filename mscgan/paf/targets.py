"""What the network learns to draw of a pose: confidence maps and part affinity fields on the grid of its cells.

After CMU's caffe_train (cpm_data_transformer.cpp), to its constants and with its half a cell: cell g of a confidence
map stands for the pixel 8g + 3.5, and of a field for the pixel 8g. Three things differ. Where people overlap, a field
is the mean of theirs, as the original means it: its counter never rises, so that the last person wins there. A limb of
no length, where the original divides by zero, is left out. And a missing joint may be no statement at all (`missing`):
keypoint files lack two noses of five, many of them in plain sight.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from mscgan.paf.limbs import LIMBS
from mscgan.paf.network import STRIDE
from mscgan.pose import on_device, present

LEAST = 4.6052  # exponent beyond which a Gaussian, then below 1 %, is left out
REACH = 1.0  # cells to each side of a limb, and beyond its ends, that its field covers
MISSING = ("ignore", "absent")


class Targets(NamedTuple):
    """Of N images with h x w cells. A weight is what a channel's error counts: 1, or 0 where nothing is known."""

    fields: Tensor  # (N, 38, h, w) float32, unit vectors from a limb's first joint to its second, in LIMBS' order
    maps: Tensor  # (N, 19, h, w) float32 in [0, 1]: 18 joints, the background
    field_weights: Tensor  # (N, 38, 1, 1) float32
    map_weights: Tensor  # (N, 19, 1, 1) float32


def targets(keypoints: Tensor, height: int, width: int, sigma: float = 7.0, missing: str = "ignore") -> Targets:
    """Draws the poses of everybody in N images, on the keypoints' device.

    Args:
        keypoints: (N, P, 18, 2) of P people an image, (x, y) in pixels of the network's input, missing (-1, -1). A
            person without a joint is not there.
        height, width: of the network's input, multiples of 8.
        sigma: pixels of the input, of the Gaussians. The original's 7 is for people of about 221 pixels.
        missing: "ignore" gives a joint that a person lacks, and the limbs that touch it, no weight in the image;
            "absent" has the network learn that it is not there.
    """
    keypoints = keypoints.float()
    there = present(keypoints)  # (N, P, 18)
    joints, known_joints = _confidence(keypoints, there, height, width, sigma)
    background = 1 - joints.amax(1, keepdim=True)
    fields, known_limbs = _fields(keypoints / STRIDE, there, height // STRIDE, width // STRIDE)
    if missing == "absent":
        known_joints, known_limbs = torch.ones_like(known_joints), torch.ones_like(known_limbs)
    known = torch.cat([known_joints, torch.ones_like(known_joints[:, :1])], 1)  # the background's, too
    return Targets(
        fields,
        torch.cat([joints, background], 1),
        known_limbs.repeat_interleave(2, 1)[..., None, None].float(),
        known[..., None, None].float(),
    )


def _confidence(keypoints: Tensor, there: Tensor, height: int, width: int, sigma: float) -> tuple[Tensor, Tensor]:
    """The joints' maps (N, 18, h, w), and which are known of everybody (N, 18) bool."""
    x, y = keypoints[..., None, None].unbind(3)  # (N, P, 18, 1, 1)
    dx = _centres(width, keypoints.device) - x  # (N, P, 18, 1, w)
    dy = _centres(height, keypoints.device)[:, None] - y
    exponent = (dx.square() + dy.square()) / (2 * sigma**2)
    drawn = (exponent <= LEAST) & there[..., None, None]
    maps = torch.where(drawn, torch.exp(-exponent), 0.0).sum(1).clamp(max=1)
    somebody = there.any(2, keepdim=True)
    return maps, (there | ~somebody).all(1)


def _centres(pixels: int, device: torch.device) -> Tensor:
    return torch.arange(pixels // STRIDE, device=device) * STRIDE + (STRIDE - 1) / 2


def _fields(points: Tensor, there: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The fields (N, 38, h, w) of points in cells, and which limbs are known of everybody (N, 19) bool."""
    ends = on_device(LIMBS, points.device)
    start, end = points[:, :, ends[:, 0]], points[:, :, ends[:, 1]]  # (N, P, 19, 2)
    length = (end - start).square().sum(-1, keepdim=True).sqrt()
    known = there[:, :, ends].all(-1) & (length[..., 0] > 0)  # (N, P, 19)
    unit = (end - start) / torch.where(length > 0, length, 1.0)
    columns, rows = (torch.arange(size, device=points.device) for size in (width, height))
    inside_x = _between(columns, start[..., 0], end[..., 0])[..., None, :]  # (N, P, 19, 1, w)
    inside_y = _between(rows, start[..., 1], end[..., 1])[..., None]
    (from_x, from_y), (unit_x, unit_y) = (both[..., None, None].unbind(3) for both in (start, unit))
    across = (columns - from_x) * unit_y - (rows[:, None] - from_y) * unit_x  # (N, P, 19, h, w)
    covered = inside_x & inside_y & (across.abs() <= REACH) & known[..., None, None]
    people = covered.sum(1).clamp(min=1)[:, :, None]  # (N, 19, 1, h, w)
    fields = (covered[:, :, :, None] * unit[..., None, None]).sum(1) / people  # (N, 19, 2, h, w)
    somebody = there.any(2, keepdim=True)
    return fields.flatten(1, 2), (known | ~somebody).all(1)


def _between(cells: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Which cells are in a limb's box along one axis: (cells,) and two ends (N, P, 19) -> (N, P, 19, cells) bool.

    The upper end is exclusive, and ends are rounded half up, which for what is inside the image is away from zero.
    """
    first = (torch.minimum(one, other) - REACH + 0.5).floor()[..., None]
    after = (torch.maximum(one, other) + REACH + 0.5).floor()[..., None]
    return (cells >= first) & (cells < after)
