"""Small graphs in the place of MoveNet's weights, and the true ones where they are."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from mscgan import weights
from mscgan.movenet.published import TOPOLOGY
from tests.weights_factory import expect


def attribute(value) -> dict:
    """A value as a graph's JSON has it."""
    if isinstance(value, bool):
        return {"b": value}
    if isinstance(value, int):
        return {"i": str(value)}
    if isinstance(value, list):
        kind = "i" if all(isinstance(one, int) for one in value) else "s"
        return {"list": {kind: [attribute(one)[kind] for one in value]} if value else {}}
    return {"type": value} if value.startswith("DT_") else {"s": base64.b64encode(value.encode()).decode()}


def node(name: str, operation: str, *inputs: str, **attributes) -> dict:
    """A node as a graph's JSON has it."""
    entry = {"name": name, "op": operation, "attr": {key: attribute(value) for key, value in attributes.items()}}
    return entry | ({"input": list(inputs)} if inputs else {})


def put(monkeypatch, folder: Path, nodes: list[dict], constants: dict[str, torch.Tensor]) -> bytes:
    """Writes a graph, whose output is the node "out", as the weights "movenet" into `folder`, which becomes the folder
    of weights, and tells the table its digest."""
    graph = {"modelTopology": {"node": nodes}, "signature": {"outputs": {"out:0": {}}}}
    text = torch.frombuffer(bytearray(json.dumps(graph).encode()), dtype=torch.uint8)
    content = safetensors.torch.save({TOPOLOGY: text, **constants})
    monkeypatch.setenv("MSCGAN_WEIGHTS", str(folder))
    (folder / weights.TABLE["movenet"].file).write_bytes(content)
    expect(monkeypatch, "movenet", content)
    return content


def put_answer(monkeypatch, folder: Path, answer: np.ndarray) -> bytes:
    """A network that answers with (17, 3) y, x and scores in [0, 1] of the square, whatever it looks at."""
    constants = {"answer": torch.tensor(answer, dtype=torch.float32).reshape(1, 1, 17, 3)}
    return put(
        monkeypatch,
        folder,
        [node("x", "Placeholder"), node("answer", "Const"), node("out", "Identity", "answer")],
        constants,
    )


def need_weights() -> None:
    """Skips the test where MoveNet's weights are not in the user's folder."""
    try:
        weights.path("movenet")
    except weights.Missing as missing:
        pytest.skip(str(missing))
