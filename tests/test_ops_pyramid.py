import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.library import opcheck

from mscgan.ops import pyramid as ops
from mscgan.ops.pyramid import pyramid
from tests.ops_checks import DTYPES, LAYOUTS, assert_close, gpu, nan_filled, run_interpreted


def example(height: int, width: int, dtype=torch.float32, layout=torch.contiguous_format, device: str = "cpu", count=2):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(3, count, 3, height, width, generator=generator).to(device, dtype)
    return [image.contiguous(memory_format=layout) for image in images]


def check_kernels(device: str, cases: list[tuple]) -> None:
    """Forward and backward, each case a size, a dtype, a layout, a pool, how many scales and channels."""
    from mscgan.ops import pyramid_triton

    for height, width, dtype, layout, pool, scales, channels in cases:
        x, y, y_hat = example(height, width, dtype, layout, device, count=1)
        last = ops.memory_format(y_hat) == torch.channels_last
        pairs = [nan_filled(pair) for pair in ops._empty_pairs(y_hat, scales, pool, channels)]
        pyramid_triton.forward(x, y, y_hat, pool, last, pairs)
        reference = ops._reference(x, y, y_hat, scales, pool, channels)
        exact = ops._reference(x.double(), y.double(), y_hat.double(), scales, pool, channels)
        for pair, own, value in zip(pairs, reference, exact, strict=True):
            assert_close(pair, own, value)

        grads = [pair * pair - 1 for pair in pairs[scales:]]
        grads[0] = None if scales > 1 else grads[0][:, :1].expand(-1, channels, -1, -1)
        out = nan_filled(torch.empty_like(y_hat))
        pyramid_triton.backward(grads, pool, last, out)
        wide = [None if grad is None else grad.double() for grad in grads]
        reference = ops._reference_backward(grads, y_hat.shape, pool, dtype, y_hat.device)
        assert_close(out, reference, ops._reference_backward(wide, y_hat.shape, pool, torch.float64, y_hat.device))


def mean_of_3x3(image: np.ndarray) -> np.ndarray:
    height, width = image.shape
    windows = [
        [image[max(0, i - 1) : i + 2, max(0, j - 1) : j + 2].mean() for j in range(0, width, 2)]
        for i in range(0, height, 2)
    ]
    return np.array(windows)


