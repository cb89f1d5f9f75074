"""Runs a TensorFlow graph in its JSON form (tfjs-converter's model.json) with torch: the operations of MoveNet, and no
other.

Tensors keep TensorFlow's layout, (N, H, W, C), and so do filters, (h, w, in, out). What an operation is, and its
attributes' names, is in TensorFlow's raw operations (tensorflow.org/api_docs/python/tf/raw_ops).
"""

import base64
from collections.abc import Callable
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from mscgan.errors import UserError

Attributes = dict[str, Any]


class Node(NamedTuple):
    """An operation in a graph. inputs: (name of a node, which of its outputs)."""

    name: str
    operation: str
    inputs: list[tuple[str, int]]
    attributes: Attributes


def read_graph(topology: dict) -> list[Node]:
    """The nodes of a `modelTopology`, each after its inputs.

    Raises:
        UserError: an operation, or a form of it, that is not among those here; an input that is not there; a circle.
    """
    nodes = {entry["name"]: _node(entry) for entry in topology["node"]}
    for node in nodes.values():
        if node.operation not in OPERATIONS and node.operation not in ("Const", "Placeholder"):
            raise UserError(
                f"node {node.name!r} is a {node.operation}, which is not among the operations that can be run: "
                f"{', '.join(OPERATIONS)}"
            )
        for name, expected in EXPECTED.items():
            if node.attributes.get(name, expected[0]) not in expected:
                came = node.attributes[name]
                raise UserError(f"node {node.name!r} has {name} {came!r}, and only {expected} can be run")
        for name, _ in node.inputs:
            if name not in nodes:
                raise UserError(f"node {node.name!r} takes {name!r}, and the graph has no such node")
    try:
        order = TopologicalSorter({node.name: [name for name, _ in node.inputs] for node in nodes.values()})
        return [nodes[name] for name in order.static_order()]
    except CycleError as error:
        raise UserError(f"the graph runs in a circle: {' <- '.join(error.args[1])}") from error


def run_graph(nodes: list[Node], constants: dict[str, Tensor], given: Tensor, output: str) -> Tensor:
    """What the node `output` gives where the placeholder is `given`.

    constants: of each Const node, by its name. What a node does not accept, torch raises.
    """
    outputs: dict[str, list[Tensor]] = {}
    for node in nodes:
        if node.operation == "Const":
            result: Tensor | list[Tensor] = constants[node.name]
        elif node.operation == "Placeholder":
            result = given
        else:
            inputs = [outputs[name][number] for name, number in node.inputs]
            result = OPERATIONS[node.operation](node.attributes, *inputs)
        outputs[node.name] = result if isinstance(result, list) else [result]
    return outputs[output][0]


def _node(entry: dict) -> Node:
    inputs = []
    for text in entry.get("input", []):
        name, _, number = text.partition(":")
        if not name.startswith("^"):  # which only asks to be run earlier
            inputs.append((name, int(number or 0)))
    return Node(entry["name"], entry["op"], inputs, {name: _value(v) for name, v in entry.get("attr", {}).items()})


def _value(attribute: dict) -> Any:
    """{"i": "1"} -> 1, {"s": "U0FNRQ=="} -> "SAME", {"list": {"i": ["1", "2"]}} -> [1, 2]; others as they are."""
    for kind, value in attribute.items():
        if kind == "i":
            return int(value)
        if kind == "s":
            return base64.b64decode(value).decode()
        if kind == "list":
            return [_value({of: one}) for of, several in value.items() for one in several]
        return value
    return None


def _convolve(attributes: Attributes, images: Tensor, filters: Tensor, bias: Tensor | None = None) -> Tensor:
    """A convolution, whose filters are (h, w, in, out), and what is fused to it."""
    return _sliding(attributes, images, filters.permute(3, 2, 0, 1), 1, bias)


def _convolve_depthwise(attributes: Attributes, images: Tensor, filters: Tensor, bias: Tensor | None = None) -> Tensor:
    """As _convolve; each of C channels has M filters of its own, (h, w, C, M), and gives M channels side by side."""
    height, width, channels, several = filters.shape
    weight = filters.permute(2, 3, 0, 1).reshape(channels * several, 1, height, width)
    return _sliding(attributes, images, weight, channels, bias)


