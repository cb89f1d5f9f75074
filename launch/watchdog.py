"""Waits for a training process and ends it when it hangs, with a stack dump of every rank in the log.

A hung rank stops all the others inside a collective, so all fall silent. The first watchdog to see it says so in
RUN/heartbeat/hung; every other one then dumps the stacks of its own rank too, before the scheduler ends them all.
"""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from mscgan.errors import HUNG

POLL_SECONDS = 1.0
SETUP_SECONDS = 900.0  # least patience before the first step ends (imports from a cold disk, compiling) and at the end
DUMP_SECONDS = 4.0  # from the dump to the end of the rank: the other nodes need time to see the mark and to dump


def watch(child: subprocess.Popen, heartbeat: Path, timeout_seconds: float) -> int:
    """Waits for the child to end or to fall silent.

    Silence is counted from the last change of the heartbeat file that was seen here, or from the call while none is,
    by this process's own clock: skew between nodes does not matter, and time for which the whole job was suspended
    does not count. Before its first beat, and when it has removed its file at its end, the child has SETUP_SECONDS at
    least. The child gets SIGQUIT (its stacks go to stderr, `mscgan.heartbeat.start`), SIGCONT (a stopped
    process dumps too) and, a few seconds later, SIGKILL.

    Returns:
        The child's return code as `subprocess` gives it (negative: ended by that signal), or HUNG.
    """
    mark = heartbeat.parent / "hung"
    old_mark, last, silent = _read(mark), _changed(heartbeat), 0.0
    beats = -1  # the first change is the file's beginning
    poll = min(POLL_SECONDS, timeout_seconds / 4)
    while True:
        try:
            return child.wait(poll)
        except subprocess.TimeoutExpired:
            silent += poll
        if _changed(heartbeat) != last:
            last, silent = _changed(heartbeat), 0.0
            beats = beats + 1 if last else -1
        limit = timeout_seconds if beats > 0 else max(SETUP_SECONDS, timeout_seconds)
        if silent >= limit:
            reason = f"{heartbeat.name} on {socket.gethostname()} gave no sign of life for {limit:g} s"
            _write(mark, f"{reason} ({time.strftime('%Y-%m-%d %H:%M:%S')})\n")
            break
        announced = _read(mark)
        if announced not in ("", old_mark):
            reason = announced.strip()
            break
    print(f"watchdog: {reason}; the stacks of {heartbeat.name} follow, then it is ended", file=sys.stderr, flush=True)
    child.send_signal(signal.SIGQUIT)
    child.send_signal(signal.SIGCONT)
    try:
        child.wait(DUMP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    return HUNG


def _changed(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _read(file: Path) -> str:
    """The text, empty where there is none. Opening, unlike stat, makes NFS ask the server."""
    try:
        return file.read_text()
    except FileNotFoundError:
        return ""


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
