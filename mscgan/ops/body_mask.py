"""The body mask M_p from keypoints (section 3.1.3); gradients do not pass.

`mscgan.pose.body_mask` defines it. On CUDA two kernels do its work, which as PyTorch operations takes thirty launches
("pg2") or three hundred ("pose-gan").
"""

import torch
from torch import Tensor

from mscgan import pose


@torch.no_grad()
def body_mask(keypoints: Tensor, height: int, width: int, kind: str = "pg2", radius: float = 4.0) -> Tensor:
    """The filled body: keypoints (N, 18, 2) float32 -> (N, 1, H, W) float32 in {0, 1}, 1 on the person.

    kind: "pg2" or "pose-gan"; radius in pixels, of the limbs.
    """
    if kind not in ("pg2", "pose-gan"):
        raise ValueError(f"a body mask of kind {kind!r}; choose pg2 or pose-gan")
    return (_op if keypoints.is_cuda else pose.body_mask)(keypoints, height, width, kind, radius)


@torch.library.custom_op("mscgan::body_mask", mutates_args=())
def _op(keypoints: Tensor, height: int, width: int, kind: str, radius: float) -> Tensor:
    return pose.body_mask(keypoints, height, width, kind, radius)


@_op.register_fake
def _(keypoints, height, width, kind, radius):
    return keypoints.new_empty((len(keypoints), 1, height, width), dtype=torch.float32)


@_op.register_kernel("cuda")
def _(keypoints, height, width, kind, radius):
    from mscgan.ops import body_mask_triton

    mask = keypoints.new_empty((len(keypoints), 1, height, width), dtype=torch.float32)
    limbs = pose.on_device(pose.LIMBS, keypoints.device)
    body_mask_triton.draw(keypoints.float().contiguous(), limbs, kind, radius, mask)
    return mask
