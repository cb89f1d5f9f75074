"""What a job's settings mean for its end, said before it is queued: time to save in, and what a preemption leaves."""

from functools import cache

from launch import slurm
from mscgan.errors import UserError


def check_time(time: str, minutes: float, signal_seconds: int) -> None:
    """Refuses a time limit of which less than half would be left to train in.

    Args:
        time: as it was given; minutes: what that is.
        signal_seconds: before the limit, when training is told to save.

    Raises:
        UserError: the limit is below twice those seconds.
    """
    seconds, least = 60 * minutes, 2 * signal_seconds
    if seconds < least:
        raise UserError(
            f"--time {time} is {seconds:g} s, and training is told to save {signal_seconds} s before its end: that "
            f"takes 2 x {signal_seconds} = {least} s at least; give --time {-(-least // 60)} (minutes) or more, or "
            f"--signal-seconds {int(seconds // 2)} or less"
        )


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
