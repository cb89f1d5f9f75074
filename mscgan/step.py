"""The place of a process among those that srun started in one step of a SLURM job. Standard library only."""

import os
import re
import shutil
import socket
import subprocess

# Training's ports are 20000 to 23999, the preflight's 24000 to 27999, the stage-in's 28000 to 31999: below those that
# the kernel gives away.
PORTS = 4_000


def take_ranks() -> None:
    """Sets RANK and the like for `srun -n N python -m mscgan.train`, which are then the ranks of one training.

    Nothing happens where they are set (torchrun, launch/submit.py) or the step has one task; nor in a batch script or
    salloc's shell, which are no such step, whatever SLURM_NTASKS says there. To start separate trainings, give each an
    srun of its own.
    """
    get = os.environ.get
    if "RANK" in os.environ or "WORLD_SIZE" in os.environ or int(get("SLURM_STEP_NUM_TASKS", "1")) == 1:
        return
    os.environ |= {
        "RANK": os.environ["SLURM_PROCID"],
        "WORLD_SIZE": os.environ["SLURM_STEP_NUM_TASKS"],
        "LOCAL_RANK": os.environ["SLURM_LOCALID"],
        "LOCAL_WORLD_SIZE": str(tasks(os.environ["SLURM_STEP_TASKS_PER_NODE"])[int(os.environ["SLURM_NODEID"])]),
        "MASTER_ADDR": master_address(),
        "MASTER_PORT": str(master_port()),
    }


def tasks(text: str) -> list[int]:
    """Tasks of each node, from SLURM's short form: 2(x3),1 means 2, 2, 2, 1."""
    found = re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
    return [int(count) for count, times in found for _ in range(int(times or 1))]


def first_node(names: str) -> str:
    """The first name of a list in SLURM's short form: n[07-09,12],m1 begins with n07."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", names)
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", first.group()) if first else ""


def master_address() -> str:
    """Address of rank 0's node: its name where that resolves, else what SLURM itself uses to reach it."""
    get = os.environ.get
    if get("SLURM_STEP_NUM_NODES", get("SLURM_JOB_NUM_NODES", "1")) == "1":
        return "127.0.0.1"
    name = first_node(get("SLURM_STEP_NODELIST", get("SLURM_JOB_NODELIST", "")))
    try:
        socket.getaddrinfo(name, None)
        return name
    except socket.gaierror:
        if not shutil.which("scontrol"):
            return name
        command = ["scontrol", "show", "node", "--oneliner", name]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
        found = re.search(r"NodeAddr=(\S+)", shown)
        return found.group(1) if found else name


def master_port() -> int:
    """The same for every rank of this step and attempt, another one for the next and for neighbours on the node."""
    job, attempt, step = (int(os.environ.get(f"SLURM_{name}", "0")) for name in ("JOB_ID", "RESTART_COUNT", "STEP_ID"))
    return 20_000 + (job * 7 + attempt + step * 1_001) % PORTS
