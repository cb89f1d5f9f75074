"""What a step costs on paper, and what this device can do: FLOPs a pair, matrix rate, copy rate.

FLOPs are 2 a multiply-add of convolutions and fully connected layers. A backward pass costs twice its forward, of which
half is the gradient of the weights and half that of the input.
    stage I      3 G1
    stage II     G1 + 3 G2 + 8 D        (G1 is frozen)
    joint        3 (G1 + G2) + 8 D
8 D: forward of real and fake pairs (2), their backward (4), and in the generators' loss forward (1) and the gradient of
the input (1). The generator runs once a step; a step that runs it twice is credited with no more than these.
"""

import time
from typing import NamedTuple

import torch

from benchmarks.timing import synchronize
from mscgan.config import Config
from mscgan.networks import Discriminators, Generators, costs

H200_BF16 = 989e12  # dense bf16, NVIDIA's data sheet of H100 SXM and H200
FORMULA = {"I": "3 G1", "II": "G1 + 3 G2 + 8 D", "joint": "3 (G1 + G2) + 8 D"}


class Networks(NamedTuple):
    """Forward GFLOP of one image and parameters, of each network; D is the sum of the discriminators."""

    gflop: dict[str, float]
    parameters: dict[str, int]


def networks(config: Config) -> Networks:
    """Counted on the meta device: nothing is allocated or computed."""
    height, width, base, count = config.data.height, config.data.width, config.model.base, config.model.discriminators
    with torch.device("meta"):
        G, D = Generators(height, width, base), Discriminators(height, width, base, count)
        image, given = torch.empty(1, 3, height, width), torch.empty(1, 21, height, width)
        tables = {"G1": [costs(G.G1, given)], "G2": [costs(G.G2, image, image)]}
        tables["D"] = [
            costs(network, torch.empty(1, 6, height >> i, width >> i)) for i, network in enumerate(D.children())
        ]
    flat = {name: [row for table in found for row in table] for name, found in tables.items()}
    return Networks(
        {name: sum(row.gflop for row in rows) for name, rows in flat.items()},
        {name: sum(row.parameters for row in rows) for name, rows in flat.items()},
    )


def gflop_a_pair(gflop: dict[str, float], stage: str) -> float:
    """By FORMULA, from the networks' forward GFLOP."""
    G1, G2, D = gflop["G1"], gflop["G2"], gflop["D"]
    return {"I": 3 * G1, "II": G1 + 3 * G2 + 8 * D, "joint": 3 * (G1 + G2) + 8 * D}[stage]


def trained_parameters(parameters: dict[str, int], stage: str) -> dict[str, int]:
    """Parameters whose gradients the ranks exchange, of the two engines G and D."""
    G1, G2, D = parameters["G1"], parameters["G2"], parameters["D"]
    return {"I": {"G": G1, "D": 0}, "II": {"G": G2, "D": D}, "joint": {"G": G1 + G2, "D": D}}[stage]


def matrix_rate(device: torch.device, dtype: torch.dtype, size: int | None = None) -> float:
    """FLOP/s of a square matrix product: the best of several, as this is what the device can do."""
    size = size or (8192 if device.type == "cuda" else 1024)
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / _best(lambda: a @ b, device)


def copy_rate(device: torch.device, megabytes: int | None = None) -> float:
    """Bytes/s, read and written, of copying a tensor far larger than any cache: the best of several."""
    megabytes = megabytes or (2048 if device.type == "cuda" else 256)
    source = torch.ones(megabytes << 18, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _best(lambda: target.copy_(source), device)


def _best(call, device: torch.device) -> float:
    for _ in range(3):
        call()
    seconds = []
    for _ in range(10):
        synchronize(device)
        began = time.perf_counter()
        call()
        synchronize(device)
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def peak(device: torch.device) -> float | None:
    """The data sheet's dense bf16 FLOP/s, of the GPUs that this project has bars for."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return H200_BF16 if "H200" in name or "H100" in name else None
