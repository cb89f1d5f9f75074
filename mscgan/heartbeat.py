"""A rank's sign of life: a file in the run folder, touched once a step; on request its stacks and last collectives.

launch/watchdog.py, in the process that started the rank, watches the file and ends a rank that fell silent. Each
attempt has a folder of its own, so that one that is still ending touches nothing of the next one's. How long every part
of a run waits for a hung rank stands here, so that the watchdog, which says who hangs and where, is the first to end
it: a collective that gave up before would end the ranks that wait, as if they had failed.
"""

import atexit
import contextlib
import faulthandler
import json
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from mscgan import files
from mscgan.tolerance import Tolerance

ATTEMPT = "MSCGAN_HEARTBEAT"  # the folder's name, which launch/job.py sets for the rank and for its watchdog
HANG_SECONDS = 900.0  # silence after which the watchdog ends a rank, unless the launcher's option says otherwise
HANG = "MSCGAN_HANG_SECONDS"  # the environment variable in which the launcher tells its ranks what it took
SETUP_SECONDS = 900.0  # the watchdog's least patience before the first step ends (imports, compiling) and at the end
AFTER_THE_WATCHDOG = 60.0  # for its looks at the files of a slow file system and for the dump
EVERY_SECONDS = 1.0  # quick steps must not cost the shared file system a request each

_file: Path | None = None
_text = ""  # what the file holds
_touched = 0.0
_tolerance = Tolerance(lambda text: print(text, file=sys.stderr, flush=True))


def collective_seconds(hang_seconds: float | None = None) -> float:
    """How long a rank waits in a collective before it gives up: longer than the watchdog in every case.

    Twice the watchdog's longest patience, as it begins anew once for a rank on a CPU that computed and then waits
    (launch/watchdog.py).

    Args:
        hang_seconds: the watchdog's; None takes the launcher's, or HANG_SECONDS where no launcher started this process.
    """
    if hang_seconds is None:
        hang_seconds = float(os.environ.get(HANG, HANG_SECONDS))
    return 2 * max(SETUP_SECONDS, hang_seconds) + AFTER_THE_WATCHDOG


def attempt_name(job: str, attempt: int) -> str:
    """What an attempt's folder is called under a launcher."""
    return f"{job}-{attempt}"


def path(run: Path | str, rank: int, attempt: str = "") -> Path:
    """The rank's file: RUN/heartbeat/ATTEMPT/rank-00000; it holds `HOST PID DEVICE STEPS`, of which `start` tells.

    attempt: its folder's name; empty: this process's.
    """
    return Path(run) / "heartbeat" / (attempt or _attempt()) / f"rank-{rank:05d}"


def _attempt() -> str:
    return os.environ.get(ATTEMPT) or f"{socket.gethostname()}-{os.getpid()}"


def sweep(run: Path | str) -> None:
    """Removes what other attempts left. Only the owner of the run does so (mscgan/lease.py), before its ranks start."""
    for left in (Path(run) / "heartbeat").glob("*"):
        if left.name != _attempt():
            shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)


def collectives_path(run: Path | str, rank: int, attempt: str = "") -> Path:
    """RUN/heartbeat/ATTEMPT/collectives-00000.json: the last collectives of a rank that was asked for them."""
    return path(run, rank, attempt).with_name(f"collectives-{rank:05d}.json")


def start(run: Path | str, rank: int, device: str, steps: int, collectives: Callable[[], dict] | None = None) -> None:
    """Writes the rank's file. From now on SIGQUIT prints the stacks of all threads to stderr and writes the rank's last
    collectives, also while the main thread waits in one.

    Args:
        device: cpu | cuda, on which it computes: a CPU that is at work is not hung (launch/watchdog.py).
        steps: the optimiser steps that lie before it.
        collectives: what tells them, as `mscgan.dist.collectives` does; None: no such file is written.

    When the interpreter ends the file goes: the rank no longer beats, and nobody is to miss it.
    """
    global _file, _text, _touched
    if collectives is not None:
        _tell_on_request(collectives_path(run, rank), rank, collectives)
    faulthandler.register(signal.SIGQUIT, all_threads=True, chain=collectives is not None)
    _file, _text = path(run, rank), f"{socket.gethostname()} {os.getpid()} {device} {steps}\n"
    with _tolerance.trying(str(_file)):
        _write()
        collectives_path(run, rank).unlink(missing_ok=True)  # an earlier start's
    _touched = time.monotonic()
    atexit.register(_leave, _file)


def _leave(file: Path) -> None:
    with contextlib.suppress(OSError):  # other ranks are still there, or the next attempt has swept
        file.unlink()
        file.parent.rmdir()


def beat() -> None:
    """Touches the rank's file, at most once a second, and makes it anew where it was removed; nothing happens before
    `start`. Where that fails it is said once and training goes on: launch/watchdog.py sees whether the folder can be
    written, and takes silence for nothing where it cannot."""
    global _touched
    if _file is not None and time.monotonic() - _touched >= EVERY_SECONDS:
        with _tolerance.trying(str(_file)):
            try:
                os.utime(_file)
            except FileNotFoundError:
                _write()
        _touched = time.monotonic()


def _write() -> None:
    assert _file is not None
    _file.parent.mkdir(parents=True, exist_ok=True)
    _file.write_text(_text)


def _tell_on_request(file: Path, rank: int, collectives: Callable[[], dict]) -> None:
    """Writes `file` at each SIGQUIT, from a thread: Python runs a handler in the main thread, once that is back from C,
    but writes the signal's number into a pipe at once."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def tell() -> None:
        while True:
            if os.read(reader, 1)[0] == signal.SIGQUIT:
                about = {"rank": rank, "host": socket.gethostname(), "unix": time.time()}
                try:
                    files.write(file, json.dumps(about | collectives()))
                except OSError as error:
                    print(f"{file} cannot be written ({error.strerror})", file=sys.stderr, flush=True)

    signal.signal(signal.SIGQUIT, lambda *_: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=tell, name="collectives", daemon=True).start()