def _sliding(attributes: Attributes, images: Tensor, weight: Tensor, groups: int, bias: Tensor | None) -> Tensor:
    _, *stride, _ = attributes["strides"]
    padding = [0, 0]
    if attributes["padding"] == "SAME":
        rows, columns = (_same(images.shape[1 + i], weight.shape[2 + i], stride[i]) for i in (0, 1))
        if rows[0] == rows[1] and columns[0] == columns[1]:
            padding = [rows[0], columns[0]]
        else:
            images = functional.pad(images, (0, 0, *columns, *rows))
    result = functional.conv2d(images.permute(0, 3, 1, 2), weight, bias, stride, padding, groups=groups)
    result = result.permute(0, 2, 3, 1)
    for fused in attributes.get("fused_ops", [])[1:]:
        result = ACTIVATIONS[fused](result)
    return result


def _same(size: int, filter_size: int, stride: int) -> tuple[int, int]:
    """Padding before and behind, so that ceil(size / stride) places come out: the odd one is put behind."""
    padding = max((-(-size // stride) - 1) * stride + filter_size - size, 0)
    return padding // 2, padding - padding // 2


def _resize(attributes: Attributes, images: Tensor, size: Tensor) -> Tensor:
    """Bilinear; the centre of pixel i lies at i + 0.5 (half_pixel_centers)."""
    resized = functional.interpolate(images.permute(0, 3, 1, 2), size.tolist(), mode="bilinear", align_corners=False)
    return resized.permute(0, 2, 3, 1)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {  # in place: what they get is nobody else's
    "Relu": torch.relu_,
    "Relu6": lambda a: a.clamp_(0, 6),
}
TYPES = {"DT_FLOAT": torch.float32, "DT_INT32": torch.int32}
EXPECTED: dict[str, list] = {  # the forms of operations that are here, by attribute
    "data_format": ["NHWC"],
    "padding": ["SAME", "VALID"],
    "dilations": [[1, 1, 1, 1]],
    "fused_ops": [[], ["BiasAdd"], ["BiasAdd", "Relu"], ["BiasAdd", "Relu6"]],
    "align_corners": [False],
    "half_pixel_centers": [True],
    "DstT": list(TYPES),
    "output_type": ["DT_INT32"],
}
OPERATIONS: dict[str, Callable[..., Tensor | list[Tensor]]] = {
    "_FusedConv2D": _convolve,
    "FusedDepthwiseConv2dNative": _convolve_depthwise,
    "DepthwiseConv2dNative": _convolve_depthwise,
    "ResizeBilinear": _resize,
    "AddV2": lambda _, a, b: a + b,
    "Sub": lambda _, a, b: a - b,
    "Mul": lambda _, a, b: a * b,
    "RealDiv": lambda _, a, b: a / b,
    "FloorDiv": lambda _, a, b: torch.div(a, b, rounding_mode="floor"),
    "SquaredDifference": lambda _, a, b: (a - b).square(),
    "Sqrt": lambda _, a: a.sqrt(),
    "Sigmoid": lambda _, a: a.sigmoid(),
    "Cast": lambda attributes, a: a.to(TYPES[attributes["DstT"]]),
    "Identity": lambda _, a: a,
    "ExpandDims": lambda _, a, axis: a.unsqueeze(int(axis)),
    "Reshape": lambda _, a, shape: a.reshape(shape.tolist()),
    "Squeeze": lambda attributes, a: a.squeeze(attributes["squeeze_dims"] or list(range(a.ndim))),
    "ConcatV2": lambda _, *several: torch.cat(several[:-1], int(several[-1])),
    "Pack": lambda attributes, *several: torch.stack(several, attributes["axis"]),
    "Unpack": lambda attributes, a: list(a.unbind(attributes["axis"])),
    "ArgMax": lambda _, a, axis: a.argmax(int(axis)).int(),
    "GatherNd": lambda _, a, places: a[tuple(places.long().unbind(-1))],
}
