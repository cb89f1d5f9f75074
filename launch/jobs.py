"""This user's runs, on SLURM and on this machine: list, show, logs, cancel. Works with and without accounting.

python launch/jobs.py list
python launch/jobs.py logs -f 123           a job is named by its id, its run folder, or the last word of its name
"""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from launch import runs, slurm
from launch.follow import SKIP, Tail, exit_code, follow_job, log_file
from launch.states import alive, find, job_id, orphans, task_id, task_states
from mscgan import process
from mscgan.errors import UserError, run

STOP_SECONDS = 60  # for a run on this machine to save before it is killed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python launch/jobs.py", description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    commands = parser.add_subparsers(dest="command", required=True, metavar="{list,show,logs,cancel}")
    listing = commands.add_parser("list", help="a line a job, newest last")
    listing.add_argument("--all", action="store_true", help="also those before the last 20")
    for name, text in (
        ("show", "all that is known of a job"),
        ("logs", "what a rank printed"),
        ("cancel", "end a job"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("job", help="job id, run folder, or the last word of the job's name")
        if name == "logs":
            command.add_argument("-f", "--follow", action="store_true", help="until the job ends; exit with its code")
            command.add_argument("--rank", type=int, default=0)
    given = parser.parse_args()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `jobs.py list | head` ends quietly
    if given.command == "list":
        return _list(given.all)
    plan, index = find(given.job)
    if given.command == "show":
        return _show(plan)
    if given.command == "logs":
        return _logs(plan, index, given.rank, given.follow)
    return _cancel(plan, index)


def _list(everything: bool) -> int:
    plans = [runs.read_plan(folder) for folder in runs.registered()]
    plans = plans if everything else plans[-20:]
    ids = [job_id(plan) for plan in plans]
    known = _known(ids)
    print(f"{'JOB':<14} {'STATE':<12} {'KIND':<10} {'PAIRS SEEN':>10}  RUN")
    for plan in plans:
        for index, state in enumerate(task_states(plan, known)):
            checkpoint = runs.newest_checkpoint(plan.works[index].run)
            seen = f"{int(checkpoint[6:]):,}" if checkpoint else ""
            print(f"{task_id(plan, index):<14} {state:<12} {plan.kind:<10} {seen:>10}  {_short(plan.works[index].run)}")
    return 0


def _known(ids: list[str]) -> dict[str, slurm.State]:
    """What the scheduler knows; where it is silent that is said, and the runs' own notes have to do."""
    jobs = [job for job in ids if job.isdigit()]
    try:
        return slurm.states(jobs) if jobs else {}
    except slurm.NoAnswer as error:
        print(f"note: {error}", file=sys.stderr)
        return {}


def _short(path: str) -> str:
    return os.path.relpath(path) if Path(path).is_relative_to(Path.cwd()) else path


def _show(plan: runs.Plan) -> int:
    known = _known([job_id(plan)])
    states = task_states(plan, known)
    print(
        f"job       {job_id(plan)} ({plan.name})\nkind      {plan.kind}\n"
        f"code      {plan.commit}\nfolder    {plan.folder}"
    )
    for index, work in enumerate(plan.works):
        state = known.get(task_id(plan, index))
        where = (
            f" on {state.nodes}"
            if state and state.nodes
            else f" ({state.reason})"
            if state and state.reason != "None"
            else ""
        )
        print(f"\nrun       {work.run}\nstate     {states[index]}{where}")
        print(
            f"newest    {runs.newest_checkpoint(work.run) or 'no checkpoint'}\n"
            f"command   python {' '.join(work.arguments)}"
        )
        print(f"log       {_log(plan, index, 0)}")
        for note in runs.notes(plan, index):
            if note["attempt"] is not None:
                start = f"start on {note.get('nodes') or 'this machine'}"
                what = start if note["event"] == "start" else f"end: {note['outcome']}"
                newest = note.get("checkpoint") or "no checkpoint"
                print(f"  {note['time']}  attempt {note['attempt']}  {what}  {newest}")
    return 0


def _log(plan: runs.Plan, index: int, rank: int) -> Path:
    """A rank's log: one a job on SLURM, the newest attempt's on this machine."""
    if "slurm" in runs.read_job(plan.folder):
        return log_file(plan, task_id(plan, index), rank)
    files = sorted(Path(plan.folder).glob(f"*_{rank}_log.out"), key=lambda file: file.stat().st_mtime)
    return files[-1] if files else Path(plan.folder) / f"none_{rank}_log.out"


def _logs(plan: runs.Plan, index: int | None, rank: int, follow: bool) -> int:
    if follow and "slurm" in runs.read_job(plan.folder):
        return follow_job(plan, index, rank)
    tail = Tail(_log(plan, index or 0, rank), skip=SKIP)
    if not tail.file.exists():
        raise UserError(
            f"no log of rank {rank} yet: {tail.file} does not exist; `python launch/jobs.py show {job_id(plan)}`"
        )
    tail.show()
    if not follow:
        return 0
    while alive(plan):
        tail.show()
        time.sleep(0.5)
    tail.show()
    return exit_code(plan, index or 0, task_id(plan, index or 0), None)


def _cancel(plan: runs.Plan, index: int | None) -> int:
    job = runs.read_job(plan.folder)
    if not alive(plan):
        print(f"job {job_id(plan)} does not run")
        return 0
    if "slurm" in job:
        label = job["slurm"] if index is None else f"{job['slurm']}_{index}"
        done = slurm.command("scancel", label)
        if done.returncode != 0:
            raise UserError(f"scancel refused job {label}: {done.stderr.strip()}")
        # The scheduler forgets a job some minutes after its end; without accounting only this note remembers.
        for ended in range(len(plan.works)) if index is None else [index]:
            runs.note(plan.works[ended].run, event="end", launch=plan.name, index=ended, job=label, attempt=None,
                      outcome="cancelled", code=128 + signal.SIGTERM, again=False)  # fmt: skip
        print(f"job {label} is cancelled; the same command goes on from its newest checkpoint")
        return 0
    return _cancel_here(plan, job)


def _cancel_here(plan: runs.Plan, job: dict) -> int:
    """Ends a run on this machine: its launcher passes TERM on and ends; where it is gone, its tasks get it directly."""
    from launch import local

    if process.start(job["pid"]) == job["start"]:
        os.kill(job["pid"], signal.SIGTERM)
    else:
        for ranks in orphans(plan):
            local.signal_tasks(ranks, signal.SIGTERM)
    end = time.monotonic() + STOP_SECONDS
    while alive(plan):
        if time.monotonic() > end:
            for ranks in orphans(plan):
                local.kill(ranks)
        time.sleep(0.2)
    print(f"job {job_id(plan)} has ended; the same command goes on from its newest checkpoint")
    return 0


if __name__ == "__main__":
    run(main)
