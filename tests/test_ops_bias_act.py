import pytest
import torch
import torch.nn.functional as F
from torch.library import opcheck

from mscgan.ops import bias_act as ops
from mscgan.ops.bias_act import bias_act
from tests.ops_checks import DTYPES, LAYOUTS, assert_close, gpu, nan_filled, run_interpreted

ACTS = ("relu", "leaky_relu", "linear")


def example(shape: tuple, dtype=torch.float32, layout=torch.contiguous_format, device: str = "cpu"):
    generator = torch.Generator().manual_seed(0)
    x, residual = torch.randn(2, *shape, generator=generator).to(dtype)
    bias = torch.randn(shape[1], generator=generator)
    if len(shape) == 4:
        x, residual = x.contiguous(memory_format=layout), residual.contiguous(memory_format=layout)
    return x.to(device), bias.to(device), residual.to(device)


def check_kernels(device: str, shapes: list[tuple], dtypes=DTYPES) -> None:
    from mscgan.ops import bias_act_triton

    for shape in shapes:
        for dtype in dtypes:
            for layout in LAYOUTS if len(shape) == 4 else LAYOUTS[:1]:
                x, bias, residual = example(shape, dtype, layout, device)
                last = ops._is_last(x)
                matrix = ops._matrix(x, last)
                for act, b, r in (("relu", bias, residual), ("leaky_relu", bias, None), ("linear", None, residual)):
                    out, signs = ops._empty(x, act != "linear")
                    nan_filled(out)
                    bias_act_triton.forward(x, b, r, act, 0.2, matrix, out, signs.fill_(255))
                    exact = ops._reference(x.double(), b, None if r is None else r.double(), act, 0.2)
                    assert_close(out, ops._reference(x, b, r, act, 0.2), exact)
                assert_signs_and_gradients(x, bias, matrix, last)


def assert_signs_and_gradients(x, bias, matrix, last) -> None:
    from mscgan.ops import bias_act_triton

    out, signs = ops._empty(x, True)
    bias_act_triton.forward(x, bias, None, "relu", 0.0, matrix, out, signs.fill_(255))
    assert torch.equal(signs, ops._pack(ops._reference(x, bias, None, "linear", 0.0) > 0, last))
    grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(x)
    grad = grad.contiguous(memory_format=LAYOUTS[last])
    for slope in (0.0, 0.2):
        steps, count = bias_act_triton.strips(matrix)
        strips = nan_filled(torch.empty(count, matrix[0] if matrix[2] else matrix[1], device=x.device))
        grad_x = nan_filled(torch.empty_like(x))
        bias_act_triton.backward(grad, signs, slope, matrix, grad_x, steps, strips)
        own_x, _ = ops._reference_backward(grad, signs, slope, last)
        exact_x, exact_bias = ops._reference_backward(grad.double(), signs, slope, last)
        assert_close(grad_x, own_x, exact_x)
        # The interpreter adds one after the other, so a sum errs by up to a rounding of each term.
        error = (strips.view(-1, x.shape[1]).sum(0) - exact_bias).abs()
        assert (error <= torch.finfo(torch.float32).eps * grad.double().abs().transpose(0, 1).flatten(1).sum(1)).all()


def check_gradients(device: str) -> None:
    """Of the function that training runs on a GPU, through both kernels."""
    for layout in LAYOUTS:
        for act in ACTS:
            given = example((2, 5, 3, 7), layout=layout, device=device)
            results = []
            for function in (ops._reference, lambda *given, last=act != "linear": ops._Eager.apply(*given, last)[0]):
                leaves = [tensor.clone().requires_grad_() for tensor in given]
                out = function(*leaves, act, 0.2)
                out.backward(torch.linspace(-1, 1, out.numel(), device=device).view_as(out))
                results.append([out, *(leaf.grad for leaf in leaves)])
            for expected, got in zip(*results, strict=True):
                torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_result_is_act_of_x_plus_bias_plus_residual(act, layout):
    x, bias, residual = example((2, 5, 3, 7), layout=layout)
    summed = x + bias[:, None, None]
    expected = {"relu": F.relu(summed), "leaky_relu": F.leaky_relu(summed, 0.1), "linear": summed}[act] + residual
    out = bias_act(x, bias, residual, act, slope=0.1)
    assert torch.allclose(out, expected) and out.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_sum_is_rounded_once_to_x_s_dtype(dtype):
    x, bias, residual = example((2, 5, 3, 7), dtype)
    exact = F.relu(x.double() + bias.double()[:, None, None]) + residual.double()
    assert_close(bias_act(x, bias, residual), exact.to(dtype), exact)


