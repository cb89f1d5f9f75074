"""Looks at every node before the ranks meet: `python launch/preflight.py --run RUN --shards DIR --gpus 8`, once a rank.

The first rank of each node looks at its GPUs, disks and shards; then all meet at MASTER_ADDR and MASTER_PORT, compare
clocks and add up a tensor over all ranks. The port is not the training's: a quick rank would find this store there.
Exit codes: DONE; BAD_NODE, named with its reasons in RUN/bad_nodes; MISTAKE for what is wrong on all nodes alike and so
is the user's to mend; FAILED where the ranks do not get through to each other and no node can be blamed.
"""

import argparse
import hashlib
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from launch import runs, stage_in
from mscgan.errors import BAD_NODE, DONE, FAILED, MISTAKE, UserError, run
from mscgan.paths import a_path

RUN_BYTES = 1 << 30  # least free space in the run folder
CLOCK_SECONDS = 10.0
MEET_SECONDS = 180.0  # Python and torch come slowly from a cold shared file system
REDUCE_SECONDS = 90.0
LEAVE_SECONDS = 5.0
# A fault of another check that every node reports is not the nodes' but the user's: a missing manifest, for example.
ALWAYS_THE_NODES = {"gpu", "clock", "absent"}


@dataclass(frozen=True)
class Fault:
    check: str
    reason: str


def node_faults(options: argparse.Namespace) -> list[Fault]:
    """What is wrong with this node alone; every check runs."""
    checks = [("run folder", lambda: check_run_folder(options.run))]
    if options.shards:
        checks.append(("shards", lambda: check_manifest(options.shards, options.manifest_sha256)))
    if options.shards and options.stage_to:
        checks.append(("stage-in", lambda: stage_in.check(options.shards, options.stage_to)))
    faults = [Fault(name, reason) for name, check in checks if (reason := _complaint(check))]
    return faults + (gpu_faults(options.gpus) if options.gpus else [])


def _complaint(check: Callable[[], None]) -> str:
    try:
        check()
    except UserError as error:
        return str(error)
    return ""


def check_run_folder(folder: Path) -> None:
    """Raises UserError unless the folder can be written and has room for a checkpoint."""
    probe = folder / f".preflight-{node_name()}-{os.getpid()}"
    try:
        with probe.open("wb") as file:
            file.write(b"x")
            os.fsync(file.fileno())
        probe.unlink()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise UserError(f"cannot write into {folder} ({error.strerror})") from error
    checkpoints = (folder / "checkpoints").glob("pairs-*")
    sizes = [sum(file.stat().st_size for file in checkpoint.iterdir()) for checkpoint in checkpoints]
    needed = max([RUN_BYTES, *sizes])
    if free < needed:
        raise UserError(f"{folder} has {free / 1e9:.2f} GB free, a checkpoint needs {needed / 1e9:.2f}; make room")


def check_manifest(root: Path, sha256: str) -> None:
    """Raises UserError unless the shards' manifest can be read and is the one that the job was submitted with."""
    found = hashlib.sha256(stage_in.manifest_bytes(root)).hexdigest()
    if sha256 and found != sha256:
        raise UserError(
            f"{root}/manifest.json has sha256 {found[:12]}, it was {sha256[:12]} when the job was submitted; submit "
            "again if the shards were built anew"
        )


def gpu_faults(count: int) -> list[Fault]:
    """Of the GPUs, by NVML."""
    from launch import gpu_health  # only where GPUs were asked for

    try:
        return [Fault("gpu", reason) for reason in gpu_health.faults(count)]
    except UserError as error:
        return [Fault("driver", str(error))]


def clock_faults(offsets: dict[int, float]) -> dict[int, Fault]:
    """A fault by node number, from each node's clock minus that of node 0 in seconds.

    From three nodes on the middle clock is the right one, so that node 0 can be the one that is wrong.
    """
    right = median(offsets.values()) if len(offsets) > 2 else 0.0
    return {
        node: Fault("clock", f"its clock is off by {offset - right:+.0f} s")
        for node, offset in offsets.items()
        if abs(offset - right) > CLOCK_SECONDS
    }


def judge(faults: dict[int, list[Fault]]) -> tuple[int, dict[int, list[str]], str]:
    """The exit code, the bad nodes with their reasons, and the line for the user, from every node's faults.

    Args:
        faults: by node number, an empty list for a node that is fine.
    """
    shared = set.intersection(*({fault.check for fault in of_node} for of_node in faults.values())) - ALWAYS_THE_NODES
    if shared:
        everyones = [fault.reason for fault in next(iter(faults.values())) if fault.check in shared]
        return MISTAKE, {}, "; ".join(dict.fromkeys(everyones))
    bad = {node: [fault.reason for fault in of_node] for node, of_node in faults.items() if of_node}
    return (BAD_NODE if bad else DONE), bad, ""


def node_name() -> str:
    """SLURM's name of this node, which --exclude understands; the host's name elsewhere."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def node_names() -> list[str]:
    """The job's nodes in the order of their ranks; empty outside SLURM. A container may have no scontrol to ask."""
    from submitit.slurm.slurm import SlurmJobEnvironment

    return SlurmJobEnvironment().hostnames if "SLURM_JOB_NODELIST" in os.environ else []


