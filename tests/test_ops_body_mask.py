import pytest
import torch
from ops_checks import gpu

from mscgan import pose
from mscgan.ops.body_mask import body_mask


def example() -> torch.Tensor:
    keypoints = torch.rand(4, 18, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([63.0, 127.0])
    keypoints[0, 3] = keypoints[3] = -1
    return keypoints


@pytest.mark.parametrize("kind", ["pg2", "pose-gan"])
def test_the_mask_is_pose_s_and_carries_no_gradient(kind):
    mask = body_mask(example().requires_grad_(), 128, 64, kind)
    assert torch.equal(mask, pose.body_mask(example(), 128, 64, kind)) and not mask.requires_grad
    assert mask.shape == (4, 1, 128, 64) and mask.dtype == torch.float32 and not mask[3].any()


@gpu
@pytest.mark.parametrize("kind", ["pg2", "pose-gan"])
def test_the_mask_is_the_same_on_the_gpu(kind):
    with torch.autocast("cuda", torch.bfloat16):
        mask = body_mask(example().round().cuda(), 128, 64, kind)
    assert torch.equal(mask.cpu(), body_mask(example().round(), 128, 64, kind))
