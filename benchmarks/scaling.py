"""Throughput on 1, 2, 4 ... ranks of those there are: weak (batch a rank fixed) and strong (global batch fixed).

For each number of ranks the processes that take part start a fresh child, which joins a group of that size, and the
others wait. Without a launcher this process starts all children of this machine, one a GPU, or `ranks` on a CPU. As
command this file is such a child.
"""

import json
import math
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from mscgan import dist
from mscgan.dist import Ranks
from mscgan.keys import PAF, PG2, Config, Data, Log, MsCGAN, Train

SECONDS = 540  # a child's limit: below the ten minutes after which those who wait for it give up


def counts(world: int) -> list[int]:
    """1, 2, 4 ... below `world`, and `world`."""
    powers = [2**power for power in range(world.bit_length()) if 2**power < world]
    return [*powers, world]


def efficiency(rate: float, ranks: int, rate_of_1: float) -> float:
    """A rate on `ranks` ranks over `ranks` times the rate on 1 rank; for weak and strong scaling alike."""
    return rate / (ranks * rate_of_1)


def global_batch(batch: int, world: int) -> int:
    """Strong scaling's global batch: `batch`, rounded up so that at every count all ranks get equal shares."""
    share = math.lcm(*counts(world))
    return -(-batch // share) * share


def measure(
    ranks: Ranks,
    out: Path,
    config: Config,
    stage: str,
    way: str,
    batch: int,
    rounds: int,
    steps: int,
    wanted: int,
    keep: Callable[[dict], None] = lambda found: None,
) -> dict:
    """Rows for weak and strong scaling. `wanted`: ranks to start where no launcher did; 0: one a GPU, or a core.

    keep: called with what there is so far after each number of ranks.
    """
    launched = "RANK" in os.environ
    world = ranks.world if launched else wanted or torch.cuda.device_count() or min(2, len(os.sched_getaffinity(0)))
    total = global_batch(batch, world)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    threads = max(1, len(os.sched_getaffinity(0)) // (ranks.local_world if launched else world))
    size = f"{config.data.height}x{config.data.width}"
    found = {
        "workload": {"stage": stage, "size": size, "way": way, "threads_a_rank": threads},
        "method": {"rounds": rounds, "steps_a_round": steps, "process": "fresh for each number of ranks"},
        "definition": "efficiency: pairs/s on N ranks / (N x pairs/s on 1 rank), 1 being one process with one device",
        "rows": [],
    }
    rates: dict[tuple[int, int], dict] = {}
    for number, count in enumerate(counts(world)):
        for a_rank in sorted({batch, total // count}):
            task = {
                "config": asdict(config),
                "stage": stage,
                "way": way,
                "batch": a_rank,
                "rounds": rounds,
                "steps": steps,
            }
            port = int(os.environ["MASTER_PORT"]) + 40 + 2 * number + (a_rank != batch) if launched else _free_port()
            rates[count, a_rank] = _children(ranks, launched, count, threads, task, port, out)
        found["rows"] = _rows(rates, batch, total, stage, way)
        keep(found)
    return found


def _rows(rates: dict[tuple[int, int], dict], batch: int, total: int, stage: str, way: str) -> list[dict]:
    """rates: a step's row by ranks and batch a rank, of as many ranks as have been measured."""
    rows = []
    for kind in ("weak", "strong"):
        alone = rates[1, batch if kind == "weak" else total]
        for count in sorted({count for count, _ in rates}):
            a_rank = batch if kind == "weak" else total // count
            row = rates[count, a_rank]
            speed = row["metrics"]["pairs_per_second"]
            rows.append(
                {
                    "key": f"{kind} {stage} {row['size']} base {row['base']} {row['precision']} {way} {count} ranks",
                    "kind": kind, "ranks": count, "batch": a_rank, "global_batch": a_rank * count,
                    "metrics": {
                        "pairs_per_second": speed,
                        "efficiency": efficiency(
                            speed["median"], count, alone["metrics"]["pairs_per_second"]["median"]
                        ),
                        "step_ms": row["metrics"]["step_ms"],
                    },
                    "phases_ms": row["phases_ms"],
                    "parameters": row["parameters"],
                    "finite": row["finite"],
                    "failures": row["failures"],
                }
            )  # fmt: skip
    return rows


def _children(ranks: Ranks, launched: bool, count: int, threads: int, task: dict, port: int, out: Path) -> dict:
    """Runs the task on `count` ranks. Returns rank 0's row, on every rank that waits for it."""
    mine = ([ranks.rank] if ranks.rank < count else []) if launched else list(range(count))
    row = None
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "row.json"
        children = []
        for rank in mine:
            local = {"LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1"}
            if launched:
                first = ranks.rank - ranks.local_rank
                local = {"LOCAL_RANK": ranks.local_rank, "LOCAL_WORLD_SIZE": min(ranks.local_world, count - first)}
            own = local | {"RANK": rank, "WORLD_SIZE": count, "MASTER_PORT": port, "OMP_NUM_THREADS": threads}
            command = [sys.executable, "-P", str(Path(__file__).resolve()), json.dumps(task), str(out), str(result)]
            # With torchrun's variables a child would wait for torchrun's store, which does not listen at its port.
            inherited = {key: value for key, value in os.environ.items() if not key.startswith("TORCHELASTIC_")}
            children.append(subprocess.Popen(command, env=inherited | {key: str(value) for key, value in own.items()}))
        codes = []
        try:
            codes = [child.wait(SECONDS) for child in children]
        finally:
            for child in children[len(codes) :]:
                child.kill()
        if any(codes):
            raise RuntimeError(f"scaling on {count} ranks: the measuring process ended with {max(codes, key=abs)}")
        if 0 in mine:
            row = json.loads(result.read_text())
    return dist.from_rank_0(row) if launched else row


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def config_of(values: dict) -> Config:
    """The configuration that dataclasses.asdict made these values of."""
    parts = {"data": Data, "mscgan": MsCGAN, "pg2": PG2, "paf": PAF, "train": Train, "log": Log}
    return Config(**values | {name: part(**values[name]) for name, part in parts.items()})


def main() -> None:
    """A child: measures one way on its group and writes the row."""
    from benchmarks import step

    task, out, result = json.loads(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
    torch.backends.cudnn.benchmark = True
    ranks = dist.init()
    config = config_of(task["config"])
    found = step.measure(ranks, out, config, task["stage"], [task["way"]], task["batch"], task["rounds"], task["steps"])
    if ranks.rank == 0:
        if not found["rows"]:
            raise RuntimeError(f"the way {task['way']!r} was not measured: {found['failures'][-1]['error']}")
        result.write_text(json.dumps(found["rows"][0] | {"failures": found["failures"]}))
    dist.barrier()
    dist.shutdown()


if __name__ == "__main__":
    main()