def preflight(options: argparse.Namespace) -> int:
    """Runs all checks together with the other ranks and returns the exit code, the same on each.

    Raises:
        UserError: on rank 0, where the user is to mend something.
    """
    from launch.meeting import Meeting  # torch; the checks above do without

    variables = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    rank, world, local_rank, local_world = (int(os.environ[name]) for name in variables)
    began = time.monotonic()
    faults = node_faults(options) if local_rank == 0 else []
    meeting = Meeting(rank, world, os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), MEET_SECONDS)
    meeting.say("node", {"name": node_name(), "faults": [astuple(fault) for fault in faults]})
    found = Findings(world, local_world)
    if rank == 0:
        found.nodes(meeting.gather("node", MEET_SECONDS), node_names())
    clock = meeting.announce("clock", {"go_on": found.fine(), "seconds": time.time()})
    if clock["go_on"]:
        meeting.say("offset", time.time() - clock["seconds"])
        meeting.say("sum", meeting.all_reduce(local_rank if options.gpus else None, REDUCE_SECONDS))
        if rank == 0:
            found.clocks(meeting.gather("offset", MEET_SECONDS))
            found.all_reduce(meeting.gather("ready", REDUCE_SECONDS), meeting.gather("sum", 2 * REDUCE_SECONDS))
    if rank != 0:
        code = meeting.announce("verdict")
        meeting.say("left", True)
        return code
    code, bad, line = found.verdict()
    runs.write_bad_nodes(options.run, bad)
    meeting.announce("verdict", code)
    meeting.say("left", True)
    meeting.gather("left", LEAVE_SECONDS)  # rank 0 serves the store, so it leaves last
    if code == MISTAKE:
        raise UserError(line)
    seconds = time.monotonic() - began
    line = line or f"{world} ranks on {world // local_world} nodes are fine"
    print(f"preflight: {line} ({seconds:.1f} s)", flush=True)
    return code


class Findings:
    """What rank 0 heard from the others, and what follows."""

    def __init__(self, world: int, local_world: int):
        self._local_world = local_world
        self._ranks = range(world)
        self._names: dict[int, str] = {}
        self._faults: dict[int, list[Fault]] = {node: [] for node in range(world // local_world)}
        self._unclear = ""

    def nodes(self, said: dict[int, dict], names: list[str]) -> None:
        """From each rank its node's name and faults; `names` is the scheduler's list, for nodes that said nothing."""
        self._names = dict(enumerate(names))
        for rank, report in said.items():
            self._names[self._node(rank)] = report["name"]
            self._faults[self._node(rank)] += [Fault(*fault) for fault in report["faults"]]
        self._absent(said, f"did not come to the rendezvous within {MEET_SECONDS:g} s")

    def clocks(self, offsets: dict[int, float]) -> None:
        for node, fault in clock_faults({self._node(rank): offset for rank, offset in offsets.items()}).items():
            self._faults[node].append(fault)

    def all_reduce(self, ready: dict[int, bool], said: dict[int, str]) -> None:
        """The ranks whose device worked, and what each said of the sum (empty: right)."""
        self._absent(ready, "did not get its device to work")
        self._absent({rank: None for rank in self._ranks if rank in said or rank not in ready}, "hung in an all-reduce")
        wrong = [f"rank {rank}: {text}" for rank, text in said.items() if text]
        self._unclear = f"the all-reduce over all ranks failed: {wrong[0]}" if wrong else ""

    def fine(self) -> bool:
        return not any(self._faults.values())

    def verdict(self) -> tuple[int, dict[str, list[str]], str]:
        """The exit code, the bad nodes by name with their reasons, and a line that says it all (empty: all is fine)."""
        nodes = len(self._faults)
        absent = sum(any(fault.check == "absent" for fault in of_node) for of_node in self._faults.values())
        if nodes > 2 and 2 * absent > nodes:
            return FAILED, {}, f"{absent} of {nodes} nodes do not answer: it is rank 0's node, or the network"
        code, bad, line = judge(self._faults)
        if code == DONE and self._unclear:
            return FAILED, {}, self._unclear
        named = {self._names.get(node, f"node {node}"): reasons for node, reasons in bad.items()}
        return code, named, line or "; ".join(f"{name}: {', '.join(reasons)}" for name, reasons in named.items())

    def _node(self, rank: int) -> int:
        return rank // self._local_world

    def _absent(self, present, what: str) -> None:
        for rank in self._ranks:
            if rank not in present:
                self._faults[self._node(rank)].append(Fault("absent", f"rank {rank} {what}"))


def main() -> int:
    parser = argparse.ArgumentParser(description="Checks nodes and network before the ranks meet; run once a rank.")
    parser.add_argument("--run", type=a_path, required=True, help="the run's folder")
    parser.add_argument("--shards", type=a_path, help="shard folder")
    parser.add_argument("--manifest-sha256", default="", help="of its manifest.json when the job was submitted")
    parser.add_argument("--stage-to", default="", help="folder on the node's disk that the shards are copied to")
    parser.add_argument("--gpus", type=int, default=0, help="GPUs a node that the job asked for")
    code = preflight(parser.parse_args())
    sys.stdout.flush()
    os._exit(code)  # after a failed all-reduce the process group's own ending may hang


if __name__ == "__main__":
    run(main)