def test_an_unknown_activation_is_refused():
    with pytest.raises(ValueError, match="choose relu, leaky_relu or linear"):
        bias_act(torch.ones(1, 1), act="gelu")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("act", ACTS)
def test_the_custom_op_passes_opcheck(act, layout):
    x, bias, residual = (tensor.requires_grad_() for tensor in example((2, 5, 3, 7), layout=layout))
    opcheck(torch.ops.mscgan.bias_act.default, (x, bias, residual, act, 0.2, act != "linear"))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("act", ACTS)
def test_the_custom_op_passes_gradcheck(act, layout):
    x, bias, residual = example((2, 3, 2, 3), torch.float64, layout)
    inputs = [tensor.double().requires_grad_() for tensor in (x, bias, residual)]
    op = torch.ops.mscgan.bias_act
    assert torch.autograd.gradcheck(lambda *given: op(*given, act, 0.2, act != "linear")[0], inputs)


@pytest.mark.parametrize("shape", [(3, 12), (2, 5, 7), (2, 9, 1, 1), (2, 5, 3, 7)])
def test_the_custom_op_s_gradients_are_autograd_s(shape):
    for layout in LAYOUTS if len(shape) == 4 else LAYOUTS[:1]:
        given = example(shape, layout=layout)
        results = []
        for op in (bias_act, lambda *given: torch.ops.mscgan.bias_act(*given, "relu", 0.2, True)[0]):
            leaves = [tensor.clone().requires_grad_() for tensor in given]
            op(*leaves).sum().backward()  # a gradient of stride 0
            results.append([leaf.grad for leaf in leaves])
        for expected, got in zip(*results, strict=True):
            assert torch.allclose(expected, got, atol=1e-6)


def test_strided_input_and_no_bias():
    x = example((2, 8, 4, 6))[0]
    for strided in (x[:, ::2], x[..., ::2], x.transpose(0, 1)[:, :1], x[:, :, :1, :1]):
        leaf = strided.detach().requires_grad_()
        out = torch.ops.mscgan.bias_act(leaf, None, None, "leaky_relu", 0.2, True)[0]
        out.backward(torch.ones_like(out))
        assert torch.equal(out, F.leaky_relu(strided, 0.2)) and torch.equal(leaf.grad, torch.where(strided > 0, 1, 0.2))


def test_the_kernels_agree_under_the_interpreter():
    run_interpreted(__file__)


@gpu
def test_the_kernels_agree_on_the_gpu():
    check_gradients("cuda")
    check_kernels("cuda", [(3, 12), (2, 5, 7), (1, 1, 1, 1), (2, 5, 37, 29), (4, 128, 64, 32), (2, 1024, 16, 8)])
    given = example((4, 128, 37, 29), torch.bfloat16, LAYOUTS[1], "cuda")
    x, bias, residual = (tensor.requires_grad_() for tensor in given)
    opcheck(torch.ops.mscgan.bias_act.default, (x, bias, residual, "leaky_relu", 0.2, True), rtol=2e-2, atol=2e-2)
    grads = [torch.autograd.grad(bias_act(x, bias, residual).square().sum(), bias)[0] for _ in range(2)]
    assert torch.equal(*grads)


if __name__ == "__main__":
    check_gradients("cpu")
    check_kernels("cpu", [(2, 5, 3, 7), (1, 16, 4, 6)])
    check_kernels("cpu", [(3, 12), (2, 3, 130), (1, 3, 60, 50)], DTYPES[:1])
