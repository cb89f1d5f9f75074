"""What a run says while it trains: a progress bar, metrics.jsonl, TensorBoard, and the GPU's own meters.

Only rank 0 speaks; on other ranks every method returns at once. Values must be the mean over ranks already.
Each line of metrics.jsonl is one JSON object:
    pairs (seen so far), steps (of the optimisers so far, over all stages and restarts), epoch, stage, every loss term
    (mscgan/losses.py says what each is), pairs_per_second, data_wait (share of the time since the last line spent
    waiting for data, 0 to 1), replaced_pairs (pairs since the last line, over all ranks, that others took the place of
    as an image of theirs could not be decoded), seconds (of training so far, over all restarts), memory_bytes (peak of
    the process), and with an NVIDIA GPU power_watts, gpu_utilisation (0 to 1), gpu_memory_bytes (in use on the device).
"""

import json
import math
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np
import pynvml
import torch
from PIL import Image
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from mscgan import files
from mscgan.pictures import save_png

PLAIN_SECONDS = 10  # between two lines of progress where there is no terminal
FIRST_SECONDS = 1  # after the start, the first step's end is worth a line of its own
# launch/local.py sets it where it shows this process's log on a terminal: how wide that is. The bar goes into the log.
COLUMNS = "MSCGAN_COLUMNS"


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
    """

    def __init__(self, run: Path, rank: int, total_pairs: int, start_pairs: int, start_steps: int = 0, batch: int = 1):
        self.speaks = rank == 0
        if not self.speaks:
            return
        self.run, self.total, self._batch = Path(run), total_pairs, batch
        self.run.mkdir(parents=True, exist_ok=True)
        path = self.run / "metrics.jsonl"
        self._seconds_before = _drop_beyond(path, start_pairs)
        self._lines = path.open("a")
        self._board = SummaryWriter(self.run / "tensorboard", purge_step=start_pairs + 1)
        self._gpu = _open_gpu()
        self._bar = None
        if sys.stderr.isatty() or COLUMNS in os.environ:
            columns = os.environ.get(COLUMNS)
            self._bar = tqdm(
                total=total_pairs, initial=start_pairs, unit="pair", unit_scale=True, dynamic_ncols=not columns,
                ncols=int(columns) if columns else None, mininterval=1.0 if columns else 0.1,
            )  # fmt: skip
        self._start = self._since = time.monotonic()
        self._at, self._steps = start_pairs, start_steps
        self._pairs, self._wait, self._losses = 0, 0.0, ""
        self._said, self._unsaid = -math.inf, ""

    def say(self, text: str) -> None:
        """One line on stderr, above the progress bar where there is one."""
        if not self.speaks:
            return
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)

    def step(self, pairs: int, wait_seconds: float, stage: str) -> None:
        """Counts one step: the pairs it saw over all ranks, and the seconds that it waited for data.

        Where the log is silent for long, as before its first line, progress is said from here: at the end of the first
        step that lasts, and whenever twice PLAIN_SECONDS have passed.
        """
        if not self.speaks:
            return
        self._at += pairs
        self._steps += 1
        self._pairs += pairs
        self._wait += wait_seconds
        if self._bar is not None:
            self._bar.set_description(f"stage {stage}, {self._count()}", refresh=False)
            self._bar.update(pairs)
            return
        now = time.monotonic()
        first = self._said == -math.inf and now - self._start >= FIRST_SECONDS
        if first or now - max(self._said, self._start) >= 2 * PLAIN_SECONDS:
            elapsed = max(now - self._since, 1e-9)
            self._progress(self._at, stage, self._pairs / elapsed, self._wait / elapsed, now)

    def log(self, pairs: int, epoch: int, stage: str, terms: dict[str, float], replaced_pairs: int = 0) -> None:
        """Writes one line on the steps since the last call, in which `replaced_pairs` were replaced; `pairs` is those
        seen so far. A term that is not finite becomes null, since JSON has no NaN."""
        if not self.speaks:
            return
        now = time.monotonic()
        elapsed = max(now - self._since, 1e-9)
        terms = {name: float(value) for name, value in terms.items()}
        meters = {
            "pairs_per_second": self._pairs / elapsed,
            "data_wait": min(self._wait / elapsed, 1.0),
            "replaced_pairs": replaced_pairs,
            "seconds": self._seconds_before + now - self._start,
            "memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        } | _read_gpu(self._gpu)
        self._since, self._pairs, self._wait = now, 0, 0.0

        finite = {name: value if math.isfinite(value) else None for name, value in terms.items()}
        line = {"pairs": pairs, "steps": self._steps, "epoch": epoch, "stage": stage} | finite | meters
        self._lines.write(json.dumps(line, allow_nan=False) + "\n")
        self._lines.flush()
        for name, value in terms.items():
            self._board.add_scalar(f"loss/{name}", value, pairs)
        for name, value in meters.items():
            self._board.add_scalar(f"meters/{name}", value, pairs)
        self._board.flush()
        self._losses = ", " + " ".join(f"{name} {value:.3g}" for name, value in terms.items())
        self._progress(pairs, stage, meters["pairs_per_second"], meters["data_wait"], now)

    def pictures(self, pairs: int, grid: Image.Image) -> None:
        """Writes a grid to RUN/samples/pairs-000012345.png and to TensorBoard."""
        if not self.speaks:
            return
        save_png(grid, self.run / "samples" / f"pairs-{pairs:09d}.png")
        self._board.add_image("samples", np.asarray(grid), pairs, dataformats="HWC")

    def close(self) -> None:
        """Says the last line, if it was held back, and closes the files."""
        if not self.speaks:
            return
        if self._unsaid:
            print(self._unsaid, file=sys.stderr, flush=True)
        if self._bar is not None:
            self._bar.close()
        self._board.close()
        self._lines.close()

    def _progress(self, pairs: int, stage: str, rate: float, wait: float, now: float) -> None:
        """Into the bar, or as a line: now, or with a later one if the last was said a moment ago."""
        tail = f"data wait {min(wait, 1.0):.0%}{self._losses}"
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


def _drop_beyond(path: Path, pairs: int) -> float:
    """Keeps the whole lines up to `pairs` in metrics.jsonl; returns the `seconds` of the last, 0 without one."""
    if not path.exists():
        return 0.0
    kept, seconds = [], 0.0
    for text in path.read_text().splitlines():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:  # the line that a killed run was writing
            continue
        if line["pairs"] <= pairs:
            kept.append(text + "\n")
            seconds = line["seconds"]
    files.write(path, "".join(kept))
    return seconds


def _open_gpu():
    """NVML's handle of the CUDA device of this process; None, said once, where there is none or no NVML."""
    if not torch.cuda.is_available():
        print("no CUDA device: metrics.jsonl has no power, utilisation or GPU memory", file=sys.stderr)
        return None
    try:
        pynvml.nvmlInit()
        # By UUID: NVML counts every device of the machine, CUDA those of CUDA_VISIBLE_DEVICES.
        uuid = torch.cuda.get_device_properties(torch.cuda.current_device()).uuid
        return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    except pynvml.NVMLError as error:
        print(f"no NVML ({error}): metrics.jsonl has no power, utilisation or GPU memory", file=sys.stderr)
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
