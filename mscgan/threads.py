"""How many of torch's threads some work gets."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread(device: torch.device) -> Iterator[None]:
    """One, where the device is a CPU: for operations so small that threads cost more than they bring. Two took 31.8 s
    where one took 15.1 to score the pixels of 1,600 pairs of 128x64 beside other work. Several cores are for several
    processes (launch/submit.py --job evaluate)."""
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1 if device.type == "cpu" else threads)
        yield
    finally:
        torch.set_num_threads(threads)
