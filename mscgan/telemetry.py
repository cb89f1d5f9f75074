"""What a run says while it trains: a progress bar, metrics.jsonl, TensorBoard, trackers, and the GPU's own meters.

Only rank 0 speaks. The other ranks count their steps, for `pace`, which every rank calls: the slowest of them sets the
pace of all, so it is its figures that are told. Loss terms must be the mean over ranks already. What cannot be written
stops no training: it is said once (mscgan/tolerance.py), and numbers are kept and written when that works.
Each line of metrics.jsonl is one JSON object:
    pairs (seen so far), steps (of the optimisers so far, over all stages and restarts), epoch, stage, every loss term
    (mscgan/losses.py says what each is), pairs_per_second, data_wait (share of the time since the last line spent
    waiting for data, 0 to 1, of the rank that waited longest), step_seconds (from asking for a step's data to its end,
    of the rank that took longest), data_wait_rank and data_wait_host, step_seconds_rank and step_seconds_host (which
    that is, where one stands out), replaced_pairs (pairs since the last line, over all ranks, that others took the
    place of as an image of theirs could not be decoded), seconds (of training so far, over all restarts), memory_bytes
    (peak of the process), and with an NVIDIA GPU power_watts, gpu_utilisation (0 to 1), gpu_memory_bytes (in use on the
    device).
"""

import json
import math
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pynvml
import torch
from PIL import Image
from tqdm import tqdm

from mscgan import board, curve, dist, files
from mscgan.keys import Config
from mscgan.pictures import save_png
from mscgan.tolerance import Tolerance
from mscgan.trackers import Tracker

PLAIN_SECONDS = 10  # between two lines of progress where there is no terminal
WORTH_A_NAME = 0.02  # share of the time waited for data from which the progress line says who waited
FIRST_SECONDS = 1  # after the start, the first step's end is worth a line of its own
KEPT_BYTES = 16 << 20  # of what could not be written, of each kind; with a full disk for long, the newest is dropped
# launch/local.py sets it where it shows this process's log on a terminal: how wide that is. The bar goes into the log.
COLUMNS = "MSCGAN_COLUMNS"


class Pace(NamedTuple):
    """How fast the steps since the last `Telemetry.pace` were."""

    seconds: float  # since then, on this rank
    slowest: dict[str, dist.Largest]  # data_wait and step_seconds of the rank where it is largest


