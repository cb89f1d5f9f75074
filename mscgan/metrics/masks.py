"""The masks within which the field's protocols score: fixed by each protocol, never by the run's configuration."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from mscgan.pose import body_mask

RADIUS = 4.0  # pixels to each side of a limb, in images of 128x64 and of 256x256 alike, as both public codes have it
DESCRIPTIONS = {
    "A": "PG2's body mask of the source's pose, radius 4, for both images (score_mask.py reads the folder mask/)",
    "A_target": "PG2's body mask of the target's pose, radius 4 (its mask_target/, which no public script scores)",
    "B": "pose-gan's body mask of the target's pose, radius 4 (produce_ma_mask; also PATN's tool/getMetrics_market.py)",
}
_DRAWN = {"A": ("source", "pg2"), "A_target": ("target", "pg2"), "B": ("target", "pose-gan")}


def drawable(poses: Iterable[str]) -> tuple[str, ...]:
    """The masks of DESCRIPTIONS that these poses are enough for: "source" and "target", or one of them."""
    return tuple(name for name, (whose, _) in _DRAWN.items() if whose in poses)


def mask(name: str, poses: dict[str, np.ndarray], height: int, width: int, device: torch.device | str) -> Tensor:
    """The masks of DESCRIPTIONS[name], drawn on the device: (N, H, W) uint8 of 0 and 1, 1 on the person.

    poses: "source" and "target", or the one that is needed: (N, 18, 2), (x, y) in pixels of the height x width image, a
    missing joint (-1, -1). A pose without a limb has an empty mask, under which every pair scores 1.
    """
    whose, kind = _DRAWN[name]
    keypoints = torch.as_tensor(poses[whose]).to(device)
    return body_mask(keypoints, height, width, kind, RADIUS)[:, 0].to(torch.uint8)
