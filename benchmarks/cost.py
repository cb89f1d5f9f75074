"""What this device can do: matrix rate, copy rate, the data sheet's peak. mscgan/costs.py has what a step takes."""

import time
from collections.abc import Callable

import torch

from benchmarks.timing import slowest, synchronize

H200_BF16 = 989e12  # dense bf16, NVIDIA's data sheet of H100 SXM and H200


def matrix_rate(
    device: torch.device,
    dtype: torch.dtype,
    size: int | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """FLOP/s of a square matrix product, the slowest rank's: the best of several, as this is what the device can do."""
    size = size or (8192 if device.type == "cuda" else 1024)
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / _best(lambda: a @ b, device, clock)


def copy_rate(device: torch.device, megabytes: int | None = None) -> float:
    """Bytes/s, read and written, of copying a tensor far larger than any cache: the best of several."""
    megabytes = megabytes or (2048 if device.type == "cuda" else 256)
    source = torch.ones(megabytes << 18, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _best(lambda: target.copy_(source), device)


def _best(call, device: torch.device, clock: Callable[[], float] = time.perf_counter) -> float:
    for _ in range(3):
        call()
    seconds = []
    for _ in range(10):
        synchronize(device)
        began = clock()
        call()
        synchronize(device)
        seconds.append(clock() - began)
    return slowest([min(seconds)])[0]  # over the ranks


def peak(device: torch.device) -> float | None:
    """The data sheet's dense bf16 FLOP/s, of the GPUs that this project has bars for."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return H200_BF16 if "H200" in name or "H100" in name else None
