"""The start and the end of an attempt: writes RUN/attempts.jsonl and decides whether the job runs again.

The sbatch script calls `attempt.py begin FOLDER` before srun and `attempt.py end FOLDER CODE` after it, on one node, so
that one job is requeued once whichever rank failed; `attempt.py setup FOLDER TEXT` instead, where a setup line failed.
On this machine launch/local.py calls the functions.
Exit codes: those of mscgan/errors.py (AGAIN: saved, but not requeued), else a crash's own.
"""

import os
import signal
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from launch import blame, runs, slurm
from mscgan import asked, process
from mscgan.errors import AGAIN, BAD_NODE, DONE, FAILED, HUNG, MISTAKE, STALLED, STOPPED, of_disk, run, say


@dataclass
class Verdict:
    outcome: str  # done | mistake | bad node | hung | crash | saved | interrupted | stopped | no progress
    code: int  # the exit code, if it ends here
    again: bool  # whether the job is to run once more
    reason: str  # a sentence for the log
    without: list[str] = field(default_factory=list)  # the nodes to keep away from


def begin(plan: runs.Plan, index: int, attempt: int, job: str) -> int:
    """Notes the start of an attempt. Returns DONE, STALLED where too many before it began at the same checkpoint, or
    STOPPED where that was asked for meanwhile.

    Raises:
        UserError: it cannot be noted; then nobody could count, and the job might run for ever.
    """
    run_folder = plan.works[index].run
    checkpoint = runs.newest_checkpoint(run_folder)
    fields = {"launch": plan.name, "index": index, "job": job, "attempt": attempt}
    if plan.kind == "train" and not plan.here and _stalled(plan, index, checkpoint) >= plan.stalled_tries:
        say(_no_progress(plan, checkpoint), sys.stdout)
        runs.note(run_folder, event="end", outcome="no progress", code=STALLED, again=False, **fields)
        return STALLED
    if asked.is_asked(run_folder, "stop", job):
        asked.forget(run_folder, "stop")
        say(f"job {job}: stopped before this attempt, as was asked", sys.stdout)
        runs.note(run_folder, event="end", outcome="stopped", code=STOPPED, again=False, **fields)
        return STOPPED
    nodes = os.environ.get("SLURM_JOB_NODELIST", "")
    try:
        runs.note(run_folder, event="start", checkpoint=checkpoint, nodes=nodes, unix=time.time(), **fields)
    except OSError as error:
        raise of_disk(error) from error
    return DONE


def end(plan: runs.Plan, index: int, attempt: int, job: str, step_code: int) -> Verdict:
    """Judges an attempt by what its ranks wrote down and srun's exit code, and notes it."""
    run_folder = plan.works[index].run
    ranks = runs.read_ranks(runs.ranks_folder(plan, index, attempt))
    codes = {rank: ranks[rank]["code"] if rank in ranks else None for rank in range(blame.world_of(ranks))}
    before = runs.notes(plan, index, "end")
    checkpoint = runs.newest_checkpoint(run_folder)
    outcome, code = judge(codes, step_code)
    stalled = _stalled(plan, index, checkpoint)
    if outcome == "saved" and stalled and plan.kind == "train":
        outcome = "interrupted"  # it saved nothing that was not there
    bad = runs.bad_nodes(plan, index) if outcome == "bad node" else []
    found = blame.lay(plan, index, attempt, job, outcome, ranks)
    verdict = decide(plan, outcome, code, before, stalled, checkpoint, bad)
    verdict.without = sorted({*bad, *blame.failed_twice(before, found.nodes)})
    verdict.reason = "; ".join(filter(None, [str(found), ", ".join(bad), verdict.reason]))
    try:
        runs.note(
            run_folder, event="end", launch=plan.name, index=index, job=job, attempt=attempt, checkpoint=checkpoint,
            outcome=verdict.outcome, code=verdict.code, again=verdict.again, codes=codes, bad=bad, **asdict(found),
        )  # fmt: skip
    except OSError as error:  # the start of the next attempt must be noted, or there is none
        say(f"warning: the end of this attempt is not noted: {of_disk(error)}")
    return verdict


