"""The start and the end of an attempt: writes RUN/attempts.jsonl and decides whether the job runs again.

The sbatch script calls `attempt.py begin FOLDER` before srun and `attempt.py end FOLDER CODE` after it, on one node, so
that one job is requeued once whichever rank failed. On this machine launch/local.py calls the functions.
Exit codes: those of mscgan/errors.py (AGAIN: saved, but not requeued), else a crash's own.
"""

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from launch import hang, runs, slurm
from mscgan import heartbeat, process
from mscgan.errors import AGAIN, BAD_NODE, DONE, FAILED, HUNG, MISTAKE, STALLED, run


@dataclass
class Verdict:
    outcome: str  # done | mistake | bad node | hung | crash | saved | no progress
    code: int  # the exit code, if it ends here
    again: bool  # whether the job is to run once more
    reason: str  # a sentence for the log


def begin(plan: runs.Plan, index: int, attempt: int, job: str) -> int:
    """Notes the start of an attempt. Returns DONE, or STALLED where too many before it began at the same checkpoint."""
    run_folder = plan.works[index].run
    checkpoint = runs.newest_checkpoint(run_folder)
    fields = {"launch": plan.name, "index": index, "job": job, "attempt": attempt}
    if plan.kind == "train" and not plan.here and _stalled(plan, index, checkpoint) >= plan.stalled_tries:
        print(_no_progress(plan, checkpoint), flush=True)
        runs.note(run_folder, event="end", outcome="no progress", code=STALLED, again=False, **fields)
        return STALLED
    nodes = os.environ.get("SLURM_JOB_NODELIST", "")
    runs.note(run_folder, event="start", checkpoint=checkpoint, nodes=nodes, unix=time.time(), **fields)
    return DONE


def end(plan: runs.Plan, index: int, attempt: int, job: str, step_code: int) -> Verdict:
    """Judges an attempt by what its ranks wrote down and srun's exit code, and notes it."""
    run_folder = plan.works[index].run
    ranks = runs.read_ranks(runs.ranks_folder(plan, index, attempt))
    codes = {rank: ranks[rank]["code"] if rank in ranks else None for rank in range(_world(ranks))}
    before = runs.notes(plan, index, "end")
    checkpoint = runs.newest_checkpoint(run_folder)
    outcome, code = judge(codes, step_code)
    verdict = decide(plan, outcome, code, before, _stalled(plan, index, checkpoint), checkpoint)
    who = ""
    if outcome == "hung":
        name = heartbeat.attempt_name(job, attempt)
        told, stopped = hang.collect(run_folder, name, len(codes), runs.ranks_folder(plan, index, attempt))
        who = hang.explain(told, len(codes), stopped)
        verdict.reason = f"{who}; {verdict.reason}"
    runs.note(
        run_folder, event="end", launch=plan.name, index=index, job=job, attempt=attempt, checkpoint=checkpoint,
        outcome=verdict.outcome, code=verdict.code, again=verdict.again, codes=codes, hang=who,
    )  # fmt: skip
    return verdict


def _world(ranks: dict[int, dict]) -> int:
    return next(iter(ranks.values()))["world"] if ranks else 0


def judge(codes: dict[int, int | None], step_code: int) -> tuple[str, int]:
    """What happened, and its exit code, from the ranks' codes (None: ended before it could write one) and srun's.

    srun's counts only where a rank wrote none: it differs with who was killed first, and a signal may have hidden it.
    The first rank that fails has the others killed, so the codes of one failure differ: the one that says most counts.
    """
    values = set(codes.values())
    for code, outcome in ((MISTAKE, "mistake"), (BAD_NODE, "bad node"), (HUNG, "hung")):
        if code in values:
            return outcome, code
    bad = {code for code in values if code is not None} - {DONE, AGAIN}
    if (
        not bad
        and (None in values or not values)
        and step_code - 128 in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)
    ):
        return "saved", AGAIN  # the signal came before a task was ready for it: nothing was done, nothing is lost
    if bad or None in values or not values:
        # A rank that fails by itself exits below 128; above it are those that a signal ended, maybe as a consequence.
        return "crash", min(bad, default=0) or step_code or FAILED
    return ("saved", AGAIN) if AGAIN in values else ("done", DONE)


def decide(plan: runs.Plan, outcome: str, code: int, before: list[dict], stalled: int, checkpoint: str) -> Verdict:
    """Whether the job runs again. `before`: earlier ends; `stalled`: attempts that began where the run stands now."""
    if outcome in ("done", "mistake"):
        return Verdict(
            outcome, code, False, "done" if outcome == "done" else "a mistake to mend; the error is in the log"
        )
    if plan.kind == "train" and plan.here and stalled and outcome != "saved":
        return Verdict(outcome, code, False, f"{outcome} (exit code {code}) before a new checkpoint")
    if plan.kind == "train" and not plan.here and stalled >= plan.stalled_tries and outcome != "bad node":
        return Verdict("no progress", STALLED, False, _no_progress(plan, checkpoint))
    if plan.kind != "train" and outcome == "crash":
        return Verdict(outcome, code, False, f"failed with exit code {code}")
    # Interruptions are no failures; only a job without checkpoints has no other measure of going round in circles.
    counted = [note for note in before if plan.kind != "train" or note["outcome"] != "saved"]
    if (outcome != "saved" or plan.kind != "train") and len(counted) >= plan.crash_retries:
        return Verdict(outcome, code, False, f"{outcome} (exit code {code}) after {len(counted)} such ends before; "
                       f"crash_retries is {plan.crash_retries}")  # fmt: skip
    where = f" from {checkpoint}" if checkpoint else ""
    return Verdict(outcome, code, True, f"{outcome} (exit code {code}); goes on{where}")


def _stalled(plan: runs.Plan, index: int, checkpoint: str) -> int:
    """How many of the last attempts in a row started from `checkpoint`, those apart that a bad node stopped: the next
    one runs without that node."""
    stopped = {end["attempt"] for end in runs.notes(plan, index, "end") if end["outcome"] == "bad node"}
    count = 0
    for start in reversed([start for start in runs.notes(plan, index, "start") if start["attempt"] not in stopped]):
        if start["checkpoint"] != checkpoint:
            break
        count += 1
    return count


def _no_progress(plan: runs.Plan, checkpoint: str) -> str:
    return (
        f"no progress: {plan.stalled_tries} attempts in a row began at {checkpoint or 'the start'} and none got "
        "further; stopped. Read the log above, then submit again to go on"
    )


def main() -> int:
    what, folder = sys.argv[1:3]
    plan = runs.read_plan(folder)
    index, attempt, job = int(os.environ.get("SLURM_ARRAY_TASK_ID", 0)), process.attempt(), process.job()
    if what == "begin":
        return begin(plan, index, attempt, job)
    verdict = end(plan, index, attempt, job, int(sys.argv[3]))
    print(f"job {job}: {verdict.reason}", flush=True)
    if not verdict.again:
        return verdict.code
    return DONE if slurm.run_again(job, runs.bad_nodes(plan, index)) else verdict.code


if __name__ == "__main__":
    run(main)
