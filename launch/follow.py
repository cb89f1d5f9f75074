"""Shows what a rank prints, as it prints it, progress bar included."""

import math
import sys
import time
from pathlib import Path

from launch import runs, slurm
from launch.states import ended, job_id, task_id
from mscgan.errors import say

POLL_SECONDS = 1.0  # between two looks at a log
ASK_SECONDS = 15.0  # between two questions to the controller, at first; they become rarer with time
SELDOM_SECONDS = 120.0
SKIP = b"submitit INFO"


class Tail:
    """The part of a log that was not shown yet."""

    def __init__(self, file: Path, skip: bytes = b"", start: int = 0):
        self.file = file
        self._skip = skip  # lines that begin so are left out
        self._shown = start
        self._open_line = False

    def show(self) -> None:
        """Writes what is new to stdout. Bytes, not lines: a progress bar overwrites its line."""
        try:
            with self.file.open("rb") as file:
                file.seek(self._shown)
                new = file.read()
        except FileNotFoundError:
            return
        if self._skip and self._skip in new and not new.endswith(b"\n"):
            new = new[: new.rfind(b"\n") + 1]  # the rest of a line to be left out may come later
        self._shown += len(new)
        lines = new.splitlines(keepends=True)
        sys.stdout.buffer.write(b"".join(line for line in lines if not (self._skip and line.startswith(self._skip))))
        sys.stdout.flush()
        self._open_line = not new.endswith(b"\n") if new else self._open_line

    def end_line(self) -> None:
        """Begins a new line if the last one shown, such as a progress bar, is open."""
        if self._open_line:
            say("", sys.stdout)
            self._open_line = False


def log_file(plan: runs.Plan, job: str, rank: int = 0) -> Path:
    """Where submitit puts what a rank of a SLURM job (123, or 123_4 in an array) prints."""
    return Path(plan.folder) / f"{job}_{rank}_log.out"


def follow_job(plan: runs.Plan, index: int | None = None, rank: int = 0) -> int:
    """Shows a rank's output (of one run of a sweep, or of all) until the job, over all its requeues, has ended.

    Ctrl-C stops the showing, not the job.

    Returns:
        The exit code: that of the job; of a sweep, the highest of its runs; 130 after Ctrl-C.
    """
    job, indices = job_id(plan), range(len(plan.works)) if index is None else [index]
    labels = {index: task_id(plan, index) for index in indices}
    tails = [Tail(log_file(plan, label, rank), skip=SKIP) for label in labels.values()]
    told: dict[str, str] = {}
    began, asked, known = time.monotonic(), -math.inf, {}
    try:
        while True:
            if len(tails) == 1:  # several progress bars at once cannot be read
                tails[0].show()
            over = all(_noted_end(plan, index) for index in indices)  # the run's own notes say it first
            if over or time.monotonic() - asked >= ask_seconds(time.monotonic() - began):
                asked = time.monotonic()
                try:
                    known = slurm.states([job])
                except slurm.NoAnswer:  # the controller is busy, or is being restarted
                    if not over:
                        time.sleep(POLL_SECONDS)
                        continue
                for index, label in labels.items():
                    now = _now(plan, index, known.get(label))
                    if now and now != told.get(label) and (len(tails) > 1 or "(" in now):
                        told[label] = now
                        print(f"job {label}: {now}", flush=True)
                over = over or all(label in known and known[label].state in slurm.ENDED for label in labels.values())
                if over or (not known and slurm.controller_up()):  # it has ended, or the scheduler forgot it
                    if len(tails) == 1:
                        tails[0].show()
                    return max(exit_code(plan, index, label, known.get(label)) for index, label in labels.items())
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        print(f"\njob {job} goes on; see it again with: python launch/jobs.py logs -f {job}", flush=True)
        return 130


def ask_seconds(followed: float) -> float:
    """How long to wait before the controller is asked again, by how long the job has been followed."""
    return min(max(ASK_SECONDS, followed / 20), SELDOM_SECONDS)


def _now(plan: runs.Plan, index: int, state: slurm.State | None) -> str:
    """The state of a run for people: that of its own last note where the scheduler's lags behind it."""
    if _noted_end(plan, index) and (state is None or state.state not in slurm.ENDED):
        return ended(runs.notes(plan, index)[-1])
    if state is None:
        return ""
    return f"{state.state} ({state.reason})" if state.state == "PENDING" and state.reason != "None" else state.state


def _noted_end(plan: runs.Plan, index: int) -> bool:
    """Whether the newest attempt has noted that none comes after it."""
    noted = runs.notes(plan, index)
    return bool(noted) and noted[-1].get("again") is False


def exit_code(plan: runs.Plan, index: int, label: str, state: slurm.State | None) -> int:
    """The exit code of a job that ended, from its own last note; 1 where SLURM ended it before it could write one."""
    ends = runs.notes(plan, index, "end")
    code = ends[-1]["code"] if ends and not ends[-1]["again"] else 1
    if state is not None and state.state in slurm.ENDED - {"COMPLETED"}:
        print(f"job {label} ended: {state.state}", flush=True)
        return code or 1
    return code
