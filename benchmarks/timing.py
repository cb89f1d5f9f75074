"""Time on a CPU or GPU: interleaved repeats of several cases, phases of a step, and what a list of times says."""

import itertools
import statistics
import time
from collections.abc import Callable, Iterable
from contextlib import contextmanager

import numpy as np
import torch

from mscgan import dist

# Student's t of 95 % intervals, by degrees of freedom from 1 to 30 (a table of any textbook).
T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


def synchronize(device: torch.device) -> None:
    """Returns when the device has done all work given to it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Laps:
    """Seconds between named moments. On a GPU the moments are CUDA events, so that measuring makes nothing wait."""

    def __init__(self, device: torch.device):
        self.device = device
        self._moments: list[tuple[str, object]] = []

    def lap(self, name: str) -> None:
        """What came since the last lap was `name`; an empty name starts a step."""
        if self.device.type == "cuda":
            moment = torch.cuda.Event(enable_timing=True)
            moment.record()
        else:
            moment = time.perf_counter()
        self._moments.append((name, moment))

    def seconds(self) -> list[dict[str, float]]:
        """For each step its phases' seconds, and "step", their sum. Waits for the device and forgets all laps."""
        synchronize(self.device)
        steps: list[dict[str, float]] = []
        for (last, before), (name, moment) in itertools.pairwise(self._moments):
            if not name:
                continue
            if not last:
                steps.append({"step": 0.0})
            spent = before.elapsed_time(moment) / 1000 if self.device.type == "cuda" else moment - before
            steps[-1][name] = steps[-1].get(name, 0.0) + spent
            steps[-1]["step"] += spent
        self._moments.clear()
        return steps


def interleave(
    cases: dict[str, Callable[[], None]], rounds: int, after: Callable[[], None] = lambda: None, first: int = 0
) -> None:
    """Calls every case once a round, in the opposite order in every other round, so that drift hits all alike.

    after: called after each case. first: the number of the first round; those before were done elsewhere.
    """
    for number in range(first, rounds):
        for name in list(cases) if number % 2 == 0 else list(cases)[::-1]:
            cases[name]()
            after()


def summary(values: list[float]) -> dict[str, float | None]:
    """Median, mean, percentiles, standard deviation and the half width of the mean's 95 % interval by Student's t.

    "ci95" is None for a single value, which says nothing of its spread.
    """
    count = len(values)
    deviation = statistics.stdev(values) if count > 1 else 0.0
    p5, median, p95, p99 = np.percentile(values, (5, 50, 95, 99)).tolist()  # Python's floats, as JSON takes them
    return {
        "count": count,
        "median": median,
        "mean": statistics.fmean(values),
        "p5": p5,
        "p95": p95,
        "p99": p99,
        "std": deviation,
        "ci95": student_t(count - 1) * deviation / count**0.5 if count > 1 else None,
    }


def student_t(degrees: int) -> float:
    """The quantile of Student's t that leaves 2.5 % above it."""
    if degrees <= len(T):
        return T[degrees - 1]
    z = 1.959964  # the normal distribution's, from which the quantile differs by a series in 1 / degrees
    return z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)


def rate(seconds: list[float], count: float) -> dict[str, float | None]:
    """`summary` of the time and of `count` things a second: the median is count / median time."""
    times = summary(seconds)
    spread = times["ci95"]
    return {"median": count / times["median"], "p5": count / times["p95"], "p95": count / times["p5"],
            "ci95": None if spread is None else count / times["mean"] * spread / times["mean"]}  # fmt: skip


def slowest(values: Iterable[float]) -> list[float]:
    """The largest of each value over the ranks, which all call it with as many."""
    largest = torch.tensor(list(values), dtype=torch.float64)
    torch.distributed.all_reduce(largest, op=torch.distributed.ReduceOp.MAX)
    return largest.tolist()


def slowest_steps(steps: list[dict[str, float]]) -> list[dict[str, float]]:
    """What `Laps.seconds` gave, each phase of each step that of the rank on which it took longest."""
    over_ranks = iter(slowest(seconds for step in steps for seconds in step.values()))
    return [{name: next(over_ranks) for name in step} for step in steps]


def halving(batch: int, measure: Callable[[int], dict]) -> tuple[dict, list[dict]]:
    """measure(batch), with half the batch after each out of memory.

    Returns:
        The result, and for each batch that did not fit {"batch", "error"}. Every rank has to run out of memory in the
        same place, as equal devices with equal batches do.

    Raises:
        torch.OutOfMemoryError: not even a batch of one fits.
    """
    failures = []
    while True:
        try:
            return measure(batch), failures
        except torch.OutOfMemoryError as error:
            failures.append({"batch": batch, "error": str(error).split("\n")[0]})
            if batch == 1:
                raise
        torch.cuda.empty_cache()
        batch //= 2


def call_seconds(call: Callable[[], object], device: torch.device, at_least: float = 0.05) -> tuple[float, int]:
    """Mean seconds of a call, over as many calls in a row as last `at_least` seconds, and how many that were."""
    count = 1
    while True:
        synchronize(device)
        began = time.perf_counter()
        for _ in range(count):
            call()
        synchronize(device)
        spent = time.perf_counter() - began
        if spent >= at_least or count >= 10_000:
            return spent / count, count
        count = min(10_000, max(count + 1, int(count * 1.2 * at_least / max(spent, 1e-6))))


@contextmanager
def together():
    """All ranks begin and end what is inside at the same time."""
    dist.barrier()
    yield
    dist.barrier()
