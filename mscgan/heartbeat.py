"""A rank's sign of life: a file in the run folder, touched once a step, and a stack dump on request.

launch/watchdog.py, in the process that started the rank, watches the file and ends a rank that fell silent.
Each attempt has a folder of its own, so that one that is still ending touches nothing of the next one's.
"""

import atexit
import contextlib
import faulthandler
import os
import shutil
import signal
import socket
import time
from pathlib import Path

ATTEMPT = "MSCGAN_HEARTBEAT"  # the folder's name, which launch/job.py sets for the rank and for its watchdog
EVERY_SECONDS = 1.0  # quick steps must not cost the shared file system a request each

_file: Path | None = None
_touched = 0.0


def path(run: Path | str, rank: int) -> Path:
    """The rank's file: RUN/heartbeat/ATTEMPT/rank-00000; it holds `HOST PID DEVICE STEPS`, of which `start` tells."""
    return Path(run) / "heartbeat" / _attempt() / f"rank-{rank:05d}"


def _attempt() -> str:
    return os.environ.get(ATTEMPT) or f"{socket.gethostname()}-{os.getpid()}"


def sweep(run: Path | str) -> None:
    """Removes what other attempts left. Only the owner of the run does so (mscgan/lease.py), before its ranks start."""
    for left in (Path(run) / "heartbeat").glob("*"):
        if left.name != _attempt():
            shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)


def start(run: Path | str, rank: int, device: str, steps: int) -> None:
    """Writes the rank's file and, from now on, prints the stacks of all threads to stderr on SIGQUIT.

    Args:
        device: cpu | cuda, on which it computes: a CPU that is at work is not hung (launch/watchdog.py).
        steps: the optimiser steps that lie before it.

    When the interpreter ends the file goes: the rank no longer beats, and nobody is to miss it.
    """
    global _file, _touched
    faulthandler.register(signal.SIGQUIT, all_threads=True)
    _file = path(run, rank)
    _file.parent.mkdir(parents=True, exist_ok=True)
    _file.write_text(f"{socket.gethostname()} {os.getpid()} {device} {steps}\n")
    _touched = time.monotonic()
    atexit.register(_leave, _file)


def _leave(file: Path) -> None:
    with contextlib.suppress(OSError):  # other ranks are still there, or the next attempt has swept
        file.unlink()
        file.parent.rmdir()


def beat() -> None:
    """Touches the rank's file, at most once a second; nothing happens before `start`."""
    global _touched
    if _file is not None and time.monotonic() - _touched >= EVERY_SECONDS:
        with contextlib.suppress(FileNotFoundError):  # swept by the run's new owner: mscgan/lease.py stops this one
            os.utime(_file)
        _touched = time.monotonic()
