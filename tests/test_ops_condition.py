import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.library import opcheck

from mscgan import pose
from mscgan.ops import condition as ops
from mscgan.ops.condition import condition, normalise
from tests.ops_checks import DTYPES, assert_close, gpu, nan_filled, run_interpreted


def example(height: int, width: int, device: str = "cpu"):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (3, height, width, 3), dtype=torch.uint8, generator=generator)
    images[0, 0, 0] = torch.tensor([0, 255, 128])
    keypoints = torch.rand(3, 18, 2, generator=generator) * torch.tensor([width - 1.0, height - 1.0])
    keypoints[1] = keypoints[1].round()
    keypoints[0, 3] = keypoints[2] = -1
    flip = torch.tensor([True, False, True])
    return images.to(device), keypoints.to(device), flip.to(device)


def check_kernel(device: str, sizes: list[tuple[int, int]]) -> None:
    from mscgan.ops import condition_triton

    for height, width in sizes:
        images, keypoints, flip = example(height, width, device)
        for dtype in DTYPES:
            for kind in pose.HEATMAPS:
                for channels in (21, 24):
                    out = nan_filled(ops._empty(images, channels, dtype))
                    condition_triton.draw(images, flip, keypoints, kind, 6.0, 4.0, out)
                    given = images, keypoints, flip, kind, 6.0, 4.0
                    exact = ops._condition_reference(*given, torch.float64, channels)
                    assert_close(out, ops._condition_reference(*given, dtype, channels), exact)
            out = nan_filled(ops._empty(images, 3, dtype))
            condition_triton.draw(images, flip, None, "gaussian", 1.0, 1.0, out)
            assert_close(out, ops._normalise_reference(images, flip, dtype), exact[:, :3])


def test_pixels_become_minus_one_to_one_mirrored_where_asked():
    images, _, flip = example(5, 7)
    out = normalise(images, flip)
    expected = images.numpy().astype(np.float64) / 127.5 - 1
    expected[flip.numpy()] = expected[flip.numpy(), :, ::-1]
    assert out.is_contiguous(memory_format=torch.channels_last) and out.shape == (3, 3, 5, 7)
    assert np.abs(out.permute(0, 2, 3, 1).numpy() - expected).max() < 2e-7
    assert out.min() == -1 and out.max() == 1


@pytest.mark.parametrize("kind", pose.HEATMAPS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_condition_is_the_image_then_the_heatmaps(kind, dtype):
    images, keypoints, flip = example(9, 6)
    out = condition(images, keypoints, flip, kind, dtype=dtype)
    assert out.dtype == dtype and out.shape == (3, 21, 9, 6) and out.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(out[:, :3], normalise(images, flip, dtype))
    assert torch.equal(out[:, 3:], pose.heatmaps(keypoints, 9, 6, kind).to(dtype))


def test_a_mirrored_pose_is_drawn_on_the_mirrored_image():
    images, keypoints, _ = example(8, 6)
    straight = condition(images, keypoints, torch.zeros(3, dtype=torch.bool))
    mirrored = condition(images, pose.flip(keypoints, 6), torch.ones(3, dtype=torch.bool))
    assert torch.allclose(mirrored[:, :3], straight[:, :3].flip(3))
    assert torch.allclose(mirrored[:, 3:], straight[:, 3:][:, pose.FLIP].flip(3), atol=1e-6)


def test_24_channels_end_in_zeros():
    given = example(4, 6)
    for kind in pose.HEATMAPS:
        assert torch.equal(condition(*given, kind, channels=24), F.pad(condition(*given, kind), (0, 0, 0, 0, 0, 3)))


def test_an_unknown_kind_or_width_is_refused():
    with pytest.raises(ValueError, match="choose gaussian, disc, disc_pg2"):
        condition(*example(4, 4), kind="square")
    with pytest.raises(ValueError, match="choose 21 or 24"):
        condition(*example(4, 4), channels=22)


def test_the_custom_ops_pass_opcheck():
    images, keypoints, flip = example(5, 7)
    opcheck(torch.ops.mscgan.normalise.default, (images, flip, torch.bfloat16))
    opcheck(torch.ops.mscgan.condition.default, (images, keypoints, flip, "disc", 6.0, 4.0, torch.float32, 24))


def test_the_kernel_agrees_under_the_interpreter():
    run_interpreted(__file__)


@gpu
def test_the_kernel_agrees_on_the_gpu():
    check_kernel("cuda", [(1, 1), (37, 29), (128, 64), (256, 256)])
    images, keypoints, flip = example(37, 29, "cuda")
    opcheck(torch.ops.mscgan.condition.default, (images, keypoints, flip, "gaussian", 6.0, 4.0, torch.bfloat16, 21))


if __name__ == "__main__":
    check_kernel("cpu", [(1, 1), (5, 7)])
