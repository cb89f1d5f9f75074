"""Where the time of a step goes, kernel by kernel, as torch's profiler sees it."""

import gc
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity

from benchmarks.needs import missing, skip
from benchmarks.step import NEEDS, build
from benchmarks.timing import Laps, synchronize
from mscgan.dist import Ranks
from mscgan.keys import Config

LONGEST = 25  # kernels of a way that get a row; the rest is one


def measure(
    ranks: Ranks,
    out: Path,
    config: Config,
    stage: str,
    ways: list[str],
    batch: int,
    steps: int,
    people: int,
    keep: Callable[[dict], None] = lambda found: None,
) -> dict:
    """Rows for each way and kernel (on a CPU: operator), of `steps` steps after three others, on this rank.

    keep: called with what there is so far after each way.
    """
    found = {
        "workload": {"stage": stage, "size": f"{config.data.height}x{config.data.width}", "batch": batch},
        "method": {"warm_up_steps": 3, "steps": steps},
        "definition": "ms: a step's time in a kernel, by torch.profiler; kernels that overlap count each",
        "rows": [],
        "failures": [],
    }
    for way in ways:
        if packages := missing(NEEDS.get(way.partition("+")[0], ())):
            skip(f"the profile of {way!r}", packages)
            found["failures"].append({"way": way, "error": f"{packages}: not installed"})
            continue
        laps = Laps(ranks.device)
        step = build(way, config, stage, batch, ranks, laps, out, people)
        found["rows"] += _rows(way, step, steps, ranks.device)
        del step
        gc.collect()
        keep(found)
    return found | {"status": "incomplete" if found["failures"] else "ok"}


def _rows(way: str, step: Callable, steps: int, device: torch.device) -> list[dict]:
    for _ in range(3):
        step()
    synchronize(device)
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if on_gpu else [])
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(steps):
            step()
        synchronize(device)
    spent = {}
    for event in profile.key_averages():
        microseconds = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        # On a GPU an operator's entry repeats the time of the kernels that it starts.
        if microseconds and (not on_gpu or event.device_type != torch.autograd.DeviceType.CPU):
            spent[event.key] = microseconds / 1000 / steps, event.count / steps
    total = sum(ms for ms, _ in spent.values())
    ordered = sorted(spent.items(), key=lambda item: -item[1][0])
    rest = ordered[LONGEST:]
    if rest:
        ordered = [*ordered[:LONGEST], ("all others", tuple(map(sum, zip(*(numbers for _, numbers in rest)))))]
    return [
        {"key": f"{way} {name}", "way": way, "kernel": name, "calls": calls, "metrics": {"ms": ms, "share": ms / total}}
        for name, (ms, calls) in ordered
    ]
