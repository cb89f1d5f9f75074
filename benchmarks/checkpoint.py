"""How long a save stops training, and how long a load takes, for the state that a stage really has."""

import shutil
import time
from pathlib import Path

import torch

from benchmarks.step import changed, random_batch
from benchmarks.timing import summary, synchronize, together
from mscgan import checkpoint
from mscgan.config import STAGES, Config
from mscgan.dist import Ranks
from mscgan.prepare import prepare
from mscgan.state import State


def measure(ranks: Ranks, out: Path, config: Config, backends: dict[str, list[str]], rounds: int) -> dict:
    """Rows for the last stage, whose state is the largest, by backend. The files lie in OUT."""
    rows = [
        _row(ranks, out / f"checkpoint-{name}", changed(config, overrides), name, rounds)
        for name, overrides in backends.items()
    ]
    return {
        "workload": {"stage": STAGES[config.family][-1], "size": f"{config.data.height}x{config.data.width}",
                     "base": config.options().base},
        "method": {"rounds": rounds, "save": "gather to the CPU, write, fsync, rename", "load": "page cache, restore"},
        "definition": "save_seconds: training stands still so long at each save; load_seconds: read and restore",
        "rows": rows,
    }  # fmt: skip


def _row(ranks: Ranks, folder: Path, config: Config, backend: str, rounds: int) -> dict:
    stage, state = STAGES[config.family][-1], State(config, ranks.device, 1)
    state.enter(stage)
    batch = random_batch(config, 1, ranks.device, ranks.rank)
    state.step([prepare(batch, config.data, config.train.precision)])
    gather, save, load = [], [], []
    for number in range(rounds):
        synchronize(ranks.device)
        with together():
            began = time.perf_counter()
            tensors, facts = state.state()
            gather.append(time.perf_counter() - began)
            checkpoint.save(folder, number, tensors, facts, 1, ranks)
            save.append(time.perf_counter() - began)
    for _ in range(rounds):
        with together():
            began = time.perf_counter()
            state.restore(*checkpoint.load(checkpoint.newest(folder)))
            synchronize(ranks.device)
            load.append(time.perf_counter() - began)
    restored, _ = state.state()
    same = all(torch.equal(tensor, restored[name]) for name, tensor in tensors.items())
    size = sum(tensor.nbytes for tensor in tensors.values())
    if ranks.rank == 0:
        shutil.rmtree(folder)
    return {
        "key": f"{stage} {config.data.height}x{config.data.width} base {config.options().base} {backend}",
        "backend": backend,
        "bytes": size,
        "restored_equal": same,
        "metrics": {
            "save_seconds": summary(save),
            "gather_seconds": summary(gather),
            "load_seconds": summary(load),
            "save_megabytes_per_second": size / summary(save)["median"] / 1e6,
        },
    }
