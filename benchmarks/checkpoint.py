"""What a checkpoint costs: how long training stands still, how long the rest takes beside it, and how long a load.

The state is the one that a stage really has, and it is saved and loaded as training does it (mscgan/saving.py,
mscgan/recovery.py).
"""

import shutil
import time
from pathlib import Path

import torch

from benchmarks.step import changed, random_batch
from benchmarks.timing import summary, synchronize, together
from mscgan import dist
from mscgan.config import STAGES, Config
from mscgan.dist import Ranks
from mscgan.prepare import prepare
from mscgan.recovery import choose
from mscgan.saving import Saver
from mscgan.state import State


def measure(ranks: Ranks, out: Path, config: Config, backends: dict[str, list[str]], rounds: int) -> dict:
    """Rows for the last stage, whose state is the largest, by backend. The files lie in OUT."""
    rows = [
        _row(ranks, out / f"checkpoint-{name}", changed(config, overrides), name, rounds)
        for name, overrides in backends.items()
    ]
    return {
        "workload": {"stage": STAGES[config.family][-1], "size": f"{config.data.height}x{config.data.width}",
                     "base": config.options().base, "ranks": ranks.world},
        "method": {"rounds": rounds, "load": "page cache: digests, then the state restored"},
        "definition": "stall_seconds: training stands still so long; published_seconds: from the same moment until the "
        "checkpoint has its name; memory: a rank's peak above what it held, over the bytes of the largest share",
        "rows": rows,
    }  # fmt: skip


def _row(ranks: Ranks, folder: Path, config: Config, backend: str, rounds: int) -> dict:
    stage, state = STAGES[config.family][-1], State(config, ranks.device, 1)
    state.enter(stage)
    batch = random_batch(config, 1, ranks.device, ranks.rank)
    state.step([prepare(batch, config.data, config.train.precision)])
    stall, published, memory, load = [], [], [], []
    size = _bytes(state, ranks)
    with Saver(folder, ranks, 0, 1, 0.0, 1, lambda: None) as saver:
        for number in range(1, rounds + 1):
            synchronize(ranks.device)
            before = _forget_peak()
            with together():
                began = time.perf_counter()
                saver.save(state, {"pairs": number}, last=False)
                stall.append(time.perf_counter() - began)
                saver.settle()
                published.append(time.perf_counter() - began)
            memory.append(max(dist.gather(_resident("VmHWM") - before)) / max(size))
    expected = state.share(ranks.rank, ranks.world).pieces
    for _ in range(rounds):
        with together():
            began = time.perf_counter()
            start = choose(folder, ranks)
            state.restore(start.tensors, start.facts)
            synchronize(ranks.device)
            load.append(time.perf_counter() - began)
    restored = state.share(ranks.rank, ranks.world).pieces
    (differs,) = dist.all_any(any(not torch.equal(expected[name].tensor, restored[name].tensor) for name in expected))
    if ranks.rank == 0:
        shutil.rmtree(folder)
    return {
        "key": f"{stage} {config.data.height}x{config.data.width} base {config.options().base} {backend}",
        "backend": backend,
        "bytes": sum(size),
        "share_bytes": max(size),
        "restored_equal": not differs,
        "metrics": {
            "stall_seconds": summary(stall),
            "published_seconds": summary(published),
            "memory": summary(memory),
            "load_seconds": summary(load),
        },
    }


def _bytes(state: State, ranks: Ranks) -> list[int]:
    """Of each rank's share."""
    share = state.share(ranks.rank, ranks.world)
    tensors = [piece.tensor for piece in share.pieces.values()] + list(share.generator.values())
    return dist.gather(sum(tensor.nbytes for tensor in tensors))


def _forget_peak() -> int:
    """Has Linux count this process's peak of memory from now on. Returns what it holds, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return _resident("VmRSS")


def _resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
