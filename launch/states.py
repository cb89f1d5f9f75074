"""What is asked about a launch: which one a text names, what it is called, whether it lives, how its runs stand."""

import os
from pathlib import Path

from launch import runs, slurm
from mscgan import process
from mscgan.errors import AGAIN, DONE, STOPPED, UserError


def find(text: str) -> tuple[runs.Plan, int | None]:
    """The newest launch that `text` names, and the task of its array if it names one.

    Raises:
        UserError: there is none.
    """
    job, underscore, task = text.partition("_")
    for plan in runs.readable(runs.newest_first()):
        folders = [plan.folder, str(Path(plan.folder).parent), *(work.run for work in plan.works)]
        if os.path.abspath(text) in folders or text in _last_words(plan):
            return plan, None
        if job in (job_id(plan), f"{runs.read_job(plan.folder).get('pid', '')}") and job.strip("-"):
            if underscore and not (task.isdecimal() and int(task) < len(plan.works)):
                last = len(plan.works) - 1
                which = f"the runs {job_id(plan)}_0 to {job_id(plan)}_{last}" if last else "one run"
                raise UserError(f"no {text!r}: job {job} has {which}")
            return plan, int(task) if underscore else None
    raise UserError(f"no job {text!r} of yours; `python launch/jobs.py list` shows them")


def _last_words(plan: runs.Plan) -> list[str]:
    """Of the launch's name, and of what squeue calls its job."""
    return [name.rpartition("-")[2] for name in (plan.name, plan.job_name)]


def job_id(plan: runs.Plan) -> str:
    """123 on SLURM, local-42 on this machine, or "-" before it was queued."""
    job = runs.read_job(plan.folder)
    return job["slurm"] if "slurm" in job else f"local-{job['pid']}" if "pid" in job else "-"


def task_id(plan: runs.Plan, index: int) -> str:
    """The job id of one run of a launch: 123_4 in an array."""
    return job_id(plan) if len(plan.works) == 1 else f"{job_id(plan)}_{index}"


def alive(plan: runs.Plan, known: dict[str, slurm.State] | None = None) -> str:
    """The id of a launch's job if it waits, runs, is suspended or left processes here; else an empty string.

    known: what the scheduler told of it; None: it is asked.

    Raises:
        NoAnswer: the scheduler does not say.
    """
    states = set(task_states(plan, ask([plan]) if known is None else known))
    return job_id(plan) if states - slurm.ENDED - {"STOPPED", "UNKNOWN"} or orphans(plan) else ""


def ask(plans: list[runs.Plan]) -> dict[str, slurm.State]:
    """What the scheduler knows of the jobs of launches, in one question however many they are. Nothing is asked where
    none of them is on SLURM.

    Raises:
        NoAnswer: it does not say.
    """
    jobs = [job["slurm"] for plan in plans if "slurm" in (job := runs.read_job(plan.folder))]
    return slurm.states(jobs) if jobs else {}


def orphans(plan: runs.Plan) -> list[Path]:
    """The rank folders of a run on this machine with tasks or programs that still run."""
    if not _started_here(runs.read_job(plan.folder)):
        return []
    found = []
    for folder in Path(plan.folder).glob("ranks/*"):
        for record in runs.read_ranks(folder).values():
            pairs = ((record["pid"], record["start"]), (record["child"], record["child_start"]))
            if any(start and process.start(pid) == start for pid, start in pairs) and folder not in found:
                found.append(folder)
    return found


def task_states(plan: runs.Plan, known: dict[str, slurm.State]) -> list[str]:
    """The state of each run of a launch: the scheduler's, or what the run's own notes say where it knows none.

    ENDING: here, and its submit.py is gone; its tasks have seen that and save (launch/job.py).
    A job whose name is not the launch's is another one: a controller that was set up anew gives out the same ids again.
    """
    job = runs.read_job(plan.folder)
    result = []
    for index in range(len(plan.works)):
        name = task_id(plan, index)
        if "slurm" in job and name in known and known[name].name == plan.job_name:
            result.append(known[name].state)
            continue
        ends = runs.notes(plan, index, "end")
        if _started_here(job) and process.start(job["pid"]) == job["start"] != "":
            result.append("RUNNING" if index == 0 or runs.notes(plan, index) else "PENDING")
        elif ends and not ends[-1]["again"]:
            result.append(ended(ends[-1]))
        elif _started_here(job):
            live = any(folder.name.startswith(f"{index}-") for folder in orphans(plan))
            result.append("ENDING" if live else "STOPPED")
        else:
            result.append("UNKNOWN")
    return result


def _started_here(job: dict) -> bool:
    """Whether a launch was started on this machine, where its processes can be seen. Others share the run's folder."""
    return "pid" in job and job.get("machine") == process.machine()


def ended(end: dict) -> str:
    """A state from a run's last note."""
    if end["outcome"] == "cancelled":
        return "CANCELLED"
    return {DONE: "COMPLETED", AGAIN: "STOPPED", STOPPED: "STOPPED"}.get(end["code"], "FAILED")
