"""The talk between ranks before training: a store that rank 0 serves, a sum over all ranks. The torch of launch/."""

import json
import os
import time
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist


class Meeting:
    """Each rank says its piece under a topic, rank 0 gathers, and announces to all.

    Args:
        seconds: for how long a rank waits for rank 0's store.

    Raises:
        RuntimeError: rank 0's store cannot be reached in time.
    """

    def __init__(self, rank: int, world: int, address: str, port: int, seconds: float):
        self.rank, self.world = rank, world
        wait = timedelta(seconds=seconds)
        self._store = dist.TCPStore(address, port, world, rank == 0, wait, wait_for_workers=False)

    def say(self, topic: str, content) -> None:
        """Content is something JSON can hold."""
        self._store.set(f"{topic}/{self.rank}", json.dumps(content))

    def gather(self, topic: str, seconds: float) -> dict[int, Any]:
        """What each rank said, by rank. A rank that said nothing within the time is not in it."""
        end = time.monotonic() + seconds
        said = {}
        for rank in range(self.world):
            try:
                self._store.wait([f"{topic}/{rank}"], timedelta(seconds=max(end - time.monotonic(), 0.05)))
            except dist.DistStoreError:
                continue
            said[rank] = json.loads(self._store.get(f"{topic}/{rank}"))
        return said

    def announce(self, topic: str, content=None):
        """Rank 0's content, on every rank; only rank 0's argument counts.

        The others wait long: rank 0 itself waits for the slowest first, and if it dies they lose its store at once.
        """
        if self.rank == 0:
            self._store.set(topic, json.dumps(content))
            return content
        self._store.wait([topic], timedelta(days=7))
        return json.loads(self._store.get(topic))

    def all_reduce(self, gpu: int | None, seconds: float) -> str:
        """Multiplies a matrix, then adds a tensor over all ranks (NCCL on that GPU, gloo without one).

        Says "ready" when the device works, before the ranks connect. Returns what went wrong, empty where nothing did.
        """
        os.environ["TORCH_NCCL_BLOCKING_WAIT"] = "1"  # a time-out is an exception here, not an abort
        device = torch.device("cpu") if gpu is None else torch.device("cuda", gpu)
        try:
            ones = torch.ones(512, 512, device=device)
            if not bool((ones @ ones == 512).all()):
                return f"{device} multiplies matrices wrongly"
            self.say("ready", True)
            dist.init_process_group(
                "gloo" if gpu is None else "nccl",
                store=dist.PrefixStore("all_reduce", self._store),
                rank=self.rank,
                world_size=self.world,
                timeout=timedelta(seconds=seconds),
                device_id=None if gpu is None else device,
            )
            tensor = torch.full((1 << 20,), self.rank + 1.0, device=device)
            dist.all_reduce(tensor)
            expected = self.world * (self.world + 1) / 2
            return "" if bool((tensor == expected).all()) else f"the sum is {tensor[0]:g}, it should be {expected:g}"
        except RuntimeError as error:
            return " ".join(str(error).split())
