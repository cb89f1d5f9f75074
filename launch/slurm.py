"""The few things asked of SLURM's own commands: is it up, what do jobs do, requeue, exclude nodes."""

import getpass
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

from mscgan.errors import UserError, say

ENDED = {
    "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE", "PREEMPTED",
    "REVOKED",
}  # fmt: skip


@dataclass
class State:
    """What the scheduler knows of a job."""

    name: str
    state: str  # PENDING, RUNNING, COMPLETED, ...
    nodes: str
    reason: str


def command(*arguments: str, input: str = "", timeout: float = 60) -> subprocess.CompletedProcess:
    """Runs a SLURM command; one that is missing, or takes longer than `timeout` seconds, looks like a failed one."""
    try:
        return subprocess.run(arguments, input=input, capture_output=True, text=True, errors="replace", timeout=timeout)
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(arguments, 127, "", str(error))


def controller() -> tuple[bool, str]:
    """Whether sbatch is here and a controller answers; and what is said instead where SLURM is installed and set up,
    and none does. srun on PATH alone says nothing."""
    if not (shutil.which("sbatch") and shutil.which("srun")):
        return False, ""
    ping = command("scontrol", "ping", timeout=10)  # without its slurm.conf it would try for a minute
    if ping.returncode == 0 and "is UP" in ping.stdout:
        return True, ""
    if "Could not establish a configuration source" in ping.stderr:
        return False, ""  # a package that nobody has set up: no cluster's
    return False, complaint(ping.stderr or ping.stdout)


def controller_up() -> bool:
    return controller()[0]


def complaint(text: str) -> str:
    """What a SLURM command complains of, in one line."""
    lines = [re.sub(r"^(\w+: )?((error|fatal): )?", "", line).strip() for line in text.splitlines()]
    return "; ".join(dict.fromkeys(line for line in lines if line)) or "no reason given"


def gpus_per_node(partition: str) -> int:
    """The most GPUs that a node of the partition (empty: the default one) has."""
    lines = command(
        "sinfo", "--noheader", "--format=%P|%G", *([f"--partition={partition}"] if partition else [])
    ).stdout
    wanted = [line for line in lines.splitlines() if partition or line.split("|")[0].endswith("*")]
    return max((int(count) for line in wanted for count in re.findall(r"gpu(?::[\w.-]+)?:(\d+)", line)), default=0)


class NoAnswer(UserError):
    """The scheduler did not answer, which says nothing about any job."""


def queue(job: str = "") -> dict[str, State]:
    """This user's jobs by id, an array's tasks one by one: those that wait or run, and those that ended not long ago.

    job: asks for this one alone.

    Raises:
        NoAnswer: squeue failed.
    """
    whose = f"--jobs={job}" if job else f"--user={getpass.getuser()}"
    fields = "--format=%i|%T|%j|%N|%r"
    asked = command("squeue", "--noheader", "--array", "--states=all", whose, fields)
    if job and "Invalid job id" in asked.stderr:
        return {}  # forgotten
    if asked.returncode != 0:
        raise NoAnswer(f"squeue gives no answer ({' '.join(asked.stderr.split())}); try again when it does")
    return _parse(asked.stdout)


def states(jobs: list[str]) -> dict[str, State]:
    """The states of jobs (123 or 123_4; 123 alone also gives the tasks of its array): of `queue`, and what that forgot
    from sacct if there is accounting.

    Raises:
        NoAnswer: squeue failed.
    """
    numbers = {job.split("_")[0] for job in jobs}
    found = _of(numbers, queue(*numbers) if len(numbers) == 1 else queue())
    missing = numbers - {job.split("_")[0] for job in found}
    if missing:
        fields = "--format=JobID,State,JobName,NodeList,Reason"
        old = command(
            "sacct", "-X", "--noheader", "--parsable2", "--array", fields, f"--jobs={','.join(sorted(missing))}"
        )
        found |= _of(missing, _parse(old.stdout))
    return found


def _parse(text: str) -> dict[str, State]:
    rows = [line.split("|") for line in text.splitlines() if line.count("|") >= 4]
    # A name may hold the separator too.
    return {row[0]: State("|".join(row[2:-2]), row[1].split()[0], row[-2], row[-1]) for row in rows}


def _of(numbers: set[str], found: dict[str, State]) -> dict[str, State]:
    return {job: state for job, state in found.items() if job.split("_")[0] in numbers}


def show(job: str) -> dict[str, str]:
    """What `scontrol show job` knows, for example JobState and ExitCode; empty once the controller forgot the job."""
    shown = command("scontrol", "--oneliner", "show", "job", job).stdout
    return dict(field.split("=", 1) for field in shown.split() if "=" in field)


def batch_script(job: str) -> str:
    """The script of a job; empty where the controller does not give it."""
    return command("scontrol", "write", "batch_script", job, "-").stdout


def of_script(folder: str) -> list[str]:
    """The numbers of this user's jobs whose script lies in the folder.

    Raises:
        NoAnswer: squeue failed.
    """
    asked = command("squeue", "--noheader", f"--user={getpass.getuser()}", "--format=%F|%o")
    if asked.returncode != 0:
        raise NoAnswer(f"squeue gives no answer ({' '.join(asked.stderr.split())})")
    lines = [line.partition("|") for line in asked.stdout.splitlines()]
    return sorted({job.strip() for job, _, script in lines if script.startswith(f"{folder}/")})


def run_again(job: str, without: list[str]) -> bool:
    """Requeues this job, unless someone cancelled it or SLURM already did so. Called in the job's own batch script.

    COMPLETING is what a job that is being cancelled or requeued shows; a requeue now would bring a cancelled one back.

    Args:
        without: nodes to keep away from.

    Returns:
        False when the job will not run again.
    """
    state = show(job).get("JobState", "")
    if state in ("CANCELLED", "COMPLETING"):
        say("SLURM already ends this job: it is not requeued from here", sys.stdout)
        return False
    if state == "PENDING":
        return True
    # What follows ends this very script; excluding nodes needs a job that is pending, so it comes after.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    done = command("scontrol", "requeue", job)
    if done.returncode != 0:
        say(f"cannot requeue ({done.stderr.strip()}); submit again to go on from the newest checkpoint", sys.stdout)
        return False
    if without:
        _exclude(job, without)
    return True


def _exclude(job: str, nodes: list[str]) -> None:
    shown = show(job)
    before = "" if (old := shown.get("ExcNodeList", "(null)")) == "(null)" else old
    names = ",".join(filter(None, [before, *nodes]))
    if _too_few(shown, names):
        left = f" {before} alone" if before else " no node"
        say(f"job {job} keeps away from{left}: without {', '.join(nodes)} too few nodes would be left", sys.stdout)
        return
    for _ in range(20):
        done = command("scontrol", "update", f"JobId={job}", f"ExcNodeList={names}")
        if done.returncode == 0:
            say(f"job {job} keeps away from {names} from now on", sys.stdout)
            return
        time.sleep(0.2)  # still ending
    say(f"cannot exclude {names}: {done.stderr.strip()}", sys.stdout)


def _too_few(shown: dict[str, str], excluded: str) -> bool:
    """Whether fewer nodes than the job needs would be left of its partition: it would wait for ever."""
    names = command("sinfo", "--noheader", "--Node", f"--partition={shown.get('Partition', '')}", "--format=%N").stdout
    without = command("scontrol", "show", "hostnames", excluded).stdout
    needed = int((re.findall(r"\d+", shown.get("NumNodes", "")) or [1])[0])
    return bool(names.split()) and len({*names.split()} - {*without.split()}) < needed
