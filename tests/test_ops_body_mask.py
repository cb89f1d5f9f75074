import pytest
import torch
from torch.library import opcheck

from mscgan import pose
from mscgan.ops.body_mask import body_mask
from tests.ops_checks import gpu, nan_filled, run_interpreted


def example(height: int = 128, width: int = 64, count: int = 4) -> torch.Tensor:
    """Poses with joints between pixels, on pixels, on the image's edges, and missing."""
    generator = torch.Generator().manual_seed(height)
    keypoints = torch.rand(count, 18, 2, generator=generator) * torch.tensor([width - 1.0, height - 1.0])
    keypoints[0] = keypoints[0].round()
    keypoints[0, 4] = keypoints[0, 3]
    keypoints[0, [0, 10, 13]] = torch.tensor([[0.0, 0.0], [width - 1.0, height - 1.0], [0.0, height - 1.0]])
    keypoints[1, 3] = keypoints[1, 12, 0] = keypoints[count - 1] = -1
    return keypoints


def check_kernel(device: str, cases: list[tuple]) -> None:
    from mscgan.ops import body_mask_triton

    for height, width, kind, radius in cases:
        keypoints = example(height, width, count=3).to(device)[: 2 if device == "cpu" else 3]
        out = nan_filled(torch.empty(len(keypoints), 1, height, width, device=device))
        body_mask_triton.draw(keypoints, pose.on_device(pose.LIMBS, keypoints.device), kind, radius, out)
        expected = pose.body_mask(keypoints, height, width, kind, radius)
        assert torch.equal(out, expected), f"{height}x{width} {kind} {radius}: {(out != expected).sum()} pixels differ"


@pytest.mark.parametrize("kind", ["pg2", "pose-gan"])
def test_the_mask_is_pose_s_and_carries_no_gradient(kind):
    mask = body_mask(example().requires_grad_(), 128, 64, kind)
    assert torch.equal(mask, pose.body_mask(example(), 128, 64, kind)) and not mask.requires_grad
    assert mask.shape == (4, 1, 128, 64) and mask.dtype == torch.float32 and not mask[3].any()


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="choose pg2 or pose-gan"):
        body_mask(example(), 8, 8, "openpose")


def test_the_custom_op_passes_opcheck():
    opcheck(torch.ops.mscgan.body_mask.default, (example(), 20, 12, "pg2", 2.0))


def test_the_kernels_agree_under_the_interpreter():
    run_interpreted(__file__)


@gpu
def test_the_kernels_agree_on_the_gpu():
    kinds = [(kind, radius) for kind in ("pg2", "pose-gan") for radius in (0.5, 2.0, 3.3, 4.0)]
    for size in ((1, 1), (37, 29), (20, 70), (128, 64), (256, 256)):
        check_kernel("cuda", [(*size, *kind) for kind in kinds])
    opcheck(torch.ops.mscgan.body_mask.default, (example().cuda(), 128, 64, "pose-gan", 4.0))
    with torch.autocast("cuda", torch.bfloat16):
        assert torch.equal(body_mask(example().cuda(), 128, 64).cpu(), body_mask(example(), 128, 64))


if __name__ == "__main__":
    check_kernel("cpu", [(1, 1, "pg2", 4.0), (5, 7, "pose-gan", 4.0), (17, 70, "pg2", 4.0), (17, 70, "pose-gan", 3.3)])
    check_kernel("cpu", [(9, 40, "pg2", 2.3)])
