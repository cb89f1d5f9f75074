import numpy as np
import pytest
import torch
from torch.library import opcheck

from mscgan.ops import masked_l1 as ops
from mscgan.ops.masked_l1 import masked_l1
from tests.ops_checks import DTYPES, LAYOUTS, assert_close, gpu, nan_filled, run_interpreted


def example(height: int, width: int, dtype=torch.float32, layout=torch.contiguous_format, device: str = "cpu"):
    generator = torch.Generator().manual_seed(0)
    y_hat, y = torch.randn(2, 2, 3, height, width, generator=generator).to(dtype)
    y[0, 0, 0] = y_hat[0, 0, 0]  # |d| has a kink there: the gradient is 0
    mask = (torch.rand(2, 1, height, width, generator=generator) > 0.5).float()
    y_hat, y = (image.to(device).contiguous(memory_format=layout) for image in (y_hat, y))
    return y_hat, y, mask.to(device)


def check_kernels(device: str, sizes: list[tuple[int, int]]) -> None:
    from mscgan.ops import masked_l1_triton

    for height, width in sizes:
        for dtype in DTYPES:
            for layout in LAYOUTS:
                y_hat, y, mask = example(height, width, dtype, layout, device)
                last = ops._is_last(y_hat)
                sums = nan_filled(torch.empty(2, masked_l1_triton.programs(y_hat), device=device))
                masked_l1_triton.forward(y_hat, y, mask, last, sums)
                exact = torch.stack(ops._reference(y_hat.double(), y.double(), mask))
                assert_close(sums.sum(1), torch.stack(ops._reference(y_hat, y, mask)), exact)

                grad = torch.tensor([1.0, -3.0], device=device)
                out = nan_filled(torch.empty_like(y_hat))
                masked_l1_triton.backward(grad, y_hat, y, mask, last, out)
                reference = ops._reference_backward(grad, y_hat, y, mask)
                exact = ops._reference_backward(grad.double(), y_hat.double(), y.double(), mask)
                assert_close(out * y_hat.numel(), reference * y_hat.numel(), exact * y_hat.numel())


def test_the_two_means_are_over_all_elements():
    y_hat, y, mask = example(5, 7)
    mean, masked = masked_l1(y_hat, y, mask)
    distance = np.abs(y_hat.double().numpy() - y.double().numpy())
    assert mean.item() == pytest.approx(distance.mean(), rel=1e-6)
    assert masked.item() == pytest.approx((distance * mask.numpy()).sum() / distance.size, rel=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_custom_op_passes_opcheck(layout):
    y_hat, y, mask = example(5, 7, layout=layout)
    opcheck(torch.ops.mscgan.masked_l1.default, (y_hat.requires_grad_(), y, mask))


def test_the_custom_op_passes_gradcheck():
    y_hat, y, mask = example(3, 2, torch.float64)
    y_hat = (y + (y_hat - y).sign() + 0.5).requires_grad_()  # away from the kink
    assert torch.autograd.gradcheck(lambda y_hat: torch.ops.mscgan.masked_l1(y_hat, y, mask), (y_hat,))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_custom_op_s_gradient_is_autograd_s(dtype):
    y_hat, y, mask = example(5, 7, dtype)
    grads = []
    for op in (masked_l1, torch.ops.mscgan.masked_l1):
        leaf = y_hat.clone().requires_grad_()
        mean, masked = op(leaf, y, mask)
        (2 * mean + 3 * masked).backward()
        grads.append(leaf.grad)
    assert torch.allclose(*grads, rtol=1e-2 if dtype != torch.float32 else 1e-6, atol=0)
    assert (grads[0][0, 0, 0] == 0).all()


def test_only_y_hat_gets_a_gradient():
    y_hat, y, mask = example(3, 3)
    y.requires_grad_(), mask.requires_grad_()
    mean, masked = masked_l1(y_hat.requires_grad_(), y, mask)
    (mean + masked).backward()
    assert y.grad is None and mask.grad is None and y_hat.grad is not None


def test_the_kernels_agree_under_the_interpreter():
    run_interpreted(__file__)


@gpu
def test_the_kernels_agree_on_the_gpu():
    check_kernels("cuda", [(1, 1), (37, 29), (256, 256)])
    y_hat, y, mask = example(37, 29, torch.float32, torch.channels_last, "cuda")
    opcheck(torch.ops.mscgan.masked_l1.default, (y_hat.requires_grad_(), y, mask))
    first, second = masked_l1(y_hat, y, mask), masked_l1(y_hat, y, mask)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


if __name__ == "__main__":
    check_kernels("cpu", [(1, 1), (33, 45)])
