"""Runs a launch on this machine: submitit's local executor starts the processes, this watches over them.

submitit's local job takes no more than one node and neither ends its tasks when one fails nor survives Ctrl-C, so that
is done here: nodes x gpus processes on this machine, signals to every task, the rest stopped when one fails.
"""

import contextlib
import math
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from submitit.local.local import LocalExecutor, LocalJob

from launch import attempt, notations, options, runs
from launch.follow import SKIP, Tail
from launch.job import Job
from mscgan import process
from mscgan.errors import AGAIN, DONE, FAILED, STOPPED, UserError, say

# Processes without GPUs: at most so many, and cores of each that trains. Its D meets the others 24 times a step, in
# BatchNorm, and that costs more than threads do: on 2 cores one process trained the demo 1.5 times as fast as two.
WITHOUT_GPU, CORES_TO_TRAIN = 4, 4
POLL_SECONDS = 0.2
GRACE_SECONDS = 30  # for the other ranks to end by themselves once one failed


def gpus_here() -> int:
    """GPUs that this machine shows to CUDA."""
    devices = [file for file in Path("/dev").glob("nvidia*") if file.name[6:].isdigit()]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return len(devices) if visible is None else min(len(devices), len([name for name in visible.split(",") if name]))


def processes(plan: runs.Plan, batches: list[int]) -> int:
    """How many processes stand in for nodes x gpus.

    batches: pairs of a step that the processes share, of each run.

    Raises:
        UserError: several nodes, or more GPUs than there are.
    """
    here, settings = gpus_here(), plan.settings
    nodes, wanted = notations.node_counts(settings["nodes"])[0], options.gpus_asked(settings)
    if plan.kind in runs.ONE_PROCESS:
        return 1
    if nodes > 1 and here < nodes * (wanted or 1):
        each = "all GPUs" if wanted is None else f"{wanted} GPUs" if wanted else "CPUs"
        raise UserError(
            f"this would run on this machine, without SLURM: a cluster would give {nodes} nodes with {each} each, and "
            f"here are {here} GPUs; give --nodes 1, or leave --nodes out, to run here, or --dry-run to see the "
            "cluster's script"
        )
    gpus = here // nodes if wanted is None else wanted
    if not gpus:
        return nodes * int(settings.get("tasks_per_node") or (1 if here else _without_gpu(batches)))
    if here and nodes * gpus > here:
        raise UserError(f"{gpus} GPUs are asked for, but this machine has {here}; ask for fewer with --gpus-per-node")
    return nodes * gpus