class Telemetry:
    """Metrics, pictures and progress of one start of a run.

    Args:
        run: the run's folder.
        rank: this process's rank; all but 0 stay silent.
        total_pairs: pairs that the whole run will see.
        start_pairs: pairs seen before this start (0, or where the run goes on from). Lines of metrics.jsonl and
            TensorBoard's points beyond it came from a run that was killed and are dropped: the curve is one.
        start_steps: optimiser steps before this start, whatever batch they had.
        batch: pairs a step from now on. What is left is counted in such steps.
        config: whose log.trackers follow the run (mscgan/trackers.py); without one, none does.
    """

    def __init__(
        self,
        run: Path,
        rank: int,
        total_pairs: int,
        start_pairs: int,
        start_steps: int = 0,
        batch: int = 1,
        config: Config | None = None,
    ):
        self.speaks = rank == 0
        self._since = time.monotonic()
        self._wait, self._busy, self._count_since = 0.0, 0.0, 0
        if not self.speaks:
            return
        self.run, self.total, self._batch = Path(run), total_pairs, batch
        self._bar = None
        self._lost_lines = 0
        self._tolerance = Tolerance(self.say)
        self._kept: dict[str, bytes] = {}
        self._seconds_before = 0.0
        self._metrics = self.run / "metrics.jsonl"
        self._from: int | None = start_pairs  # where metrics.jsonl is still to be cut
        self._write("metrics.jsonl", b"")
        self._board = board.Board(self.run / "tensorboard", start_pairs + 1)
        self._trackers = [Tracker(name, self.run, config, self.say) for name in config.log.trackers] if config else []
        self._gpu = _open_gpu(self.say)
        if sys.stderr.isatty() or COLUMNS in os.environ:
            columns = os.environ.get(COLUMNS)
            self._bar = tqdm(
                total=total_pairs, initial=start_pairs, unit="pair", unit_scale=True, dynamic_ncols=not columns,
                ncols=int(columns) if columns else None, mininterval=1.0 if columns else 0.1,
            )  # fmt: skip
        self._start = self._since
        self._at, self._steps = start_pairs, start_steps
        self._pairs, self._slowest, self._losses = 0, "", ""
        self._said, self._unsaid = -math.inf, ""

    def say(self, text: str) -> None:
        """One line on stderr, above the progress bar where there is one."""
        if not self.speaks:
            return
        try:
            if self._bar is not None:
                self._bar.write(text, file=sys.stderr)
            else:
                print(text, file=sys.stderr, flush=True)
        except OSError:  # the log is on the full disk too
            self._lost_lines += 1
            return
        if self._lost_lines:
            lost, self._lost_lines = self._lost_lines, 0
            self.say(f"{lost} lines could not be written to this log")

    def step(self, pairs: int, wait_seconds: float, stage: str, step_seconds: float = 0.0) -> None:
        """Counts one step: the pairs it saw over all ranks, the seconds that this rank waited for data, and those that
        its step took with that wait.

        Where the log is silent for long, as before its first line, progress is said from here: at the end of the first
        step that lasts, and whenever twice PLAIN_SECONDS have passed.
        """
        self._wait += wait_seconds
        self._busy += step_seconds
        self._count_since += 1
        if not self.speaks:
            return
        self._at += pairs
        self._steps += 1
        self._pairs += pairs
        if self._bar is not None:
            with self._tolerance.trying("the progress bar"):
                self._bar.set_description(f"stage {stage}, {self._count()}", refresh=False)
                self._bar.update(pairs)
            return
        now = time.monotonic()
        first = self._said == -math.inf and now - self._start >= FIRST_SECONDS
        if first or now - max(self._said, self._start) >= 2 * PLAIN_SECONDS:
            elapsed = max(now - self._since, 1e-9)
            own = f"data wait {min(self._wait / elapsed, 1.0):.0%}"
            self._progress(self._at, stage, self._pairs / elapsed, self._slowest or own, now)

    def pace(self) -> Pace:
        """Ends the steps that the next line of `log` is on. Every rank calls it."""
        now = time.monotonic()
        elapsed = max(now - self._since, 1e-9)
        slowest = dist.largest(
            {"data_wait": min(self._wait / elapsed, 1.0), "step_seconds": self._busy / max(self._count_since, 1)}
        )
        self._since, self._wait, self._busy, self._count_since = now, 0.0, 0.0, 0
        return Pace(elapsed, slowest)

    def log(
        self, pace: Pace, pairs: int, epoch: int, stage: str, terms: dict[str, float], replaced_pairs: int = 0
    ) -> None:
        """Writes one line on the steps of `pace`, in which `replaced_pairs` were replaced; `pairs` is those seen so
        far. A term that is not finite becomes null, since JSON has no NaN."""
        if not self.speaks:
            return
        now = self._since
        terms = {name: float(value) for name, value in terms.items()}
        meters = {
            "pairs_per_second": self._pairs / pace.seconds,
            "data_wait": pace.slowest["data_wait"].value,
            "step_seconds": pace.slowest["step_seconds"].value,
            "replaced_pairs": replaced_pairs,
            "seconds": self._seconds_before + now - self._start,
            "memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        } | _read_gpu(self._gpu)
        self._pairs = 0
        named: dict[str, int | str] = {}
        for name, one in pace.slowest.items():
            if one.rank is not None:
                named |= {f"{name}_rank": one.rank, f"{name}_host": one.host}

        finite = {name: value if math.isfinite(value) else None for name, value in terms.items()}
        line = {"pairs": pairs, "steps": self._steps, "epoch": epoch, "stage": stage} | finite | meters | named
        self._write("metrics.jsonl", json.dumps(line, allow_nan=False).encode() + b"\n")
        points = {f"loss/{name}": value for name, value in terms.items()}
        points |= {f"meters/{name}": value for name, value in meters.items()}
        self._write("TensorBoard", board.scalars(points, pairs))
        self._wake_trackers()
        self._losses = ", " + " ".join(f"{name} {value:.3g}" for name, value in terms.items())
        self._slowest = _said(pace.slowest)
        self._progress(pairs, stage, meters["pairs_per_second"], self._slowest, now)

    def pictures(self, pairs: int, grid: Image.Image | None) -> None:
        """Writes a grid to RUN/samples/pairs-000012345.png and to TensorBoard; nothing where none could be made."""
        if not self.speaks or grid is None:
            return
        with self._tolerance.trying("a picture"):
            save_png(grid, self.run / "samples" / f"pairs-{pairs:09d}.png")
        self._write("TensorBoard", board.picture("samples", np.asarray(grid), pairs))
        self._wake_trackers()

    def close(self) -> None:
        """Says the last line, if it was held back, and what could not be written to the end."""
        if not self.speaks:
            return
        if self._unsaid:
            self.say(self._unsaid)
        if self._bar is not None:
            with self._tolerance.trying("the progress bar"):
                self._bar.close()
        for kind in list(self._kept):
            self._write(kind, b"")
        for tracker in self._trackers:
            tracker.close()
        for kind, count in self._tolerance.failed.items():
            self.say(f"warning: {kind} could not be written to the end; {count} attempts failed")

    def _wake_trackers(self) -> None:
        for tracker in self._trackers:
            tracker.wake()

    def _write(self, kind: str, data: bytes) -> None:
        """Appends to metrics.jsonl or TensorBoard's file, with all that could not be written before."""
        data = self._kept.get(kind, b"") + data
        with self._tolerance.trying(kind):
            if kind == "metrics.jsonl":
                self._go_on_with_curve()
                files.append(self._metrics, data)
            else:
                self._board.write(data)
            self._kept.pop(kind, None)
            return
        if len(data) <= KEPT_BYTES:
            self._kept[kind] = data

    def _go_on_with_curve(self) -> None:
        """Cuts metrics.jsonl where this start begins, once."""
        if self._from is not None:
            self._seconds_before, moved = curve.cut(self._metrics, self._from)
            self._from = None
            if moved:
                self.say(f"warning: {moved}")

    def _progress(self, pairs: int, stage: str, rate: float, slowest: str, now: float) -> None:
        """Into the bar, or as a line: now, or with a later one if the last was said a moment ago."""
        tail = f"{slowest}{self._losses}"
        if self._bar is not None:
            self._bar.set_postfix_str(tail)
            return
        left = tqdm.format_interval((self.total - pairs) / rate) if rate > 0 else "?"
        count = f"{pairs}/{self.total} pairs, {self._count()}"
        self._unsaid = f"stage {stage}: {count}, {rate:.1f} pairs/s, {left} left, {tail}"
        if now - self._said >= PLAIN_SECONDS:
            self.say(self._unsaid)
            self._said, self._unsaid = now, ""

    def _count(self) -> str:
        return f"step {self._steps} of {self._steps + math.ceil((self.total - self._at) / self._batch)}"


def _said(slowest: dict[str, dist.Largest]) -> str:
    """`data wait 40% (rank 1 on n2), steps of 1.3 s (rank 1 on n2)`; the steps where a rank stands out."""
    wait, step = slowest["data_wait"], slowest["step_seconds"]
    told = f"data wait {wait.value:.0%}"
    if wait.rank is not None and wait.value >= WORTH_A_NAME:
        told += f" (rank {wait.rank} on {wait.host})"
    return told if step.rank is None else f"{told}, steps of {step.value:.2g} s (rank {step.rank} on {step.host})"


def _open_gpu(say: Callable[[str], None]):
    """NVML's handle of the CUDA device of this process; None, said once, where there is none or no NVML."""
    if not torch.cuda.is_available():
        say("no CUDA device: metrics.jsonl has no power, utilisation or GPU memory")
        return None
    try:
        pynvml.nvmlInit()
        # By UUID: NVML counts every device of the machine, CUDA those of CUDA_VISIBLE_DEVICES.
        uuid = torch.cuda.get_device_properties(torch.cuda.current_device()).uuid
        return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    except pynvml.NVMLError as error:
        say(f"no NVML ({error}): metrics.jsonl has no power, utilisation or GPU memory")
        return None


def _read_gpu(handle) -> dict[str, float]:
    """The device's meters; one that it does not have (a MIG slice has no utilisation) is left out."""
    if handle is None:
        return {}
    read = {
        "power_watts": lambda: pynvml.nvmlDeviceGetPowerUsage(handle) / 1000,
        "gpu_utilisation": lambda: pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100,
        "gpu_memory_bytes": lambda: pynvml.nvmlDeviceGetMemoryInfo(handle).used,
    }
    meters = {}
    for name, meter in read.items():
        try:
            meters[name] = meter()
        except pynvml.NVMLError:
            continue
    return meters
