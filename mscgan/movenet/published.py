"""MoveNet as it is published, a graph in JSON over one flat file of numbers, as one safetensors file."""

import json
import math

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

TOPOLOGY = "model.json"  # the tensor (n,) uint8 that is the text of the graph
TYPES = {"float32": "<f2", "int32": "<i4"}  # in the flat file: numbers of 32 bits are published as of 16


def to_safetensors(topology: bytes, numbers: bytes) -> bytes:
    """The two files as one: the constants by the names of their nodes, and the graph as TOPOLOGY.

    The files are as published, since their digests were verified. The same files give the same bytes.
    """
    (group,) = json.loads(topology)["weightsManifest"]
    tensors: dict[str, Tensor] = {TOPOLOGY: torch.frombuffer(bytearray(topology), dtype=torch.uint8)}
    offset = 0
    for entry in group["weights"]:
        numpy_type = np.dtype(TYPES[entry["dtype"]])
        count = math.prod(entry["shape"])
        array = np.frombuffer(numbers, numpy_type, count, offset).reshape(entry["shape"])
        tensors[entry["name"]] = torch.from_numpy(array.copy())
        offset += array.nbytes
    assert offset == len(numbers), f"{len(numbers) - offset} bytes belong to no constant"
    return safetensors.torch.save(tensors)