def _without_gpu(batches: list[int]) -> int:
    """As many processes as share the cores, and every batch evenly where there are batches to train on."""
    cores, shared = len(os.sched_getaffinity(0)), math.gcd(*batches)
    most = min(max(1, cores // CORES_TO_TRAIN) if batches else cores, WITHOUT_GPU)
    return max(count for count in range(1, most + 1) if shared % count == 0)


def run_here(plan: runs.Plan, count: int, stop: "Stop") -> int:
    """Runs every run of the announced plan on this machine, one after the other, with rank 0's output on the terminal.

    Args:
        stop: entered; where something asks for a stop no further run begins.

    Returns:
        The exit code: the highest of the runs'. AGAIN: stopped by Ctrl-C, TERM or HUP after saving.
    """
    codes = []
    for index, work in enumerate(plan.works):
        if len(plan.works) > 1:
            say(f"run {index + 1} of {len(plan.works)}: {work.run}", sys.stdout)
        codes.append(_run_one(plan, index, count, stop))
        if stop.asked:
            break
    return max(codes)


class Stop:
    """Notes SIGINT, SIGTERM and SIGHUP while it is entered."""

    def __init__(self):
        self.asked = 0

    def __enter__(self):
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        self._before = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, _number, _frame):
        self.asked += 1


def _run_one(plan: runs.Plan, index: int, count: int, stop: Stop) -> int:
    number = 0
    while True:
        code = attempt.begin(plan, index, number, f"local-{os.getpid()}")
        if code:
            return code
        tail, step_code = _attempt(plan, index, number, count, stop)
        verdict = attempt.end(plan, index, number, f"local-{os.getpid()}", step_code)
        _show_failed(plan, index, number, tail)
        if not verdict.again or stop.asked:
            if verdict.outcome != "done":
                checkpoint = runs.newest_checkpoint(plan.works[index].run) or "the start: nothing was saved yet"
                here = f"the same command goes on from {checkpoint}"
                say(f"stopped: {here if verdict.again else verdict.reason}", sys.stdout)
            return verdict.code
        say(f"again: {verdict.reason}", sys.stdout)
        number += 1


def _attempt(plan: runs.Plan, index: int, number: int, count: int, stop: Stop) -> tuple[Tail, int]:
    """Starts the processes and waits. Returns rank 0's log and what srun would: 1 after a kill, 143 after TERM."""
    executor = LocalExecutor(plan.folder, python=f"'{sys.executable}' -P")
    # Its time limit counts from 2 minutes; ours is none.
    executor.update_parameters(tasks_per_node=count, timeout_min=60 * 24 * 365, stderr_to_stdout=True)
    environment = {
        "MSCGAN_JOB": f"local-{os.getpid()}",  # mscgan/process.py reads these two
        "MSCGAN_ATTEMPT": str(number),
        "MSCGAN_PORT": str(_free_port()),
        "MSCGAN_GPUS": os.environ.get("CUDA_VISIBLE_DEVICES", "all") if gpus_here() else "",
        "PYTHONPATH": os.pathsep.join(filter(None, [f"{plan.folder}/snapshot", os.environ.get("PYTHONPATH")])),
    }
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        # A thread that waits for another soon sleeps. As it is by default, a step beside one busy program takes three
        # times as long; a thread that sleeps at once makes it a seventh longer on a machine that does nothing else.
        environment["GOMP_SPINCOUNT"] = "2000"
    if sys.stdout.isatty():  # rank 0 then draws a progress bar into its log (mscgan/telemetry.py)
        environment["MSCGAN_COLUMNS"] = str(shutil.get_terminal_size().columns - 1)
    with (
        _environment(environment),
        _ignored(signal.SIGINT, signal.SIGHUP),
    ):  # a terminal sends these to all; tasks get TERM
        job = cast(LocalJob, executor.submit(Job(plan.folder, index)))
    tail = Tail(job.task(0).paths.stdout, skip=SKIP)
    ranks = runs.ranks_folder(plan, index, number)
    asked, killed, deadline = 0, 0, None
    while not job.done():
        _show(tail, stop)
        if stop.asked > asked:
            asked = stop.asked
            if asked == 1:
                tail.end_line()
                say("stopping: a checkpoint is saved after this step (Ctrl-C again kills at once)", sys.stdout)
                _signal(job, ranks, signal.SIGTERM)
            else:
                killed = kill(ranks)
        if deadline is None and _failed(ranks):
            deadline = time.monotonic() + GRACE_SECONDS
            _signal(job, ranks, signal.SIGTERM)
        if deadline is not None and time.monotonic() > deadline:
            killed = kill(ranks)
        time.sleep(POLL_SECONDS)
    _show(tail, stop)
    tail.end_line()
    return tail, 1 if killed else 128 + signal.SIGTERM if asked else 0


def _show(tail: Tail, stop: Stop) -> None:
    """Shows what is new. Where nobody reads it any more the run saves and ends, as after Ctrl-C; a full disk that it is
    written to stops no training."""
    try:
        tail.show()
    except BrokenPipeError:
        stop.asked = stop.asked or 1
    except OSError as error:
        runs.say_once(f"note: what is printed cannot be shown here ({error.strerror}); it is in {tail.file}")


def _signal(job: LocalJob, ranks: Path, number: int) -> None:
    """Sends a signal to every task: submitit's controller passes TERM on; where it is gone, directly."""
    if job._process is not None and job._process.poll() is None:
        job._process.send_signal(number)
    else:
        signal_tasks(ranks, number)


def signal_tasks(ranks: Path, number: int) -> int:
    """Signals the tasks of an attempt that still run. Returns how many."""
    records = runs.read_ranks(ranks).values()
    alive = [record["pid"] for record in records if process.start(record["pid"]) == record["start"] != ""]
    for pid in alive:
        os.kill(pid, number)
    return len(alive)


def kill(ranks: Path) -> int:
    """Kills the programs of an attempt that still run, then their tasks. Returns how many there were."""
    count = 0
    for record in runs.read_ranks(ranks).values():
        for pid, start in ((record["child"], record["child_start"]), (record["pid"], record["start"])):
            if start and process.start(pid) == start:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                count += 1
    return count


def _failed(ranks: Path) -> bool:
    """Whether a rank ended with a failure, or without having written how it ended."""
    for record in runs.read_ranks(ranks).values():
        ended = process.start(record["pid"]) != record["start"]
        if record["code"] not in (None, DONE, AGAIN, STOPPED) or (record["code"] is None and ended):
            return True
    return False


def _show_failed(plan: runs.Plan, index: int, number: int, tail: Tail) -> None:
    """Shows the end of the log of a rank that failed where rank 0's, already shown, does not say why."""
    codes = {rank: record["code"] for rank, record in runs.read_ranks(runs.ranks_folder(plan, index, number)).items()}
    failed = [rank for rank, code in codes.items() if code not in (DONE, AGAIN, STOPPED)]
    why = [rank for rank in failed if codes[rank] == attempt.judge(codes, FAILED)[1]]
    if why and 0 not in why:
        log = tail.file.with_name(tail.file.name.replace("_0_log", f"_{why[0]}_log"))
        say(f"rank {why[0]} failed; the end of {log}:", sys.stdout)
        lines = [line for line in log.read_text(errors="replace").splitlines() if not line.startswith(SKIP.decode())]
        say("\n".join(lines[-20:]), sys.stdout)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def _ignored(*numbers: int) -> Iterator[None]:
    """Ignores signals; processes started meanwhile inherit it."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
