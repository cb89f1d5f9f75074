"""The ranks of a run: process group, device, and the few collectives that training needs beside the engines'.

Numbers that decide something (stop now? which checkpoint?) travel over gloo on the CPU, so that every rank decides
alike and no GPU stream is waited for.
"""

import contextlib
import functools
import gc
import json
import os
import socket
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as torch_dist
from torch import Tensor

from mscgan import heartbeat, process
from mscgan.errors import UserError, of_disk
from mscgan.step import take_ranks

# Collectives that a process remembers, for `collectives`. A step has some hundred, and no rank is more than a step
# ahead of another, as the loop ends each with a collective.
REMEMBERED = 2000
SHOWN = 200
RECORDERS = {"gloo": "_dump_fr_trace_json", "nccl": "_dump_nccl_trace_json"}
STANDS_OUT = 1.1  # times the smallest: the ranks move in step, so that a tie says nothing of any
ENVIRONMENT = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
Name = TypeVar("Name", bound=Hashable)
Result = TypeVar("Result")


@dataclass(frozen=True)
class Largest:
    """The largest of a value over the ranks, and where: None and "" where no rank stands out (STANDS_OUT)."""

    value: float
    rank: int | None
    host: str


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
    process.open_many_files()
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
    # NCCL's own monitor ends a process whose NCCL thread is stuck, after 8 minutes by default.
    os.environ.setdefault("TORCH_NCCL_HEARTBEAT_TIMEOUT_SEC", str(int(heartbeat.collective_seconds())))
    os.environ.setdefault("TORCH_FR_BUFFER_SIZE", str(REMEMBERED))
    torch_dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device_type == "cuda" else "gloo",
        rank=rank,
        world_size=world,
        store=torch_dist.HashStore() if alone else None,
        init_method=None if alone else "env://",
        timeout=timeout(),
    )
    return Ranks(rank, world, local_rank, local_world, device)


def timeout() -> timedelta:
    """After it a rank that waits for the others ends with an error. The watchdog comes first (mscgan/heartbeat.py)."""
    return timedelta(seconds=heartbeat.collective_seconds())


@contextlib.contextmanager
def same_timeout() -> Iterator[None]:
    """Inside, torch's new groups wait as long as the first one: DeepSpeed names no time for its own, which gives them
    torch's half hour."""
    original = torch_dist.new_group
    torch_dist.new_group = functools.partial(original, timeout=timeout())
    try:
        yield
    finally:
        torch_dist.new_group = original


def collectives() -> dict:
    """The last collectives of this process, from torch's flight recorder. Any thread may ask, while the main thread
    waits in one.

    Returns:
        What JSON can hold: {"groups": {name: [ranks]}, "entered": {"GROUP BACKEND": number of the last collective that
        this rank entered}, "collectives": the last of all groups, oldest first, as {"group", "backend": "gloo" or
        "nccl", "kind", "number" (in its group and backend, from 1), "sizes" (of its inputs), "unix" (when this rank
        entered it, in seconds), "over": bool}}. The default group is "0".
    """
    world = torch_dist.distributed_c10d._world
    found: list[dict] = []
    entered: dict[str, int] = {}
    for backend, recorder in RECORDERS.items():
        if not hasattr(torch._C._distributed_c10d, recorder):  # torch without NCCL
            continue
        for entry in json.loads(getattr(torch._C._distributed_c10d, recorder)()).get("entries", []):
            recorded, _, kind = entry["profiling_name"].partition(":")
            if recorded != backend or entry["is_p2p"]:
                continue
            group, number = entry["process_group"][0], entry["collective_seq_id"]
            found.append(
                {"group": group, "backend": backend, "kind": kind, "number": number, "sizes": entry["input_sizes"],
                 "unix": entry["time_created_ns"] / 1e9, "over": entry["retired"]}
            )  # fmt: skip
            entered[f"{group} {backend}"] = max(number, entered.get(f"{group} {backend}", 0))
    found.sort(key=lambda collective: collective["unix"])
    return {
        "groups": {world.pg_names[group]: list(ranks) for group, ranks in world.pg_group_ranks.items()},
        "entered": entered,
        "collectives": [one for place, one in enumerate(found, SHOWN - len(found)) if place >= 0 or not one["over"]],
    }


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


def take_cores(ranks: Ranks) -> int:
    """Gives torch this rank's cores for its threads, unless OMP_NUM_THREADS says how many: it would take the whole
    machine for each rank. Returns how many cores those are. Every rank calls it."""
    own = cores(ranks)
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(own)
    return own


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


def largest(values: dict[str, float]) -> dict[str, Largest]:
    """The largest of each value over the ranks, and whose it is. All ranks give the same names; without a process
    group the own ones."""
    everyone: list = [(socket.gethostname(), values)]
    if torch_dist.is_initialized():
        everyone *= torch_dist.get_world_size()
        torch_dist.all_gather_object(everyone, (socket.gethostname(), values))
    found = {}
    for name in values:
        of_ranks = [theirs[name] for _, theirs in everyone]
        rank = max(range(len(of_ranks)), key=of_ranks.__getitem__)
        stands_out = of_ranks[rank] > STANDS_OUT * min(of_ranks)
        found[name] = Largest(of_ranks[rank], rank if stands_out else None, everyone[rank][0] if stands_out else "")
    return found


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
    """What `action` returns on rank 0, None on the others.

    Raises:
        UserError, RuntimeError: it raised the first, or an OSError (errors.of_disk); on every rank.
    """
    result, failure = None, None
    if torch_dist.get_rank() == 0:
        try:
            result = action()
        except UserError as error:
            failure = [True, str(error)]
        except OSError as error:
            ended = of_disk(error)
            failure = [isinstance(ended, UserError), str(ended)]
    if failure := from_rank_0(failure):
        raise UserError(failure[1]) if failure[0] else RuntimeError(failure[1])
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
