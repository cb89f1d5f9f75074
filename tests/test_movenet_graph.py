"""The runner of TensorFlow graphs: each operation against numbers by hand or NumPy's, and a small graph as a whole."""

import numpy as np
import pytest
import torch

from mscgan.errors import UserError
from mscgan.movenet.graph import OPERATIONS, read_graph, run_graph
from tests.movenet_factory import node

RNG = np.random.default_rng(0)


def run(operation: str, *inputs, **attributes) -> np.ndarray:
    """What the operation gives for these inputs, the first output where there are several."""
    names = [f"in{i}" for i in range(len(inputs))]
    entries = [node("out", operation, *names, **attributes), *(node(name, "Const") for name in names)]
    constants = {name: torch.as_tensor(value) for name, value in zip(names, inputs)}
    return run_graph(read_graph({"node": entries}), constants, torch.zeros(0), "out").numpy()


def convolved(images, filters, stride, before, size) -> np.ndarray:
    """A convolution in plain loops: (N, H, W, in) by (h, w, in, out), zeros outside, from `before` above and left."""
    result = np.zeros((len(images), *size, filters.shape[3]))
    for place in np.ndindex(*size, *filters.shape[:2]):
        row, column = (place[axis] * stride[axis] + place[axis + 2] - before[axis] for axis in (0, 1))
        if 0 <= row < images.shape[1] and 0 <= column < images.shape[2]:
            result[:, place[0], place[1]] += images[:, row, column] @ filters[place[2], place[3]]
    return result


def depthwise(images, filters, *how) -> np.ndarray:
    """The same of each channel by its own (h, w, channel, M) filters; their outputs lie side by side."""
    of_each = [convolved(images[..., [c]], filters[:, :, [c]], *how) for c in range(images.shape[3])]
    return np.concatenate(of_each, -1)


def test_same_padding_of_an_odd_number_is_behind():
    """Four numbers in steps of two: 3 taps at 0 and 2, so one zero is needed, at the end."""
    images = torch.tensor([1.0, 10, 100, 1000]).reshape(1, 1, 4, 1)
    filters = torch.tensor([1.0, 2, 3]).reshape(1, 3, 1, 1)
    found = run("_FusedConv2D", images, filters, strides=[1, 1, 2, 1], padding="SAME", fused_ops=[])
    assert found.flatten().tolist() == [1 + 20 + 300, 100 + 2000]


