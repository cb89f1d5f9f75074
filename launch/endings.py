"""What a job's settings mean for its end, said before it is queued: time to save in, and what a preemption leaves."""

import os
import re
from functools import cache

from launch import notations, slurm
from mscgan.errors import UserError


def check_time(time: str, minutes: float, signal_seconds: int, later: str = "--signal-seconds {} or less") -> None:
    """Refuses a time limit of which less than half would be left to train in.

    Args:
        time: as it was given; minutes: what that is.
        signal_seconds: before the limit, when training is told to save.
        later: what to give to be told so many seconds before it.

    Raises:
        UserError: the limit is below twice those seconds.
    """
    seconds, least = 60 * minutes, 2 * signal_seconds
    if seconds < least:
        raise UserError(
            f"--time {time} is {seconds:g} s, and training is told to save {signal_seconds} s before its end: that "
            f"takes 2 x {signal_seconds} = {least} s at least; give --time {-(-least // 60)} (minutes) or more, or "
            f"{later.format(int(seconds // 2))}"
        )


def check_job(job: str) -> None:
    """As `check_time`, of the job that this runs in, which was queued with sbatch. What SLURM does not tell is not
    refused; a --signal of sbatch's command line is told by newer versions alone.

    Raises:
        UserError: as `check_time`.
    """
    shown = slurm.show(job)
    of_file = re.search(r"^#SBATCH --signal=(\S+)", slurm.batch_script(job), re.MULTILINE)
    signal = shown.get("--signal") or os.environ.get("SBATCH_SIGNAL") or (of_file[1] if of_file else "")
    told, limit = re.search(r"@(\d+)$", signal), shown.get("TimeLimit", "")
    if told and limit[:1].isdigit():
        check_time(limit, notations.minutes(limit), int(told[1]), "SBATCH_SIGNAL=USR2@{} in the shell before sbatch")


@cache
def preemption(partition: str, qos: str) -> str:
    """A line where a preempted job is ended at once and not queued again, as the partition (empty: the default one) or
    the QoS has it; else an empty string."""
    kind = _configured("PreemptType")
    if kind.endswith("/qos"):
        name, mode, grace = f"QoS {qos or 'normal'}", *_of_qos(qos or "normal")
    elif kind.endswith("/partition_prio"):
        found = _of_partition(partition)
        name = f"partition {found.get('PartitionName')}"
        mode, grace = found.get("PreemptMode", ""), found.get("GraceTime", "")
    else:
        return ""
    mode = mode if mode not in ("", "cluster") else _configured("PreemptMode")
    if "CANCEL" not in mode.upper() or grace not in ("", "0", "00:00:00"):
        return ""
    return (
        f"note: {name} preempts by CANCEL without grace: a preempted job ends there, with its newest checkpoint, and "
        "is not queued again. To go on without you, submit the same command again, as often as you like, with "
        "--dependency singleton: each job begins where the one before it ended"
    )


def _configured(key: str) -> str:
    lines = slurm.command("scontrol", "show", "config").stdout.splitlines()
    return next((line.partition("=")[2].strip() for line in lines if line.split("=")[0].strip() == key), "")


def _of_partition(name: str) -> dict[str, str]:
    """Fields of a partition; empty: those of the default one."""
    shown = slurm.command("scontrol", "--oneliner", "show", "partition", *([name] if name else [])).stdout
    found = [dict(field.split("=", 1) for field in line.split() if "=" in field) for line in shown.splitlines()]
    return next((one for one in found if name or one.get("Default") == "YES"), {})


def _of_qos(name: str) -> tuple[str, str]:
    """Preemption mode and grace time; empty without accounting."""
    shown = slurm.command("sacctmgr", "--noheader", "--parsable2", "show", "qos", name, "format=PreemptMode,GraceTime")
    mode, _, grace = shown.stdout.strip().partition("|")
    return mode, grace
