"""Waits for a training process and ends it when it hangs, with a stack dump of every rank in the log.

A hung rank stops all the others inside a collective, so all fall silent. The first watchdog to see it says so in
RUN/heartbeat/ATTEMPT/hung; every other one then dumps the stacks of its own rank too, before the scheduler ends all.
Each rank also writes its last collectives, from which launch/hang.py tells who is missing where.

A rank on a CPU that is silent but at work is slow, not hung: it is left alone, and how long the run would take is
said. There a rank that waits for the others sleeps, so its use of the CPU tells the two apart. On a GPU it does not: a
rank that hangs in a collective of NCCL keeps its core and its GPU fully busy. There silence alone decides.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from mscgan.errors import HUNG
from mscgan.heartbeat import SETUP_SECONDS

POLL_SECONDS = 1.0
AT_WORK = 0.1  # of one core, over the whole silence. A rank that waits uses a hundredth; several may share a core
DUMP_SECONDS = 4.0  # from the dump to the end of the rank: the other nodes need time to see the mark and to dump


def watch(child: subprocess.Popen, heartbeat: Path, timeout_seconds: float) -> int:
    """Waits for the child to end or to fall silent.

    Silence is counted from the last change of the heartbeat file that was seen here, or from the call while none is,
    by this process's own clock: skew between nodes does not matter, and time for which the whole job was suspended
    does not count. Before its first beat, and when it has removed its file at its end, the child has SETUP_SECONDS at
    least. A child that computes on a CPU is given as long again each time.
    One that hangs gets SIGQUIT (its stacks go to stderr, `mscgan.heartbeat.start`), then SIGCONT (a stopped process
    answers too, but only after the other ranks: it goes on, and would take them along) and, a few seconds later,
    SIGKILL.

    Returns:
        The child's return code as `subprocess` gives it (negative: ended by that signal), or HUNG.
    """
    mark = heartbeat.parent / "hung"
    old_mark, last, silent, slow = _read(mark), _changed(heartbeat), 0.0, 0.0
    beats = -1  # the first change is the file's beginning
    worked = _cpu_seconds(child.pid)
    poll = min(POLL_SECONDS, timeout_seconds / 4)
    while True:
        try:
            return child.wait(poll)
        except subprocess.TimeoutExpired:
            silent += poll
        if (now := _changed(heartbeat, last)) != last:
            last, silent = now, 0.0
            beats = beats + 1 if last else -1
            slow, worked = 0.0, _cpu_seconds(child.pid)
        limit = timeout_seconds if beats > 0 else max(SETUP_SECONDS, timeout_seconds)
        if silent >= limit and _slow(child, heartbeat, worked, silent):
            slow += silent
            print(_too_slow(heartbeat, slow), file=sys.stderr, flush=True)
            silent, worked = 0.0, _cpu_seconds(child.pid)
        elif silent >= limit and not _writable(heartbeat):
            print(
                f"watchdog: {heartbeat} cannot be written, so its silence of {limit:g} s tells nothing; the rank is "
                "left alone, and a collective that it hangs in ends by itself",
                file=sys.stderr, flush=True,
            )  # fmt: skip
            silent, worked = 0.0, _cpu_seconds(child.pid)
        elif silent >= limit:
            reason = f"{heartbeat.name} on {socket.gethostname()} gave no sign of life for {limit:g} s"
            _write(mark, f"{reason} ({time.strftime('%Y-%m-%d %H:%M:%S')})\n")
            break
        announced = _read(mark)
        if announced not in ("", old_mark):
            reason = announced.strip()
            break
    print(f"watchdog: {reason}; the stacks of {heartbeat.name} follow, then it is ended", file=sys.stderr, flush=True)
    if _stat(child.pid)[:1] == ["T"]:
        _write(heartbeat.with_suffix(".stopped"), "")
    for number, seconds in ((signal.SIGQUIT, 2 * POLL_SECONDS), (signal.SIGCONT, DUMP_SECONDS)):
        child.send_signal(number)
        try:
            child.wait(seconds)
        except subprocess.TimeoutExpired:
            continue
    child.kill()
    child.wait()
    return HUNG


def _slow(child: subprocess.Popen, heartbeat: Path, worked: float, silent: float) -> bool:
    """Whether a silent child computes on a CPU. `worked`: its CPU seconds when the silence of `silent` s began."""
    _host, pid, device, *_ = [*_read(heartbeat).split(), "", "", ""]
    return (pid, device) == (str(child.pid), "cpu") and _cpu_seconds(child.pid) - worked >= AT_WORK * silent


def _too_slow(heartbeat: Path, seconds: float) -> str:
    steps = int(_read(heartbeat).split()[3])
    return (
        f"watchdog: {heartbeat.name} on {socket.gethostname()} computes: it is slow, not hung. A step takes more than "
        f"{seconds:g} s, so the {steps} steps of this run more than {steps * seconds / 3600:.3g} hours; a smaller "
        "train.batch or base, a smaller preset, or a GPU makes it quicker"
    )


def _cpu_seconds(pid: int) -> float:
    """CPU time of a process, all its threads and the children it has waited for; 0 once it is gone."""
    return sum(map(int, _stat(pid)[11:15])) / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on, the process's state: "T" for one that is stopped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _writable(file: Path) -> bool:
    """Whether a rank could make or touch its file here; not where the file system turned read-only, even for root."""
    try:
        there = next(path for path in (file, *file.parents) if path.exists())
    except OSError:  # it does not even say that
        return False
    return os.access(there, os.W_OK)


def _changed(file: Path, before: int = 0) -> int:
    """When the file was last written, 0 where it is not there; `before` where the file system does not answer."""
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
    except OSError:
        return before


def _read(file: Path) -> str:
    """The text, empty where none can be read. Opening, unlike stat, makes NFS ask the server."""
    try:
        return file.read_text()
    except OSError:
        return ""


def _write(file: Path, text: str) -> None:
    """Where it fails (a full disk) the rank is ended all the same: the others are as silent, and found so."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    except OSError as error:
        print(f"watchdog: {file} cannot be written ({error.strerror})", file=sys.stderr, flush=True)