@pytest.mark.parametrize("size", [(6, 7), (5, 8)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (2, 1)])
@pytest.mark.parametrize("kernel", [(3, 3), (2, 3), (1, 1)])
@pytest.mark.parametrize("operation", ["_FusedConv2D", "FusedDepthwiseConv2dNative"])
def test_a_convolution_is_that_of_plain_loops(size, stride, kernel, operation):
    images, filters, bias = RNG.normal(size=(1, *size, 3)), RNG.normal(size=(*kernel, 3, 2)), RNG.normal(size=6)
    out = [-(-size[axis] // stride[axis]) for axis in (0, 1)]
    before = [max((out[axis] - 1) * stride[axis] + kernel[axis] - size[axis], 0) // 2 for axis in (0, 1)]
    loops, bias = (convolved, bias[:2]) if operation == "_FusedConv2D" else (depthwise, bias)
    expected = 3 * loops(images, filters, stride, before, out) + bias
    for fused, then in (([], expected), (["Relu"], expected.clip(0)), (["Relu6"], expected.clip(0, 6))):
        how = {"strides": [1, *stride, 1], "padding": "SAME", "fused_ops": ["BiasAdd", *fused]}
        assert run(operation, 3 * images, filters, bias, **how) == pytest.approx(then, abs=1e-12)


def test_valid_padding_is_none_and_a_depthwise_convolution_may_have_nothing_fused():
    images, filters = RNG.normal(size=(1, 6, 7, 3)), RNG.normal(size=(3, 3, 3, 1))
    found = run("DepthwiseConv2dNative", images, filters, strides=[1, 2, 2, 1], padding="VALID")
    assert found == pytest.approx(depthwise(images, filters, (2, 2), (0, 0), (2, 3)), abs=1e-12)


def test_a_fused_activation_leaves_its_input_as_it_was():
    images = torch.full((1, 2, 2, 1), -1.0)
    entries = [
        node("x", "Placeholder"), node("f", "Const"), node("b", "Const"),
        node("c", "_FusedConv2D", "x", "f", "b", strides=[1, 1, 1, 1], padding="SAME", fused_ops=["BiasAdd", "Relu"]),
        node("out", "AddV2", "x", "c"),
    ]  # fmt: skip
    constants = {"f": torch.ones(1, 1, 1, 1), "b": torch.zeros(1)}
    assert run_graph(read_graph({"node": entries}), constants, images, "out").flatten().tolist() == [-1.0] * 4
    assert (images == -1).all()


def test_bilinear_resizing_takes_the_centres_of_pixels_at_a_half():
    """0 and 4 on 4 places, whose centres lie at -1/4, 1/4, 3/4 and 5/4 of the two."""
    row = torch.tensor([0.0, 4]).reshape(1, 1, 2, 1)
    options = {"align_corners": False, "half_pixel_centers": True}
    assert run("ResizeBilinear", row, torch.tensor([1, 4]), **options).flatten().tolist() == [0, 1, 3, 4]
    column = torch.tensor([0.0, 3, 9, 12]).reshape(1, 4, 1, 1)
    assert run("ResizeBilinear", column, torch.tensor([2, 1]), **options).flatten().tolist() == [1.5, 10.5]


A, B = RNG.normal(size=(2, 3)), np.abs(RNG.normal(size=(2, 3)))
INTEGERS = np.array([[-7, 7], [5, -1]], np.int32)


@pytest.mark.parametrize(
    "operation, inputs, attributes, expected",
    [
        ("AddV2", (A, B), {}, A + B),
        ("Sub", (A, B[0]), {}, A - B[0]),
        ("Mul", (A, B), {}, A * B),
        ("RealDiv", (A, B), {}, A / B),
        ("FloorDiv", (INTEGERS, np.int32(2)), {}, [[-4, 3], [2, -1]]),
        ("SquaredDifference", (A, B), {}, (A - B) ** 2),
        ("Sqrt", (B,), {}, np.sqrt(B)),
        ("Sigmoid", (A,), {}, 1 / (1 + np.exp(-A))),
        ("Cast", (INTEGERS,), {"DstT": "DT_FLOAT"}, INTEGERS.astype(np.float32)),
        ("Identity", (A,), {}, A),
        ("ExpandDims", (A, np.int32(-1)), {}, A[..., None]),
        ("Reshape", (A, np.array([3, -1], np.int32)), {}, A.reshape(3, 2)),
        ("Squeeze", (A[None, :, None],), {"squeeze_dims": [0]}, A[:, None]),
        ("Squeeze", (A[None, :, None],), {"squeeze_dims": []}, A),
        ("ConcatV2", (A, B, np.int32(1)), {}, np.concatenate([A, B], 1)),
        ("Pack", (A, B), {"axis": 1}, np.stack([A, B], 1)),
        ("Unpack", (A,), {"axis": 1}, A[:, 0]),
        ("ArgMax", (A, np.int32(1)), {"output_type": "DT_INT32"}, A.argmax(1)),
        ("GatherNd", (A, np.array([[1, 2], [0, 1]], np.int32)), {}, [A[1, 2], A[0, 1]]),
        ("GatherNd", (A, np.array([[[1]], [[0]]], np.int32)), {}, A[[[1], [0]]]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_operation_is_numpys(operation, inputs, attributes, expected):
    found = run(operation, *inputs, **attributes)
    assert found.shape == np.shape(expected) and found == pytest.approx(np.array(expected), abs=1e-12)
    if operation in ("Cast", "ArgMax", "FloorDiv"):
        assert found.dtype == (np.float32 if operation == "Cast" else np.int32)


def test_every_operation_has_a_test():
    tested = test_an_operation_is_numpys.pytestmark[0].args[1]
    others = {"_FusedConv2D", "FusedDepthwiseConv2dNative", "DepthwiseConv2dNative", "ResizeBilinear"}
    assert {row[0] for row in tested} | others == set(OPERATIONS)


def small_graph() -> list[dict]:
    """(a - b) * (a - b) of the two columns of what is given, the nodes in no order."""
    return [
        node("square", "Mul", "difference", "difference"),
        node("difference", "Sub", "columns", "columns:1"),
        node("columns", "Unpack", "as_float", "^told", axis=1),
        node("told", "Const"),
        node("as_float", "Cast", "given", DstT="DT_FLOAT"),
        node("given", "Placeholder"),
    ]


def test_a_graph_is_run_in_the_order_of_its_inputs():
    nodes = read_graph({"node": small_graph()})
    found = run_graph(nodes, {"told": torch.zeros(1)}, torch.tensor([[1, 4], [7, 5]], dtype=torch.int32), "square")
    assert found.dtype == torch.float32 and found.tolist() == [9, 4]


@pytest.mark.parametrize(
    "extra, message",
    [
        (node("l", "LSTM", "given"), "'l' is a LSTM, which is not among the operations .*AddV2"),
        (node("a", "Sqrt", "gone"), "'a' takes 'gone', and the graph has no such node"),
        (node("given", "Sqrt", "square"), "runs in a circle: "),
        (node("c", "_FusedConv2D", "given", data_format="NCHW"), "'c' has data_format 'NCHW', and only \\['NHWC'\\]"),
        (node("c", "_FusedConv2D", "given", padding="EXPLICIT"), "'c' has padding 'EXPLICIT'"),
        (node("c", "_FusedConv2D", "given", dilations=[1, 2, 2, 1]), "'c' has dilations \\[1, 2, 2, 1\\]"),
        (node("c", "_FusedConv2D", "given", fused_ops=["BiasAdd", "Elu"]), "'c' has fused_ops .*'Elu'"),
        (node("c", "_FusedConv2D", "given", fused_ops=["Relu"]), "'c' has fused_ops \\['Relu'\\]"),
        (node("r", "ResizeBilinear", "given", half_pixel_centers=False), "'r' has half_pixel_centers False"),
        (node("r", "ResizeBilinear", "given", align_corners=True), "'r' has align_corners True"),
        (node("t", "Cast", "given", DstT="DT_STRING"), "'t' has DstT 'DT_STRING'"),
    ],
)
def test_what_cannot_be_run_is_said_before_anything_runs(extra, message):
    with pytest.raises(UserError, match=message):
        read_graph({"node": [*small_graph(), extra]})
