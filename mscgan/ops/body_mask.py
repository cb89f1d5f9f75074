"""The body mask M_p from keypoints (section 3.1.3); gradients do not pass.

`mscgan.pose.body_mask` defines it and is what runs on every device: one scatter of disc centres, one small convolution
and two pools, without a wait for the device. That is some hundred operations a pixel where the networks take millions
(49 million at 256x256), so a kernel of its own would not show in a step.
"""

import torch
from torch import Tensor

from mscgan import pose


@torch.no_grad()
def body_mask(keypoints: Tensor, height: int, width: int, kind: str = "pg2", radius: float = 4.0) -> Tensor:
    """The filled body: keypoints (N, 18, 2) -> (N, 1, H, W) float32 in {0, 1}, 1 on the person.

    kind: "pg2" or "pose-gan"; radius in pixels, of the limbs.
    """
    return pose.body_mask(keypoints, height, width, kind, radius)