def test_mean2_is_the_mean_over_whole_blocks():
    x, y, y_hat = example(9, 6)
    reals, fakes = pyramid(x, y, y_hat, 3)
    assert [tuple(real.shape) for real in reals] == [(2, 6, 9, 6), (2, 6, 4, 3), (2, 6, 2, 1)]
    assert torch.equal(reals[0], torch.cat([x, y], 1)) and torch.equal(fakes[0], torch.cat([x, y_hat], 1))
    for scale, block in ((1, 2), (2, 4)):
        for pair, second in ((reals[scale], y), (fakes[scale], y_hat)):
            image = torch.cat([x, second], 1).numpy()[:, :, : 9 // block * block, : 6 // block * block]
            blocks = image.reshape(2, 6, 9 // block, block, 6 // block, block)
            assert np.abs(pair.numpy() - blocks.mean((3, 5))).max() < 1e-6


def test_mean3_is_pix2pixhd_s_pool_applied_again_and_again():
    x, y, y_hat = example(7, 6)
    reals, fakes = pyramid(x, y, y_hat, 3, pool="mean3")
    assert [tuple(fake.shape) for fake in fakes] == [(2, 6, 7, 6), (2, 6, 4, 3), (2, 6, 2, 2)]
    for channel, source in ((1, x[:, 1]), (5, y_hat[:, 2])):
        half = mean_of_3x3(source[0].double().numpy())
        assert np.abs(fakes[1][0, channel].numpy() - half).max() < 1e-6
        assert np.abs(fakes[2][0, channel].numpy() - mean_of_3x3(half)).max() < 1e-6


def test_eight_channels_end_in_zeros():
    x, y, y_hat = example(4, 4)
    for six, eight in zip(*(sum(pyramid(x, y, y_hat, 2, channels=c), []) for c in (6, 8)), strict=True):
        assert torch.equal(eight, F.pad(six, (0, 0, 0, 0, 0, 2)))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pairs_have_y_hat_s_dtype_and_layout_and_the_real_ones_no_gradient(layout):
    x, y, y_hat = example(8, 8, torch.float32, layout)
    y_hat = y_hat.bfloat16().requires_grad_()
    reals, fakes = pyramid(x, y, y_hat, 3)
    assert all(pair.dtype == torch.bfloat16 and pair.is_contiguous(memory_format=layout) for pair in reals + fakes)
    assert not any(real.requires_grad for real in reals) and all(fake.requires_grad for fake in fakes)


def test_the_quarter_is_not_rounded_twice():
    x, y, y_hat = example(8, 8, torch.bfloat16)
    quarter = pyramid(x, y, y_hat, 3)[0][2]
    assert torch.equal(quarter, F.avg_pool2d(torch.cat([x, y], 1).double(), 4).bfloat16())


def test_what_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="mean2 or mean3"):
        pyramid(*example(4, 4), 2, pool="max")


@pytest.mark.parametrize("pool", ["mean2", "mean3"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_custom_op_passes_opcheck(pool, layout):
    x, y, y_hat = example(5, 7, layout=layout)
    opcheck(torch.ops.mscgan.pyramid.default, (x, y, y_hat.requires_grad_(), 3, pool, 8))


@pytest.mark.parametrize("pool", ["mean2", "mean3"])
def test_the_custom_op_passes_gradcheck(pool):
    x, y, y_hat = example(5, 4, torch.float64, count=1)
    op = torch.ops.mscgan.pyramid
    assert torch.autograd.gradcheck(lambda y_hat: op(x, y, y_hat, 3, pool, 6)[3:], (y_hat.requires_grad_(),))


@pytest.mark.parametrize("pool", ["mean2", "mean3"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_custom_op_s_gradient_is_autograd_s(pool, layout):
    x, y, y_hat = example(9, 6, layout=layout)
    grads = []
    for op in (lambda *given: sum(pyramid(*given), []), torch.ops.mscgan.pyramid):
        leaf = y_hat.clone().requires_grad_()
        full, half, quarter = op(x, y, leaf, 3, pool, 6)[3:]
        (full.sum() + half.square().sum() + quarter.exp().sum()).backward()  # sum() sends a gradient of stride 0
        grads.append(leaf.grad)
    assert torch.allclose(*grads, atol=1e-6) and grads[1].is_contiguous(memory_format=layout)


def test_the_kernels_agree_under_the_interpreter():
    run_interpreted(__file__)


@gpu
def test_the_kernels_agree_on_the_gpu():
    sizes = [(1, 1), (37, 29), (128, 64), (255, 256)]
    check_kernels(
        "cuda",
        [
            (*size, dtype, layout, pool, scales, channels)
            for size in sizes for dtype in DTYPES for layout in LAYOUTS for pool in ("mean2", "mean3")
            for scales, channels in ((1, 6), (2, 8), (3, 6), (3, 8)) if min(size) >= 4 or pool == "mean3" or scales == 1
        ],
    )  # fmt: skip
    x, y, y_hat = example(37, 29, layout=torch.channels_last, device="cuda")
    opcheck(torch.ops.mscgan.pyramid.default, (x, y, y_hat.requires_grad_(), 3, "mean2", 8))


if __name__ == "__main__":
    full, half, float16 = torch.float32, torch.bfloat16, torch.float16
    planes, pixels = LAYOUTS
    check_kernels(
        "cpu",
        [
            (9, 13, full, planes, "mean2", 3, 6), (8, 8, half, pixels, "mean2", 3, 8),
            (5, 6, float16, pixels, "mean2", 2, 6), (1, 3, full, pixels, "mean2", 1, 8),
            (5, 7, full, pixels, "mean3", 3, 8), (4, 6, half, planes, "mean3", 2, 6),
        ],
    )  # fmt: skip
