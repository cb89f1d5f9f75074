"""metrics.jsonl as a file: what of it is a run's own, and where a start goes on in it.

A run's line is a flat JSON object with `pairs`, `seconds` and `stage` (mscgan/telemetry.py lists the rest). Users edit
files and disks fill up, so anything else may stand there too.
"""

import json
import math
import os
from pathlib import Path

from mscgan import files

LARGEST = 1e15  # of counts and integers; JSON's have no end
METERS = frozenset(  # what a line has beside the loss terms
    "pairs steps epoch stage pairs_per_second data_wait step_seconds replaced_pairs seconds memory_bytes power_watts "
    "gpu_utilisation gpu_memory_bytes data_wait_rank data_wait_host step_seconds_rank step_seconds_host".split()
)


def read(path: Path) -> list[dict]:
    """The run's own lines, in order. Raises OSError."""
    return [line for _, line in _lines(path) if line is not None]


def cut(path: Path, pairs: int) -> tuple[float, str]:
    """Keeps a run's lines up to `pairs`; those beyond came from a start that was killed, and come again.

    Other lines move to metrics.jsonl.foreign beside it, and something that is no file (a FIFO) moves there as a whole.

    Returns:
        The `seconds` of the last line that stays, 0.0 without one, and a sentence on what moved, or "".

    Raises:
        OSError: the file cannot be read or the folder not be written to.
    """
    aside = path.with_name(f"{path.name}.foreign")
    if os.path.lexists(path) and not path.is_file():
        while os.path.lexists(aside):
            aside = aside.with_name(f"{aside.name}+")
        os.rename(path, aside)
        return 0.0, f"{path} is no file; it is now {aside}"
    if not path.exists():
        return 0.0, ""
    lines = _lines(path)
    foreign = [text for text, line in lines if line is None]
    if foreign:
        files.append(aside, b"".join(foreign))
    kept = [(text, line) for text, line in lines if line is not None and line["pairs"] <= pairs]
    files.write(path, b"".join(text for text, _ in kept))
    moved = f"{len(foreign)} lines of {path} are not a run's; they are now in {aside}" if foreign else ""
    return kept[-1][1]["seconds"] if kept else 0.0, moved


def _lines(path: Path) -> list[tuple[bytes, dict | None]]:
    """Each line with what it says, None where it is not the run's. What follows the last newline is neither: it was
    being written when a process was killed."""
    texts = path.read_bytes().split(b"\n")[:-1]
    return [(text + b"\n", _parse(text)) for text in texts if text.strip()]


def _parse(text: bytes) -> dict | None:
    """A run's line; None for anything else."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):  # no JSON, not UTF-8, digits without end; or nested too deep
        return None
    if not isinstance(line, dict) or not isinstance(line.get("stage"), str):
        return None
    counted = all(_is_number(line.get(name)) and 0 <= line[name] <= LARGEST for name in ("pairs", "seconds"))
    flat = all(_is_number(value) or isinstance(value, str | None) for value in line.values())
    return line if counted and flat else None


def _is_number(value) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST
