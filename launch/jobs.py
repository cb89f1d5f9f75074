"""This user's runs, on SLURM and on this machine. Works with and without accounting.

python launch/jobs.py list
python launch/jobs.py logs -f 123           a job is named by its id, its run folder, or the last word of its name
python launch/jobs.py save 123              a checkpoint now; training goes on
python launch/jobs.py stop 123              to end after the next checkpoint, for good; then `save`, to end now
"""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from launch import runs, shown, slurm, states
from launch.follow import SKIP, Tail, exit_code, follow_job
from launch.states import alive, find, job_id, orphans, task_id, task_states
from mscgan import asked, process
from mscgan.arguments import Parser
from mscgan.errors import UserError, of_disk, run, say
from mscgan.paths import path_text

STOP_SECONDS = 60  # for a run on this machine to save before it is killed
SAVE_SECONDS = 120  # that `save` waits for the checkpoint


def main() -> int:
    parser = Parser(prog="python launch/jobs.py", description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    commands = parser.add_subparsers(dest="command", required=True, metavar="{list,show,logs,save,stop,cancel}")
    listing = commands.add_parser("list", help="a line a job, newest last")
    listing.add_argument("--all", action="store_true", help=f"also those before the last {shown.LISTED}")
    for name, text in (
        ("show", "all that is known of a job"),
        ("logs", "what a rank printed"),
        ("save", "save a checkpoint now, and go on"),
        ("stop", "end training after its next checkpoint; the same command goes on from there"),
        ("cancel", "end a job"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("job", type=path_text, help="job id, run folder, or the last word of the job's name")
        if name == "logs":
            command.add_argument("-f", "--follow", action="store_true", help="until the job ends; exit with its code")
            command.add_argument("--rank", type=int, default=0)
    given = parser.parse_args()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `jobs.py list | head` ends quietly
    if given.command == "list":
        return shown.jobs(given.all)
    plan, index = find(given.job)
    if given.command == "show":
        return shown.job(plan)
    if given.command == "logs":
        return _logs(plan, index, given.rank, given.follow)
    if given.command in ("save", "stop"):
        return _ask(plan, index, given.command)
    return _cancel(plan, index)


def _logs(plan: runs.Plan, index: int | None, rank: int, follow: bool) -> int:
    if follow and "slurm" in runs.read_job(plan.folder):
        return follow_job(plan, index, rank)
    tail = Tail(shown.log_of(plan, index or 0, rank), skip=SKIP)
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


def _ask(plan: runs.Plan, index: int | None, what: str) -> int:
    """Asks trainings to save now, or to end after their next save, by a file that rank 0 looks for."""
    if plan.kind != "train":
        raise UserError(f"job {job_id(plan)} is {plan.kind}, which saves nothing to go on from; `cancel` ends it")
    now = task_states(plan, states.ask([plan]))
    chosen = [place for place in range(len(plan.works)) if index in (None, place)]
    waiting = {"PENDING", "CONFIGURING", "SUSPENDED", "REQUEUED"} if what == "stop" else set()
    there = [place for place in chosen if now[place] in {"RUNNING", *waiting}]
    if not there:
        raise UserError(f"job {job_id(plan)} does not run: it is {', '.join({now[place] for place in chosen})}")
    before = {place: runs.newest_checkpoint(plan.works[place].run) for place in there}
    ends = {place: len(runs.notes(plan, place, "end")) for place in there}
    for place in there:
        local = "pid" in runs.read_job(plan.folder)
        try:
            asked.ask(plan.works[place].run, what, job_id(plan) if local else task_id(plan, place))
        except OSError as error:
            raise of_disk(error) from error
    if what == "stop":
        for place in there:
            print(f"{plan.works[place].run} will end after its next checkpoint, or before its next attempt; to have it "
                  f"end now: python launch/jobs.py save {task_id(plan, place)}")  # fmt: skip
        return 0
    end = time.monotonic() + SAVE_SECONDS
    for place in there:
        folder, over, show = plan.works[place].run, False, f"`python launch/jobs.py show {task_id(plan, place)}`"
        while (newest := runs.newest_checkpoint(folder)) == before[place] and not over and time.monotonic() < end:
            time.sleep(0.5)
            over = len(runs.notes(plan, place, "end")) > ends[place]
        if newest == before[place] and over:
            asked.forget(folder, what)
            raise UserError(f"{folder} ended before it could save, as {show} tells")
        if newest == before[place]:
            raise UserError(
                f"{folder} was asked to save, and has not within {SAVE_SECONDS} s; it will after the step it is in, if "
                f"it still runs: {show}"
            )
        print(f"{folder} saved {newest}")
    return 0


def _cancel(plan: runs.Plan, index: int | None) -> int:
    job = runs.read_job(plan.folder)
    if not alive(plan):
        print(f"job {job_id(plan)} does not run")
        return 0
    if "slurm" in job:
        label = job["slurm"] if index is None else task_id(plan, index)
        done = slurm.command("scancel", label)
        if done.returncode != 0:
            raise UserError(f"scancel refused job {label}: {slurm.complaint(done.stderr)}")
        # The scheduler forgets a job some minutes after its end; without accounting only this note remembers.
        for ended in range(len(plan.works)) if index is None else [index]:
            try:
                runs.note(plan.works[ended].run, event="end", launch=plan.name, index=ended, job=label, attempt=None,
                          outcome="cancelled", code=128 + signal.SIGTERM, again=False)  # fmt: skip
            except OSError as error:
                say(f"warning: its end is not noted: {of_disk(error)}")
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
