"""What each task of a job runs on its node: it starts the real program as a child process and looks after it.

submitit calls a pickled `Job`; the .sbatch files run `srun python launch/job.py FOLDER`. Either way: who am I, bind to
the CPUs near my GPU, preflight, stage-in, then the child from the run's code snapshot, with the signals passed on and
its heartbeat watched. The exit code goes into ranks/ of the launch folder; launch/attempt.py judges it when all ended.
On this machine it saves and ends when launch/submit.py is gone, which nobody would then restart or stop.
"""

import ctypes
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from launch import affinity, runs
from launch.watchdog import watch
from mscgan import heartbeat, process, step
from mscgan.errors import AGAIN, DONE, MISTAKE, STOPPED, UserError, run, say

SNAPSHOT = Path(__file__).resolve().parents[1]
SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)
LOOK_SECONDS = 1.0


@dataclass
class Place:
    """Where this task stands among all tasks of its job."""

    rank: int
    world: int
    local_rank: int
    local_world: int
    address: str  # of rank 0's node
    port: int
    attempt: int
    job: str


class Job:
    """The callable that submitit pickles: a launch folder and the index of the run in a sweep."""

    def __init__(self, folder: str, index: int = 0):
        self.folder = folder
        self.index = index

    def __call__(self) -> None:
        # SystemExit, not a return value: submitit then writes no result pickle, and srun sees the code.
        sys.exit(Task(runs.read_plan(self.folder), self.index).run())

    def checkpoint(self):
        """What submitit queues again if its own handler is reached before Task replaced it: the same."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class Task:
    """One task: one rank."""

    def __init__(self, plan: runs.Plan, index: int):
        self.plan = plan
        self.index = index
        self.work = plan.works[index]
        self.place = place()
        self.record = runs.ranks_folder(plan, index, self.place.attempt)
        self.child: subprocess.Popen | None = None
        self.signalled = 0

    def run(self) -> int:
        """Does the work. Returns the task's exit code: DONE also where the child saved and ended (AGAIN or STOPPED is
        in the record), so that srun does not kill the ranks that end a moment later."""
        process.open_many_files()
        for number in SIGNALS:  # in place of submitit's: it requeues from rank 0 while the others run on
            signal.signal(number, self._pass_on)
        signal.signal(signal.SIGCONT, signal.SIG_DFL)  # submitit's writes a warning at every `fg`
        if _local():
            _end_with_parent()
            self._end_with_launcher()
            if os.environ["MSCGAN_GPUS"] == "all":  # submitit's controller hid the GPUs
                del os.environ["CUDA_VISIBLE_DEVICES"]
            else:
                os.environ["CUDA_VISIBLE_DEVICES"] = os.environ["MSCGAN_GPUS"]
        os.environ[heartbeat.ATTEMPT] = heartbeat.attempt_name(process.job(), self.place.attempt)
        self._write(None)
        near = affinity.near_gpu(self.place.local_rank)
        if near:
            os.sched_setaffinity(0, near)
        code = self._work(self.environment())
        noted = self._write(code)
        return DONE if code in (AGAIN, STOPPED) and noted else code

    def environment(self) -> dict[str, str]:
        """What the child sees: this environment, its rank, and the snapshot before every other code."""
        here = self.place
        own = {
            "RANK": here.rank, "WORLD_SIZE": here.world,
            "LOCAL_RANK": here.local_rank, "LOCAL_WORLD_SIZE": here.local_world,
            "MASTER_ADDR": here.address, "MASTER_PORT": here.port, "PYTHONUNBUFFERED": 1,
            heartbeat.HANG: self.plan.hang_seconds,
            # GPU k is then the same one for CUDA and for NVML, which the affinity and the preflight ask.
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(SNAPSHOT), os.environ.get("PYTHONPATH")])),
        }  # fmt: skip
        threads = os.environ.get("SLURM_CPUS_PER_TASK")
        if not threads and self.plan.kind != "train":  # training counts its cores itself (mscgan/dist.py)
            threads = str(max(1, (os.cpu_count() or 1) // here.local_world))
        default = {"OMP_NUM_THREADS": threads} if threads else {}
        return default | os.environ | {key: str(value) for key, value in own.items()}

    def _work(self, environment: dict[str, str]) -> int:
        if self.plan.preflight:
            # Its rendezvous has a port of its own: training's must not meet a preflight that is still closing.
            own = environment | {"MASTER_PORT": str(self.place.port + step.PORTS)}
            arguments = ["--run", self.work.run, "--gpus", str(self.plan.gpus)]
            for name in ("shards", "manifest_sha256", "stage_to"):
                if value := getattr(self.work, name):
                    arguments.append(f"--{name.replace('_', '-')}={value}")
            code = self._child([str(SNAPSHOT / "launch/preflight.py"), *arguments], own)
            if code != DONE:
                return code
        arguments = list(self.work.arguments)
        with ExitStack() as held:
            if self.work.stage_to:
                try:
                    arguments.append(f"data.staged={self._keep_copy(held)}")
                except UserError as error:
                    say(f"error: [rank {self.place.rank}] {error}")
                    return MISTAKE
                code = self._stage_in(environment)
                if code != DONE:
                    return code
            beats = heartbeat.path(self.work.run, self.place.rank)
            return self._child(arguments, environment, beats if self.plan.kind == "train" else None)

    def _keep_copy(self, held: ExitStack) -> Path:
        """The folder of this node's copy of the shards, kept until `held` ends. Raises UserError: there can be none."""
        from launch import kept_copy, stage_in

        copy = stage_in.copy_folder(stage_in.manifest_bytes(self._shards()), self.work.stage_to)
        held.enter_context(kept_copy.kept(copy, self.work.stage_to))
        return copy

    def _stage_in(self, environment: dict[str, str]) -> int:
        """Makes the copy, a process of its own: a signal ends it. Where there are several nodes it ends when all have
        their copies: training's own rendezvous would not wait for a node that takes ten minutes longer."""
        what = [str(self._shards()), self.work.stage_to]
        if self.place.world == self.place.local_world:
            return self._child([str(SNAPSHOT / "launch/stage_in.py"), *what], environment)
        more = ["--run", self.work.run, "--silence", str(self.plan.hang_seconds)]
        own = environment | {"MASTER_PORT": str(self.place.port + 2 * step.PORTS)}
        return self._child([str(SNAPSHOT / "launch/stage_together.py"), *what, *more], own)

    def _shards(self) -> Path:
        return Path(self.plan.cwd, self.work.shards)

    def _child(self, arguments: list[str], environment: dict[str, str], beats: Path | None = None) -> int:
        if self.signalled:
            return AGAIN
        # On this machine a group of its own, so that Ctrl-C reaches it once, through the launcher.
        self.child = subprocess.Popen(
            [sys.executable, "-P", *arguments], cwd=self.plan.cwd, env=environment, stdin=subprocess.DEVNULL,
            umask=self.plan.umask, process_group=0 if _local() else None,
            preexec_fn=_end_with_parent if _local() else None,
        )  # fmt: skip
        if self.signalled:  # it came between the two lines above
            self.child.send_signal(signal.SIGUSR1)
        self._write(None)
        code = watch(self.child, beats, self.plan.hang_seconds) if beats else self.child.wait()
        if self.signalled and -code in SIGNALS:
            return AGAIN  # ended by what was passed on, before it was ready to save
        return 128 - code if code < 0 else code

    def _pass_on(self, number: int, _frame) -> None:
        """Passes the first signal on, as one that the scheduler did not send.

        The scheduler may have sent its own to the child too, and training takes the same one twice as an order to end.
        """
        if self.signalled:
            return
        self.signalled = number
        if self.child is not None and self.child.poll() is None:
            self.child.send_signal(signal.SIGUSR2 if number == signal.SIGUSR1 else signal.SIGUSR1)

    def _end_with_launcher(self) -> None:
        """Ends as on SIGTERM when launch/submit.py is gone, be it by kill -9. By a timer, as a thread
        more would have Linux tell the child twice that this process is gone, which training takes for an order to end.
        """
        launcher = int(os.environ["MSCGAN_JOB"].removeprefix("local-"))
        began = process.start(launcher)

        def look(_number, frame) -> None:
            if not self.signalled and (not began or process.start(launcher) != began):
                say("launch/submit.py is gone: this saves and ends, as after Ctrl-C")
                self._pass_on(signal.SIGTERM, frame)

        signal.signal(signal.SIGALRM, look)
        signal.setitimer(signal.ITIMER_REAL, LOOK_SECONDS, LOOK_SECONDS)

    def _write(self, code: int | None) -> bool:
        """Writes the record. False where it cannot be (a full disk): the exit code then speaks for itself."""
        child = self.child.pid if self.child is not None and self.child.returncode is None else 0
        me = os.getpid()
        fields = {"pid": me, "start": process.start(me), "child": child, "child_start": process.start(child)}
        node = os.environ.get("SLURMD_NODENAME", "")
        try:
            runs.write_rank(self.record, self.place.rank, world=self.place.world, node=node, code=code, **fields)
        except OSError as error:
            say(f"warning: {self.record} cannot be written ({error.strerror})")
            return False
        return True


