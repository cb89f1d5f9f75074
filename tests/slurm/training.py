"""Small trainings as SLURM jobs, and ways to strike them."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from cluster import Cluster

ROOT = Path(__file__).resolve().parents[2]
SUBMIT = [sys.executable, str(ROOT / "launch/submit.py")]
# About 10 s of training on two cores, with a checkpoint every fraction of a second.
TINY = (
    "--config demo data.height=32 data.width=32 data.threads=1 data.sigma=2 data.radius=2 mscgan.base=8 "
    "train.batch=8 train.pairs.I=400 train.pairs.II=400 train.pairs.joint=0 train.precision=fp32 train.backend=ddp "
    "train.warmup=0 log.every=8 log.checkpoint=32 log.checkpoint_minutes=0 log.samples=2000"
).split()
SECONDS = 240  # patience with one phase of a job, on a busy machine


def submit(cluster: Cluster, *arguments: str, cwd: Path | None = None) -> str:
    """Runs launch/submit.py. Returns the job's number."""
    done = subprocess.run([*SUBMIT, *arguments], env=cluster.env, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[1].rstrip(":")


def train(cluster: Cluster, shards: Path, run: Path, *arguments: str, nodes: int = 2, ranks: int = 1) -> "Training":
    """Starts a training of `ranks` ranks on each of `nodes` nodes, by launch/submit.py."""
    place = f"--nodes {nodes} --gpus-per-node 0 --tasks-per-node {ranks} --cpus-per-task 1"
    job = submit(cluster, *place.split(), *TINY, f"data.root={shards}", f"run={run}", *arguments)
    return Training(cluster, run, job)


class Training:
    """A job that trains in the folder `run`."""

    def __init__(self, cluster: Cluster, run: Path, job: str):
        self.cluster, self.run, self.job = cluster, run, job

    def is_struck_by(self, fault: Callable[["Training"], None]) -> None:
        """Lets the attempt make a new checkpoint and some steps more, strikes, and waits until the job runs again."""
        restarts, began = self._restarts(), self._checkpoint()
        self._until(lambda: self._checkpoint() > began and self._state() == "RUNNING", "made no checkpoint")
        checkpoint = self._checkpoint()
        self._until(lambda: self._pairs() > checkpoint, "made no step")
        fault(self)
        self.runs_again(restarts)

    def runs_again(self, restarts: int) -> None:
        """Waits until the job runs for another time. SLURM starts a requeued job after cred_expire + 1 seconds."""

        def again():
            assert self._state() != "COMPLETED", "the training ended before it was struck"
            return self._restarts() > restarts and self._state() == "RUNNING"

        self._until(again, "did not run again")

    def completes(self, seconds: float = 2 * SECONDS) -> bytes:
        """Waits for the job's end. Returns the bytes of the trained weights."""
        self._until(lambda: self._state() == "COMPLETED", "did not end", seconds)
        return (self.run / "generator.safetensors").read_bytes()

    def begins(self, sign: str = "heartbeat/*/rank-00000") -> None:
        """Waits until training has begun."""
        self.until(lambda: list(self.run.glob(sign)), "did not begin")

    def ends(self, count: int = 1) -> str:
        """Waits for the end of the job, or of all `count` tasks of its array. Returns the state of the last."""
        end = time.monotonic() + SECONDS
        while True:
            asked = ("squeue", "-h", "--array", "--states=all", f"--jobs={self.job}", "--format=%T")
            states = self.cluster.run(*asked).split()
            if len(states) == count and not {"PENDING", "RUNNING", "COMPLETING", "CONFIGURING"} & {*states}:
                return states[-1]
            assert time.monotonic() < end, states
            time.sleep(0.2)

    def until(self, true: Callable[[], object], complaint: str) -> None:
        self._until(lambda: bool(true()), complaint)

    def array_completes(self, count: int) -> None:
        """Waits for the end of all tasks of a job array."""

        def states():
            tasks = ("squeue", "-h", "--array", "--states=all", f"--jobs={self.job}", "--format=%T")
            return self.cluster.run(*tasks).split()

        end = time.monotonic() + SECONDS
        while states() != ["COMPLETED"] * count:
            assert time.monotonic() < end and "FAILED" not in states(), states()
            time.sleep(0.2)

    def outcomes(self) -> list[str]:
        """What the launcher noted at the end of each attempt."""
        notes = [json.loads(line) for line in (self.run / "attempts.jsonl").read_text().splitlines()]
        return [note["outcome"] for note in notes if note["event"] == "end"]

    def log(self, rank: int) -> str:
        (file,) = self.run.glob(f"launch-*/{self.job}_{rank}_log.out")
        return file.read_text()

    def pid(self, rank: int) -> int:
        """Of the rank's training process."""
        return int(self._heartbeat(rank).read_text().split()[1])

    def nodes(self) -> list[str]:
        return self.cluster.run("scontrol", "show", "hostnames", self.cluster.job(self.job)["NodeList"]).split()

    def beats(self, rank: int, count: int) -> None:
        """Waits for so many signs of life."""
        file = self._heartbeat(rank)
        for _ in range(count):
            before = file.stat().st_mtime_ns
            self._until(lambda before=before: file.stat().st_mtime_ns != before, "gave no sign of life")

    def _heartbeat(self, rank: int) -> Path:
        return self.run / "heartbeat" / f"{self.job}-{self._restarts()}" / f"rank-{rank:05d}"

    def _checkpoint(self) -> int:
        names = [folder.name.removeprefix("pairs-") for folder in self.run.glob("checkpoints/pairs-*")]
        return max((int(name) for name in names if name.isdigit()), default=0)

    def _pairs(self) -> int:
        lines = (self.run / "metrics.jsonl").read_text().splitlines(keepends=True)
        return max((json.loads(line)["pairs"] for line in lines if line.endswith("\n")), default=0)

    def _restarts(self) -> int:
        return int(self.cluster.job(self.job)["Restarts"])

    def _state(self) -> str:
        return self.cluster.job(self.job)["JobState"]

    def _until(self, true: Callable[[], bool], complaint: str, seconds: float = SECONDS) -> None:
        end = time.monotonic() + seconds
        while not true():
            state = self._state()
            assert state not in ("FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY"), self._report(state)
            assert time.monotonic() < end, self._report(complaint)
            time.sleep(0.1)

    def _report(self, what: str) -> str:
        logs = [f"--- {file.name}\n{file.read_text()[-3000:]}" for file in sorted(self.run.glob("launch-*/*_log.out"))]
        return "\n".join([f"job {self.job}: {what}", str(self.cluster.job(self.job)), *logs])