def judge(codes: dict[int, int | None], step_code: int) -> tuple[str, int]:
    """What happened, and its exit code, from the ranks' codes (None: ended before it could write one) and srun's.

    srun's counts only where a rank wrote none: it differs with who was killed first, and a signal may have hidden it.
    The first rank that fails has the others killed, so the codes of one failure differ: the one that says most counts.
    """
    values = set(codes.values())
    if None in values and step_code in (MISTAKE, BAD_NODE, HUNG, AGAIN, STOPPED):
        values.add(step_code)  # of a rank whose record could not be written
        values.discard(None)
    for code, outcome in ((MISTAKE, "mistake"), (BAD_NODE, "bad node"), (HUNG, "hung")):
        if code in values:
            return outcome, code
    bad = {code for code in values if code is not None} - {DONE, AGAIN, STOPPED}
    if (
        not bad
        and (None in values or not values)
        and step_code - 128 in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)
    ):
        return "saved", AGAIN  # the signal came before a task was ready for it: nothing was done, nothing is lost
    if bad or None in values or not values:
        # A rank that fails by itself exits below 128; above it are those that a signal ended, maybe as a consequence.
        return "crash", min(bad, default=0) or step_code or FAILED
    if STOPPED in values:
        return "stopped", STOPPED
    return ("saved", AGAIN) if AGAIN in values else ("done", DONE)


ENDINGS = {
    "done": "done",
    "mistake": "a mistake to mend; the error is in the log",
    "stopped": "saved and stopped, as was asked; submit again to go on",
}


def decide(
    plan: runs.Plan, outcome: str, code: int, before: list[dict], stalled: int, checkpoint: str, bad: list[str]
) -> Verdict:
    """Whether the job runs again.

    Args:
        before: earlier ends.
        stalled: attempts that began where the run stands now.
        bad: nodes that the preflight or the stage-in found bad.
    """
    if outcome in ENDINGS:
        return Verdict(outcome, code, False, ENDINGS[outcome])
    new_bad_node = bool(_new(bad, before))  # the next attempt runs without it
    if plan.kind == "train" and plan.here and stalled and outcome != "interrupted":
        return Verdict(outcome, code, False, f"{outcome} (exit code {code}) before a new checkpoint")
    if plan.kind == "train" and not plan.here and stalled >= plan.stalled_tries and not new_bad_node:
        return Verdict("no progress", STALLED, False, _no_progress(plan, checkpoint))
    if plan.kind != "train" and outcome == "crash":
        return Verdict(outcome, code, False, f"failed with exit code {code}")
    # Interruptions are no failures; only a job without checkpoints has no other measure of going round in circles.
    # A new checkpoint is progress, whatever came before it.
    if plan.kind == "train":
        counted = [note for note in before if note.get("checkpoint") == checkpoint and _is_failure(note)]
    else:
        counted = [note for note in before if not note.get("bad")]
    if plan.kind == "train" and outcome in ("saved", "interrupted") or new_bad_node:
        counted = []
    elif len(counted) >= plan.crash_retries:
        return Verdict(outcome, code, False, f"{outcome} (exit code {code}) after {len(counted)} such ends before"
                       f"{' since the newest checkpoint' if checkpoint else ''}; crash_retries is "
                       f"{plan.crash_retries}")  # fmt: skip
    where = f" from {checkpoint}" if checkpoint else ""
    saved = "interrupted before anything new was saved" if outcome == "interrupted" else outcome
    return Verdict(outcome, code, True, f"{saved} (exit code {code}); goes on{where}")


def _new(bad: list[str], before: list[dict]) -> set[str]:
    """The bad nodes that no earlier end names: one that is found again, though excluded, stops the job in the end."""
    return set(bad) - {node for end in before for node in end.get("bad", [])}


def _is_failure(end: dict) -> bool:
    return end["outcome"] in ("crash", "hung") or (end["outcome"] == "bad node" and not end.get("bad"))


def _stalled(plan: runs.Plan, index: int, checkpoint: str) -> int:
    """How many of the last attempts in a row started from `checkpoint`, those apart that a bad node stopped: the next
    one runs without that node."""
    ends = runs.notes(plan, index, "end")
    stopped = {end["attempt"] for place, end in enumerate(ends) if _new(end.get("bad", []), ends[:place])}
    count = 0
    for start in reversed([start for start in runs.notes(plan, index, "start") if start.get("attempt") not in stopped]):
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
    if what == "setup":
        runs.note(
            plan.works[index].run, event="end", launch=plan.name, index=index, job=job, attempt=attempt,
            checkpoint=runs.newest_checkpoint(plan.works[index].run), outcome="setup failed", code=MISTAKE, again=False,
            why=sys.argv[3],
        )  # fmt: skip
        return MISTAKE
    verdict = end(plan, index, attempt, job, int(sys.argv[3]))
    say(f"job {job}: {verdict.reason}", sys.stdout)
    if not verdict.again:
        return verdict.code
    return DONE if slurm.run_again(job, verdict.without) else verdict.code


if __name__ == "__main__":
    run(main)