def place() -> Place:
    """This task's place, from what SLURM or the launcher on this machine set.

    Raises:
        UserError: started by neither.
    """
    get = os.environ.get
    if _local():
        rank, world = int(os.environ["SUBMITIT_LOCAL_GLOBALID"]), int(os.environ["SUBMITIT_LOCAL_NTASKS"])
        attempt, port = int(os.environ["MSCGAN_ATTEMPT"]), int(os.environ["MSCGAN_PORT"])
        return Place(rank, world, rank, world, "127.0.0.1", port, attempt, os.environ["SUBMITIT_LOCAL_JOB_ID"])
    if "SLURM_PROCID" not in os.environ:
        raise UserError(
            "launch/job.py runs inside a job; start one with launch/submit.py, or sbatch launch/train.sbatch"
        )
    world, nodes = int(os.environ["SLURM_NTASKS"]), int(get("SLURM_JOB_NUM_NODES", "1"))
    return Place(
        rank=int(os.environ["SLURM_PROCID"]), world=world, local_rank=int(os.environ["SLURM_LOCALID"]),
        local_world=world // nodes, address=step.master_address(), port=step.master_port(),
        attempt=int(get("SLURM_RESTART_COUNT", "0")), job=process.job(),
    )  # fmt: skip


def _local() -> bool:
    """Whether launch/local.py started this task."""
    return "SUBMITIT_LOCAL_JOB_ID" in os.environ


def _end_with_parent() -> None:
    """Asks Linux for SIGTERM when the process that started this one is gone: no orphan trains on."""
    set_parent_death_signal = 1
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)


def main() -> int:
    return Task(runs.read_plan(sys.argv[1]), int(os.environ.get("SLURM_ARRAY_TASK_ID", 0))).run()


if __name__ == "__main__":
    run(main)
