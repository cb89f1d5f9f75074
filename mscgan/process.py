"""Which process this is, to others: its machine, its start, its job; and how many files it may open. Standard library
only, for the launcher's sake.
"""

import os
import resource
from pathlib import Path


def start(pid: int) -> str:
    """When a process started, in ticks since boot: with its pid, a name for good. Empty: it is gone."""
    fields = _stat(pid)
    return "" if fields[0] == "Z" else fields[19]


def stopped(pid: int) -> bool:
    """Whether a signal or a debugger has stopped it."""
    return _stat(pid)[0] in "Tt"


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the program's name, the state first; those of a zombie where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ["Z"]


def machine() -> str:
    """Where a pid means the same: this boot of this machine, and the container. Empty where Linux does not say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def job() -> str:
    """The job that this process is of: 123 or 123_4 on SLURM, local-42 under launch/local.py, else an empty string."""
    get = os.environ.get
    if own := get("MSCGAN_JOB"):  # also inside an allocation
        return own
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        return f"{get('SLURM_ARRAY_JOB_ID')}_{get('SLURM_ARRAY_TASK_ID')}"
    return get("SLURM_JOB_ID", "")


def open_many_files() -> None:
    """Raises this process's limit of open files to the most that it may set, for it and those it starts. Shells often
    give 1,024 of them; each rank holds its shards open, a socket to each of the others and pipes to its readers."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def attempt() -> int:
    """How often the job ran before."""
    return int(os.environ.get("MSCGAN_ATTEMPT") or os.environ.get("SLURM_RESTART_COUNT", "0"))
