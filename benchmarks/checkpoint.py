"""What a checkpoint costs: the time that training loses to it, and how long a load takes.

The state is the one that a stage really has, and it is saved and loaded as training does it (mscgan/saving.py,
mscgan/recovery.py): the loop stops for the copy, goes on while a thread writes, and meets the other ranks after each
step. The steps beside the writing are slower too, and that is lost as well: the stall is the time from the save until
the checkpoint has its name, less what the steps made in it take without one.
"""

import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.needs import missing, skip
from benchmarks.settings import changed
from benchmarks.step import NEEDS, random_batch
from benchmarks.timing import slowest, summary, synchronize, together
from mscgan import checkpoint, dist
from mscgan.dist import Ranks
from mscgan.keys import STAGES, Config
from mscgan.prepare import prepare
from mscgan.recovery import choose
from mscgan.saving import Saver
from mscgan.state import State

UNDISTURBED = 5  # steps in a row, before each save


def measure(
    ranks: Ranks,
    out: Path,
    config: Config,
    backends: dict[str, dict[str, object]],
    rounds: int,
    keep: Callable[[dict], None] = lambda found: None,
) -> dict:
    """Rows for the last stage, whose state is the largest, by backend. The files lie in OUT.

    keep: called with what there is so far after each backend.
    """
    found = {
        "workload": {"stage": STAGES[config.family][-1], "size": f"{config.data.height}x{config.data.width}",
                     "base": config.options().base, "ranks": ranks.world, "pairs_a_step_and_rank": 1},
        "method": {"rounds": rounds, "undisturbed_steps": UNDISTURBED,
                   "load": "page cache: digests, then the state restored"},
        "definition": "stall_seconds: time from the save until the checkpoint has its name, less what the steps "
        "made in it take without one; copy_seconds: of it, training stands still so long; published_seconds: all of "
        "that time; memory: a rank's peak above what it held, over the bytes of the largest share; the slowest rank's",
        "rows": [],
        "failures": [],
    }  # fmt: skip
    for name, values in backends.items():
        if packages := missing(NEEDS.get(name, ())):
            skip(f"the checkpoint of {name}", packages)
            found["failures"].append({"way": name, "error": f"{packages}: not installed"})
            continue
        found["rows"].append(_row(ranks, out / f"checkpoint-{name}", changed(config, values), name, rounds))
        keep(found)
    return found | {"status": "incomplete" if found["failures"] else "ok"}


def _row(ranks: Ranks, folder: Path, config: Config, backend: str, rounds: int) -> dict:
    stage = STAGES[config.family][-1]
    with ranks.device:
        state = State(config, ranks.device, 1)
    state.enter(stage)
    batch = random_batch(config, 1, ranks.device, ranks.rank)

    def step() -> None:
        state.step([prepare(batch, config.data, config.train.precision)])
        state.follow(ranks.world)
        synchronize(ranks.device)

    step()
    size = _bytes(state, ranks)
    saves, memory = [], []
    with Saver(folder, ranks, 0, 1, 0.0, 1, lambda: None) as saver:
        for number in range(1, rounds + 1):
            before = _forget_peak()
            saves.append(_save(saver, state, folder, number, step))
            memory.append(max(dist.gather(_resident("VmHWM") - before)) / max(size))
        saver.save(state, {"pairs": rounds + 1}, last=True)  # with no step after it, to compare with
    expected = state.share(ranks.rank, ranks.world).pieces
    load = []
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
    stall, copy, published = (slowest(values) for values in zip(*saves, strict=True))
    return {
        "key": f"{stage} {config.data.height}x{config.data.width} base {config.options().base} {backend}",
        "backend": backend,
        "bytes": sum(size),
        "share_bytes": max(size),
        "restored_equal": not differs,
        "metrics": {
            "stall_seconds": summary(stall),
            "copy_seconds": summary(copy),
            "published_seconds": summary(published),
            "memory": summary(memory),
            "load_seconds": summary(slowest(load)),
        },
    }


def _save(
    saver: Saver, state: State, folder: Path, number: int, step: Callable[[], None]
) -> tuple[float, float, float]:
    """Seconds that a save takes from training, that it stands still for the copy, and until it has its name."""
    alone = []
    for _ in range(UNDISTURBED):
        began = time.perf_counter()
        step()
        saver.meet(0, False)
        alone.append(time.perf_counter() - began)
    steps = 0
    with together():
        began = time.perf_counter()
        saver.save(state, {"pairs": number}, last=False)
        copy = time.perf_counter() - began
        while not dist.from_rank_0(checkpoint.folder(folder, number).exists()):
            step()
            saver.meet(0, False)
            steps += 1
        saver.settle()
        published = time.perf_counter() - began
    # The copy is lost whatever the noise of the steps says.
    return max(copy, published - steps * statistics.median(alone)), copy, published


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
