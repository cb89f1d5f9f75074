"""The masks within which the field's protocols score: fixed by each protocol, never by the run's configuration."""

import numpy as np
import torch

from mscgan.pose import body_mask

RADIUS = 4.0  # pixels to each side of a limb, in images of 128x64 and of 256x256 alike, as both public codes have it
DESCRIPTIONS = {
    "A": "PG2's body mask of the source's pose, radius 4, for both images (score_mask.py reads the folder mask/)",
    "A_target": "PG2's body mask of the target's pose, radius 4 (its mask_target/, which no public script scores)",
    "B": "pose-gan's body mask of the target's pose, radius 4 (produce_ma_mask; also PATN's tool/getMetrics_market.py)",
}
_DRAWN = {"A": ("source", "pg2"), "A_target": ("target", "pg2"), "B": ("target", "pose-gan")}


def masks(
    source_keypoints: np.ndarray | None, target_keypoints: np.ndarray | None, height: int, width: int
) -> dict[str, np.ndarray]:
    """The masks of DESCRIPTIONS whose keypoints are given: name -> (N, H, W) uint8 of 0 and 1, 1 on the person.

    Both are (N, 18, 2), (x, y) in pixels of the height x width image, a missing joint (-1, -1). A pose without a limb
    has an empty mask, under which every pair scores 1.
    """
    poses = {"source": source_keypoints, "target": target_keypoints}
    drawn = {}
    for name, (whose, kind) in _DRAWN.items():
        keypoints = poses[whose]
        if keypoints is not None:
            found = body_mask(torch.as_tensor(keypoints), height, width, kind, RADIUS)
            drawn[name] = found[:, 0].to(torch.uint8).numpy()
    return drawn
