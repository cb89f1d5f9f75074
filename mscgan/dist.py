"""The ranks of a run: process group, device, and the few collectives that training needs beside the engines'.

Numbers that decide something (stop now? which checkpoint?) travel over gloo on the CPU, so that every rank decides
alike and no GPU stream is waited for.
"""

import gc
import json
import os
import socket
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as torch_dist
from torch import Tensor

from mscgan.errors import UserError
from mscgan.step import take_ranks

# A rank that waits longer than this for the others ends with an error instead of hanging for ever.
TIMEOUT = timedelta(minutes=10)
ENVIRONMENT = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
Name = TypeVar("Name", bound=Hashable)
Result = TypeVar("Result")


@dataclass(frozen=True)
class Ranks:
    """Who this process is. `local_*` count the processes of this machine."""

    rank: int
    world: int
    local_rank: int
    local_world: int
    device: torch.device


def init(device_type: str | None = None) -> Ranks:
    """Joins the process group that the environment describes, in torchrun's variables or in those of a SLURM step
    (mscgan/step.py); without either, a group of one.

    Args:
        device_type: "cuda" or "cpu"; None takes CUDA where there is a GPU.

    Raises:
        UserError: the environment is there in part, or this machine has too few GPUs.
    """
    device_type = device_type or ("cuda" if torch.cuda.is_available() else "cpu")
    take_ranks()
    missing = [name for name in ENVIRONMENT if name not in os.environ]
    alone = "RANK" in missing and "WORLD_SIZE" in missing
    if missing and not alone:
        raise UserError(
            f"the environment describes a rank but lacks {', '.join(missing)}; start with torchrun or "
            "launch/submit.py, or unset RANK and WORLD_SIZE to run one process"
        )
    rank, world, local_rank, local_world = (0, 1, 0, 1) if alone else (int(os.environ[n]) for n in ENVIRONMENT[:4])
    device = torch.device("cpu")
    if device_type == "cuda":
        if local_rank >= torch.cuda.device_count():
            raise UserError(
                f"local rank {local_rank} needs its own GPU, but this machine shows {torch.cuda.device_count()}; "
                "start as many processes as there are GPUs"
            )
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    torch_dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device_type == "cuda" else "gloo",
        rank=rank,
        world_size=world,
        store=torch_dist.HashStore() if alone else None,
        init_method=None if alone else "env://",
        timeout=TIMEOUT,
    )
    return Ranks(rank, world, local_rank, local_world, device)


def shutdown() -> None:
    """Leaves the process group. Engines have to be let go of before.

    Where DDP is the last to hold the group, it destroys it under Python's lock and waits there for gloo's thread, which
    may be waiting for that lock.
    """
    gc.collect()
    torch_dist.destroy_process_group()


def cores(ranks: Ranks) -> int:
    """CPU cores for this rank's threads, 1 or more. Every rank calls it.

    Of the cores that the process may use, one that other ranks may use too counts in parts: so it is right where all
    ranks of a machine share its cores, where each has its own, and where those near a GPU share a socket.
    """
    mine = sorted(os.sched_getaffinity(0))
    everyone = gather([socket.gethostname(), mine])
    here = [set(others) for host, others in everyone if host == socket.gethostname()]
    return max(1, int(sum(1 / sum(core in others for others in here) for core in mine) + 1e-6))


def barrier() -> None:
    """Returns once every rank has called it. Does not wait for the GPU."""
    torch_dist.all_reduce(torch.zeros(1))


def all_any(*flags: bool) -> list[bool]:
    """Each flag true on every rank if it is true on one, in one collective."""
    counts = torch.tensor([int(flag) for flag in flags])
    torch_dist.all_reduce(counts, op=torch_dist.ReduceOp.MAX)
    return [bool(count) for count in counts.tolist()]


def first_said(text: str) -> str:
    """The first text that is not empty, by rank; on every rank. Empty if all are."""
    return next(filter(None, gather(text)), "")


def mean(values: dict[Name, Tensor]) -> dict[Name, float]:
    """Means over the ranks of scalar tensors, in one transfer and one collective. All ranks give the same names."""
    if not values:
        return {}
    stacked = torch.stack([value.detach().float() for value in values.values()]).cpu()
    torch_dist.all_reduce(stacked)
    return dict(zip(values, (stacked / torch_dist.get_world_size()).tolist(), strict=True))


def from_rank_0(value):
    """Rank 0's `value`, something JSON can hold, on every rank."""
    text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
    length = torch.tensor([text.numel()])
    torch_dist.broadcast(length, src=0)
    if torch_dist.get_rank() != 0:
        text = torch.empty(int(length), dtype=torch.uint8)
    torch_dist.broadcast(text, src=0)
    return json.loads(bytes(text.tolist()))


def on_rank_0(action: Callable[[], Result]) -> Result | None:
    """What `action` returns on rank 0, None on the others; where it raises UserError every rank does."""
    result, mistake = None, ""
    if torch_dist.get_rank() == 0:
        try:
            result = action()
        except UserError as error:
            mistake = str(error)
    if mistake := from_rank_0(mistake):
        raise UserError(mistake)
    return result


def gather(value) -> list:
    """Every rank's `value`, something JSON can hold, by rank and on every rank."""
    text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
    longest = torch.tensor([text.numel()])
    torch_dist.all_reduce(longest, op=torch_dist.ReduceOp.MAX)
    # Spaces behind a document are part of no value.
    padded = torch.full((int(longest),), ord(" "), dtype=torch.uint8)
    padded[: text.numel()] = text
    texts = [torch.empty_like(padded) for _ in range(torch_dist.get_world_size())]
    torch_dist.all_gather(texts, padded)
    return [json.loads(bytes(text.tolist())) for text in texts]
